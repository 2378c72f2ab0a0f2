"""Features: the course's matrix, encodings without a look at the answer, and what is served."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction import DictVectorizer

from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.features import (
    CATALOGUE,
    PRESETS,
    FeatureBuilder,
    add_features,
    add_features_slow,
    read_dataframe,
)
from trip_duration.files import write_parquet
from trip_duration.trips import SCHEMA

SETS = {
    "course": {"preset": "course"},
    "metered": {"preset": "metered"},
    "booking": {"preset": "booking", "trend": True},
    "own": {
        "categorical": ["hour", "pickup_zone", "vendor", "store_and_forward"],
        "numerical": [
            *("hour_sin", "pair_minutes", "distance_ratio", "trip_distance", "weekday"),
            *("bearing", "detour", "date"),
        ],
    },
}
ENCODED = {
    "numerical": [
        *("pair_distance", "distance_ratio", "pickup_residual", "dropoff_residual"),
        *("pair_residual", "hour_residual", "straight_miles"),
    ]
}
NATIVE = ["metered", "booking"]


def made_up(rows: int, seed: int = 0, zones: int = 6) -> pa.Table:
    """Trips between few zones, with all that can be missing missing here and there."""
    random = np.random.default_rng(seed)

    def sometimes(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind, mask=random.random(rows) < 0.1)

    seconds = random.integers(0, 60 * 86400, rows) + 1_609_459_200  # from 2021-01-01 on
    columns = {
        "pickup": pa.array(seconds.astype("datetime64[s]")),
        "duration": pa.array(random.integers(60, 3600, rows) / 60),
        "pickup_zone": sometimes(random.integers(1, zones + 1, rows), pa.int16()),
        "dropoff_zone": sometimes(random.integers(1, zones + 1, rows), pa.int16()),
        "trip_distance": sometimes(random.uniform(-1, 70, rows).round(2), pa.float64()),
        "passenger_count": sometimes(random.integers(0, 7, rows), pa.int16()),
        "vendor": sometimes(random.integers(1, 3, rows), pa.int32()),
        "rate_code": sometimes(random.integers(1, 6, rows), pa.int16()),
        "trip_type": sometimes(random.integers(1, 3, rows), pa.int16()),
        "store_and_forward": sometimes(random.random(rows) < 0.5, pa.bool_()),
    }
    return pa.table(columns).cast(SCHEMA)


def with_pairs(trips: pa.Table) -> pd.DataFrame:
    """As a frame with PU_DO, in the course's own words."""
    frame = trips.to_pandas()
    ends = [
        frame[f"{end}_zone"].fillna(-1).astype(int).astype(str) for end in ("pickup", "dropoff")
    ]
    return frame.assign(PU_DO=ends[0] + "_" + ends[1])


def same_sparse(left: object, right: object) -> None:
    """Equal to the last stored zero."""
    assert left.shape == right.shape
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(left, part), getattr(right, part))
    assert left.dtype == right.dtype == np.float64
    assert left.format == "csr"


def same_bits(left: pa.Table, right: pa.Table) -> None:
    """Tables of the same columns and bits; NaN equals NaN."""
    assert left.schema == right.schema
    for name in left.column_names:
        np.testing.assert_array_equal(left[name].to_numpy(), right[name].to_numpy(), err_msg=name)


def one(**values: object) -> pa.Table:
    """One trip."""
    usual = {
        "pickup": np.datetime64("2021-01-04T08:30:00", "s"),
        "duration": 10.0,
        "pickup_zone": 1,
        "dropoff_zone": 2,
        "trip_distance": 3.0,
    }
    columns = usual | values
    return pa.table({n: pa.array([v], SCHEMA.field(n).type) for n, v in columns.items()})


# The course's matrix


def test_course_is_the_dict_vectorizers_matrix():
    train, val = with_pairs(made_up(500)), with_pairs(made_up(300, seed=1, zones=9))
    quick, slow = add_features(train, val), add_features_slow(train, val)
    same_sparse(quick[0], slow[0])
    same_sparse(quick[1], slow[1])
    np.testing.assert_array_equal(quick[2], slow[2])
    np.testing.assert_array_equal(quick[3], slow[3])
    assert quick[4].feature_names_ == slow[4].feature_names_
    assert (quick[1].getnnz(axis=1) == 1).any()  # a pair that training never saw


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, 1, 2, 10, 74, 265]),
            st.sampled_from([None, 1, 20, 100, 265]),
            st.sampled_from([0.0, -1.5, 2.0, 1e5]),
        ),
        min_size=2,
        max_size=30,
    ),
    st.integers(1, 29),
)
def test_course_agrees_with_the_slow_oracle(rows: list, cut: int):
    names = ["pickup_zone", "dropoff_zone", "trip_distance"]
    trips = pa.table(
        {n: pa.array([row[i] for row in rows], SCHEMA.field(n).type) for i, n in enumerate(names)}
        | {"duration": np.ones(len(rows))}
    )
    cut = min(cut, len(rows) - 1)
    frames = with_pairs(trips.slice(0, cut)), with_pairs(trips.slice(cut))
    quick, slow = add_features(*frames), add_features_slow(*frames)
    same_sparse(quick[0], slow[0])
    same_sparse(quick[1], slow[1])


