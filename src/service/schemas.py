"""What the service takes and gives, and how a request's body becomes trips.

The bodies are read by orjson and checked by pydantic here, not by FastAPI: a body is one trip or a
list of them, and an error in it should name the field and the trip, not both ways to read it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import numpy as np
import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

__all__ = [
    "EXAMPLE",
    "Columns",
    "InvalidBodyError",
    "Prediction",
    "Problem",
    "Problems",
    "Readiness",
    "Refusal",
    "Trip",
    "iso",
    "read",
]

EXAMPLE: dict[str, str | int | float] = {
    "pickup": "2024-05-03T08:30:00",
    "pickup_zone": 74,
    "dropoff_zone": 42,
    "trip_distance": 1.9,
}
MOST_PROBLEMS = 20  # that a refusal lists

# The days that exist from 2000 to 2099, so that the schema holds for no time that is then refused.
_DAY = (
    "20[0-9]{2}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    "|20(?:[02468][048]|[13579][26])-02-29"
)
_TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,6})?)?"
_OFFSET = "Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9]"
_PICKUP = f"^(?:{_DAY})[T ]{_TIME}(?:{_OFFSET})?$"
_IS_PICKUP = re.compile(_PICKUP).fullmatch
_EPOCH = datetime(1970, 1, 1)


@cache
def _new_york() -> ZoneInfo:
    return ZoneInfo("America/New_York")


def _seconds(value: Any) -> int:
    """A pickup as seconds since 1970 by the clocks of New York."""
    if not isinstance(value, str) or not _IS_PICKUP(value):
        raise PydanticCustomError(
            "pickup",
            "Input should be a time of the years 2000 to 2099 as text, like 2024-04-05T08:30:00 "
            "(by the clocks of New York) or 2024-04-05T12:30:00Z",
        )
    time = datetime.fromisoformat(value)
    if time.tzinfo is not None:
        time = time.astimezone(_new_york()).replace(tzinfo=None)
    between = time - _EPOCH
    return between.days * 86400 + between.seconds


def _whole(value: Any) -> Any:
    """74.0 is 74: JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Pickup = Annotated[
    int,
    PlainValidator(_seconds),
    WithJsonSchema({"type": "string", "pattern": _PICKUP, "examples": [EXAMPLE["pickup"]]}),
]
Zone = Annotated[int, Field(ge=1, le=265, strict=True), BeforeValidator(_whole)]
Miles = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class Trip(BaseModel):
    """A trip as it is known when it is asked about."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [dict(EXAMPLE)]}
    )

    pickup: Pickup = Field(
        description="When it begins: an ISO time of the years 2000 to 2099. Without an offset by "
        "the clocks of New York; with one, or with Z, it is converted to them."
    )
    pickup_zone: Zone = Field(description="TLC's id of the zone it begins in; 264: unknown.")
    dropoff_zone: Zone = Field(description="TLC's id of the zone it ends in; 264: unknown.")
    trip_distance: Miles | None = Field(
        default=None,
        description="Miles driven, where they are known; a model of the preset `metered` is less "
        "certain without, which its interval does not know.",
    )


class Prediction(BaseModel):
    """How long a trip will take."""

    minutes: float = Field(ge=0, description="The prediction.")
    lower: float = Field(ge=0, description="The lower end of its interval, in minutes.")
    upper: float = Field(ge=0, description="The upper end of its interval, in minutes.")
    model_version: str = Field(description="What the model that said so is called.")

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "examples": [{"minutes": 12.6, "lower": 8.1, "upper": 19.4, "model_version": "7"}]
        },
    )


class Problem(BaseModel):
    """One thing that is wrong with a body."""

    type: str = Field(description="Its kind, in pydantic's words.")
    loc: list[str | int] = Field(
        description="Where: `body`, then the trip's place in a list, then the field."
    )
    msg: str = Field(description="What was expected, in a sentence.")


class Problems(BaseModel):
    """What is wrong with a body; of many things the first ones."""

    detail: list[Problem]


class Refusal(BaseModel):
    """Why a request was not answered."""

    detail: str


class Readiness(BaseModel):
    """Which model answers, and since when."""

    model_version: str
    since: str = Field(description="When it began to answer: an ISO time, UTC.")
    digest: str = Field(description="The first digits of the SHA-256 of its files.")
    taxi: str
    preset: str
    train_months: list[str] = Field(description="What it learned from.")
    level: float = Field(description="The share of trips that their interval should hold.")
    uses_distance: bool = Field(description="Whether trip_distance changes what it says.")
    max_trips: int = Field(description="How many trips a request to /predict may list.")
    trouble: str | None = Field(
        description="Why a newer model does not answer or is not known; null if all is well."
    )

    model_config = ConfigDict(protected_namespaces=())


@dataclass(frozen=True)
class Columns:
    """Trips as arrays.

    Attributes
    ----------
    arrays : dict of str to array of shape (trips,)
        As `FeatureBuilder.rows` takes them.
    listed : bool
        Whether they came as a list.
    """

    arrays: dict[str, np.ndarray]
    listed: bool

    def __len__(self) -> int:
        return len(self.arrays["pickup"])


class InvalidBodyError(Exception):
    """A body that holds no trips: ``problems`` says why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems[0].msg)
        self.problems = Problems(detail=list(problems))


_TRIP, _TRIPS = TypeAdapter(Trip), TypeAdapter(list[Trip])


def read(body: bytes, most: int) -> Columns:
    """Read the trips of a request's body.

    Parameters
    ----------
    body : bytes
        JSON: a trip, or a list of trips.
    most : int
        How many trips a list may hold.

    Returns
    -------
    Columns

    Raises
    ------
    InvalidBodyError
        If it holds anything else.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        place: list[str | int] = ["body", error.pos]
        message = f"The body is no JSON: {error.msg}"
        raise InvalidBodyError([Problem(type="json_invalid", loc=place, msg=message)]) from None
    listed = isinstance(found, list)
    if listed and len(found) > most:
        message = f"The list holds {len(found)} trips: expected at most {most}"
        raise InvalidBodyError([Problem(type="too_long", loc=["body"], msg=message)])
    try:
        trips = _TRIPS.validate_python(found) if listed else [_TRIP.validate_python(found)]
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidBodyError(
            [
                Problem(type=one["type"], loc=["body", *one["loc"]], msg=_said(one["msg"]))
                for one in problems[:MOST_PROBLEMS]
            ]
        ) from None
    return Columns(_arrays(trips), listed)


def _said(message: str) -> str:
    expected = "Input should be a valid dictionary or instance of Trip"
    return "Input should be a trip: an object with its fields" if message == expected else message


def _arrays(trips: Sequence[Trip]) -> dict[str, np.ndarray]:
    miles = [np.nan if trip.trip_distance is None else trip.trip_distance for trip in trips]
    return {
        "pickup": np.array([trip.pickup for trip in trips], np.int64),
        "pickup_zone": np.array([trip.pickup_zone for trip in trips], np.int32),
        "dropoff_zone": np.array([trip.dropoff_zone for trip in trips], np.int32),
        "trip_distance": np.array(miles, np.float64),
    }


def iso(time: float) -> str:
    """Seconds since 1970 as an ISO time, UTC."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
