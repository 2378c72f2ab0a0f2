"""Reproduce the course's own model: ``make course``.

The course's script (DataTalksClub, MLOps Zoomcamp, module 3) trains on green taxi's January 2021
and validates on February with fixed parameters. Its published result on that split is a validation
RMSE of about 6.31; here 6.32 ± 0.03 is expected.
"""

import argparse
import sys
import time
from pathlib import Path

from report import ROOT, Claim, report

sys.path.insert(0, str(ROOT / "src"))

EXPECTED, TOLERANCE = 6.32, 0.03  # minutes
SHARED = ROOT.parent / "shared" / "tlc"


def month(name: str) -> Path:
    """A green month: from the folder of real months where it is, else from TLC's own address."""
    from trip_duration.sources import tlc

    shared = SHARED / f"green_tripdata_{name}.parquet"
    if shared.exists():
        return shared
    path = ROOT / ".cache" / "source" / shared.name
    if not path.exists():
        tlc.download(tlc.url("green", name), path)
    return path


def main() -> int:
    """Fit, print the RMSE, and return 1 if it is not the course's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, help="default: green 2021-01")
    parser.add_argument("--validation", type=Path, help="default: green 2021-02")
    parser.add_argument("--nthread", type=int, default=2)
    arguments = parser.parse_args()

    from trip_duration.errors import TripDurationError
    from trip_duration.features import add_features, read_dataframe
    from trip_duration.training import (
        COURSE_EARLY_STOPPING_ROUNDS,
        COURSE_PARAMS,
        COURSE_ROUNDS,
        matrices,
        train_best_model,
    )

    try:
        train = read_dataframe(arguments.train or month("2021-01"))
        validation = read_dataframe(arguments.validation or month("2021-02"))
    except TripDurationError as error:
        print(error, file=sys.stderr)
        return 1
    X_train, X_val, y_train, y_val, dv = add_features(train, validation, preset="course")
    print(f"The course's features: {len(dv.feature_names_):,} columns, {len(y_train):,} trips to")
    print(f"train on and {len(y_val):,} to validate on. Fitting, a minute or more …", flush=True)
    began = time.perf_counter()
    pair = matrices(X_train, y_train, X_val, y_val, nthread=arguments.nthread)
    fit = train_best_model(
        *pair,
        COURSE_PARAMS,
        num_boost_round=COURSE_ROUNDS,
        early_stopping_rounds=COURSE_EARLY_STOPPING_ROUNDS,
        nthread=arguments.nthread,
        curve=False,
    )
    seconds = time.perf_counter() - began
    reproduced = abs(fit.rmse - EXPECTED) <= TOLERANCE
    print(f"Validation RMSE {fit.rmse:.3f} minutes after {fit.rounds} rounds, {seconds:.0f} s;")
    print(f"the course's is {EXPECTED} ± {TOLERANCE}: {'reproduced' if reproduced else 'NOT met'}.")
    claims = [
        Claim(
            f"validation RMSE, from the expected {EXPECTED}",
            abs(fit.rmse - EXPECTED),
            "minutes away",
            TOLERANCE,
            detail=f"{fit.rmse:.3f} minutes after {fit.rounds} rounds",
        ),
        Claim("the fit", seconds, "s"),
    ]
    chosen = [path.name for path in (arguments.train, arguments.validation) if path]
    conditions = (
        f"{len(y_train):,} trips of {chosen[0] if arguments.train else 'green 2021-01'} to learn "
        f"from, {len(y_val):,} of {chosen[-1] if arguments.validation else 'green 2021-02'} to "
        f"validate on; {arguments.nthread} threads, one fit."
    )
    return report("course", claims, conditions)


if __name__ == "__main__":
    sys.exit(main())
