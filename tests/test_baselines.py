"""Baselines, against numbers worked out by hand."""

import numpy as np
import pyarrow as pa
from tests.test_evaluation import TRIPS

from trip_duration.baselines import Baselines


def test_baselines_are_the_mean_and_the_pairs_median() -> None:
    said = Baselines.fit([TRIPS]).predict(TRIPS)
    np.testing.assert_allclose(said["mean"], 13.0)
    np.testing.assert_array_equal(said["pair_median"], [6, 6, 30, 6, 10, 20])


def test_a_pair_never_seen_falls_back_to_its_zone_and_then_to_all() -> None:
    new = pa.table(
        {
            "pickup_zone": pa.array([1, 77, None], pa.int16()),
            "dropoff_zone": pa.array([99, 1, None], pa.int16()),
        }
    )
    said = Baselines.fit([TRIPS]).predict(new)
    np.testing.assert_array_equal(said["pair_median"], [7.0, 9.0, 20.0])


def test_baselines_come_back_from_json() -> None:
    fitted = Baselines.fit([TRIPS])
    again = Baselines.from_json(fitted.to_json())
    assert again.to_json() == fitted.to_json()
    np.testing.assert_array_equal(
        again.predict(TRIPS)["pair_median"], fitted.predict(TRIPS)["pair_median"]
    )


def test_several_months_are_learned_as_one() -> None:
    parts = [TRIPS.slice(0, 2), TRIPS.slice(2)]
    assert Baselines.fit(parts).to_json() == Baselines.fit([TRIPS]).to_json()