def test_own_columns_are_one_hot_like_the_courses():
    categorical, numerical = ["hour", "PU_DO", "weekday", "vendor"], ["hour_sin", "trip_distance"]
    train, val = made_up(400), made_up(200, seed=3, zones=8)
    made = add_features(train, val, categorical=categorical, numerical=numerical)

    def dicts(trips: pa.Table) -> list[dict]:
        frame = with_pairs(trips)
        hours = frame["pickup"].dt.hour + frame["pickup"].dt.minute / 60
        return pd.DataFrame(
            {
                "hour": frame["pickup"].dt.hour.astype(str),
                "PU_DO": frame["PU_DO"],
                "weekday": frame["pickup"].dt.weekday.astype(str),
                "vendor": frame["vendor"].fillna(-1).astype(int).astype(str),
                "hour_sin": np.sin(hours * np.pi / 12).round(6) + 0.0,
                "trip_distance": frame["trip_distance"],
            }
        ).to_dict("records")

    dv = DictVectorizer()
    same_sparse(made[0], dv.fit_transform(dicts(train)))
    same_sparse(made[1], dv.transform(dicts(val)))
    assert made[4].feature_names_ == dv.feature_names_


def test_course_on_the_real_months_equals_dict_vectorizer(tlc: Path):
    train, val = (read_dataframe(tlc / f"green_tripdata_2021-{m}.parquet") for m in ("01", "02"))
    assert len(train) == 73_908
    assert (train["PU_DO"][:2] == ["43_151", "166_239"]).all()
    quick, slow = add_features(train, val), add_features_slow(train, val)
    same_sparse(quick[0], slow[0])
    same_sparse(quick[1], slow[1])
    assert quick[0].shape[1] == 13_221
    assert quick[4].feature_names_ == slow[4].feature_names_


def test_a_frame_read_from_a_canonical_month_is_the_month(tmp_path: Path):
    trips = made_up(50)
    write_parquet(trips, tmp_path / "month.parquet")
    frame = read_dataframe(tmp_path / "month.parquet")
    assert list(frame.columns) == [*SCHEMA.names, "PU_DO"]
    assert frame["PU_DO"].tolist() == with_pairs(trips)["PU_DO"].tolist()
    assert pa.Table.from_pandas(frame[SCHEMA.names], SCHEMA, preserve_index=False).equals(
        trips, check_metadata=False
    )
    half = read_dataframe(tmp_path / "month.parquet", min_minutes=20, max_minutes=40)
    assert half["duration"].tolist() == [m for m in frame["duration"] if 20 <= m <= 40]


# The vectorizer


@pytest.mark.parametrize("chosen", SETS)
def test_the_vectorizer_makes_the_matrixs_rows(chosen: str):
    train, val = made_up(300), made_up(100, seed=1, zones=9)
    _, X, _, _, dv = add_features(train, val, **SETS[chosen])
    builder = FeatureBuilder.fit(train, **SETS[chosen])
    rows = dv.transform(builder.feature_dicts(val))
    assert dv.feature_names_ == builder.columns
    assert len(builder.columns) == len(builder.feature_types) == X.shape[1]
    if chosen in NATIVE:
        assert rows.dtype == X.dtype == np.float32
        assert X.flags.c_contiguous
        assert rows.tobytes() == X.tobytes()
    else:
        same_sparse(rows, X)


@pytest.mark.parametrize("chosen", SETS)
def test_frames_tables_and_feature_tables_make_the_same_matrix(chosen: str):
    train, val = made_up(300), made_up(100, seed=1)
    frames = [t.to_pandas(types_mapper={pa.int16(): pd.Int16Dtype()}.get) for t in (train, val)]
    made, again = add_features(train, val, **SETS[chosen]), add_features(*frames, **SETS[chosen])
    builder = FeatureBuilder.fit(train, **SETS[chosen])
    tables = builder.transform_training(train), builder.transform(val)
    for first, second, table in zip(made[:2], again[:2], tables, strict=True):
        third = builder.matrix(table)
        assert table.schema == builder.schema
        if chosen in NATIVE:
            np.testing.assert_array_equal(first, second)
            np.testing.assert_array_equal(first, third)
        else:
            same_sparse(first, second)
            same_sparse(first, third)
    np.testing.assert_array_equal(tables[0]["duration"], made[2])


