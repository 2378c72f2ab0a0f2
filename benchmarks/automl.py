"""Our model beside AutoML: FLAML and AutoGluon with a fixed time, on the same months and cores.

The libraries learn from the training month alone and choose their own inner validation; of the
validation month they are given the columns, and never a duration. They get two sets of columns:
`raw`, what one hands over without feature work, and `ours`, those of the preset `metered`. Their
seconds are those of the fit alone; ours count the features too. They live in an environment of
their own, which automl.txt locks. Returns 1 if a library has an RMSE as low or takes no longer.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from report import ROOT, Claim, report

sys.path.insert(0, str(ROOT / "src"))

LOCK = ROOT / "benchmarks" / "automl.txt"
CHILD = ROOT / "benchmarks" / "automl_child.py"
VENV = ROOT / ".cache" / "automl-venv"
CORES = 2
# AutoGluon's default preset is made for little time, and its best one for much: an honest opponent
# may use either, and we claim to be ahead of both.
SYSTEMS = {
    "FLAML": ["flaml"],
    "AutoGluon": ["autogluon", "--preset", "medium_quality"],
    "AutoGluon, best": ["autogluon", "--preset", "best_quality"],
}


class Columns(NamedTuple):
    """What a library is given: durations are in `train` alone."""

    train: pa.Table
    validation: pa.Table
    categories: list[str]


class Row(NamedTuple):
    """A line of the table; where no model came, the RMSE and the seconds are infinite."""

    system: str
    columns: str
    budget: str
    rmse: float
    seconds: float


def main() -> int:
    """Fit everything, print the table, and return 1 if we are not ahead of each."""
    from course import month
    from trip_duration import params
    from trip_duration.environments import environment
    from trip_duration.errors import TripDurationError
    from trip_duration.features import read_dataframe
    from trip_duration.trips import SCHEMA

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, nargs="+", default=[60, 300], help="the budgets")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--train", type=Path, help="default: green 2021-01")
    parser.add_argument("--validation", type=Path, help="default: green 2021-02")
    arguments = parser.parse_args()

    try:
        frames = [
            read_dataframe(arguments.train or month("2021-01")),
            read_dataframe(arguments.validation or month("2021-02")),
        ]
    except TripDurationError as error:
        print(f"Skipped, nothing is compared: {error}")
        return 0
    if not environment(VENV, LOCK, "the AutoML libraries'"):
        print("The AutoML libraries can't be installed: see above. They need Python 3.11 to 3.13.")
        return 1
    train, validation = (
        pa.Table.from_pandas(frame[SCHEMA.names], SCHEMA, preserve_index=False) for frame in frames
    )
    seed = params.load(ROOT / "params.yaml").seed
    sets = {"raw": raw(train, validation), "ours": featurized(train, validation, seed)}

    minutes = len(arguments.systems) * len(sets) * sum(arguments.seconds) / 60
    print(f"The libraries' budgets add up to {minutes:.1f} minutes.", flush=True)
    print("our model …", end=" ", flush=True)
    own = Row("our model", "ours", "–", *ours(train, validation))
    print(f"RMSE {own.rmse:.3f}", flush=True)
    rows = [own]
    actual = validation["duration"].to_numpy()
    for budget in arguments.seconds:
        for name, columns in sets.items():
            for system in arguments.systems:
                print(f"{system} ({name}, {budget} s) …", end=" ", flush=True)
                reached = fit(SYSTEMS[system], columns, budget, seed, actual)
                rows.append(Row(system, name, f"{budget} s", *reached))
                print("no model" if reached[0] == np.inf else f"RMSE {reached[0]:.3f}", flush=True)

    print(f"\n{'':18}{'columns':9}{'budget':>7}{'RMSE':>9}{'seconds':>9}")
    for row in rows:
        numbers = f"{row.rmse:9.3f}{row.seconds:9.1f}" if row.rmse < np.inf else f"{'–':>9}{'–':>9}"
        print(f"{row.system:18}{row.columns:9}{row.budget:>7}{numbers}")
    conditions = (
        f"{train.num_rows:,} trips to learn from, {validation.num_rows:,} to validate on, {CORES} "
        "cores, one fit each; the library's columns and budget are in brackets."
    )
    return report("automl", [claim for row in rows[1:] for claim in ahead(own, row)], conditions)


def ahead(own: Row, row: Row) -> list[Claim]:
    """That we have a lower RMSE after less time; with a library that gave no model, we have not."""
    name = f"{row.system} ({row.columns}, {row.budget})"
    if row.rmse == np.inf:
        return [Claim(f"{name}: RMSE", np.nan, "model came from it", 1.0)]
    # Below 1, not at it: the bound is the float before.
    bound = float(np.nextafter(1.0, 0.0))
    return [
        Claim(
            f"{name}: our {what}",
            ours / theirs,
            "times its",
            bound,
            detail=f"{ours:.{digits}f} and {theirs:.{digits}f} {unit}",
        )
        for what, unit, digits, ours, theirs in (
            ("RMSE", "minutes", 3, own.rmse, row.rmse),
            ("time", "s", 1, own.seconds, row.seconds),
        )
    ]


def ours(train: pa.Table, validation: pa.Table) -> tuple[float, float]:
    """Our own model: its RMSE on the validation month, and the seconds with the features."""
    from accuracy import fitted, places
    from trip_duration import params
    from trip_duration.evaluation import metrics
    from trip_duration.prediction import predict_minutes

    booster, builder, seconds = fitted(
        params.load(ROOT / "params.yaml"),
        {"2021-01": train},
        {"2021-02": validation},
        preset="metered",
        places=places(),
    )
    actual = validation["duration"].to_numpy()
    return metrics(actual, predict_minutes(validation, booster, builder))["rmse"], seconds


def raw(train: pa.Table, validation: pa.Table) -> Columns:
    """The trips' own columns; the pickup time as hour with minutes and weekday."""

    def columns(trips: pa.Table) -> pa.Table:
        seconds = trips["pickup"].cast(pa.int64()).to_numpy()
        plain = {
            "hour": seconds % 86400 / 3600,
            "weekday": (seconds // 86400 + 3) % 7,  # 1970 began on a Thursday
        }
        for name in trips.column_names:
            if name not in ("pickup", "duration"):
                column = trips[name]
                if pa.types.is_boolean(column.type):
                    column = column.cast(pa.int8())
                plain[name] = column.cast(pa.float64())
        return pa.table(plain)

    return Columns(
        columns(train).append_column("duration", train["duration"]),
        columns(validation),
        ["pickup_zone", "dropoff_zone"],
    )


def featurized(train: pa.Table, validation: pa.Table, seed: int) -> Columns:
    """The columns of the preset `metered`, the training month's made without each trip's fold."""
    from accuracy import places
    from trip_duration.features import FeatureBuilder

    builder = FeatureBuilder.fit([train], preset="metered", seed=seed, places=places())

    def columns(features: pa.Table) -> pa.Table:
        return pa.table(dict(zip(builder.columns, builder.matrix(features).T, strict=True)))

    types = zip(builder.columns, builder.feature_types, strict=True)
    return Columns(
        columns(builder.transform_training(train)).append_column("duration", train["duration"]),
        columns(builder.transform(validation)),
        [name for name, kind in types if kind == "c"],
    )


def fit(
    system: list[str], columns: Columns, budget: int, seed: int, actual: np.ndarray
) -> tuple[float, float]:
    """One library's RMSE and the seconds of its fit, in a process and a folder of its own."""
    from trip_duration.evaluation import metrics

    assert "duration" not in columns.validation.column_names
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pq.write_table(columns.train, folder / "train.parquet")
        pq.write_table(columns.validation, folder / "validation.parquet")
        log = folder / "log.txt"
        command = [str(VENV / "bin" / "python"), "-I", str(CHILD), *system]
        command += ["--seconds", str(budget), "--cores", str(CORES), "--seed", str(seed)]
        command += ["--categories", *columns.categories]
        quiet = {"OMP_NUM_THREADS": str(CORES), "MPLCONFIGDIR": scratch, "HF_HUB_OFFLINE": "1"}
        with log.open("wb") as lines:
            code = subprocess.call(
                command, cwd=folder, env=os.environ | quiet, stdout=lines, stderr=lines
            )
        if code:
            tail = log.read_text(errors="replace").splitlines()[-8:]
            print("\n  | ".join([f"failed (exit code {code}):", *tail]), flush=True)
            return np.inf, np.inf
        predicted = pq.read_table(folder / "predictions.parquet")["minutes"].to_numpy()
        seconds = json.loads((folder / "seconds.json").read_text())
    return metrics(actual, predicted)["rmse"], seconds


if __name__ == "__main__":
    sys.exit(main())
