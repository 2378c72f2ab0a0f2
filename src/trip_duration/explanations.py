"""Why the model says what it says: the minutes that each feature adds to a prediction.

They are the exact SHAP values of the booster's trees, as XGBoost computes them (``pred_contribs``):
S. Lundberg, G. Erion, S.-I. Lee, "Consistent Individualized Feature Attribution for Tree
Ensembles", 2018, algorithm 2. What a tree would say without a feature is the mean over the training
trips that came by each branch, so the minutes of a trip add up to its prediction, from a base that
is the mean over the training trips.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trip_duration.errors import TripDurationError
from trip_duration.features import CATALOGUE
from trip_duration.prediction import fits
from trip_duration.trips import SCHEMA

if TYPE_CHECKING:
    import xgboost as xgb

    from trip_duration.features import FeatureBuilder

__all__ = [
    "GROUPS",
    "SAMPLE",
    "Explanation",
    "Part",
    "contributions",
    "explain",
    "importance",
    "sample",
]

# SHAP values are dear: about 12 ms of a core for each trip and hundred trees of depth 11. From 200
# trips the mean of a feature is known to about a tenth of itself.
SAMPLE = 200

GROUPS: dict[str, tuple[str, ...]] = {
    "where": (
        *("PU_DO", "pickup_zone", "dropoff_zone"),
        *("pickup_x", "pickup_y", "dropoff_x", "dropoff_y"),
        *("pickup_across", "pickup_along", "dropoff_across", "dropoff_along"),
        *("middle_x", "middle_y", "across", "along", "bearing", "straight_miles", "grid_miles"),
        *("pickup_distance", "dropoff_distance", "pair_distance"),
        *("pickup_minutes", "dropoff_minutes", "pair_minutes"),
        *("pickup_residual", "dropoff_residual", "pair_residual"),
    ),
    "when": (
        *("time_of_day", "hour", "weekday", "hour_of_week", "hour_sin", "hour_cos"),
        *("weekend", "holiday", "date", "hour_residual"),
    ),
    "distance": (
        *("trip_distance", "distance", "distance_odd", "distance_ratio", "detour", "extra_miles"),
    ),
    "meter and driver": (
        *("passenger_count", "vendor", "rate_code", "trip_type", "store_and_forward"),
    ),
}
"""Features that say the same thing in several ways, under one name for people; a feature that is
in none stands for itself."""

_GROUP = {name: group for group, names in GROUPS.items() for name in names}
_CELLS = 1 << 22  # of XGBoost's answer that are held at once, 16 MiB
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Part:
    """Minutes that one thing adds to a prediction, or takes from it.

    Attributes
    ----------
    name : str
        A feature, a group of `GROUPS`, or ``"5 others"``.
    value : str
        What it was for this trip, in words and with its unit.
    minutes : float
        What it adds.
    """

    name: str
    value: str
    minutes: float


@dataclass(frozen=True)
class Explanation:
    """Why a trip is predicted to take as long as it is.

    Attributes
    ----------
    minutes : float
        The prediction, as `prediction.predict_minutes` gives it.
    base : float
        What is said of a trip of which nothing is known: the mean over the training trips.
    groups, columns : tuple of Part
        The minutes by group and by single feature, the largest first. Each of the two adds up,
        with the base, to the prediction.
    """

    minutes: float
    base: float
    groups: tuple[Part, ...]
    columns: tuple[Part, ...]


def contributions(
    features: pa.Table, booster: "xgb.Booster", builder: "FeatureBuilder"
) -> np.ndarray:
    """Split predictions into the minutes that each feature adds.

    Parameters
    ----------
    features : pyarrow.Table
        What ``builder.transform`` gave.
    booster : xgboost.Booster
        The model. As in `prediction.predict_features`, its best round is its last one, and its
        ``level`` multiplies all minutes.
    builder : FeatureBuilder
        The features it was fitted on.

    Returns
    -------
    ndarray of float64, shape (rows, features + 1)
        Minutes, in the order of ``builder.features``, and last the base, the same for all rows. A
        one-hot feature has the sum over its columns. A row adds up to its prediction before that
        is kept from falling below 0, to float32's rounding: about 1e-5 minutes.

    Raises
    ------
    TripDurationError
        If the booster was fitted on other features.
    """
    import xgboost as xgb

    columns = builder.columns
    if not fits(booster, columns):
        raise TripDurationError(
            "The model was fitted on other columns than these features give "
            f"({booster.num_features()} and {len(columns)} of them): the two files are of "
            "different runs; run `make train`."
        )
    owner = np.array([name.partition("=")[0] for name in columns])
    of_feature = [np.flatnonzero(owner == name) for name in builder.features]
    best = booster.attr("best_iteration")
    rounds = (0, int(best) + 1) if best is not None else (0, 0)
    X = builder.matrix(features)
    made = np.empty((features.num_rows, len(of_feature) + 1))
    # XGBoost answers with a dense row, of 13,000 columns where zone pairs are one-hot.
    block = max(1, _CELLS // (len(columns) + 1))
    for start in range(0, len(made), block):
        part = slice(start, start + block)
        matrix = xgb.DMatrix(X[part], feature_types=builder.feature_types, enable_categorical=True)
        found = booster.predict(
            matrix, pred_contribs=True, iteration_range=rounds, validate_features=False
        )
        for place, own in enumerate(of_feature):
            made[part, place] = found[:, own].sum(axis=1, dtype=np.float64)
        made[part, -1] = found[:, -1]
    return made * float(booster.attr("level") or 1.0)


def sample(rows: int, size: int = SAMPLE, seed: int = 42) -> np.ndarray:
    """Draw different rows, the same for the same arguments.

    Parameters
    ----------
    rows : int
        How many there are.
    size : int
        How many to draw; all, where there are no more.
    seed : int
        Draws them.

    Returns
    -------
    ndarray of int64, shape (min(size, rows),)
        Rows in rising order, from 0.
    """
    drawn = np.random.default_rng(seed % 2**64).choice(rows, min(size, rows), replace=False)
    return np.sort(drawn).astype(np.int64)


def importance(contributions: np.ndarray, names: Sequence[str]) -> pa.Table:
    """How much each feature moves predictions, the most important first.

    Parameters
    ----------
    contributions : array of shape (rows, features + 1)
        As the function of this name gives them; at least one row.
    names : sequence of str
        The features: ``builder.features``.

    Returns
    -------
    pyarrow.Table
        ``feature``; ``minutes``, the mean of what it adds or takes, without the sign; ``mean``,
        the same with the sign. Both rounded to 6 decimals; features that are alike by name.
    """
    minutes = contributions[:, : len(names)]
    size = np.abs(minutes).mean(axis=0).round(6)
    order = sorted(range(len(names)), key=lambda place: (-size[place], names[place]))
    return pa.table(
        {
            "feature": pa.array([names[place] for place in order], pa.string()),
            "minutes": size[order],
            "mean": minutes.mean(axis=0).round(6)[order] + 0.0,  # + 0.0: no negative zero
        }
    )


def explain(
    trip: Mapping[str, Any],
    booster: "xgb.Booster",
    builder: "FeatureBuilder",
    *,
    zones: Mapping[int, str] | None = None,
    largest: int = 8,
) -> Explanation:
    """Say why a trip is predicted to take as long as it is.

    Parameters
    ----------
    trip : mapping
        Canonical columns (`trips.SCHEMA`) and their values: the pickup as a `datetime`, the two
        zones, and what else is known.
    booster : xgboost.Booster
        The model.
    builder : FeatureBuilder
        The features it was fitted on.
    zones : mapping of int to str, optional
        The zones' names, for the words.
    largest : int
        Features that are listed one by one; the others are put together.

    Raises
    ------
    TripDurationError
        If a column that must be there is missing, or the booster was fitted on other features.
    """
    kinds = {name: SCHEMA.field(name).type for name in trip}
    row = pa.table({name: pa.array([value], kinds[name]) for name, value in trip.items()})
    *added, base = contributions(builder.transform(row), booster, builder)[0].tolist()
    [values] = builder.feature_dicts(row)
    columns = [
        Part(name, _words(name, values[name]), minutes)
        for name, minutes in zip(builder.features, added, strict=True)
    ]
    sums: dict[str, float] = {}
    for part in columns:
        group = _GROUP.get(part.name, part.name)
        sums[group] = sums.get(group, 0.0) + part.minutes
    said = {part.name: part.value for part in columns} | _group_words(trip, zones or {})
    groups = [Part(group, said[group], minutes) for group, minutes in sums.items()]
    total = base + sum(added)
    floor = [Part("no trip takes less than 0 minutes", "", -total)] if total < 0 else []
    return Explanation(
        minutes=max(total, 0.0),
        base=base,
        groups=(*_ordered(groups, largest), *floor),
        columns=(*_ordered(columns, largest), *floor),
    )


def _ordered(parts: Iterable[Part], largest: int) -> list[Part]:
    """The largest first, and what is left after ``largest`` of them as one."""
    parts = sorted(parts, key=lambda part: (-abs(part.minutes), part.name))
    others = parts[largest:]
    if len(others) < 2:
        return parts
    together = Part(f"{len(others)} others", "", math.fsum(part.minutes for part in others))
    return [*parts[:largest], together]


# Words


def _group_words(trip: Mapping[str, Any], zones: Mapping[int, str]) -> dict[str, str]:
    """What the trip was, by group."""
    ends = [_zone_words(trip.get(f"{end}_zone"), zones) for end in ("pickup", "dropoff")]
    pickup: datetime | None = trip.get("pickup")
    miles = trip.get("trip_distance")
    others = [(name, trip.get(name)) for name in GROUPS["meter and driver"]]
    given = [f"{name} {value}" for name, value in others if value is not None]
    return {
        "where": f"from {ends[0]} to {ends[1]}",
        "when": "not given" if pickup is None else _time_words(pickup),
        "distance": "not given" if miles is None else f"{_short(miles)} miles as metered",
        "meter and driver": ", ".join(given) or "not given",
    }


def _time_words(time: datetime) -> str:
    return f"{_DAYS[time.weekday()]} {time.date()}, {_clock(time.hour, time.minute)}"


def _zone_words(zone: int | None, zones: Mapping[int, str]) -> str:
    if zone is None:
        return "a zone not given"
    return f"{zone} {zones[zone]}" if zone in zones else f"zone {zone}"


def _clock(hour: int, minute: int) -> str:
    return f"{hour}:{minute:02d}"


def _short(value: float) -> str:
    return f"{round(value, 2) + 0.0:g}" if abs(value) < 1e6 else f"{value:.3g}"


# Features whose value is no plain quantity.
_SAID: dict[str, Callable[[float], str]] = {
    "time_of_day": lambda value: _clock(*divmod(round(value * 60), 60)),
    "hour": lambda value: _clock(int(value), 0),
    "weekday": lambda value: _DAYS[int(value)],
    "hour_of_week": lambda value: f"{_DAYS[int(value) // 24]} {_clock(int(value) % 24, 0)}",
    "date": lambda value: str(date(1970, 1, 1) + timedelta(days=int(value))),
    "distance_ratio": lambda value: f"{_short(value)} times the pair's",
    "detour": lambda value: f"{_short(value)} times the straight line",
    "bearing": lambda value: f"{value:.0f} degrees",
}


def _words(name: str, value: float | str) -> str:
    """A feature's value in words; its unit is the one that `CATALOGUE` names."""
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return "missing"
    if name in _SAID:
        return _SAID[name](value)
    meaning = CATALOGUE.get(name, "")
    if meaning.startswith(("1 on", "1 where")):
        return "yes" if value else "no"
    if meaning.startswith("log of"):
        return f"{abs(math.expm1(value)):.0%} {'slower' if value >= 0 else 'faster'} than usual"
    unit = next((unit for unit in ("miles", "minutes") if meaning.startswith(unit)), "")
    if " on axes turned" in meaning:  # of a coordinate
        unit = "miles"
    return f"{_short(value)} {unit}".rstrip()
