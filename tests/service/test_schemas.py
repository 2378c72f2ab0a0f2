"""Bodies: what a trip may be, and what is said of one that is none."""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.service.conftest import TRIP, bodies, drawn

from service.schemas import MOST_PROBLEMS, InvalidBodyError, Trip, read

PATTERN = Trip.model_json_schema()["properties"]["pickup"]["pattern"]


def pickup_of(text: object) -> str:
    """The pickup that a body's is read as, by the clocks of New York."""
    seconds = read(orjson.dumps(TRIP | {"pickup": text}), 1).arrays["pickup"]
    return str(seconds.astype("datetime64[s]")[0])


def problems(body: object, most: int = 10) -> list[tuple[list[str | int], str]]:
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    with pytest.raises(InvalidBodyError) as caught:
        read(text, most)
    return [(problem.loc, problem.msg) for problem in caught.value.problems.detail]


def test_a_list_becomes_arrays_and_back() -> None:
    trips = drawn(100)
    found = read(orjson.dumps(bodies(trips)), 100)
    assert found.listed
    assert len(found) == 100
    for name, values in trips.items():
        np.testing.assert_array_equal(found.arrays[name], values)
        assert found.arrays[name].dtype == values.dtype


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        ("2024-04-05T08:30:00", "2024-04-05T08:30:00"),
        ("2024-04-05 08:30", "2024-04-05T08:30:00"),
        ("2024-04-05T08:30:59.999999", "2024-04-05T08:30:59"),
        ("2024-02-29T00:00", "2024-02-29T00:00:00"),
        ("2024-04-05T12:30:00Z", "2024-04-05T08:30:00"),  # summer: four hours
        ("2024-01-05T12:30:00Z", "2024-01-05T07:30:00"),  # winter: five
        ("2024-04-05T23:30:00+09:00", "2024-04-05T10:30:00"),
        ("2024-11-03T06:30:00Z", "2024-11-03T01:30:00"),  # the hour that comes twice
        ("2000-01-01T00:00:00+14:00", "1999-12-31T05:00:00"),
    ],
)
def test_pickups_are_new_yorks_wall_times(given: str, read_as: str) -> None:
    assert pickup_of(given) == read_as


@given(
    time=st.datetimes(datetime(2000, 1, 2), datetime(2099, 12, 31)),
    kind=st.sampled_from(["seconds", "minutes", "microseconds"]),
    offset=st.none() | st.integers(-14 * 4, 14 * 4),
)
def test_every_iso_time_of_the_century_is_read(
    time: datetime, kind: str, offset: int | None
) -> None:
    text = time.isoformat(timespec=kind)
    if offset is not None:
        text += f"{'-' if offset < 0 else '+'}{abs(offset) // 4:02}:{abs(offset) % 4 * 15:02}"
    assert re.fullmatch(PATTERN, text)
    found = datetime.fromisoformat(pickup_of(text))
    if offset is None:
        assert found == time.replace(microsecond=0, second=time.second * (kind != "minutes"))
    else:
        behind = time - timedelta(minutes=15 * offset) - found
        assert timedelta(hours=4) <= behind < timedelta(hours=5, minutes=1)


@given(st.from_regex(PATTERN, fullmatch=True))
def test_what_the_schema_allows_is_a_time(text: str) -> None:
    assert datetime.fromisoformat(text).replace(tzinfo=UTC)
    pickup_of(text)


@pytest.mark.parametrize(
    "text",
    [
        *("2024-02-30T08:30", "2023-02-29T08:30", "2100-01-01T00:00", "1999-12-31T23:59"),
        *("2024-04-05", "08:30", "2024-04-05T24:00", "2024-04-05T08:60", "2024-04-05T08"),
        *("2024-04-05T08:30+15:00", "2024-04-05T08:30 ", "2024-04-05t08:30", "", "now"),
        *("٢٠٢٤-04-05T08:30", "2024-04-05T08:30\n", "1712305800", 1712305800, True, None, [], {}),
    ],
)
def test_what_is_no_time_is_refused(text: object) -> None:
    [(place, said)] = problems(TRIP | {"pickup": text})
    assert place == ["body", "pickup"]
    assert "like 2024-04-05T08:30:00" in said


@pytest.mark.parametrize("zone", [1, 264, 265, 74.0])
def test_all_zones_exist(zone: float) -> None:
    found = read(orjson.dumps(TRIP | {"pickup_zone": zone}), 1).arrays["pickup_zone"]
    assert found.tolist() == [zone]


@pytest.mark.parametrize("zone", [0, 266, -1, 1.5, 1e300, 2**70, "74", True, None, [], {}])
def test_other_zones_do_not(zone: object) -> None:
    body = orjson.dumps(TRIP).replace(b'"dropoff_zone":41', b'"dropoff_zone":' + _json(zone))
    [(place, _)] = problems(body)
    assert place == ["body", "dropoff_zone"]


def _json(value: object) -> bytes:
    return str(value).encode() if type(value) is int else orjson.dumps(value)


@pytest.mark.parametrize(
    ("miles", "read_as"), [(0, 0.0), (1.1, 1.1), (1e308, 1e308), (None, np.nan), (10**30, 1e30)]
)
def test_distances_are_numbers_from_0(miles: object, read_as: float) -> None:
    body = orjson.dumps(TRIP).replace(b"1.1}", _json(miles) + b"}")
    np.testing.assert_array_equal(read(body, 1).arrays["trip_distance"], [read_as])


@pytest.mark.parametrize("miles", [-0.1, "1.1", True, [], {}])
def test_other_distances_are_refused(miles: object) -> None:
    assert [place for place, _ in problems(TRIP | {"trip_distance": miles})] == [
        ["body", "trip_distance"]
    ]


def test_a_problem_names_the_trip_and_the_field() -> None:
    unknown = {name: value for name, value in TRIP.items() if name != "pickup"} | {"fare": 12.5}
    assert problems([TRIP, unknown, 3]) == [
        (["body", 1, "pickup"], "Field required"),
        (["body", 1, "fare"], "Extra inputs are not permitted"),
        (["body", 2], "Input should be a trip: an object with its fields"),
    ]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 100_000, b'{"pickup":NaN}', b"\xff", b'{"trip_distance":1e999}', b"{}x"],
)
def test_what_is_no_json_is_said_to_be_none(body: bytes) -> None:
    [(place, said)] = problems(body)
    assert place[0] == "body"
    assert said.startswith("The body is no JSON: ")


@pytest.mark.parametrize("body", [3, "trip", None, True, 1.5])
def test_what_is_no_trip_is_said_to_be_none(body: object) -> None:
    assert problems(body) == [(["body"], "Input should be a trip: an object with its fields")]


def test_of_many_problems_the_first_are_listed() -> None:
    assert len(problems([{}] * 10)) == MOST_PROBLEMS


def test_a_list_may_be_too_long_or_empty() -> None:
    assert problems([TRIP] * 11) == [
        (["body"], "The list holds 11 trips: expected at most 10"),
    ]
    assert len(read(orjson.dumps([TRIP] * 10), 10)) == 10
    empty = read(b"[]", 10)
    assert empty.listed
    assert len(empty) == 0