DISTANCES = {
    **{name: SETS[name] for name in ("course", "metered", "booking")},
    "ratio": {"categorical": ["PU_DO"], "numerical": ["distance_ratio", "hour"]},
    "odd": {"categorical": ["distance_odd"], "numerical": ["trip_distance", "extra_miles"]},
    "none": {"categorical": ["distance_odd"], "numerical": ["hour"]},
}


@pytest.mark.parametrize("chosen", DISTANCES)
def test_trips_without_their_distance_are_those_that_never_had_one(chosen: str):
    train = made_up(300)
    later = made_up(100, seed=1, zones=9)
    miles = later["trip_distance"].to_numpy().copy()
    miles[::7], miles[1::7], miles[2::7] = np.nan, 0.0, 75.0
    later = later.set_column(
        later.schema.get_field_index("trip_distance"),
        "trip_distance",
        pa.array(miles, from_pandas=True),
    )
    builder = FeatureBuilder.fit(train, **DISTANCES[chosen])
    X = builder.matrix(builder.transform(later))
    before = X.copy()
    found = builder.without_distance(X)
    expected = builder.matrix(builder.transform(later.drop_columns("trip_distance")))
    known = builder.metered(X)
    if chosen in NATIVE:
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(X, before)
    elif chosen == "odd":  # a category stays what it was
        same_sparse(found[:, -2:], expected[:, -2:])
    elif chosen != "none":
        same_sparse(found, expected)
        same_sparse(X, before)
    assert builder.uses_distance == (chosen != "booking")
    if chosen in ("booking", "none"):
        assert known.all()
        return
    assert not builder.metered(expected).any()
    within = (miles > 0) & (miles < 60)  # the others' meter was broken
    raw = chosen in ("course", "odd")  # takes the meter at its word
    np.testing.assert_array_equal(known, ~np.isnan(miles) if raw else within)


# What each feature says


def value(builder: FeatureBuilder, name: str, **trip: object) -> float:
    return builder.transform(one(**trip))[name][0].as_py()


def test_what_time_says():
    names = ["time_of_day", "hour", "weekday", "hour_of_week", "weekend", "hour_sin", "hour_cos"]
    builder = FeatureBuilder.fit(made_up(20), numerical=names)
    sunday = np.datetime64("2021-01-31T18:45:59", "s")
    said = [value(builder, name, pickup=sunday) for name in names]
    assert said == [18.75, 18, 6, 162, 1, round(np.sin(18.75 * np.pi / 12), 6), 0.19509]


@settings(max_examples=60, deadline=None)
@given(st.datetimes(pd.Timestamp("1905-01-01"), pd.Timestamp("2140-12-31")))
def test_time_agrees_with_pandas_on_any_date(moment: object):
    names = ["hour", "weekday", "holiday"]
    builder = FeatureBuilder.fit(one(), numerical=names)
    moment = pd.Timestamp(moment).floor("s")
    observed = pd.tseries.holiday.USFederalHolidayCalendar().holidays(
        moment - pd.Timedelta("400D"), moment + pd.Timedelta("400D")
    )
    said = [value(builder, name, pickup=moment.to_pydatetime()) for name in names]
    assert said == [moment.hour, moment.weekday(), moment.normalize() in observed]


def test_holidays_of_far_apart_years_in_one_batch():
    days = {"2009-07-03": 1, "2021-01-01": 1, "2021-01-04": 0, "2090-12-25": 1, "2090-12-26": 0}
    days |= {"2021-12-31": 1, "0001-01-01": 0, "9999-12-25": 0}  # New Year's Day, observed early
    trips = pa.concat_tables(one(pickup=np.datetime64(f"{d}T12:00:00", "s")) for d in days)
    builder = FeatureBuilder.fit(one(), numerical=["holiday"])
    assert builder.transform(trips)["holiday"].to_pylist() == list(days.values())


