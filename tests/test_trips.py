"""The canonical trip, from every layout that TLC has used, and what cleaning keeps of it."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trip_duration.errors import TripDurationError
from trip_duration.sources.files import read_batches
from trip_duration.trips import (
    REASONS,
    SCHEMA,
    Rules,
    clean,
    read_parts,
    refuse_other_taxi,
    sort,
    sort_slow,
    to_canonical,
    wanted,
)
from trip_duration.zones import load_zones

PICKUP = ["2021-01-01 10:00:00", "2021-01-01 11:00:00"]
DROPOFF = ["2021-01-01 10:12:30", "2021-01-01 11:00:20"]
ROW = {
    "pickup_datetime": PICKUP,
    "dropoff_datetime": DROPOFF,
    "PULocationID": ["74", "75"],
    "DOLocationID": ["41", "265"],
}


def rows(table: pa.Table, *columns: str) -> list[tuple]:
    return [tuple(row.values()) for row in table.select(columns or table.column_names).to_pylist()]


def canonical(**columns: Any) -> pa.Table:
    """Trips of 10 minutes between known zones, but for what is said."""
    count = len(next(iter(columns.values())))
    values = {
        "pickup": [datetime(2021, 1, 5)] * count,
        "duration": [10.0] * count,
        "pickup_zone": [74] * count,
        "dropoff_zone": [75] * count,
    } | columns
    return to_canonical(pa.table({n: pa.array(v, SCHEMA.field(n).type) for n, v in values.items()}))


# Every layout of ../shared/tlc/legacy_heads: whole records, cut ones, and the first record.
Y, N = True, False
HEADS: dict[str, tuple[int, int, tuple]] = {
    "yellow_tripdata_2009-03": (
        4, 1, ("2009-03-26 15:30:14", 211 / 60, 151, 238, 0.3, 1, 1, None, None, N),
    ),
    "yellow_tripdata_2011-05": (
        3, 1, ("2011-05-13 20:48:53", 635 / 60, 233, 265, 0.0, 1, 1, 1, None, N),
    ),
    "yellow_tripdata_2014-04": (
        4, 1, ("2014-04-08 08:59:39", 1758 / 60, 140, 100, 2.5, 1, 1, 1, None, N),
    ),
    "yellow_tripdata_2015-03": (
        4, 1, ("2015-03-06 08:02:31", 444 / 60, 100, 107, 1.2, 1, 1, 1, None, N),
    ),
    "yellow_tripdata_2016-02": (
        4, 1, ("2016-02-25 17:24:20", 180 / 60, 202, 234, 0.7, 2, 2, 1, None, N),
    ),
    "yellow_tripdata_2017-06": (
        8, 1, ("2017-06-08 07:52:31", 541 / 60, 161, 140, 1.03, 6, 2, 1, None, N),
    ),
    "yellow_tripdata_2019-07": (
        8, 1, ("2019-07-01 00:51:04", 29 / 60, 193, 193, 0.0, 1, 2, 1, None, N),
    ),
    "green_tripdata_2014-02": (
        6, 1, ("2014-02-01 00:00:00", 84308 / 60, 264, 226, 0.89, 2, 2, 2, None, N),
    ),
    "green_tripdata_2015-10": (
        4, 1, ("2015-10-01 00:38:23", 1060 / 60, 145, 223, 2.29, 5, 2, 1, 1, N),
    ),
    "green_tripdata_2017-03": (
        8, 1, ("2017-03-01 00:30:18", 29 / 60, 264, 264, 0.0, 1, 2, 1, 1, N),
    ),
    "green_tripdata_2019-11": (
        7, 1, ("2019-11-01 00:11:24", 708 / 60, 66, 148, 2.8, 1, 2, 1, 1, N),
    ),
    "fhv_tripdata_2017-03": (
        30, 1, ("2017-03-01 00:30:00", None, None, None, None, None, 8, None, None, None),
    ),
    "fhv_tripdata_2017-10": (
        13, 1, ("2017-10-01 00:28:36", 1316 / 60, 211, 255, None, None, 2876, None, None, None),
    ),
    "fhv_tripdata_2018-08": (
        12, 1, ("2018-08-30 06:55:27", 2425 / 60, 132, 265, None, None, 2682, None, None, None),
    ),
    "fhv_tripdata_2020-02": (
        16, 1, ("2020-02-01 00:48:10", 2786 / 60, 264, 264, None, None, 13, None, None, None),
    ),
    "fhvhv_tripdata_2020-03": (
        14, 1, ("2020-03-01 00:03:40", 1199 / 60, 81, 159, None, None, 5, None, None, None),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def locate(tlc: Path) -> Callable:
    return load_zones(tlc / "taxi_zones.geojson").locate


@pytest.mark.parametrize("name", HEADS)
def test_each_old_layout_gives_canonical_trips(tlc: Path, locate: Callable, name: str) -> None:
    count, cut, (pickup, *rest) = HEADS[name]
    reading = read_batches(tlc / "legacy_heads" / f"{name}.csv")
    trips = pa.concat_tables([to_canonical(batch, locate) for batch in reading])
    assert (trips.num_rows, reading.cut_records) == (count, cut)
    assert rows(trips)[0] == (datetime.fromisoformat(pickup), *rest)
    assert trips.column("pickup").null_count == 0


def test_every_old_layout_is_in_the_table(tlc: Path) -> None:
    heads = {path.stem for path in (tlc / "legacy_heads").glob("*.csv")}
    assert heads == set(HEADS) | {"fhv_tripdata_2016-04"}


def test_a_layout_without_dropoffs_is_refused_with_the_reason(tlc: Path) -> None:
    with pytest.raises(TripDurationError, match="no drop-off time, so no duration") as caught:
        read_batches(tlc / "legacy_heads" / "fhv_tripdata_2016-04.csv")
    assert "'Pickup_date'" in str(caught.value)
    assert "2015 and 2016" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        (
            "green_tripdata_2021-01",
            ("2021-01-01 00:15:56", 236 / 60, 43, 151, 1.01, 1, 2, 1, 1, N),
        ),
        (
            "green_tripdata_2024-01",
            ("2024-01-01 00:46:55", 690 / 60, 236, 239, 1.98, 1, 2, 1, 1, N),
        ),
        (
            "samples/yellow_tripdata_2018-01",
            ("2018-01-11 18:24:44", 618 / 60, 230, 237, 1.65, 1, 2, 1, None, N),
        ),
        (
            "samples/yellow_tripdata_2019-07",
            ("2019-07-02 14:37:10", 947 / 60, 140, 236, 2.15, 2, 2, 1, None, N),
        ),
    ],
)
def test_each_parquet_layout_gives_canonical_trips(tlc: Path, name: str, first: tuple) -> None:
    table = pq.read_table(tlc / f"{name}.parquet")
    trips = to_canonical(table)
    assert trips.num_rows == table.num_rows
    assert rows(trips)[0] == (datetime.fromisoformat(first[0]), *first[1:])
    assert trips.schema.types == SCHEMA.types


# Layouts that no file here shows: today's Parquet of 2009 and 2010, fhv and fhvhv.
STAMPS = {"pickup": pd.to_datetime(PICKUP), "dropoff": pd.to_datetime(DROPOFF)}
MORE: dict[str, dict[str, Any]] = {
    "yellow 2009": {
        "vendor_name": ["VTS", "DDS"],
        "Trip_Pickup_DateTime": PICKUP,
        "Trip_Dropoff_DateTime": DROPOFF,
        "Passenger_Count": [1, 5],
        "Trip_Distance": [2.63, 0.0],
        "Start_Lon": [-73.9, 0.0],
        "Start_Lat": [40.7, 0.0],
        "Rate_Code": [None, None],
        "store_and_forward": [0.0, None],
        "End_Lon": [-73.8, -73.8],
        "End_Lat": [40.6, 40.6],
        "mta_tax": [None, None],
    },
    "yellow 2010-02": {
        "vendor_id": ["CMT", "VTS"],
        "pickup_datetime": PICKUP,
        "dropoff_datetime": DROPOFF,
        "passenger_count": [1, 5],
        "trip_distance": [2.63, 0.0],
        "pickup_longitude": [-73.9, None],
        "pickup_latitude": [40.7, 40.7],
        "rate_code": ["1", "2"],
        "store_and_fwd_flag": ["Y", "*"],
        "dropoff_longitude": [-73.8, -73.8],
        "dropoff_latitude": [40.6, 40.6],
        "__index_level_0__": [3, 4],
    },
    "yellow 2025": {
        "VendorID": pa.array([1, 7], pa.int32()),
        "tpep_pickup_datetime": STAMPS["pickup"],
        "tpep_dropoff_datetime": STAMPS["dropoff"],
        "passenger_count": [1.0, None],
        "trip_distance": [2.63, float("nan")],
        "RatecodeID": [99.0, None],
        "store_and_fwd_flag": pa.array(["N", None], pa.large_string()),
        "PULocationID": pa.array([74, 75], pa.int32()),
        "DOLocationID": [41.0, 265.0],
        "airport_fee": [0.0, 0.0],
        "Airport_fee": [None, 1.75],
        "cbd_congestion_fee": [0.75, 0.0],
    },
    "green, ehail null": {
        "VendorID": [2.0, None],
        "lpep_pickup_datetime": STAMPS["pickup"],
        "Lpep_dropoff_datetime": STAMPS["dropoff"],
        "PULocationID": ["74", "75"],
        "DOLocationID": ["41.0", " 265 "],
        "Passenger_count": ["1", ""],
        "Trip_distance": [".5", "1e1"],
        "ehail_fee": pa.nulls(2),
        "Trip_type ": pa.nulls(2),
    },
    "fhv": {
        "dispatching_base_num": ["B00254", "b03404"],
        "pickup_datetime": STAMPS["pickup"],
        "dropOff_datetime": STAMPS["dropoff"],
        "PUlocationID": [74.0, None],
        "DOlocationID": [41, 0],
        "SR_Flag": pa.nulls(2),
        "Affiliated_base_number": ["B00254", "B1"],
    },
    "fhvhv": {
        "hvfhs_license_num": ["HV0003", ""],
        "dispatching_base_num": ["B02682", "B02764"],
        "originating_base_num": ["B02682", None],
        "request_datetime": STAMPS["pickup"],
        "on_scene_datetime": STAMPS["pickup"],
        "pickup_datetime": STAMPS["pickup"],
        "dropoff_datetime": STAMPS["dropoff"],
        "PULocationID": [74, 75],
        "DOLocationID": [41, 265],
        "trip_miles": [2.63, 0.0],
        "trip_time": [750, 20],
        "airport_fee": [0.0, 0.0],
    },
}
VALUES = {  # what follows pickup and duration
    "yellow 2009": [(7, 8, 2.63, 1, 2, None, None, N), (264, 8, 0.0, 5, 3, None, None, None)],
    "yellow 2010-02": [(7, 8, 2.63, 1, 1, 1, None, Y), (264, 8, 0.0, 5, 2, 2, None, None)],
    "yellow 2025": [(74, 41, 2.63, 1, 1, 99, None, N), (75, 265, None, None, 7, None, None, None)],
    "green, ehail null": [
        (74, 41, 0.5, 1, 2, None, None, None),
        (75, 265, 10.0, None, None, None, None, None),
    ],
    "fhv": [
        (74, 41, None, None, 254, None, None, None),
        (None, None, None, None, 3404, None, None, None),
    ],
    "fhvhv": [
        (74, 41, 2.63, None, 3, None, None, None),
        (75, 265, 0.0, None, 2764, None, None, None),
    ],
}


def seven_or_eight(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    return np.where(longitude < -73.85, 7, 8).astype(np.int16)


@pytest.mark.parametrize("name", MORE)
def test_other_layouts_give_canonical_trips(name: str) -> None:
    trips = to_canonical(pa.table(MORE[name]), seven_or_eight)
    times = [(datetime(2021, 1, 1, 10), 12.5), (datetime(2021, 1, 1, 11), 20 / 60)]
    assert rows(trips) == [t + v for t, v in zip(times, VALUES[name], strict=True)]


def test_a_batch_and_encoded_columns_are_read_alike() -> None:
    table = pa.table(ROW)
    plain = to_canonical(table)
    encoded = pa.table({name: table.column(name).dictionary_encode() for name in ROW})
    views = table.cast(pa.schema([(name, pa.string_view()) for name in ROW]))
    chunks = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    for same in (table.to_batches()[0], encoded, views, chunks):
        assert to_canonical(same).equals(plain)


def test_canonical_trips_stay_as_they_are() -> None:
    trips = to_canonical(pa.table(MORE["fhvhv"]))
    assert to_canonical(trips).equals(trips)
    assert to_canonical(clean(trips, Rules())[0]).num_rows == 1
    assert to_canonical(SCHEMA.empty_table()).num_rows == 0


def test_no_trips_are_fine() -> None:
    empty = pa.table(ROW).slice(0, 0)
    trips = to_canonical(empty)
    kept, aside = clean(trips, Rules(month="2021-01", other_months=True, unknown_zones=True))
    assert kept.equals(SCHEMA.empty_table())
    assert sort(kept).num_rows == sum(aside.values()) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-01-01 10:00:00", "2021-01-01 10:00:00"),
        (" 2021-01-01T10:00:00 ", "2021-01-01 10:00:00"),
        ("2021-01-01 10:00:00.987654", "2021-01-01 10:00:00"),
        ("2020-02-29 23:59:59", "2020-02-29 23:59:59"),
        ("2021-02-30 00:00:00", None),
        ("2021-13-01 00:00:00", None),
        ("2021-01-01 24:00:00", None),
        ("2021-01-01 00:00:60", None),
        ("2021-01-01", None),
        ("01/01/2021 10:00", None),
        ("soon", None),
        ("", None),
        ("NULL", None),
    ],
)
def test_times_as_text(text: str, expected: str | None) -> None:
    table = pa.table(ROW | {"pickup_datetime": [text, PICKUP[1]]})
    first, second = to_canonical(table).column("pickup").to_pylist()
    assert first == (expected and datetime.fromisoformat(expected))
    assert second == datetime(2021, 1, 1, 11)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_fractions_of_a_second_are_cut_off(unit: str) -> None:
    stamps = pd.to_datetime(["2021-01-01 10:00:00.9", "2021-01-01 10:01:00.1"]).as_unit("ns")
    times = pa.array(stamps).cast(pa.timestamp(unit), safe=False)
    table = pa.table(ROW | {"pickup_datetime": times[:1], "dropoff_datetime": times[1:]}
                     | {"PULocationID": ["1"], "DOLocationID": ["2"]})  # fmt: skip
    assert rows(to_canonical(table), "pickup", "duration") == [(datetime(2021, 1, 1, 10), 1.0)]


def test_times_with_a_zone_and_without_one_are_no_pair() -> None:
    utc = pa.array([datetime(2021, 1, 1, 15)] * 2, pa.timestamp("us", "UTC"))
    wall = {f"{end}_datetime": utc.cast(pa.timestamp("us")) for end in ("pickup", "dropoff")}
    for mixed, other in (("pickup_datetime", "drop"), ("dropoff_datetime", "pick")):
        with pytest.raises(TripDurationError, match=f"{mixed}' .UTC.") as caught:
            to_canonical(pa.table(ROW | wall | {mixed: utc}))
        assert f"'{other}" in str(caught.value)


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("s", "UTC"), pa.timestamp("ms")])
def test_times_that_no_calendar_has_are_none(kind: pa.DataType) -> None:
    year = {"s": 31_556_952, "ms": 31_556_952_000}[kind.unit]
    times = pa.array([year, 9_000 * year, -3_000 * year, 2**62, -(2**62), None], kind)
    row = {name: (values * 3)[:6] for name, values in ROW.items()}
    both = {"pickup_datetime": times, "dropoff_datetime": times}
    pickups = to_canonical(pa.table(row | both)).column("pickup").to_pylist()
    assert [bool(pickup) for pickup in pickups] == [True, *[False] * 5]


def test_what_nobody_can_read_may_be_told_instead_of_raised() -> None:
    unread: dict[str, str] = {}
    odd = ROW | {"pickup_datetime": ["soon", "later"], "DOLocationID": ["", "NA"]}
    assert to_canonical(pa.table(odd), unread=unread).column("pickup").null_count == 2
    assert unread.pop("pickup_datetime").startswith("Nothing in the column 'pickup_datetime'")
    assert unread == {"dropoff_datetime": "", "PULocationID": ""}  # the other has no values


@pytest.mark.parametrize(
    ("name", "taxi", "other"),
    [
        ("tpep_pickup_datetime", "green", "yellow"),
        ("Lpep_dropoff_datetime", "yellow", "green"),
        ("hvfhs_license_num", "fhv", "fhvhv"),
    ],
)
def test_columns_of_another_taxi_are_refused(name: str, taxi: str, other: str) -> None:
    with pytest.raises(TripDurationError, match=f"set data.taxi to {other}") as caught:
        refuse_other_taxi(["PULocationID", name], taxi)
    assert repr(name) in str(caught.value)
    refuse_other_taxi(["PULocationID", name], other)
    refuse_other_taxi(list(ROW), taxi)


def test_times_with_a_zone_become_new_york_wall_time() -> None:
    utc = pa.array([datetime(2021, 1, 1, 15), datetime(2021, 7, 1, 14)]).cast(
        pa.timestamp("us", "UTC")
    )
    trips = to_canonical(pa.table(ROW | {"pickup_datetime": utc, "dropoff_datetime": utc}))
    assert rows(trips, "pickup", "duration") == [
        (datetime(2021, 1, 1, 10), 0.0),
        (datetime(2021, 7, 1, 10), 0.0),
    ]


@pytest.mark.parametrize(
    ("value", "zone"),
    [("0", None), ("-1", None), ("266", None), ("7.5", None), ("x", None), ("1", 1), ("265", 265)],
)
def test_only_zones_that_exist_are_zones(value: str, zone: int | None) -> None:
    trips = to_canonical(pa.table(ROW | {"PULocationID": [value, "75"]}))
    assert trips.column("pickup_zone").to_pylist() == [zone, 75]


def test_optional_values_that_make_no_sense_are_missing() -> None:
    table = pa.table(
        ROW
        | {
            "passenger_count": ["two", "2.5"],
            "trip_distance": ["far", "inf"],
            "RatecodeID": [1e6, 2.0],
            "VendorID": ["Uber", "6"],
            "trip_type": [True, False],
            "store_and_fwd_flag": [2, 1],
        }
    )
    found = rows(to_canonical(table), *SCHEMA.names[4:])
    assert found == [(None, None, None, None, None, None), (None, None, 6, 2, None, True)]


def test_a_negative_zero_leaves_no_trace() -> None:
    trips = to_canonical(pa.table(ROW | {"trip_distance": [-0.0, 0.0]}))
    assert np.signbit(trips.column("trip_distance").to_numpy()).tolist() == [False, False]


def test_coordinates_outside_and_unknown() -> None:
    seen = []

    def locate(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        seen.extend(zip(longitude, latitude, strict=True))
        return np.where(longitude < -75, 0, 12).astype(np.int16)

    places = [(-73.9, 40.7, 12), (-80, 40.7, 265), (0, 0, 264), (-73.9, 0, 264), (None, 40.7, 264)]
    longitude, latitude, expected = (list(values) for values in zip(*places, strict=True))
    times = {"pickup_datetime": PICKUP[:1] * 5, "dropoff_datetime": DROPOFF[:1] * 5}
    ends = {
        f"{end}_{axis}": values
        for end in ("pickup", "dropoff")
        for axis, values in (("longitude", longitude), ("latitude", latitude))
    }
    trips = to_canonical(pa.table(times | ends), locate)
    assert trips.column("pickup_zone").to_pylist() == expected
    assert trips.column("dropoff_zone").to_pylist() == expected
    assert seen == [(-73.9, 40.7), (-80, 40.7)] * 2


def without(*names: str) -> dict[str, Any]:
    return {name: values for name, values in ROW.items() if name not in names}


COORDINATES = {"Start_Lon": [-73.9] * 2, "Start_Lat": [40.7] * 2}
REFUSALS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no drop-off": (
        without("dropoff_datetime"),
        ["no drop-off time", "'pickup_datetime', 'PULocationID', 'DOLocationID'", "other months"],
    ),
    "a duration is no drop-off": (
        without("dropoff_datetime") | {"duration": [12.5, 1.0]},
        ["no drop-off time"],
    ),
    "no pickup": (without("pickup_datetime"), ["the pickup time", "'dropoff_datetime'"]),
    "no zones": (
        without("PULocationID", "DOLocationID"),
        ["the pickup zone (like 'PULocationID')", "the drop-off zone (like 'DOLocationID')"],
    ),
    "half a place": (
        without("PULocationID") | {"Start_Lon": [-73.9] * 2},
        ["the pickup coordinates ('pickup_latitude')", "'Start_Lon'"],
    ),
    "no columns": ({}, ["the pickup time", "no columns at all", "data.source"]),
    "coordinates without zones": (
        without("PULocationID") | COORDINATES,
        ["'Start_Lon' and 'Start_Lat'", "pickup zone", "data.zones"],
    ),
    "spelled alike": (
        ROW | {"PUlocationID ": [1, 2]},
        ["'PULocationID' and 'PUlocationID '", "pickup_zone", "rename or remove"],
    ),
    "two names": (
        ROW | {"tpep_pickup_datetime": PICKUP},
        ["'tpep_pickup_datetime' and 'pickup_datetime'"],
    ),
    "two vendors of one name": (ROW | {"VendorID": [1, 2], "vendorid": [1, 2]}, ["'vendorid'"]),
    "zones of text": (
        ROW | {"DOLocationID": ["Queens", "Bronx"]},
        ["'DOLocationID'", "'Queens'", "zone ids from 1 to 265"],
    ),
    "zones of another type": (
        ROW | {"DOLocationID": [[1], [2]]},
        ["'DOLocationID'", "list<", "zone ids from 1 to 265"],
    ),
    "times of text": (
        ROW | {"pickup_datetime": ["", "noon"]},
        ["'pickup_datetime'", "'noon'", "2021-01-31 23:59:59"],
    ),
    "times of numbers": (
        ROW | {"dropoff_datetime": [1, 2]},
        ["'dropoff_datetime'", "int64", "2021-01-31 23:59:59"],
    ),
    "coordinates of text": (
        without("PULocationID") | COORDINATES | {"Start_Lat": ["north", "south"]},
        ["'Start_Lat'", "'north'", "degrees"],
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_trips_is_refused(name: str) -> None:
    columns, words = REFUSALS[name]
    locate = None if name == "coordinates without zones" else seven_or_eight
    with pytest.raises(TripDurationError) as caught:
        to_canonical(pa.table(columns), locate)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_of_one_name_twice_is_refused() -> None:
    table = pa.table(ROW)
    twice = table.append_column("PULocationID", table.column("PULocationID"))
    with pytest.raises(TripDurationError, match="'PULocationID' and 'PULocationID'"):
        to_canonical(twice)


def test_wanted_leaves_out_what_trips_are_not_made_of() -> None:
    names = [*ROW, "fare_amount", "duration", "Trip_type ", "pickup_longitude", "ehail_fee"]
    assert wanted(names) == [*ROW, "Trip_type "]
    assert wanted(list(SCHEMA.names)) == SCHEMA.names
    with pytest.raises(TripDurationError, match="no drop-off time"):
        wanted(["Dispatching_base_num", "Pickup_date", "locationID"])


# Cleaning


def test_reasons_are_counted_once_and_the_first_counts() -> None:
    january, february = datetime(2021, 1, 5), datetime(2021, 2, 1)
    nothing_wrong = dict(zip(SCHEMA.names[:5], (january, 10.0, 74, 75, 1.0), strict=True))
    cases: list[tuple[str | None, dict[str, Any]]] = [
        (None, {}),
        (None, {"duration": 1.0}),
        (None, {"duration": 60.0, "trip_distance": None}),
        ("no_pickup_time", {"pickup": None, "duration": None}),
        ("no_dropoff_time", {"duration": None, "pickup_zone": 265}),
        ("negative_duration", {"duration": -1 / 60}),
        ("under_min_minutes", {"duration": 59 / 60, "pickup": february}),
        ("under_min_minutes", {"duration": 0.0}),
        ("over_max_minutes", {"duration": 3601 / 60}),
        ("other_month", {"pickup": february, "pickup_zone": 264}),
        ("other_month", {"pickup": datetime(2020, 12, 31, 23, 59, 59)}),
        (None, {"pickup": datetime(2021, 1, 31, 23, 59, 59)}),
        ("unknown_zone", {"pickup_zone": 264}),
        ("unknown_zone", {"dropoff_zone": 265, "trip_distance": 1e5}),
        ("unknown_zone", {"dropoff_zone": None}),
        ("over_max_distance", {"trip_distance": 60.5}),
        (None, {"trip_distance": 60.0}),
    ]
    trips = canonical(
        **{n: [(nothing_wrong | case)[n] for _, case in cases] for n in nothing_wrong}
    )
    rules = Rules(month="2021-01", other_months=True, unknown_zones=True, max_distance=60.0)
    kept, aside = clean(trips, rules)
    reasons = [reason for reason, _ in cases]
    assert aside == {r: reasons.count(r) for r in REASONS if r != "cut_record"}
    assert kept.schema == SCHEMA
    assert rows(kept) == [
        row for row, reason in zip(rows(trips), reasons, strict=True) if not reason
    ]


def test_by_default_only_the_course_s_filter_decides() -> None:
    trips = canonical(
        pickup=[datetime(2009, 1, 1)] * 3,
        duration=[1.0, 60.0, 60.1],
        pickup_zone=[264, None, 1],
        trip_distance=[1e6, -3.0, 1.0],
    )
    kept, aside = clean(trips, Rules(month="2021-01"))
    assert kept.num_rows == 2
    assert {reason: count for reason, count in aside.items() if count} == {"over_max_minutes": 1}
    assert clean(trips, Rules(min_minutes=60.0, max_minutes=61.0))[0].num_rows == 2


def course(path: Path) -> pd.DataFrame:
    """What the course's ``read_dataframe`` keeps, as it does it: slowly."""
    df = pd.read_parquet(path)
    df["duration"] = df.lpep_dropoff_datetime - df.lpep_pickup_datetime
    df["duration"] = df.duration.apply(lambda delta: delta.total_seconds() / 60)
    return df[(df.duration >= 1) & (df.duration <= 60)]


