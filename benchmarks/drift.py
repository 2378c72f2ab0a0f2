"""What helps when traffic changes from month to month: 24 monthly splits of yellow taxi.

The origin rolls over TLC's months: each split learns from six months and is judged on the seventh,
2018-07 to 2020-06, the pandemic included; the number of rounds is found inside the six. Every
setting against drift is judged on all splits, against none of them, in one run. Returns 1 if what
params.yaml chooses does worse than doing nothing.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from report import ROOT, Claim, report

sys.path.insert(0, str(ROOT / "src"))

SAMPLES = ROOT.parent / "shared/tlc/samples"
LEARNED = 6  # months
# A quarter of the rounds and one tree in each: what is compared is alike in all.
QUICK: dict[str, Any] = {"params": {"learning_rate": 0.15}, "num_parallel_tree": 1}

PANDEMIC = "2020-03"  # the first month of it
NONE: dict[str, Any] = {"half_life": None, "level_days": None, "trend": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "half-life 0.15 (a month)": {"half_life": 0.15},
    "half-life 0.3": {"half_life": 0.3},
    "half-life 0.6": {"half_life": 0.6},
    "half-life 1.2": {"half_life": 1.2},
    "level of the last 7 days": {"level_days": 7},
    "level of the last 3 days": {"level_days": 3},
    "trend": {"trend": True},
    "trend, half-life 0.6": {"trend": True, "half_life": 0.6},
}


def main() -> int:
    """Run every setting on every split, and print the table."""
    import numpy as np
    from tqdm import tqdm

    from trip_duration import params

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=Path, default=SAMPLES, help="a folder of yellow months")
    parser.add_argument("--splits", type=int, help="only the first so many")
    arguments = parser.parse_args()
    files = sorted(arguments.samples.glob("yellow_tripdata_*.parquet"))
    if len(files) <= LEARNED:
        print(f"Skipped: {arguments.samples} does not have more than {LEARNED} yellow months.")
        return 0
    chosen = params.load(ROOT / "params.yaml")
    names = [path.stem.removeprefix("yellow_tripdata_") for path in files]
    months = dict(zip(names, map(trips_of, files), strict=True))
    pinned = {name: getattr(chosen.train, name) for name in ("half_life", "level_days")}
    settings = SETTINGS | {"params.yaml": pinned | {"trend": chosen.features.trend}}
    splits = names[LEARNED:][: arguments.splits]

    began = time.perf_counter()
    errors: dict[str, list[tuple[float, float]]] = {name: [] for name in settings}
    with tqdm(total=len(splits) * len(settings), unit="fit", disable=None) as bar:
        for month in splits:
            place = names.index(month)
            learned = {name: months[name] for name in names[place - LEARNED : place]}
            for name, how in settings.items():
                errors[name].append(judge(chosen, learned, month, months[month], NONE | how))
                bar.update()

    squares = {name: np.array([rmse**2 for rmse, _ in e]) for name, e in errors.items()}
    before = np.array([month < PANDEMIC for month in splits])
    print(f"Validation RMSE in minutes over {len(splits)} months, {splits[0]} to {splits[-1]}\n")
    print(f"{'':30}{'all':>8}{'before':>10}{'since':>8}{'bias':>8}{'better':>9}")
    print(f"{'':30}{'months':>8}{PANDEMIC:>10}{'then':>8}{'':>8}{'than none':>11}")
    for name, square in squares.items():
        parts = [square, square[before], square[~before]]
        cells = [f"{np.sqrt(part.mean()):.3f}" if len(part) else "–" for part in parts]
        bias = np.mean([b for _, b in errors[name]])
        wins = "" if name == "none" else f"{np.sum(square < squares['none'])} of {len(square)}"
        print(f"{name:30}{cells[0]:>8}{cells[1]:>10}{cells[2]:>8}{bias:8.3f}{wins:>11}", flush=True)
    print(f"\n{time.perf_counter() - began:.0f} seconds")
    none = np.sqrt(squares["none"].mean())
    claims = []
    for name, square in squares.items():
        if name != "none":
            rmse = np.sqrt(square.mean())
            claims.append(
                Claim(
                    f"{name}: RMSE",
                    float(rmse / none),
                    "times that of doing nothing",
                    1.0 if name == "params.yaml" else None,
                    detail=f"{rmse:.3f} and {none:.3f} minutes",
                )
            )
    conditions = (
        f"{len(splits)} months of samples of yellow taxi, {splits[0]} to {splits[-1]}, each judged "
        f"after learning from the {LEARNED} before it."
    )
    return report("drift", claims, conditions)


def trips_of(path: Path) -> Any:
    """A month's canonical trips, cleaned as params.yaml says."""
    import pyarrow as pa

    from trip_duration.features import read_dataframe
    from trip_duration.trips import SCHEMA

    frame = read_dataframe(path)[SCHEMA.names]
    return pa.Table.from_pandas(frame, SCHEMA, preserve_index=False)


def judge(
    chosen: Any, learned: dict[str, Any], month: str, trips: Any, how: dict[str, Any]
) -> tuple[float, float]:
    """RMSE and bias of the model on a month, in minutes."""
    from accuracy import fitted, places
    from trip_duration.evaluation import metrics
    from trip_duration.prediction import predict_features

    booster, builder, _ = fitted(
        chosen, learned, {month: trips}, preset="metered", places=places(), **QUICK, **how
    )
    found = metrics(
        trips["duration"].to_numpy(), predict_features(builder.transform(trips), booster, builder)
    )
    return found["rmse"], found["bias"]


if __name__ == "__main__":
    sys.exit(main())