@pytest.mark.parametrize(
    ("miles", "distance"), [(0.0, None), (-2.0, None), (60.0, None), (59.9, 59.9), (None, None)]
)
def test_wrong_meters_are_missing_and_flagged(miles: float | None, distance: float | None):
    names = ["distance", "distance_odd", "distance_ratio", "pair_distance"]
    builder = FeatureBuilder.fit(one(trip_distance=2.0), numerical=names)
    said = [value(builder, name, trip_distance=miles) for name in names]
    if distance is None:
        assert np.isnan(said[0])
        assert np.isnan(said[2])
        assert said[1] == 1
    else:
        assert said[:2] == [distance, 0]
        assert said[2] == pytest.approx(distance / 2)
    assert said[3] == pytest.approx(2.0)


def test_booking_knows_nothing_that_comes_later():
    trips = made_up(400)
    builder = FeatureBuilder.fit(trips, preset="booking")
    known = trips.select(["pickup", "pickup_zone", "dropoff_zone"])
    same_bits(builder.transform(known), builder.transform(trips).drop(["day", "duration"]))


def test_what_is_learned_from_says_its_day_and_its_duration():
    builder = FeatureBuilder.fit(made_up(50), preset="metered")
    made = builder.transform(one(duration=7.5))
    assert made.schema == builder.schema
    assert made["day"][0].as_py().isoformat() == "2021-01-04"
    assert made["duration"][0].as_py() == 7.5


# Where the zones are


def placed(**zones: tuple[float, float]) -> np.ndarray:
    """Places of a few zones, written z1=(east, north)."""
    places = np.full((266, 2), np.nan)
    for name, place in zones.items():
        places[int(name[1:])] = place
    return places


PLACES = [name for name in CATALOGUE if name.endswith(("_x", "_y", "across", "along"))]
PLACES += ["bearing", "straight_miles", "grid_miles", "detour", "extra_miles"]


def test_what_places_say():
    places = placed(z1=(1.0, 2.0), z2=(4.0, 6.0))
    builder = FeatureBuilder.fit(made_up(20), numerical=PLACES, places=places)
    said = builder.transform(one(trip_distance=6.0)).to_pylist()[0]
    assert (said["pickup_x"], said["pickup_y"], said["dropoff_x"]) == (1.0, 2.0, 4.0)
    assert (said["middle_x"], said["middle_y"]) == (2.5, 4.0)
    assert said["straight_miles"] == 5.0
    assert said["extra_miles"] == 1.0
    assert said["detour"] == pytest.approx(6 / 5.3)
    assert said["bearing"] == pytest.approx(53.1301, abs=1e-4)
    turn = np.radians(29)
    across = 3 * np.cos(turn) - 4 * np.sin(turn)
    along = 3 * np.sin(turn) + 4 * np.cos(turn)
    assert said["across"] == pytest.approx(across, abs=1e-4)
    assert said["along"] == pytest.approx(along, abs=1e-4)
    assert said["grid_miles"] == pytest.approx(abs(across) + abs(along), abs=2e-4)
    assert said["dropoff_across"] - said["pickup_across"] == pytest.approx(across, abs=2e-4)


def test_the_way_back_is_as_long_and_points_the_other_way():
    places = placed(z1=(1.0, 2.0), z2=(4.0, 6.0))
    builder = FeatureBuilder.fit(made_up(20), numerical=PLACES, places=places)
    there, back = (
        builder.transform(one(pickup_zone=a, dropoff_zone=b)).to_pylist()[0]
        for a, b in ((1, 2), (2, 1))
    )
    for name in ("straight_miles", "grid_miles", "middle_x", "middle_y", "detour"):
        assert there[name] == back[name]
    assert there["bearing"] - back["bearing"] == pytest.approx(180, abs=1e-3)
    assert there["along"] == -back["along"]


@pytest.mark.parametrize("zone", [None, 3, 265, 266, -1])
def test_a_zone_without_a_place_says_nothing(zone: int | None):
    builder = FeatureBuilder.fit(made_up(20), preset="metered", places=placed(z1=(0.0, 0.0)))
    said = builder.transform(one(pickup_zone=zone, dropoff_zone=1)).to_pylist()[0]
    assert np.isnan([said[n] for n in ("pickup_x", "straight_miles", "bearing", "detour")]).all()
    assert said["dropoff_x"] == 0.0


def test_places_of_another_shape_are_refused():
    with pytest.raises(TripDurationError, match=r"have the shape \(2, 266\): expected \(266, 2\)"):
        FeatureBuilder.fit(made_up(20), preset="metered", places=placed().T)