@pytest.mark.parametrize(
    ("month", "read", "kept"),
    [("2021-01", 73908, 73908), ("2021-02", 61921, 61921), ("2024-01", 56551, 54373)],
)
def test_real_months_are_kept_as_the_course_keeps_them(
    tlc: Path, month: str, read: int, kept: int
) -> None:
    path = tlc / f"green_tripdata_{month}.parquet"
    trips, aside = clean(to_canonical(pq.read_table(path)), Rules(month=month))
    assert (trips.num_rows, sum(aside.values())) == (kept, read - kept)
    oracle = course(path)
    assert trips.column("duration").to_numpy().tolist() == oracle.duration.tolist()
    zones = trips.column("pickup_zone").to_numpy()
    assert zones.tolist() == oracle.PULocationID.astype(int).tolist()
    assert trips.column("pickup").to_numpy().tolist() == (
        oracle.lpep_pickup_datetime.astype("datetime64[s]").to_numpy().tolist()
    )


MOMENTS = st.datetimes(datetime(2020, 12, 30), datetime(2021, 2, 2))
TRIPS = st.lists(
    st.fixed_dictionaries(
        {
            "pickup": st.none() | MOMENTS,
            "duration": st.none() | st.integers(-100, 5000).map(lambda seconds: seconds / 60),
            "pickup_zone": st.none() | st.integers(1, 265),
            "dropoff_zone": st.none() | st.integers(262, 265),
            "trip_distance": st.none() | st.sampled_from([-1.0, 0.0, 2.5, 80.0]),
            "passenger_count": st.none() | st.integers(0, 2),
        }
    ),
    max_size=30,
)
RULES = st.builds(
    partial(Rules, month="2021-01"),
    min_minutes=st.sampled_from([0.0, 1.0, 5.0]),
    max_minutes=st.sampled_from([10.0, 60.0]),
    other_months=st.booleans(),
    unknown_zones=st.booleans(),
    max_distance=st.sampled_from([None, 60.0]),
)
NAMES = ("pickup", "duration", "pickup_zone", "dropoff_zone", "trip_distance", "passenger_count")


