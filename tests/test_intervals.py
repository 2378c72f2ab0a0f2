"""Intervals: they hold as many trips as they should, wherever a trip is easy or hard."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_properties import drawn

from trip_duration.errors import TripDurationError
from trip_duration.features import FeatureBuilder
from trip_duration.intervals import (
    BELOW,
    Calibration,
    calibrate,
    calibrate_model,
    coverage,
    coverage_slices,
    train_quantiles,
)
from trip_duration.prediction import Model
from trip_duration.splits import Rows
from trip_duration.training import matrix, predict, train_for_rounds


def uneven(count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Lower and upper quantile, prediction and answer of trips whose spread grows with them."""
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(3, 40, count)
    spread = 0.15 * predicted
    actual = predicted + spread * (rng.gamma(2.0, 1.0, count) - 2.0)
    return predicted - 1.2 * spread, predicted + 2.0 * spread, predicted, actual


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_as_many_trips_as_should_lie_in_their_interval(level: float) -> None:
    made = calibrate(*uneven(20_000, 1), level)
    lower, upper, predicted, actual = uneven(20_000, 2)
    said = coverage(actual, *made.apply(lower, upper, predicted), predicted, made)
    assert said["level"] == level
    assert said["coverage"] == pytest.approx(level, abs=0.01)
    for third in said["thirds"]:
        assert third["coverage"] == pytest.approx(level, abs=0.015)
        assert third["width"] > 0
    assert said["thirds"][0]["constant_coverage"] > level + 0.04  # of constant width: too many here
    assert said["thirds"][2]["constant_coverage"] < level - 0.04  # and too few there
    assert said["width"] < 0.97 * said["constant_width"]


@pytest.mark.parametrize(("trips", "groups"), [(249, 1), (2997, 3)])
def test_the_ends_are_conformal_percentiles(trips: int, groups: int) -> None:
    """The oracle: ranks of the scaled residuals of a group among one more than there are."""
    lower, upper, predicted, actual = uneven(trips, 3)
    made = calibrate(lower, upper, predicted, actual, 0.9)
    assert made.trips == trips
    assert len(made.edges) + 1 == len(made.below) == len(made.above) == groups
    score = (actual - predicted) / (upper - lower + made.pad)
    group = np.digitize(predicted, made.edges)
    for number in range(groups):
        ranked = np.sort(score[group == number])
        one_more = len(ranked) + 1
        first = int(one_more * BELOW * 0.1 + 1e-9) - 1
        last = int(np.ceil(one_more * (1 - (1 - BELOW) * 0.1) - 1e-9)) - 1
        # by a rounding error of crepes' one rank further out
        assert np.abs(ranked[[max(first - 1, 0), first]] + made.below[number]).min() < 1e-6
        assert np.abs(ranked[[last, min(last + 1, one_more - 2)]] - made.above[number]).min() < 1e-6
    absolute = np.sort(np.abs(actual - predicted))
    rank = int(np.ceil((trips + 1) * 0.9 - 1e-9)) - 1
    assert np.abs(absolute[[rank, rank + 1]] - made.constant).min() < 1e-6


def test_very_many_like_predictions_are_one_group() -> None:
    lower, upper, predicted, actual = uneven(900, 8)
    predicted[:] = 12.0
    made = calibrate(lower, upper, predicted, actual, 0.9)
    assert made.edges == ()
    assert len(made.below) == len(made.above) == 1


def test_the_filters_of_warnings_stay_as_they_are() -> None:
    before = list(warnings.filters)
    calibrate(*uneven(200, 9), 0.9)
    assert warnings.filters == before


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 2, st.floats(0, 1e4)), min_size=1, max_size=20),
    st.lists(st.floats(0, 50), min_size=6, max_size=6),
)
def test_ends_never_cross_and_are_never_negative(rows: list, ends: list) -> None:
    lower, upper, predicted = map(np.array, zip(*rows, strict=True))
    made = Calibration(
        level=0.9, edges=(5.0, 20.0), below=tuple(ends[:3]), above=tuple(ends[3:]), pad=1.0,
        constant=1.0, trips=300,
    )  # fmt: skip
    start, end = made.apply(lower, upper, predicted)
    assert (start >= 0).all()
    assert (start <= predicted).all()
    assert (end >= predicted).all()
    assert np.isfinite(end).all()


