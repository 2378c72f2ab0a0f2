"""What the model has learned of the city: predictions move the right way, on real trips.

One quick fit of each preset on green taxi's January 2021, with TLC's shapes; all is judged on
February's trips, changed in one respect.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from trip_duration.features import FeatureBuilder, read_dataframe
from trip_duration.geometry import projected
from trip_duration.prediction import predict_minutes
from trip_duration.trips import SCHEMA
from trip_duration.zones import load_zones

JFK, UPPER_EAST_SIDE, EAST_HARLEM, ASTORIA = 132, 236, 74, 7
METADATA = ("passenger_count", "vendor", "rate_code", "trip_type", "store_and_forward")


@dataclass(frozen=True)
class Fitted:
    """A model, and trips that it has not learned from."""

    predict: Callable[[pa.Table], np.ndarray]
    trips: pa.Table


def month(path: Path) -> pa.Table:
    return pa.Table.from_pandas(read_dataframe(path)[SCHEMA.names], SCHEMA, preserve_index=False)


@pytest.fixture(scope="module", params=["metered", "booking"])
def model(request: pytest.FixtureRequest, tlc: Path) -> Fitted:
    import xgboost as xgb

    zones = load_zones(tlc / "taxi_zones.geojson").table()
    places = projected(*(zones[n].to_numpy() for n in ("zone", "longitude", "latitude")))
    train = month(tlc / "green_tripdata_2021-01.parquet")[::2]
    builder = FeatureBuilder.fit([train], preset=request.param, places=places)
    data = xgb.QuantileDMatrix(
        builder.matrix(builder.transform_training(train)), train["duration"].to_numpy(), nthread=1
    )
    params = {"max_depth": 7, "eta": 0.15, "min_child_weight": 15, "nthread": 1, "seed": 42}
    booster = xgb.train(params, data, 80)
    later = month(tlc / "green_tripdata_2021-02.parquet")
    sound = pc.and_(pc.greater(later["trip_distance"], 0.5), pc.less(later["trip_distance"], 15))
    trips = later.filter(sound)[::20]
    return Fitted(lambda trips: predict_minutes(trips, booster, builder), trips)


def metered(model: Fitted, request: pytest.FixtureRequest) -> bool:
    return "metered" in request.node.name


def with_(trips: pa.Table, **values: object) -> pa.Table:
    """The trips with some columns the same in all of them, or as arrays."""
    for name, value in values.items():
        place, kind = trips.column_names.index(name), SCHEMA.field(name).type
        given = isinstance(value, np.ndarray | pa.ChunkedArray)
        column = pa.array(value, kind) if given else pa.array([value] * trips.num_rows, kind)
        trips = trips.set_column(place, SCHEMA.field(name), column)
    return trips


def at(trips: pa.Table, moment: str) -> pa.Table:
    return with_(trips, pickup=np.datetime64(moment, "s").astype(object))


def test_a_longer_distance_takes_longer(model: Fitted, request: pytest.FixtureRequest) -> None:
    if not metered(model, request):
        pytest.skip("booking does not know the distance")
    miles = model.trips["trip_distance"].to_numpy()
    said = [model.predict(with_(model.trips, trip_distance=miles * by)) for by in (1, 1.3, 2)]
    assert said[1].mean() > 1.10 * said[0].mean()
    assert said[2].mean() > 1.20 * said[1].mean()
    assert np.mean(said[2] > said[0]) > 0.98


def test_the_rush_hour_takes_longer_and_the_night_is_quick(model: Fitted) -> None:
    rush, noon, night = (
        model.predict(at(model.trips, f"2021-02-10T{clock}")).mean()
        for clock in ("17:00", "11:30", "04:00")
    )
    assert rush > 1.03 * noon or noon > 1.03 * rush  # the hour matters
    assert min(rush, noon) > 1.15 * night


def test_a_sunday_morning_is_quicker_than_a_monday_morning(model: Fitted) -> None:
    monday, sunday = (
        model.predict(at(model.trips, f"2021-02-{day}T08:30")).mean() for day in ("08", "07")
    )
    assert monday > 1.08 * sunday


def test_the_airport_is_far_and_its_motorway_is_quick(
    model: Fitted, request: pytest.FixtureRequest
) -> None:
    trips = with_(model.trips, pickup_zone=UPPER_EAST_SIDE)
    if metered(model, request):  # 12 miles by motorway are quicker than 12 miles about Harlem
        far = with_(trips, trip_distance=12.0)
        minutes = [model.predict(with_(far, dropoff_zone=z)).mean() for z in (JFK, EAST_HARLEM)]
        assert minutes[0] < minutes[1]
    else:
        near, out = (model.predict(with_(trips, dropoff_zone=z)).mean() for z in (EAST_HARLEM, JFK))
        assert 3 < near < 15
        assert out > 2 * near
        assert 20 < out < 60


@pytest.mark.parametrize("zone", [264, 999, None])
def test_a_zone_that_nobody_has_seen_is_taken_for_an_ordinary_one(
    model: Fitted, request: pytest.FixtureRequest, zone: int | None
) -> None:
    usual = model.predict(model.trips)
    for end in ("pickup_zone", "dropoff_zone"):
        said = model.predict(with_(model.trips, **{end: zone}))
        assert np.isfinite(said).all()
        assert said.min() > 0.5
        assert said.max() < 70
        room = 0.35 if metered(model, request) else 0.9
        assert abs(said.mean() / usual.mean() - 1) < room


def test_outside_the_city_is_far(model: Fitted, request: pytest.FixtureRequest) -> None:
    if metered(model, request):
        pytest.skip("metered goes by the distance")
    usual = model.predict(model.trips).mean()
    assert model.predict(with_(model.trips, dropoff_zone=265)).mean() > 1.3 * usual


def test_without_the_distance_the_zones_say_how_far(
    model: Fitted, request: pytest.FixtureRequest
) -> None:
    if not metered(model, request):
        pytest.skip("booking does not know the distance")
    for missing in (None, 0.0, -3.0, 1e9, float("nan")):
        said = model.predict(with_(model.trips, trip_distance=missing))
        known = model.predict(model.trips)
        assert np.isfinite(said).all()
        assert np.corrcoef(said, known)[0, 1] > 0.6
        assert 0.6 < said.mean() / known.mean() < 1.9


def test_without_what_the_driver_keys_in_little_changes(model: Fitted) -> None:
    usual = model.predict(model.trips)
    said = model.predict(with_(model.trips, **dict.fromkeys(METADATA)))
    assert abs(said.mean() / usual.mean() - 1) < 0.15
    absent = model.predict(model.trips.drop(list(METADATA)))
    np.testing.assert_array_equal(absent, said)


def test_a_prediction_does_not_depend_on_its_batch(model: Fitted) -> None:
    together = model.predict(model.trips)
    random = np.random.default_rng(1)
    order = random.permutation(model.trips.num_rows)
    np.testing.assert_array_equal(model.predict(model.trips.take(order)), together[order])
    for row in random.integers(0, model.trips.num_rows, 10):
        [alone] = model.predict(model.trips.slice(int(row), 1))
        assert alone == together[row]