def table_of(trips: list[dict[str, Any]]) -> pa.Table:
    return to_canonical(
        pa.table(
            {n: pa.array([t[n] for t in trips], SCHEMA.field(n).type, safe=False) for n in NAMES}
        )
    )


@settings(max_examples=60, deadline=None)
@given(TRIPS, RULES)
def test_each_trip_is_kept_or_counted_and_none_is_invented(trips: list, rules: Rules) -> None:
    table = table_of(trips)
    kept, aside = clean(table, rules)
    assert kept.num_rows + sum(aside.values()) == table.num_rows
    assert min(aside.values()) >= 0
    left = rows(table)
    for row in rows(kept):  # a subsequence: the same trips in the same order
        left = left[left.index(row) + 1 :]
    assert clean(kept, rules)[0].equals(kept)


@settings(max_examples=60, deadline=None)
@given(TRIPS, st.randoms(use_true_random=False))
def test_sorting_leaves_no_trace_of_the_order(trips: list, random: Any) -> None:
    table = table_of(trips)
    order = list(range(table.num_rows))
    random.shuffle(order)
    ordered = sort(table)
    assert sort(table.take(pa.array(order, pa.int64()))).equals(ordered)

    def key(row: tuple) -> list[tuple]:
        return [(value is None, value or 0) for value in row]

    assert rows(ordered) == sorted(rows(ordered), key=key)


