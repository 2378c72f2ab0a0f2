"""What each feature adds: exact, adding up, and said in words."""

import json
import math
from collections.abc import Iterator
from datetime import datetime
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from trip_duration import explanations
from trip_duration.errors import TripDurationError
from trip_duration.explanations import GROUPS, contributions, explain, importance, sample
from trip_duration.features import CATALOGUE, FeatureBuilder
from trip_duration.prediction import predict_features
from trip_duration.trips import SCHEMA

KINDS = {
    "course": {"preset": "course"},
    "metered": {"preset": "metered"},
    "booking": {"preset": "booking"},
    "own": {"categorical": ["PU_DO", "hour"], "numerical": ["trip_distance", "weekday"]},
}
TRIP = {
    "pickup": datetime(2024, 5, 3, 8, 30),
    "pickup_zone": 2,
    "dropoff_zone": 5,
    "trip_distance": 1.9,
}


def made_up(rows: int = 300, seed: int = 0, zones: int = 8) -> pa.Table:
    """Trips that take longer the farther they go, at eight, and from high zones."""
    random = np.random.default_rng(seed)
    seconds = random.integers(0, 30 * 86400, rows) + 1_704_067_200  # from 2024-01-01 on
    pickup = random.integers(1, zones + 1, rows)
    miles = random.gamma(2.0, 1.5, rows).round(2)
    rush = np.where(seconds // 3600 % 24 == 8, 6.0, 0.0)
    columns = {
        "pickup": pa.array(seconds.astype("datetime64[s]")),
        "duration": 5 + 3 * miles + rush + pickup + random.random(rows),
        "pickup_zone": pickup,
        "dropoff_zone": random.integers(1, zones + 1, rows),
        "trip_distance": pa.array(miles, mask=random.random(rows) < 0.1),
        "passenger_count": random.integers(1, 4, rows),
        "vendor": np.full(rows, 2),
        "rate_code": random.integers(1, 3, rows),
        "trip_type": random.integers(1, 3, rows),
        "store_and_forward": random.random(rows) < 0.5,
    }
    return pa.table(columns).cast(SCHEMA)


def fitted(
    trips: pa.Table, rounds: int = 12, depth: int = 4, **columns: object
) -> tuple[xgb.Booster, FeatureBuilder, pa.Table]:
    """A small model, its features, and the trips as it sees them."""
    builder = FeatureBuilder.fit([trips], **columns)
    data = xgb.DMatrix(
        builder.matrix(builder.transform_training(trips)),
        label=trips["duration"].to_numpy(),
        feature_names=builder.columns,
        feature_types=builder.feature_types,
        enable_categorical=True,
        nthread=1,
    )
    params = {"max_depth": depth, "learning_rate": 0.4, "base_score": 7.0, "nthread": 1}
    return xgb.train(params, data, rounds), builder, builder.transform(trips)


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> tuple[xgb.Booster, FeatureBuilder, pa.Table]:
    return fitted(made_up(), **KINDS[request.param])


@pytest.fixture(scope="module")
def onehot() -> tuple[xgb.Booster, FeatureBuilder, pa.Table]:
    return fitted(made_up(), **KINDS["own"])


# The oracle


def slow_contributions(booster: xgb.Booster, row: dict[str, float]) -> list[float]:
    """Shapley's formula over all sets of features, and last what is said without any."""
    trees = [json.loads(t) for t in booster.get_dump(with_stats=True, dump_format="json")]

    def says(node: dict, known: set[str]) -> float:
        """A tree's mean over the training trips that go as the known features go."""
        if "leaf" in node:
            return node["leaf"]
        child = {one["nodeid"]: one for one in node["children"]}
        if node["split"] not in known:
            total = sum(one["cover"] * says(one, known) for one in child.values())
            return total / sum(one["cover"] for one in child.values())
        value = np.float32(row[node["split"]])
        if np.isnan(value):
            return says(child[node["missing"]], known)
        below = value < np.float32(node["split_condition"])
        return says(child[node["yes" if below else "no"]], known)

    def worth(known: set[str]) -> float:
        return 7.0 + sum(says(tree, known) for tree in trees)

    def subsets(names: list[str]) -> Iterator[set[str]]:
        for size in range(len(names) + 1):
            yield from map(set, combinations(names, size))

    added = []
    for name in row:
        others = [other for other in row if other != name]
        added.append(
            sum(
                (worth(known | {name}) - worth(known))
                / (len(row) * math.comb(len(others), len(known)))
                for known in subsets(others)
            )
        )
    return [*added, worth(set())]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_contributions_are_the_shapley_values(seed: int) -> None:
    names = ["trip_distance", "hour", "pickup_zone"]
    booster, builder, features = fitted(
        made_up(80, seed), rounds=4, depth=3, preset="custom", numerical=names
    )
    features = features.slice(0, 4)
    quick = contributions(features, booster, builder)
    for got, row in zip(quick, features.select(names).to_pylist(), strict=True):
        np.testing.assert_allclose(got, slow_contributions(booster, row), atol=1e-4)


# What holds of every model


@pytest.mark.parametrize("level", [None, "1.0625"])
def test_contributions_add_up_to_the_prediction(model: tuple, level: str | None) -> None:
    booster, builder, features = model
    booster = booster.copy()
    booster.set_attr(level=level)
    found = contributions(features, booster, builder)
    assert found.dtype == np.float64
    assert found.shape == (features.num_rows, len(builder.features) + 1)
    predicted = predict_features(features, booster, builder)
    assert predicted.min() > 0
    np.testing.assert_allclose(found.sum(axis=1), predicted, atol=1e-4)
    assert len(set(found[:, -1])) == 1
    assert found[0, -1] == pytest.approx(predicted.mean(), rel=0.1)


def test_the_level_multiplies_everything(onehot: tuple) -> None:
    booster, builder, features = onehot
    slower = booster.copy()
    slower.set_attr(level="1.25")
    before, after = (contributions(features, b, builder) for b in (booster, slower))
    np.testing.assert_array_equal(after, before * 1.25)


def test_the_best_round_is_the_last_that_counts(onehot: tuple) -> None:
    booster, builder, features = onehot
    stopped = booster.copy()
    stopped.set_attr(best_iteration="4")
    np.testing.assert_array_equal(
        contributions(features, stopped, builder), contributions(features, booster[:5], builder)
    )
    changed = contributions(features, booster, builder)
    assert not np.array_equal(contributions(features, stopped, builder), changed)


def test_a_trip_is_explained_alike_in_any_batch(model: tuple) -> None:
    booster, builder, features = model
    every = contributions(features, booster, builder)
    for row in (0, 17):
        alone = contributions(features.slice(row, 1), booster, builder)
        np.testing.assert_array_equal(alone[0], every[row])
    none = contributions(features.slice(0, 0), booster, builder)
    assert none.shape == (0, every.shape[1])


def test_what_no_tree_asks_for_adds_nothing() -> None:
    names = ["trip_distance", "vendor", "pickup_zone"]  # the vendor is always the same
    booster, builder, features = fitted(made_up(), preset="custom", numerical=names)
    found = contributions(features, booster, builder)
    place = builder.features.index("vendor")
    assert not found[:, place].any()
    assert np.delete(found, place, axis=1).any(axis=0).all()


# One-hot columns


def test_one_hot_columns_are_summed_to_their_feature(
    onehot: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    booster, builder, features = onehot
    by_column = booster.predict(
        xgb.DMatrix(builder.matrix(features), feature_names=builder.columns), pred_contribs=True
    ).astype(np.float64)
    assert len(builder.columns) > 60
    expected = np.zeros((features.num_rows, 5))
    for place, column in enumerate(builder.columns):
        feature = builder.features.index(column.split("=")[0])
        expected[:, feature] += by_column[:, place]
    expected[:, -1] = by_column[:, -1]
    found = contributions(features, booster, builder)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found[:, builder.features.index("PU_DO")].any()

    held = []
    whole = xgb.Booster.predict

    def watched(self: xgb.Booster, *args: object, **options: object) -> np.ndarray:
        made = whole(self, *args, **options)
        held.append(made.size)
        return made

    cells = 10 * (len(builder.columns) + 1)
    monkeypatch.setattr(xgb.Booster, "predict", watched)
    monkeypatch.setattr(explanations, "_CELLS", cells)
    np.testing.assert_array_equal(contributions(features, booster, builder), found)
    assert len(held) == 30
    assert max(held) <= cells


def test_a_model_of_other_features_is_refused(onehot: tuple) -> None:
    booster, _, _ = onehot
    trips = made_up(50)
    other = FeatureBuilder.fit([trips], preset="course")
    with pytest.raises(TripDurationError, match=r"fitted on other columns .* run `make train`"):
        contributions(other.transform(trips), booster, other)
    same_count = FeatureBuilder.fit([trips], preset="custom", numerical=["hour"])
    named = fitted(trips, preset="custom", numerical=["weekday"])[0]
    with pytest.raises(TripDurationError, match="fitted on other columns"):
        contributions(same_count.transform(trips), named, same_count)
    nameless = booster.copy()
    nameless.feature_names = None
    with pytest.raises(TripDurationError, match=r"fitted on other columns"):
        contributions(other.transform(trips), nameless, other)


# A sample, and the whole model


@given(st.integers(0, 3000), st.integers(0, 600), st.integers(-(2**40), 2**70))
def test_a_sample_is_some_rows_in_order(rows: int, size: int, seed: int) -> None:
    drawn = sample(rows, size, seed)
    np.testing.assert_array_equal(drawn, sample(rows, size, seed))
    assert len(drawn) == len(set(drawn.tolist())) == min(rows, size)
    assert (np.diff(drawn) > 0).all()
    assert not len(drawn) or (drawn[0] >= 0 and drawn[-1] < rows)


def test_another_seed_draws_other_rows() -> None:
    assert not np.array_equal(sample(10_000, 100, 1), sample(10_000, 100, 2))
    assert sample(10_000, 100, 1).max() > 9_000  # from all of them


def test_importance_by_hand() -> None:
    made = np.array([[1.0, -4.0, 2.0, 0.0, 9.0], [-1.0, -1.0, 0.0, -0.0, 9.0]])
    found = importance(made, ["b", "c", "a", "nothing"])
    assert found.to_pydict() == {
        "feature": ["c", "a", "b", "nothing"],
        "minutes": [2.5, 1.0, 1.0, 0.0],
        "mean": [-2.5, 1.0, 0.0, 0.0],
    }
    assert not np.signbit(found["mean"].to_numpy()[2:]).any()


def test_importance_is_rounded() -> None:
    found = importance(np.array([[1 / 3, 0.0], [1 / 3, 0.0]]), ["a"])
    assert found["minutes"].to_pylist() == found["mean"].to_pylist() == [0.333333]


# One trip


def test_an_explanation_adds_up(model: tuple) -> None:
    booster, builder, _ = model
    found = explain(TRIP, booster, builder, largest=3)
    row = pa.table({n: pa.array([v], SCHEMA.field(n).type) for n, v in TRIP.items()})
    predicted = predict_features(builder.transform(row), booster, builder)[0]
    assert found.minutes == pytest.approx(predicted, abs=1e-4)
    for parts in (found.groups, found.columns):
        assert found.base + sum(part.minutes for part in parts) == pytest.approx(found.minutes)
        single = [abs(part.minutes) for part in parts if "others" not in part.name]
        assert single == sorted(single, reverse=True)
    hidden = len(builder.features) - 3
    assert len(found.columns) == min(len(builder.features), 4)
    assert (found.columns[-1].name == f"{hidden} others") == (hidden > 1)


def test_groups_gather_what_says_the_same() -> None:
    numerical = ["trip_distance", "distance", "time_of_day", "weekday", "pair_distance", "vendor"]
    booster, builder, _ = fitted(made_up(), preset="custom", numerical=numerical)
    trip = TRIP | {"vendor": 2, "rate_code": None}
    found = explain(trip, booster, builder, zones={2: "Mill [Lane]"})
    assert {part.name: part.value for part in found.groups} == {
        "where": "from 2 Mill [Lane] to zone 5",
        "when": "Friday 2024-05-03, 8:30",
        "distance": "1.9 miles as metered",
        "meter and driver": "vendor 2",
    }
    alone = {part.name: part.minutes for part in found.columns}
    sums = {part.name: part.minutes for part in found.groups}
    assert sums["distance"] == pytest.approx(alone["trip_distance"] + alone["distance"])
    assert sums["when"] == pytest.approx(alone["time_of_day"] + alone["weekday"])
    assert sums["where"] == alone["pair_distance"]
    assert abs(sums["distance"]) > 1


def test_a_feature_in_no_group_stands_for_itself(
    onehot: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "_GROUP", {"hour": "when"})
    booster, builder, _ = onehot
    found = explain(TRIP, booster, builder)
    words = {part.name: part.value for part in found.groups}
    assert words == {
        "PU_DO": "2_5",
        "trip_distance": "1.9 miles",
        "weekday": "Friday",
        "when": "Friday 2024-05-03, 8:30",
    }


def test_no_feature_is_in_two_groups() -> None:
    listed = [name for names in GROUPS.values() for name in names]
    assert len(listed) == len(set(listed))


def test_what_is_not_given_is_said_so() -> None:
    numerical = ["trip_distance", "weekday", "passenger_count", "pickup_zone"]
    booster, builder, _ = fitted(made_up(), preset="custom", numerical=numerical)
    trip = {"pickup": TRIP["pickup"], "pickup_zone": None, "dropoff_zone": 3}
    found = explain(trip, booster, builder)
    words = {part.name: part.value for part in found.groups}
    assert words["where"] == "from a zone not given to zone 3"
    assert words["distance"] == words["meter and driver"] == "not given"
    assert {part.name: part.value for part in found.columns}["trip_distance"] == "missing"


def quicker(trips: pa.Table, minutes: float) -> pa.Table:
    """Trips that take less long, if need be less than nothing."""
    place = trips.schema.get_field_index("duration")
    return trips.set_column(place, SCHEMA.field(place), [trips["duration"].to_numpy() - minutes])


def test_a_trip_is_never_explained_below_nothing() -> None:
    trips = quicker(made_up(), 60.0)
    booster, builder, _ = fitted(trips, preset="custom", numerical=["trip_distance", "hour"])
    found = explain(TRIP, booster, builder)
    assert found.minutes == 0.0
    for parts in (found.groups, found.columns):
        assert parts[-1].name == "no trip takes less than 0 minutes"
        assert parts[-1].minutes > 0
        assert found.base + sum(part.minutes for part in parts) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PU_DO", "74_265", "74_265"),
        ("time_of_day", 8.5, "8:30"),
        ("time_of_day", 23.983333333333334, "23:59"),
        ("hour", 7.0, "7:00"),
        ("weekday", 6.0, "Sunday"),
        ("hour_of_week", 25.0, "Tuesday 1:00"),
        ("holiday", 1.0, "yes"),
        ("store_and_forward", 0.0, "no"),
        ("trip_type", 1.0, "1"),
        ("trip_distance", -1.5, "-1.5 miles"),
        ("trip_distance", 1e9, "1e+09 miles"),
        ("pair_distance", math.nan, "missing"),
        ("pair_minutes", 12.3456, "12.35 minutes"),
        ("pair_residual", math.log(1.2), "20% slower than usual"),
        ("pair_residual", math.log(0.9), "10% faster than usual"),
        ("distance_ratio", 1.25, "1.25 times the pair's"),
        ("hour_cos", -1e-9, "0"),
        ("a_feature_of_tomorrow", 1.5, "1.5"),
    ],
)
def test_values_in_words(name: str, value: float | str, words: str) -> None:
    assert explanations._words(name, value) == words


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_feature_has_words(name: str) -> None:
    for value in (0.0, 1.0, 5.0, math.nan):
        assert explanations._words(name, value)
