"""The presets on real months: validation RMSE beside the course's and the naive baselines.

Runs the stages' own functions in one process, with the search that params.yaml pins. Prints the
table and returns 1 if `metered` is above what is claimed.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

CLAIMED = 5.65  # minutes, `metered` on green 2021-01 → 2021-02
COURSE = 6.318  # minutes, what `make course` prints on the same split


def main() -> int:
    """Search and fit each preset, and print what came out."""
    from course import month
    from trip_duration import params
    from trip_duration.baselines import Baselines
    from trip_duration.evaluation import metrics
    from trip_duration.features import FeatureBuilder, read_dataframe
    from trip_duration.search import train_model_search
    from trip_duration.training import matrices, train_best_model
    from trip_duration.trips import SCHEMA

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, help="default: green 2021-01")
    parser.add_argument("--validation", type=Path, help="default: green 2021-02")
    parser.add_argument("presets", nargs="*", default=["metered", "booking"])
    arguments = parser.parse_args()
    chosen = params.load(ROOT / "params.yaml")

    import pyarrow as pa

    frames = [
        read_dataframe(arguments.train or month("2021-01")),
        read_dataframe(arguments.validation or month("2021-02")),
    ]
    train, validation = (
        pa.Table.from_pandas(frame[SCHEMA.names], SCHEMA, preserve_index=False) for frame in frames
    )
    actual = validation["duration"].to_numpy()
    print(f"{'':24}{'RMSE':>8}{'seconds':>10}")
    for name, minutes in Baselines.fit([train]).predict(validation).items():
        print(f"{name.replace('_', ' '):24}{metrics(actual, minutes)['rmse']:8.3f}", flush=True)
    print(f"{'the course':24}{COURSE:8.3f}", flush=True)
    reached = {}
    for preset in arguments.presets:
        began = time.perf_counter()
        builder = FeatureBuilder.fit([train], preset=preset, seed=chosen.seed)
        X_train = builder.matrix(builder.transform_training(train))
        pair = matrices(
            X_train,
            train["duration"].to_numpy(),
            builder.matrix(builder.transform(validation)),
            actual,
            names=builder.columns,
            types=builder.feature_types,
            max_bin=chosen.train.max_bin,
        )
        settings: dict[str, Any] = chosen.search.model_dump()
        pinned: dict[str, Any] = {"seed": chosen.seed, "max_bin": chosen.train.max_bin}
        found = train_model_search(pair[0], pair[1], **settings, **pinned)
        assert found.best is not None
        fit = train_best_model(
            *pair,
            found.best.params,
            num_boost_round=chosen.train.num_boost_round,
            early_stopping_rounds=chosen.train.early_stopping_rounds,
            nthread=chosen.train.nthread,
            curve=False,
            **pinned,
        )
        reached[preset] = fit.rmse
        print(f"{preset:24}{fit.rmse:8.3f}{time.perf_counter() - began:10.1f}", flush=True)
    if reached.get("metered", 0.0) > CLAIMED:
        print(f"metered is above the {CLAIMED} minutes that are claimed.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