def test_a_prediction_beyond_all_answers_still_lies_in_its_interval() -> None:
    lower, upper, predicted, actual = uneven(500, 4)
    for shift in (-30.0, 30.0):
        made = calibrate(lower, upper, predicted + shift, actual, 0.9)
        assert min(made.below + made.above) >= 0


def test_too_few_trips_are_refused() -> None:
    parts = uneven(34, 5)
    with pytest.raises(TripDurationError, match="34 trips of the validation months calibrate"):
        calibrate(*parts, 0.9)
    assert calibrate(*uneven(35, 5), 0.9).trips == 35
    with pytest.raises(TripDurationError, match=r"a level of 0\.99 needs 335"):
        calibrate(*parts, 0.99)


def test_json_gives_the_same_and_is_checked() -> None:
    made = calibrate(*uneven(600, 6), 0.9)
    data = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert Calibration.from_json(data) == made
    broken = [None, [], {}, data | {"more": 1}, data | {"level": "0.9"}, data | {"level": 1.0}]
    broken += [data | {"below": [float("nan")] * 3}, data | {"above": [1.0, 1.0, -1.0]}]
    broken += [data | {"below": [1.0] * 2}, data | {"above": 1.0}, data | {"edges": [9.0, 4.0]}]
    broken += [data | {"edges": []}, data | {"pad": 0}, data | {"trips": 1.5}]
    broken += [data | {"constant": float("inf")}, data | {"trips": True}]
    for wrong in broken:
        with pytest.raises(TripDurationError, match="run train again"):
            Calibration.from_json(wrong)


def test_json_holds_what_is_for_trips_of_unknown_distance() -> None:
    other = calibrate(*uneven(900, 8), 0.9)
    made = replace(calibrate(*uneven(600, 6), 0.9), unmetered=other)
    data = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert Calibration.from_json(data) == made
    assert data["unmetered"] == other.to_json()
    assert "unmetered" not in data["unmetered"]
    within = data["unmetered"]
    for wrong in (None, [], {}, within | {"pad": 0}, within | {"unmetered": within}, data):
        with pytest.raises(TripDurationError, match="run train again"):
            Calibration.from_json(data | {"unmetered": wrong})


def test_trips_of_unknown_distance_go_by_their_own() -> None:
    lower, upper, predicted, _ = uneven(600, 9)
    main, other = (calibrate(*uneven(600, seed), 0.9) for seed in (6, 8))
    both = replace(main, unmetered=other)
    metered = np.arange(600) % 3 > 0
    for where, expected in ((metered, main), (~metered, other)):
        for found, alone in zip(
            both.apply(lower, upper, predicted, metered),
            expected.apply(lower, upper, predicted),
            strict=True,
        ):
            np.testing.assert_array_equal(found[where], alone[where])
    for answer in (both.apply(lower, upper, predicted), main.apply(lower, upper, predicted)):
        np.testing.assert_array_equal(answer, main.apply(lower, upper, predicted, metered))
    np.testing.assert_array_equal(
        both.apply(lower, upper, predicted, metered & False), other.apply(lower, upper, predicted)
    )


@pytest.mark.parametrize("preset", ["metered", "course", "booking"])
def test_a_model_is_calibrated_with_and_without_the_distance(preset: str) -> None:
    months = [drawn(month, 3_000) for month in ("2024-01", "2024-02", "2024-03")]
    train, half, later = months
    builder = FeatureBuilder.fit([train], preset=preset)
    columns = {"names": builder.columns, "types": builder.feature_types, "nthread": 1}
    rows = Rows.of(builder.matrix(builder.transform_training(train)), train["duration"].to_numpy())
    how = {"learning_rate": 0.2, "max_depth": 4, "min_child_weight": 5}
    booster = train_for_rounds(matrix(rows, **columns), how, 20, nthread=1)
    quantiles = train_quantiles(rows, level=0.9, rounds=10, **columns)
    parts = [half.slice(0, 500), half.slice(500)]
    calibration = calibrate_model(
        booster, quantiles, builder, Rows.read(list(map(builder.transform, parts)), builder), 0.9
    )
    model = Model(booster, builder, quantiles, calibration)
    actual = later["duration"].to_numpy()
    for trips in (later, later.drop_columns("trip_distance")):
        said = model.predict(trips)
        held = (said["lower"] <= actual) & (actual <= said["upper"])
        assert held.mean() == pytest.approx(0.9, abs=0.025)
    if preset == "booking":
        assert calibration.unmetered is None
        assert calibration.trips == half.num_rows
    else:
        assert calibration.unmetered is not None
        assert calibration.unmetered.trips == half.num_rows
        X = builder.matrix(builder.transform(half))
        assert calibration.trips == builder.metered(X).sum()
        assert calibration.unmetered.constant > calibration.constant