def test_without_a_map_places_are_learned_from_the_distances():
    random = np.random.default_rng(3)
    spots = np.full((266, 2), np.nan)
    spots[1:7] = [(0, 0), (3, 0), (0, 4), (5, 5), (8, 1), (2, 9)]
    trips = made_up(4000)
    ends = [trips[f"{end}_zone"].fill_null(0).to_numpy() for end in ("pickup", "dropoff")]
    miles = np.hypot(*(spots[ends[0]] - spots[ends[1]]).T) * random.uniform(0.95, 1.05, 4000)
    trips = trips.set_column(
        trips.column_names.index("trip_distance"), "trip_distance", pa.array(miles.round(2))
    )
    builder = FeatureBuilder.fit(trips, numerical=["straight_miles"])
    for pickup, dropoff in ((1, 2), (1, 6), (5, 3)):
        crow = np.hypot(*(spots[pickup] - spots[dropoff]))
        found = value(builder, "straight_miles", pickup_zone=pickup, dropoff_zone=dropoff)
        assert found == pytest.approx(crow, rel=0.1)
    assert np.isnan(value(builder, "straight_miles", pickup_zone=7))


@pytest.mark.parametrize("chosen", SETS)
def test_optional_columns_may_be_null_or_not_there(chosen: str):
    trips = made_up(200)
    optional = [n for n in SCHEMA.names if n not in ("pickup", "duration", "pickup_zone")]
    optional.remove("dropoff_zone")
    nulls = pa.table(
        {
            n: pa.nulls(200, SCHEMA.field(n).type) if n in optional else trips[n]
            for n in SCHEMA.names
        }
    )
    absent = trips.drop(optional)
    fitted = [FeatureBuilder.fit(t, **SETS[chosen]) for t in (nulls, absent)]
    assert fitted[0].to_json() == fitted[1].to_json()
    same_bits(fitted[0].transform(nulls), fitted[1].transform(absent))
    same_bits(fitted[0].transform_training(nulls), fitted[1].transform_training(absent))


# Encodings


@pytest.fixture(scope="module")
def all_encodings() -> dict:
    names = [n for n in CATALOGUE if n.endswith(("_distance", "_minutes", "_residual"))]
    return {"numerical": [n for n in names if n != "trip_distance"]}


def test_served_encodings_are_smoothed_means(all_encodings: dict):
    trips = made_up(300).filter(pa.compute.field("trip_distance") > 0)
    builder = FeatureBuilder.fit(trips, **all_encodings)
    frame = trips.to_pandas()
    zone, other = frame["pickup_zone"] == 2, frame["dropoff_zone"] == 3
    log = np.log(frame["duration"])

    def mean(rows: pd.Series, prior: float, weight: float) -> float:
        return (log[rows].sum() + weight * prior) / (rows.sum() + weight)

    pickup, dropoff = mean(zone, log.mean(), 10), mean(other, log.mean(), 10)
    trip = {"pickup_zone": 2, "dropoff_zone": 3}
    assert value(builder, "pickup_minutes", **trip) == pytest.approx(np.exp(pickup), abs=2e-6)
    assert value(builder, "dropoff_minutes", **trip) == pytest.approx(np.exp(dropoff), abs=2e-6)
    pair = mean(zone & other, (pickup + dropoff) / 2, 5)
    assert value(builder, "pair_minutes", **trip) == pytest.approx(np.exp(pair), abs=2e-6)
    unseen = {"pickup_zone": 2, "dropoff_zone": 200}
    fallback = np.exp((pickup + log.mean()) / 2)
    assert value(builder, "pair_minutes", **unseen) == pytest.approx(fallback, abs=2e-6)


def test_the_residual_is_what_the_distance_does_not_explain():
    random = np.random.default_rng(5)
    rows = 4000
    trips = made_up(rows).to_pandas()
    trips["pickup_zone"] = random.integers(1, 3, rows).astype("int16")
    trips["trip_distance"] = random.uniform(0.5, 20, rows)
    slow = np.where(trips["pickup_zone"] == 1, 0.2, -0.2)
    trips["duration"] = np.exp(1 + 0.7 * np.log(trips["trip_distance"]) + slow)
    builder = FeatureBuilder.fit(pa.Table.from_pandas(trips), **ENCODED)
    assert value(builder, "pickup_residual", pickup_zone=1) == pytest.approx(0.2, abs=0.01)
    assert value(builder, "pickup_residual", pickup_zone=2) == pytest.approx(-0.2, abs=0.01)
    assert abs(value(builder, "hour_residual")) < 0.05


