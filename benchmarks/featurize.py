"""`add_features` on a million trips against `DictVectorizer.fit_transform` on the same trips.

Both run in this process on the same trips: those of a real month, repeated with their distances
perturbed, or made-up ones where the month is not there. `add_features` also makes the features of
a thousand validation trips and the fitted `DictVectorizer`.

    python benchmarks/featurize.py [--month ../shared/tlc/green_tripdata_2021-01.parquet]

Ends with exit code 1 if ``course`` is not 20 times as fast or its matrix is not the equal one.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.feature_extraction import DictVectorizer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from report import Claim, report  # noqa: E402
from trip_duration.features import add_features, read_dataframe  # noqa: E402

CLAIM = 20.0
PRESETS = ("course", "metered", "booking")
COURSE = ["PU_DO", "trip_distance"]


def trips_of(month: Path, rows: int) -> tuple[pd.DataFrame, str]:
    """Canonical trips with PU_DO, and where they come from."""
    if month.is_file():
        trips, origin = read_dataframe(month), month.name
    else:
        trips, origin = made_up(min(rows, 100_000)), "made-up trips"
    random = np.random.default_rng(42)
    trips = trips.iloc[np.arange(rows) % len(trips)].reset_index(drop=True)
    noise = np.exp(random.normal(0.0, 0.05, rows))
    return trips.assign(trip_distance=(trips["trip_distance"] * noise).round(2)), origin


def made_up(rows: int) -> pd.DataFrame:
    """Trips between zones of which few are much used, as in a real month."""
    random = np.random.default_rng(7)
    zones = random.permutation(np.arange(1, 266))
    ends = {
        end: zones[np.minimum(random.exponential(40, rows), 264).astype(int)]
        for end in ("pickup_zone", "dropoff_zone")
    }
    miles = random.gamma(1.5, 2.0, rows).round(2)
    minutes = 3 + 4 * miles**0.8 * np.exp(random.normal(0, 0.3, rows))
    seconds = random.integers(0, 31 * 86400, rows)
    pickup = np.datetime64("2021-01-01", "s") + seconds.astype("timedelta64[s]")
    words = [f"{a}_{b}" for a, b in zip(*ends.values(), strict=True)]
    return pd.DataFrame(
        {
            "pickup": pickup,
            "duration": np.clip(np.rint(60 * minutes) / 60, 1, 60),
            **{end: pd.array(ids, "Int16") for end, ids in ends.items()},
            "trip_distance": miles,
            "passenger_count": pd.array(random.integers(1, 7, rows), "Int16"),
            "vendor": pd.array(random.integers(1, 3, rows), "Int32"),
            "rate_code": pd.array(random.integers(1, 6, rows), "Int16"),
            "trip_type": pd.array(random.integers(1, 3, rows), "Int16"),
            "store_and_forward": pd.array(random.random(rows) < 0.01, "boolean"),
            "PU_DO": words,
        }
    )


def median_of(rounds: int, call: Callable[[], Any]) -> tuple[float, Any]:
    """The median of a call's seconds, after one round that imports and warms up, and its result."""
    result = call()
    spent = []
    for _ in range(rounds):
        del result
        began = time.perf_counter()
        result = call()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent), result


def main() -> int:
    """Measure, print the table, and say whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ROOT / ".." / "shared" / "tlc" / "green_tripdata_2021-01.parquet"
    parser.add_argument("--month", type=Path, default=default, help="a monthly file of TLC's")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()

    trips, origin = trips_of(chosen.month, chosen.rows)
    few = trips.iloc[:1000]
    medians, course = {}, None
    for preset in PRESETS:
        call = partial(add_features, trips, few, preset=preset)
        medians[preset], made = median_of(chosen.rounds, call)
        course = made[0] if preset == "course" else course
        del made
    slow, expected = median_of(
        chosen.rounds, lambda: DictVectorizer().fit_transform(trips[COURSE].to_dict("records"))
    )
    parts = ("data", "indices", "indptr")
    equal = all(np.array_equal(getattr(course, p), getattr(expected, p)) for p in parts)

    print(f"{'':34}{'seconds':>9}{'times as fast':>15}")
    print(f"{'DictVectorizer on to_dict(records)':34}{slow:9.3f}{1:15.1f}")
    for preset, quick in medians.items():
        print(f"{f'add_features, {preset}':34}{quick:9.3f}{slow / quick:15.1f}")
    print(f"course gives {'the equal' if equal else 'ANOTHER'} matrix")
    claims = [
        Claim(
            f"add_features, {preset}",
            slow / quick,
            "times as fast as DictVectorizer",
            CLAIM if preset == "course" else None,
            at_least=True,
            detail=f"{quick:.2f} s and {slow:.2f} s",
        )
        for preset, quick in medians.items()
    ]
    claims.append(Claim("course's matrix", float(not equal), "differences from it", 0.0))
    conditions = f"{chosen.rows:,} trips ({origin}), median of {chosen.rounds} rounds."
    return report("featurize", claims, conditions)


if __name__ == "__main__":
    sys.exit(main())
