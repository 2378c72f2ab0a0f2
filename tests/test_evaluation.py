"""Errors, baselines and slices, against numbers worked out by hand."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trip_duration.evaluation import comparison, comparison_markdown, metrics, slices

TRIPS = pa.table(
    {
        "pickup": pa.array(
            [datetime(2021, 1, 1, 8), datetime(2021, 1, 1, 8, 59), datetime(2021, 1, 2, 23)] * 2,
            pa.timestamp("s"),
        ),
        "duration": [4.0, 8.0, 30.0, 6.0, 10.0, 20.0],
        "pickup_zone": pa.array([1, 1, 2, 1, 1, None], pa.int16()),
        "dropoff_zone": pa.array([2, 2, 2, 2, 3, 1], pa.int16()),
        "trip_distance": [0.5, 1.0, None, 12.0, -1.0, float("nan")],
    }
)


def test_metrics_by_hand() -> None:
    assert metrics(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 8.0])) == {
        "rmse": 2.0,
        "mae": 1.0,
        "p50": 0.0,
        "p90": pytest.approx(2.8),
        "bias": 1.0,
    }


@given(st.lists(st.tuples(st.floats(1, 60), st.floats(0, 90)), min_size=1, max_size=30))
def test_metrics_keep_their_order(pairs: list[tuple[float, float]]) -> None:
    actual, predicted = np.array(pairs).T
    found = metrics(actual, predicted)
    assert found["mae"] <= found["rmse"] + 1e-6
    assert abs(found["bias"]) <= found["mae"] + 1e-6
    assert found["p50"] <= found["p90"]


def test_slices_by_hand() -> None:
    predicted = TRIPS["duration"].to_numpy() + np.array([1, -1, 0, 3, 2, 0])
    months = ["2021-01"] * 5 + ["2021-02"]
    found = slices(TRIPS, predicted, months, {1: "Upper", 2: "Lower"})
    assert found["hour"].to_pydict() == {
        "hour": ["08", "23"],
        "trips": [4, 2],
        "rmse": [pytest.approx(np.sqrt(15 / 4), abs=1e-6), 0.0],
        "mae": [1.75, 0.0],
        "bias": [1.25, 0.0],
    }
    assert dict(
        zip(*found["borough"].select(["borough", "trips"]).to_pydict().values(), strict=True)
    ) == {
        "Lower": 1,
        "Upper": 4,
        "unknown": 1,
    }
    assert dict(
        zip(*found["distance"].select(["distance", "trips"]).to_pydict().values(), strict=True)
    ) == {
        "00-01": 1,
        "01-02": 1,
        "10+": 1,
        "unknown": 3,
    }
    assert found["month"]["trips"].to_pylist() == [5, 1]


def test_every_trip_is_in_one_slice_of_each_kind() -> None:
    found = slices(TRIPS, np.zeros(6), ["2021-01"] * 6, {})
    assert [sum(table["trips"].to_pylist()) for table in found.values()] == [6, 6, 6, 6]
    assert found["borough"]["borough"].to_pylist() == ["unknown"]


def test_the_comparison_puts_the_model_first() -> None:
    errors = metrics(np.array([1.0]), np.array([2.0]))
    found = {"test": {"trips": 1, "model": errors, "baselines": {"mean": errors, "course": errors}}}
    assert [row["name"] for row in comparison(found)] == [
        "this model",
        "the course's model",
        "the mean",
    ]
    text = comparison_markdown(found)
    assert "| test | this model | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 |" in text