@pytest.mark.parametrize("folds", [2, 5])
def test_a_training_trips_encodings_have_not_seen_its_fold(all_encodings: dict, folds: int):
    trips = made_up(400)
    chosen = {**all_encodings, "folds": folds}
    before = FeatureBuilder.fit(trips, **chosen).transform_training(trips).drop(["duration"])
    answers = trips["duration"].to_numpy().copy()
    for row in (0, 7, 123):
        planted = answers.copy()
        planted[row] = 3600.0
        changed = trips.set_column(1, SCHEMA.field("duration"), pa.array(planted))
        builder = FeatureBuilder.fit(changed, **chosen)
        after = builder.transform_training(changed).drop(["duration"])
        same_bits(before.slice(row, 1), after.slice(row, 1))
        assert not after.equals(before)  # other trips do see it
        served = builder.transform(changed.slice(row, 1))
        assert served["pair_minutes"][0] != after["pair_minutes"][row]


def test_a_trip_alone_in_its_pair_falls_back_on_the_zones():
    lonely = one(pickup_zone=50, dropoff_zone=60, duration=59.0)
    trips = pa.concat_tables([made_up(300), lonely], promote_options="permissive")
    builder = FeatureBuilder.fit(trips, numerical=["pair_minutes", "pickup_minutes"])
    without = FeatureBuilder.fit(trips.slice(0, 300), numerical=["pair_minutes", "pickup_minutes"])
    alone = builder.transform_training(trips).slice(300)
    usual = without.transform(trips.slice(300))
    # The means are of the other folds alone, so near the fallback; and far from the answer.
    assert alone["pair_minutes"][0].as_py() == pytest.approx(usual["pair_minutes"][0].as_py(), 0.1)
    assert builder.transform(trips.slice(300))["pair_minutes"][0].as_py() > 1.1 * (
        usual["pair_minutes"][0].as_py()
    )


def test_training_parts_make_the_same_rows_as_the_whole_month():
    months = [made_up(300), made_up(200, seed=9)]
    builder = FeatureBuilder.fit(months, **ENCODED)
    whole = builder.transform_training(months[1], month=1)
    parts = [
        builder.transform_training(months[1].slice(first, 64), month=1, first_row=first)
        for first in range(0, 200, 64)
    ]
    same_bits(whole, pa.concat_tables(parts))
    assert not whole.equals(builder.transform_training(months[1], month=0))
    other = FeatureBuilder.fit(months, **ENCODED, seed=1)
    assert not whole.equals(other.transform_training(months[1], month=1))


# Streaming


@pytest.mark.parametrize("chosen", SETS)
def test_streams_paths_and_tables_fit_the_same(chosen: str, tmp_path: Path):
    trips = made_up(500)
    paths = [tmp_path / "a.parquet", str(tmp_path / "b.parquet")]
    for path, part in zip(paths, (trips.slice(0, 300), trips.slice(300)), strict=True):
        write_parquet(part, path)
    streams = [
        lambda: iter([trips.slice(0, 100), *trips.slice(100, 200).to_batches()]),
        lambda: [trips.slice(300)],
    ]
    whole = FeatureBuilder.fit([trips], **SETS[chosen])
    fitted = [
        FeatureBuilder.fit(source, **SETS[chosen])
        for source in (paths, streams, trips, lambda: [trips])
    ]
    assert all(builder.to_json() == whole.to_json() for builder in fitted)
    month = {"month": 1, "first_row": 0}
    first, second = (b.transform_training(trips.slice(300), **month) for b in fitted[:2])
    same_bits(first, second)


def test_the_order_of_the_trips_leaves_no_trace_in_what_is_served():
    trips = made_up(500)
    shuffled = trips.take(np.random.default_rng(0).permutation(500))
    left, right = (FeatureBuilder.fit(t, **ENCODED).to_json() for t in (trips, shuffled))
    assert left == right


# Serving


@pytest.mark.parametrize("chosen", SETS)
def test_no_row_depends_on_its_batch(chosen: str):
    builder = FeatureBuilder.fit(made_up(300), **SETS[chosen])

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6), st.integers(1, 40), st.data())
    def check(seed: int, rows: int, data: st.DataObject) -> None:
        batch = made_up(rows, seed=seed, zones=265)
        row = data.draw(st.integers(0, rows - 1))
        together = builder.transform(batch)
        same_bits(builder.transform(batch.slice(row, 1)), together.slice(row, 1))
        if chosen in NATIVE:
            finite = builder.matrix(together)[:, :7]  # time is always known
            assert np.isfinite(finite).all()
        for name in set(builder.features) & {"pair_distance", "pickup_residual", "pair_minutes"}:
            assert np.isfinite(together[name].to_numpy()).all()  # zones fall back on all trips

    check()


