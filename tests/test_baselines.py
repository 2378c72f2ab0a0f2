"""Baselines, against numbers worked out by hand."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, 1, 2, 265]),
            st.sampled_from([None, 1, 264]),
            st.integers(0, 5000),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 60),
)
def test_medians_are_those_of_pandas(trips: list[tuple], cut: int) -> None:
    pickup, dropoff, seconds = zip(*trips, strict=True)
    table = pa.table(
        {
            "pickup_zone": pa.array(pickup, pa.int16()),
            "dropoff_zone": pa.array(dropoff, pa.int16()),
            "duration": np.array(seconds) / 60,
        }
    )
    fitted = Baselines.fit([table.slice(0, cut), table.slice(cut)])
    frame = table.to_pandas().fillna(-1)
    assert fitted.mean == pytest.approx(frame["duration"].mean(), abs=1e-6)
    assert fitted.median == pytest.approx(frame["duration"].median(), abs=1e-6)
    by_pickup = frame.groupby("pickup_zone")["duration"].median().to_dict()
    assert fitted.by_pickup == pytest.approx(by_pickup, abs=1e-6)
    by_pair = frame.groupby(["pickup_zone", "dropoff_zone"])["duration"].median().to_dict()
    assert fitted.by_pair == pytest.approx(by_pair, abs=1e-6)