NEAR = datetime(2021, 1, 15)
WIDE = st.one_of(
    st.sampled_from([datetime(2008, 12, 31, 23), datetime(2098, 9, 1), NEAR]),
    st.integers(0, 3).map(lambda second: NEAR.replace(second=second)),
    st.datetimes(datetime(2001, 1, 1), datetime(2098, 1, 1)).map(
        lambda moment: moment.replace(microsecond=0)
    ),
)
LENGTHS = st.one_of(
    st.integers(0, 3700).map(lambda seconds: seconds / 60),
    st.sampled_from([-2.0, 0.0, 10.0, 10.0 + 1e-12, 10.004, 68.25, 68.5, 1e4, 1e300, float("inf")]),
)
FULL = st.fixed_dictionaries(
    {
        "pickup": WIDE,
        "duration": LENGTHS,
        "pickup_zone": st.none() | st.integers(1, 3),
        "dropoff_zone": st.none() | st.integers(264, 265),
        "trip_distance": st.none() | st.sampled_from([-1.0, 0.0, 2.5]),
        "passenger_count": st.none() | st.integers(0, 1),
        "vendor": st.none() | st.integers(1, 2),
        "rate_code": st.none() | st.integers(1, 2),
        "trip_type": st.none() | st.integers(1, 2),
        "store_and_forward": st.none() | st.booleans(),
    }
)