def test_blocks_leave_no_trace():
    trips = made_up(40_000)  # more than two blocks
    builder = FeatureBuilder.fit(trips, **ENCODED)
    made = builder.transform_training(trips)
    for first in (0, 16_380, 39_990):
        part = builder.transform_training(trips.slice(first, 10), first_row=first)
        same_bits(part, made.slice(first, 10))


@pytest.mark.parametrize("chosen", SETS)
def test_json_gives_the_same_bits(chosen: str):
    builder = FeatureBuilder.fit(made_up(300), **SETS[chosen])
    text = json.dumps(builder.to_json(), allow_nan=False, sort_keys=True)
    loaded = FeatureBuilder.from_json(json.loads(text))
    trips = made_up(200, seed=4, zones=265)
    same_bits(builder.transform(trips), loaded.transform(trips))
    assert json.dumps(loaded.to_json(), sort_keys=True) == text
    assert loaded.columns == builder.columns
    assert loaded.feature_types == builder.feature_types
    with pytest.raises(TripDurationError, match="loaded from JSON"):
        loaded.transform_training(trips)


def test_json_without_any_distance_has_nulls():
    trips = made_up(100).drop(["trip_distance"])
    data = FeatureBuilder.fit(trips, **ENCODED).to_json()
    text = json.dumps(data, allow_nan=False)
    assert FeatureBuilder.from_json(json.loads(text)).to_json() == data
    assert set(data["encodings"]["pickup_distance"]) == {None}
    assert data["places"] == [[None, None]] * 266


BROKEN = {
    "format": lambda d: d.update(format=1),
    "keys": lambda d: d.pop("seed"),
    "extra key": lambda d: d.update(code="import os"),
    "preset": lambda d: d.update(preset="course"),
    "preset type": lambda d: d.update(preset=["custom"]),
    "places gone": lambda d: d.update(places=None),
    "places short": lambda d: d["places"].pop(),
    "place short": lambda d: d["places"][1].pop(),
    "place text": lambda d: d["places"][1].__setitem__(0, "1"),
    "place huge": lambda d: d["places"][1].__setitem__(0, 1e300),
    "column": lambda d: d["numerical"].append("duration"),
    "columns type": lambda d: d.update(numerical="time_of_day"),
    "seed": lambda d: d.update(seed=1.5),
    "folds": lambda d: d.update(folds=True),
    "levels": lambda d: d.update(levels={"PU_DO": [1]}),
    "encoding gone": lambda d: d["encodings"].pop("hour_residual"),
    "encoding short": lambda d: d["encodings"]["hour_residual"].pop(),
    "encoding text": lambda d: d["encodings"]["hour_residual"].__setitem__(0, "1"),
    "encoding infinite": lambda d: d["encodings"]["hour_residual"].__setitem__(0, 1e999),
    "encoding huge": lambda d: d["encodings"]["hour_residual"].__setitem__(0, 10**400),
    "pair order": lambda d: d["encodings"]["pair_distance"]["pairs"].reverse(),
    "pair beyond": lambda d: d["encodings"]["pair_distance"]["pairs"].__setitem__(-1, 266**2),
    "pair count": lambda d: d["encodings"]["pair_distance"]["values"].pop(),
    "pair shape": lambda d: d["encodings"].update(pair_distance=[1.0]),
}


@pytest.mark.parametrize("how", BROKEN)
def test_json_from_a_stranger_is_checked(how: str):
    data = FeatureBuilder.fit(made_up(100), **ENCODED).to_json()
    FeatureBuilder.from_json(data)
    BROKEN[how](data)
    with pytest.raises(TripDurationError):
        FeatureBuilder.from_json(data)


@pytest.mark.parametrize("preset", NATIVE)
def test_a_presets_json_holds_its_own_columns(preset: str):
    data = FeatureBuilder.fit(made_up(100), preset=preset).to_json()
    FeatureBuilder.from_json(data | {"numerical": [*data["numerical"], "date"]})  # the trend
    for columns in (data["numerical"][1:], [*data["numerical"], "pair_minutes"]):
        with pytest.raises(TripDurationError, match="the preset's own columns"):
            FeatureBuilder.from_json(data | {"numerical": columns})


def test_json_levels_from_a_stranger_are_checked():
    data = FeatureBuilder.fit(made_up(100), preset="course").to_json()
    for levels in ([-1], [266**2], [5, 4], [4, 4], ["1_2"], [True], None):
        with pytest.raises(TripDurationError):
            FeatureBuilder.from_json(data | {"levels": {"PU_DO": levels}})