def test_where_few_distances_are_known_all_trips_calibrate() -> None:
    train, half = drawn("2024-01", 1_000), drawn("2024-02", 1_000)
    place = half.schema.get_field_index("trip_distance")
    known = np.where(np.arange(half.num_rows) < 20, 3.0, np.nan)
    half = half.set_column(place, "trip_distance", pa.array(known, from_pandas=True))
    builder = FeatureBuilder.fit([train], preset="metered")
    columns = {"names": builder.columns, "types": builder.feature_types, "nthread": 1}
    rows = Rows.of(builder.matrix(builder.transform_training(train)), train["duration"].to_numpy())
    booster = train_for_rounds(matrix(rows, **columns), {"max_depth": 4}, 5, nthread=1)
    quantiles = train_quantiles(rows, level=0.9, rounds=5, **columns)
    judged = Rows.read([builder.transform(half)], builder)
    assert calibrate_model(booster, quantiles, builder, judged, 0.9).trips == half.num_rows


def test_the_quantiles_are_learned_in_one_booster_that_repeats() -> None:
    rng = np.random.default_rng(7)
    X = rng.uniform(1, 10, (4000, 2)).astype(np.float32)
    minutes = 3 * X[:, 0] + X[:, 0] * rng.normal(size=4000)
    boosters = [
        train_quantiles(
            Rows.of(X, minutes), level=0.9, rounds=60, names=["a", "b"], types=["q", "q"]
        )
        for _ in range(2)
    ]
    assert boosters[0].save_raw("ubj") == boosters[1].save_raw("ubj")
    said = predict(boosters[0], X, ["q", "q"])
    assert said.shape == (4000, 2)
    share = ((minutes >= said[:, 0]) & (minutes <= said[:, 1])).mean()
    assert share == pytest.approx(0.9, abs=0.04)
    far, near = X[:, 0] > 7, X[:, 0] < 3
    width = said[:, 1] - said[:, 0]
    assert width[far].mean() > 2 * width[near].mean()


def test_slices_are_by_hour_and_borough() -> None:
    trips = pa.table(
        {
            "pickup": np.array(
                ["2021-01-01T08:10", "2021-01-01T08:50", "2021-01-01T23:00"], "datetime64[s]"
            ),
            "pickup_zone": pa.array([1, 2, None], pa.int16()),
            "duration": [10.0, 20.0, 30.0],
        }
    )
    lower, upper = np.array([9.0, 21.0, 0.0]), np.array([11.0, 25.0, 30.0])
    found = coverage_slices(trips, lower, upper, {1: "Queens", 2: "Queens"})
    assert found["hour"].to_pylist() == [
        {"hour": "08", "trips": 2, "coverage": 0.5, "width": 3.0},
        {"hour": "23", "trips": 1, "coverage": 1.0, "width": 30.0},
    ]
    assert [row["borough"] for row in found["borough"].to_pylist()] == ["Queens", "unknown"]


def test_no_trips_have_no_coverage() -> None:
    made = Calibration(
        level=0.9, edges=(), below=(1.0,), above=(1.0,), pad=1.0, constant=5.0, trips=100
    )
    one = np.array([7.0])
    said = coverage(one, one - 1, one + 1, one, made)
    assert said["coverage"] == 1.0
    assert sum(third["coverage"] is None for third in said["thirds"]) == 2