def full(trips: list[dict[str, Any]], cut: int = 0) -> pa.Table:
    """Trips as they are given, in two chunks."""
    table = pa.table({f.name: pa.array([t[f.name] for t in trips], f.type) for f in SCHEMA})
    return pa.concat_tables([table.slice(0, cut), table.slice(cut)])


@settings(max_examples=200, deadline=None)
@given(st.lists(FULL, max_size=40), st.integers(0, 40))
def test_the_fast_order_is_the_slow_one(trips: list, cut: int) -> None:
    table = full(trips, min(cut, len(trips)))
    assert sort(table).equals(sort_slow(table))


@pytest.mark.parametrize("name", ["pickup", "duration"])
def test_trips_that_miss_what_the_keys_are_made_of_are_ordered_too(name: str) -> None:
    trip = dict.fromkeys(SCHEMA.names) | {"pickup": NEAR, "duration": 9.0}
    trips = [trip | {name: None}, trip, trip | {"vendor": 1}]
    assert [row[SCHEMA.get_field_index(name)] for row in rows(sort(full(trips)))][2] is None
    assert sort(full(trips)).equals(sort_slow(full(trips)))


def test_a_duration_that_is_no_number_is_ordered_as_arrow_does() -> None:
    trip = dict.fromkeys(SCHEMA.names) | {"pickup": NEAR}
    table = full([trip | {"duration": value} for value in (float("nan"), 2.0, 1.0)])
    assert sort(table).column("duration").to_pylist()[:2] == [1.0, 2.0]