def test_no_trips_make_no_rows():
    builder = FeatureBuilder.fit(made_up(50), preset="metered")
    assert builder.matrix(builder.transform(SCHEMA.empty_table())).shape == (0, 31)
    course = FeatureBuilder.fit(made_up(50))
    assert course.matrix(course.transform(SCHEMA.empty_table())).shape == (0, len(course.columns))
    assert course.feature_dicts(SCHEMA.empty_table()) == []


# What cannot be


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["hourr"], r"'hourr', which is no feature: expected one of hour,"),
        (["PULocationID"], "expected one of pickup_zone,"),
        (["duration"], "'duration', which leaks the answer: it is the answer itself"),
        (["lpep_dropoff_datetime"], "with the pickup time it gives the answer"),
        (["fare_amount"], "the meter counts time"),
        (["hour", "hour"], "'hour' more than once"),
        (["time_of_day"], "measured and has no categories: move it to features.numerical"),
        ("hour", r"expected a list, like \[hour\]"),
    ],
)
def test_bad_categories_are_refused(names: list[str], said: str):
    with pytest.raises(SettingsError, match=said) as caught:
        FeatureBuilder.fit(made_up(5), categorical=names)
    assert "features.categorical" in str(caught.value)


def test_bad_choices_are_refused():
    with pytest.raises(SettingsError, match="is a word"):
        add_features(one(), one(), numerical=["PU_DO"])
    with pytest.raises(SettingsError, match="more than once"):
        add_features(one(), one(), categorical=["hour"], numerical=["hour"])
    with pytest.raises(SettingsError, match="expected course, metered, booking"):
        add_features(one(), one(), preset="best")
    with pytest.raises(SettingsError, match="name at least one column"):
        FeatureBuilder.fit(one(), preset="custom")
    with pytest.raises(SettingsError, match=r"features\.folds is 1"):
        FeatureBuilder.fit(one(), folds=1)


@pytest.mark.parametrize(
    ("trips", "said"),
    [
        (one().drop(["pickup_zone"]), "no column 'pickup_zone': found pickup, duration"),
        (one().set_column(2, "pickup_zone", pa.array(["JFK"])), "zone ids from 1 to 265"),
        (one().set_column(2, "pickup_zone", pa.array([1.5])), "zone ids from 1 to 265"),
        (one().set_column(0, "pickup", pa.array([0], pa.timestamp("s", "UTC"))), "time zone UTC"),
        (one(pickup=None), "'pickup' is empty in 1 of 1"),
    ],
)
def test_trips_that_cannot_be_read_are_refused(trips: pa.Table, said: str):
    builder = FeatureBuilder.fit(made_up(20), preset="booking")
    with pytest.raises(TripDurationError, match=said):
        builder.transform(trips)


def test_training_without_trips_or_answers_is_refused(tmp_path: Path):
    with pytest.raises(TripDurationError, match="no trips"):
        FeatureBuilder.fit([SCHEMA.empty_table()], preset="metered")
    with pytest.raises(TripDurationError, match="no column 'duration'"):
        FeatureBuilder.fit(one().drop(["duration"]), preset="metered")
    with pytest.raises(TripDurationError, match="'duration' has training trips"):
        FeatureBuilder.fit(one(duration=float("nan")), preset="metered")
    with pytest.raises(TripDurationError, match=r"gone\.parquet cannot be read"):
        FeatureBuilder.fit([tmp_path / "gone.parquet"])


def test_zones_may_be_words_and_times_finer_than_seconds():
    builder = FeatureBuilder.fit(made_up(50), preset="booking")
    usual = one()
    frame = usual.to_pandas().astype({"pickup_zone": str, "pickup": "datetime64[ns]"})
    frame["pickup"] += pd.Timedelta("999ms")
    same_bits(builder.transform(frame), builder.transform(usual))


def test_the_presets_are_made_of_the_catalogue():
    for categorical, numerical in PRESETS.values():
        assert set(categorical) | set(numerical) <= set(CATALOGUE)


def test_metered_beats_the_course_on_the_real_months(tlc: Path):
    import xgboost as xgb

    frames = [read_dataframe(tlc / f"green_tripdata_2021-{m}.parquet") for m in ("01", "02")]
    X, X_val, y, y_val, _ = add_features(*frames, preset="metered")
    data = [xgb.DMatrix(*part, nthread=1) for part in ((X, y), (X_val, y_val))]
    params = {"tree_method": "hist", "max_depth": 7, "eta": 0.2, "nthread": 1, "seed": 42}
    booster = xgb.train(params, data[0], 60)
    rmse = float(np.sqrt(np.mean((booster.predict(data[1]) - y_val) ** 2)))
    assert rmse < 5.2  # the course's model: 6.318; with a map and more rounds this reaches 4.95
