"""One side of the benchmark `scoring`: ``scoring_child.py SIDE FILE TARGET PYFUNC``.

Reads a file in TLC's green layout, writes it with predictions, and prints as JSON the seconds from
the first byte read to the last one written. Imports, and reading the model, are not counted, of
either side. Each gets 2 cores where a process can be kept to some.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2
NAMES = {
    "lpep_pickup_datetime": "pickup",
    "PULocationID": "pickup_zone",
    "DOLocationID": "dropoff_zone",
    "trip_distance": "trip_distance",
    "passenger_count": "passenger_count",
    "VendorID": "vendor",
    "RatecodeID": "rate_code",
    "trip_type": "trip_type",
    "store_and_fwd_flag": "store_and_forward",
}


def main() -> None:
    """Run one side and print its seconds."""
    side, (source, target, saved) = sys.argv[1], map(Path, sys.argv[2:])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    sys.path.insert(0, str(ROOT / "src"))
    seconds = ours(source, target) if side == "ours" else pyfunc(source, target, saved)
    print(json.dumps({"seconds": seconds}))


def ours(source: Path, target: Path) -> float:
    """`scoring.score` as ``make score`` calls it."""
    import pandas  # noqa: F401  pyarrow imports it when it first meets an array
    import pyarrow.parquet  # noqa: F401

    from trip_duration import prediction, registry, scoring

    served = registry.local(ROOT)
    assert served is not None
    prediction.load(served.folder)  # imports XGBoost
    return scoring.score(served, str(source), str(target), cache=target.parent / "cache").seconds


def pyfunc(source: Path, target: Path, saved: Path) -> float:
    """What a notebook does: pandas reads, the model that MLflow loads predicts, pandas writes."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc

        model = mlflow.pyfunc.load_model(str(saved))
    began = time.perf_counter()
    frame = pd.read_parquet(source)
    known = frame[list(NAMES)].rename(columns=NAMES)
    known["store_and_forward"] = known["store_and_forward"].map({"Y": True, "N": False})
    known["store_and_forward"] = known["store_and_forward"].astype("boolean").astype(object)
    said = model.predict(known)
    for name, values in said.items():
        column = "predicted_minutes" if name == "minutes" else f"predicted_{name}"
        frame[column] = values
    frame.to_parquet(target)
    return time.perf_counter() - began


def save_pyfunc(files: Path, folder: Path) -> None:
    """Save the model as the training stage logs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc

        from trip_duration import tracking
        from trip_duration.prediction import FILES

        package = Path(tracking.__file__).parent
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(package / "pyfunc.py"),
            artifacts={name: str(files / name) for name in FILES},
            signature=tracking.signature(),
            pip_requirements=[],
        )


if __name__ == "__main__":
    main()