def test_a_month_of_many_trips_is_ordered_as_arrow_does() -> None:
    random = np.random.default_rng(3)
    count = 150_000  # more than are turned into keys at a time, and with many that tie
    start = np.datetime64("2021-01-31", "s").astype(np.int64)
    columns = {
        "pickup": pa.array(start + random.integers(0, 500, count)).cast(pa.timestamp("s")),
        "duration": random.integers(60, 90, count) / 60,
        "pickup_zone": random.integers(1, 9, count).astype(np.int16),
        "dropoff_zone": random.integers(1, 9, count).astype(np.int16),
    }
    columns |= {f.name: pa.nulls(count, f.type) for f in SCHEMA if f.name not in columns}
    table = pa.table(columns)
    assert sort(table).equals(sort_slow(table))


def test_whole_numbers_are_read_alike_however_they_are_typed() -> None:
    values: list[int | None] = [1, 265, 300, -4, None, 7]
    times = {"pickup_datetime": PICKUP[:1] * 6, "dropoff_datetime": DROPOFF[:1] * 6}
    found = [
        to_canonical(
            pa.table(
                times
                | {"PULocationID": pa.array(values, kind), "DOLocationID": pa.array([5] * 6, kind)}
                | {"VendorID": pa.array(values, kind), "passenger_count": pa.array(values, kind)}
            )
        )
        for kind in (pa.int16(), pa.int32(), pa.int64(), pa.float64(), pa.decimal128(9, 2))
    ]
    assert all(trips.equals(found[0]) for trips in found)
    assert found[0].column("pickup_zone").to_pylist() == [1, 265, None, None, None, 7]
    assert found[0].column("vendor").to_pylist() == [1, 265, 300, None, None, 7]
    assert found[0].column("passenger_count").to_pylist() == values


def test_a_month_is_read_without_being_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    path = tmp_path / "month.parquet"
    part = pa.table({"trip_distance": rng.random(1 << 17)})
    with pq.ParquetWriter(path, part.schema, use_dictionary=False) as writer:
        for _ in range(48):
            writer.write_table(part)
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() for _ in read_parts(path)]
    assert max(held) - before < path.stat().st_size / 2
