"""What the model sees of a trip: one-hot columns like the course's, or native columns for XGBoost.

Almost everything a feature says is a lookup: by the minute of the week, by the day, by the zones.
So a feature is a table and a key, a `FeatureBuilder` is a set of tables, and a million trips become
features in a few passes of numpy. What the tables know of the target was learned from the training
months alone, and a training trip reads tables that were learned without it and its whole fold.

The statistics are sums of whole multiples of 2**-20, which floating point adds without error: the
order of the trips, the size of the batches and another processor's last bit leave no trace.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import numpy as np
import pyarrow as pa

from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.geometry import PairDistances, learned
from trip_duration.trips import SCHEMA, Rules, clean, read_parts, to_canonical

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction import DictVectorizer

    Month: TypeAlias = (
        Callable[[], Iterable[pa.Table | pa.RecordBatch]] | pa.Table | str | PathLike[str]
    )

__all__ = [
    "CATALOGUE",
    "PRESETS",
    "FeatureBuilder",
    "add_features",
    "add_features_slow",
    "check",
    "read_dataframe",
]

ZONES = 266  # zone ids 1 to 265; 0 is a zone that is missing or does not exist
PAIRS = ZONES * ZONES
CLOCKS = 48  # the hours of a working day, then those of a weekend or holiday
WEEK = 7 * 24 * 60  # minutes
CODES = 100_000  # a category is a whole number below this (vendors go to B99999), or missing: -1
MAX_MILES = 60.0  # meters that say this or more, or 0 or less, are wrong: see `distance`
TURN = math.radians(29)  # Manhattan's avenues run 29 degrees east of north
LARGEST = 3e38  # XGBoost's numbers, which are float32, end there; what is larger is missing
NEAR = 0.3  # miles added to the straight line that the driven distance is divided by
FORMAT = 2  # of `FeatureBuilder.to_json`

# Trips of an average kind that are mixed into each mean, so that rare cells say little: round
# numbers, not tuned.
_ZONE_WEIGHT, _PAIR_WEIGHT, _CLOCK_WEIGHT = 10.0, 5.0, 20.0
_GRID = 2.0**20
_BLOCK = 1 << 14  # rows that are worked on at once: their columns fit a processor's cache

_Key = Literal["minute", "day", "clock", "pickup", "dropoff", "pair", "row"]
_SIZES: dict[_Key, int] = {
    "minute": WEEK,
    "clock": CLOCKS,
    "pickup": ZONES,
    "dropoff": ZONES,
    "pair": PAIRS,
}


@dataclass(frozen=True)
class _Feature:
    """A feature's key, whether it is a whole number that may be one-hot, and what it says."""

    key: _Key
    whole: bool
    meaning: str


_FEATURES = {
    "PU_DO": _Feature("pair", True, "pickup and drop-off zone as one word, like 74_265"),
    "pickup_zone": _Feature("pickup", True, "TLC's zone id, 1 to 265"),
    "dropoff_zone": _Feature("dropoff", True, "TLC's zone id, 1 to 265"),
    "time_of_day": _Feature("minute", False, "hour with minutes, 0 to 24"),
    "hour": _Feature("minute", True, "0 to 23"),
    "weekday": _Feature("minute", True, "0 Monday to 6 Sunday"),
    "hour_of_week": _Feature("minute", True, "0 Monday 0:00 to 167 Sunday 23:00"),
    "hour_sin": _Feature("minute", False, "sine of the time of day, once around in 24 hours"),
    "hour_cos": _Feature("minute", False, "cosine of the time of day"),
    "weekend": _Feature("minute", True, "1 on Saturday and Sunday"),
    "holiday": _Feature("day", True, "1 on the days that US federal holidays are observed"),
    "trip_distance": _Feature("row", False, "miles as the meter gave them, dirt included"),
    "distance": _Feature("row", False, "miles driven; missing where the meter is wrong"),
    "distance_odd": _Feature("row", True, "1 where the meter is wrong: 0 miles or less, or 60 up"),
    "distance_ratio": _Feature("row", False, "miles driven over those typical of the zone pair"),
    "passenger_count": _Feature("row", True, "as the driver keyed it in"),
    "vendor": _Feature("row", True, "the number in TLC's id of who recorded the trip"),
    "rate_code": _Feature("row", True, "TLC's id of the fare's rate"),
    "trip_type": _Feature("row", True, "1 hailed on the street, 2 dispatched"),
    "store_and_forward": _Feature("row", True, "1 where the record was sent later"),
    "date": _Feature("day", True, "days since 1970: after training it says that it is late"),
    "pickup_x": _Feature("pickup", False, "miles of the zone's middle east of the city's"),
    "pickup_y": _Feature("pickup", False, "miles of the zone's middle north of the city's"),
    "dropoff_x": _Feature("dropoff", False, "miles of the zone's middle east of the city's"),
    "dropoff_y": _Feature("dropoff", False, "miles of the zone's middle north of the city's"),
    "pickup_across": _Feature("pickup", False, "pickup_x on axes turned like Manhattan's streets"),
    "pickup_along": _Feature("pickup", False, "pickup_y on axes turned like Manhattan's avenues"),
    "dropoff_across": _Feature("dropoff", False, "dropoff_x on axes turned like the streets"),
    "dropoff_along": _Feature("dropoff", False, "dropoff_y on axes turned like the avenues"),
    "middle_x": _Feature("pair", False, "miles east, halfway between the zones"),
    "middle_y": _Feature("pair", False, "miles north, halfway between the zones"),
    "across": _Feature("pair", False, "miles from zone to zone along the streets"),
    "along": _Feature("pair", False, "miles from zone to zone along the avenues"),
    "bearing": _Feature("pair", False, "direction from zone to zone, degrees from east, to 180"),
    "straight_miles": _Feature("pair", False, "miles between the zones as the crow flies"),
    "grid_miles": _Feature("pair", False, "miles between the zones by streets and avenues"),
    "detour": _Feature("row", False, "miles driven over the straight miles and 0.3 more"),
    "extra_miles": _Feature("row", False, "miles driven less the straight miles"),
    "pickup_distance": _Feature("pickup", False, "miles typical of trips from the zone"),
    "dropoff_distance": _Feature("dropoff", False, "miles typical of trips to the zone"),
    "pair_distance": _Feature("pair", False, "miles typical of the zone pair"),
    "pickup_minutes": _Feature("pickup", False, "minutes typical of trips from the zone"),
    "dropoff_minutes": _Feature("dropoff", False, "minutes typical of trips to the zone"),
    "pair_minutes": _Feature("pair", False, "minutes typical of the zone pair"),
    "pickup_residual": _Feature("pickup", False, "log of how slow trips from the zone are"),
    "dropoff_residual": _Feature("dropoff", False, "log of how slow trips to the zone are"),
    "pair_residual": _Feature("pair", False, "log of how slow trips of the zone pair are"),
    "hour_residual": _Feature("clock", False, "log of how slow the hour is, by kind of day"),
}
CATALOGUE = {name: feature.meaning for name, feature in _FEATURES.items()}
"""What each feature says; typical means the geometric mean over the training trips, and slow means
longer than a trip of its distance takes on average. Where the zones are comes from a map, or is
learned from the training trips' distances (`trip_duration.geometry`)."""

_TIME = ["time_of_day", "weekday", "hour_of_week", "hour_sin", "hour_cos", "weekend", "holiday"]

_PLACES = [
    *("pickup_x", "pickup_y", "dropoff_x", "dropoff_y"),
    *("pickup_across", "pickup_along", "dropoff_across", "dropoff_along"),
    *("middle_x", "middle_y", "across", "along", "bearing", "straight_miles", "grid_miles"),
]
_GEOMETRY = frozenset([*_PLACES, "detour", "extra_miles"])
_DRIVEN = frozenset(
    ["trip_distance", "distance", "distance_odd", "distance_ratio", "detour", "extra_miles"]
)

# Zones themselves and encodings of the target are in neither preset: once the model knows where the
# zones are they no longer help, and on months that nobody has seen they hurt (docs/accuracy.md).
PRESETS: dict[str, tuple[list[str], list[str]]] = {
    "course": (["PU_DO"], ["trip_distance"]),
    "metered": (
        [],
        [
            *_TIME,
            *("distance", "distance_odd", "detour", "extra_miles"),
            *_PLACES,
            *("passenger_count", "vendor", "rate_code", "trip_type", "store_and_forward"),
        ],
    ),
    # When a ride is booked, its time and its zones are known, and what earlier trips were like.
    # The meter, the rate and how the record was sent are not; nor is the vendor, since the cab has
    # not been chosen; nor trip_type and passenger_count, which the driver keys in at the pickup.
    "booking": ([], [*_TIME, *_PLACES, "pair_distance"]),
}
"""Categorical and numerical columns of each preset."""
_NATIVE = ("metered", "booking")

_ENCODED = {  # feature: the kind of statistic behind it
    f"{end}_{kind}": kind
    for kind in ("distance", "minutes", "residual")
    for end in ("pickup", "dropoff", "pair")
} | {"hour_residual": "residual"}

_TLC_NAMES = {
    "pulocationid": "pickup_zone",
    "dolocationid": "dropoff_zone",
    "vendorid": "vendor",
    "ratecodeid": "rate_code",
    "store_and_fwd_flag": "store_and_forward",
}
_LEAKS = {
    "duration": "it is the answer itself",
    "dropoff": "with the pickup time it gives the answer",
    "fare_amount": "the meter counts time, so the fare tells the answer",
    "total_amount": "the meter counts time, so the total tells the answer",
    "tip_amount": "it is paid after the trip and grows with the fare",
    "tolls_amount": "it is known only after the trip",
    "payment_type": "it is known only after the trip",
}


# Reading


def read_dataframe(
    path: str | PathLike[str], *, min_minutes: float = 1.0, max_minutes: float = 60.0
) -> "pd.DataFrame":
    """Read a file of trips as clean canonical trips, like the course's function of this name.

    Parameters
    ----------
    path : str or Path
        Any of TLC's monthly files, Parquet or CSV, whose trips have zones, or a canonical month.
    min_minutes, max_minutes : float
        The shortest and the longest trip that is kept, both included.

    Returns
    -------
    pandas.DataFrame
        The columns of `trip_duration.trips.SCHEMA` and ``PU_DO``, like ``"74_265"`` (a missing zone
        is ``-1`` there), in the file's order. Whole numbers have pandas' nullable types, so that a
        zone stays 74 in a column with gaps.

    Raises
    ------
    SourceError
        If there is no such file, or it cannot be read.
    TripDurationError
        If no trip can be made from the file's columns.
    """
    import pandas as pd

    from trip_duration.sources.files import read_batches

    rules = Rules(min_minutes=min_minutes, max_minutes=max_minutes)
    parts = [clean(to_canonical(batch), rules)[0] for batch in read_batches(Path(path))]
    trips = pa.concat_tables([SCHEMA.empty_table(), *parts])
    block = _Block(_read(trips, ["pickup_zone", "dropoff_zone"]).arrays)
    codes, rows = np.unique(block.pair, return_inverse=True)
    words = pa.array(_words("PU_DO", codes), pa.string())
    trips = trips.append_column("PU_DO", words.take(pa.array(rows)))
    nullable = {
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    return trips.to_pandas(types_mapper=nullable.get)


@dataclass(frozen=True)
class _Trips:
    """Columns of trips as `_read` makes them."""

    arrays: dict[str, np.ndarray]
    rows: int

    @cached_property
    def blocks(self) -> "list[tuple[slice, _Block]]":
        """The trips block by block, each with the rows that it holds."""
        parts = [slice(i, min(i + _BLOCK, self.rows)) for i in range(0, self.rows, _BLOCK)]
        return [(part, _Block({n: a[part] for n, a in self.arrays.items()})) for part in parts]


def _read(trips: "_Trips | pa.Table | pd.DataFrame", names: Iterable[str]) -> _Trips:
    """Columns as plain arrays.

    Zones are int32 with 0 for what is no zone, the pickup time is int64 seconds since 1970, and
    all else is float64 with NaN for what is missing, of optional columns that are not there too.
    """
    if isinstance(trips, _Trips):
        return trips
    arrays = {}
    for name in names:
        column = _column(trips, name)
        if column is not None:
            arrays[name] = _array(name, column)
        elif name not in ("pickup", "duration", "pickup_zone", "dropoff_zone"):
            arrays[name] = np.full(len(trips), np.nan)
        else:
            found = ", ".join(str(c) for c in _names(trips)) or "none"
            raise TripDurationError(
                f"The trips have no column {name!r}: found {found}; give canonical trips, as "
                "read_dataframe does."
            )
    return _Trips(arrays, len(trips))


def _names(trips: "pa.Table | pd.DataFrame") -> list[str]:
    return trips.column_names if isinstance(trips, pa.Table) else list(trips.columns)


def _column(trips: "pa.Table | pd.DataFrame", name: str) -> pa.ChunkedArray | None:
    if name not in _names(trips):
        return None
    if isinstance(trips, pa.Table):
        return trips.column(name)
    try:
        column = pa.Array.from_pandas(trips[name])
    except pa.ArrowException as error:
        raise TripDurationError(
            f"The column {name!r} cannot be used: found values of different kinds "
            f"({str(error).splitlines()[0].rstrip('.')}), expected one kind; convert it."
        ) from None
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def _array(name: str, column: pa.ChunkedArray) -> np.ndarray:
    if name == "pickup":
        return _seconds(column)
    if name in ("pickup_zone", "dropoff_zone"):
        column = _cast(name, column, pa.int32(), "zone ids from 1 to 265")
        ids = _numpy(column.fill_null(0) if column.null_count else column)
        exist = not len(ids) or (ids.min() >= 0 and ids.max() < ZONES)
        return ids if exist else np.where((ids > 0) & (ids < ZONES), ids, np.int32(0))
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return _numpy(_cast(name, column, pa.float64(), "numbers"))


def _cast(name: str, column: pa.ChunkedArray, kind: pa.DataType, expected: str) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        raise TripDurationError(
            f"The column {name!r} cannot be used: found values of type {column.type} "
            f"({str(error).splitlines()[0].rstrip('.')}), expected {expected}."
        ) from None


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    """The values, without a copy where there is one chunk and nothing is missing."""
    if column.num_chunks == 1:
        return column.chunk(0).to_numpy(zero_copy_only=False)
    return column.to_numpy()


def _seconds(column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    expected = "New York wall times without a time zone, like 2021-01-31 23:59:59"
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        raise TripDurationError(
            f"The column 'pickup' has the time zone {kind.tz}: expected {expected}; convert it."
        )
    if pa.types.is_timestamp(kind):
        times = column.cast(pa.timestamp("s"), safe=False)
    else:
        times = _cast("pickup", column, pa.timestamp("s"), expected)
    if times.null_count:
        raise TripDurationError(
            f"The column 'pickup' is empty in {times.null_count} of {len(times)} trips: expected "
            f"{expected}; remove those trips."
        )
    return _numpy(times.cast(pa.int64()))


# Keys and values of a block of trips


# The years 2 to 9998, which pandas' calendar can reckon with; both days are ordinary ones.
_FIRST_DAY, _LAST_DAY = (
    int(np.datetime64(day).astype(np.int64)) for day in ("0002-01-02", "9998-12-30")
)


@lru_cache(maxsize=1024)
def _holidays_of(year: int) -> tuple[int, ...]:
    """Days since 1970 on which the year's federal holidays are observed."""
    from pandas.tseries.holiday import USFederalHolidayCalendar

    days = USFederalHolidayCalendar().holidays(f"{year:04d}-01-01", f"{year:04d}-12-31")
    return tuple(days.to_numpy().astype("datetime64[D]").astype(np.int64).tolist())


def _are_holidays(days: np.ndarray) -> np.ndarray:
    """Whether each day, as days since 1970 (int32), is a federal holiday."""
    if not len(days):
        return np.zeros(0, bool)
    first, last = int(days.min()), int(days.max())
    if first < _FIRST_DAY or last > _LAST_DAY:  # no calendar reaches there
        return _are_holidays(np.clip(days, _FIRST_DAY, _LAST_DAY))
    present = np.array([first, last])
    table = np.zeros(last - first + 1, bool)
    if len(table) > 365:  # else the two ends' years are all there are
        table[days - first] = True
        present = first + np.flatnonzero(table)
        table[:] = False
    for year in np.unique(present.astype("datetime64[D]").astype("datetime64[Y]")).tolist():
        observed = np.array(_holidays_of(year.year), np.int64) - first
        table[observed[(observed >= 0) & (observed < len(table))]] = True
    return table.take(days - first) if table.any() else np.zeros(len(days), bool)


def _week_tables() -> dict[str, np.ndarray]:
    """What the minute of the week says. Sine and cosine are rounded: see the module's notes."""
    minute = np.arange(WEEK)
    day = minute // 1440
    hours = minute % 1440 / 60
    return {
        "time_of_day": hours,
        "hour": np.floor(hours),
        "weekday": day.astype(np.float64),
        "hour_of_week": np.floor(minute / 60),
        "hour_sin": np.round(np.sin(hours * (math.pi / 12)), 6) + 0.0,
        "hour_cos": np.round(np.cos(hours * (math.pi / 12)), 6) + 0.0,
        "weekend": (day >= 5).astype(np.float64),
    }


_WEEK_TABLES = _week_tables()
_CLOCK = (_WEEK_TABLES["hour"] + 24 * _WEEK_TABLES["weekend"]).astype(np.int32)
_ZONE_TABLE = np.concatenate([[np.nan], np.arange(1.0, ZONES)])


class _Block:
    """Some trips, what tables are looked up by, and the features that need no statistics."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    @cached_property
    def day(self) -> np.ndarray:  # since 1970-01-01
        return (self.arrays["pickup"] // 86400).astype(np.int32)

    @cached_property
    def minute(self) -> np.ndarray:
        of_day = (self.arrays["pickup"] - self.day * np.int64(86400)).astype(np.int32) // 60
        return (self.day + 3) % 7 * 1440 + of_day  # 1970-01-01 was a Thursday

    @cached_property
    def holiday(self) -> np.ndarray:
        return _are_holidays(self.day)

    @cached_property
    def clock(self) -> np.ndarray:
        clock = _CLOCK.take(self.minute)
        return np.where(self.holiday & (clock < 24), clock + 24, clock)

    @property
    def pickup(self) -> np.ndarray:
        return self.arrays["pickup_zone"]

    @property
    def dropoff(self) -> np.ndarray:
        return self.arrays["dropoff_zone"]

    @cached_property
    def pair(self) -> np.ndarray:
        return self.pickup * np.int32(ZONES) + self.dropoff

    @cached_property
    def metered(self) -> np.ndarray:
        miles = self.arrays["trip_distance"]
        return (miles > 0) & (miles < MAX_MILES)

    def value(self, name: str) -> np.ndarray:
        """A feature as float64, NaN where it is missing."""
        if name == "holiday":
            return self.holiday.astype(np.float64)
        if name == "date":
            return self.day.astype(np.float64)
        if name in ("pickup_zone", "dropoff_zone"):
            return _ZONE_TABLE.take(self.arrays[name])
        if name in _WEEK_TABLES:
            return _WEEK_TABLES[name].take(self.minute)
        if name == "distance":
            return np.where(self.metered, self.arrays["trip_distance"], np.nan)
        if name == "distance_odd":
            return (~self.metered).astype(np.float64)
        values = self.arrays[name]
        held = np.abs(values) < LARGEST
        return values if held.all() else np.where(held, values, np.nan)

    def code(self, name: str) -> np.ndarray:
        """A feature as a category: a whole number below `CODES`, -1 where it is missing."""
        if name == "PU_DO":
            return self.pair
        value = self.value(name)
        fits = (value >= 0) & (value < CODES)
        return np.where(fits, value, -1).astype(np.int32)


def _words(name: str, codes: np.ndarray) -> list[str]:
    """Categories as the words that `DictVectorizer` sees."""
    if name != "PU_DO":
        return [str(code) for code in codes.tolist()]
    zones = ["-1", *(str(zone) for zone in range(1, ZONES))]
    ends = (part.tolist() for part in np.divmod(codes, ZONES))
    return [f"{zones[pickup]}_{zones[dropoff]}" for pickup, dropoff in zip(*ends, strict=True)]


def _columns_read(names: Iterable[str]) -> list[str]:
    """The columns of trips that these features are made of."""
    zones = ["pickup_zone", "dropoff_zone"]
    by_key = {"pickup": zones[:1], "dropoff": zones[1:], "pair": zones}
    own = {
        "distance": ["trip_distance"],
        "distance_odd": ["trip_distance"],
        "distance_ratio": ["trip_distance", *zones],
        "detour": ["trip_distance", *zones],
        "extra_miles": ["trip_distance", *zones],
    }
    read: list[str] = []
    for name in names:
        key = _FEATURES[name].key
        read += own.get(name, [name]) if key == "row" else by_key.get(key, ["pickup"])
    return list(dict.fromkeys(read))


def _columns_learned(names: Iterable[str]) -> list[str]:
    """The columns of training trips that `FeatureBuilder.fit` reads for these features."""
    names = list(names)
    learned = [name for name in names if name in _ENCODED or name == "distance_ratio"]
    statistics = ["pickup", "pickup_zone", "dropoff_zone", "trip_distance", "duration"]
    places = ["pickup_zone", "dropoff_zone", "trip_distance"] if _GEOMETRY & set(names) else []
    read = [*(statistics if learned else []), *places, *_columns_read(names)]
    return list(dict.fromkeys(read))


# Statistics of the training months


@dataclass(frozen=True)
class _Folds:
    """Draws the fold of each training trip from the seed, its month and its row there."""

    count: int
    seed: int
    month: int
    first_row: int = 0

    @cached_property
    def _start(self) -> int:
        state = np.random.SeedSequence([self.seed % 2**64, self.month]).generate_state(1)
        return int(state[0]) + self.first_row

    def draw(self, rows: slice) -> np.ndarray:
        """The folds, 0 to count - 1, of the rows that follow the first row so far.

        The hash is lowbias32 of C. Wellons' Hash Prospector (nullprogram.com, 2018, public domain).
        """
        word = np.arange(rows.stop - rows.start, dtype=np.uint32)
        word += np.uint32((self._start + rows.start) % 2**32)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
            word ^= word >> np.uint32(shift)
            word *= np.uint32(factor)
        return (word * (self.count / 2**32)).astype(np.int64)  # exact: a product below 2**53


@dataclass(frozen=True)
class _Encodings:
    """Tables of what was learned of the target; of training trips, one for each fold in a row."""

    tables: dict[str, np.ndarray]
    where: dict[str, np.ndarray]  # of `_where`: nothing in them was learned from the target
    folds: _Folds | None = None

    def value(self, name: str, block: _Block, fold: np.ndarray | None) -> np.ndarray:
        """A feature as float64, NaN where it is missing."""
        if name == "distance_ratio":
            typical = self.value("pair_distance", block, fold)
            return block.value("distance") / np.where(typical > 0, typical, np.nan)
        if name == "detour":
            return block.value("distance") / (self.value("straight_miles", block, fold) + NEAR)
        if name == "extra_miles":
            return block.value("distance") - self.value("straight_miles", block, fold)
        if name in self.where:
            return self.where[name].take(getattr(block, _FEATURES[name].key))
        if name not in _ENCODED:
            return block.value(name)
        cell = getattr(block, _FEATURES[name].key)
        if self.folds is not None:
            cell = cell * np.int64(self.folds.count) + fold
        return self.tables[name].take(cell)


def _where(places: np.ndarray) -> dict[str, np.ndarray]:
    """Tables of what the zones' places say, by zone and by pair, in miles and degrees.

    Sines, roots and angles are rounded: see the module's notes.

    Parameters
    ----------
    places : array of shape (ZONES, 2)
        Miles east and north by zone; NaN for a zone whose place is not known.
    """
    x, y = places.T
    across = x * math.cos(TURN) - y * math.sin(TURN)
    along = x * math.sin(TURN) + y * math.cos(TURN)

    def between(axis: np.ndarray) -> np.ndarray:
        return (axis - axis[:, None]).ravel()  # from the pickup, which is the row

    dx, dy, streets, avenues = (between(axis) for axis in (x, y, across, along))
    tables = {
        "middle_x": ((x + x[:, None]) / 2).ravel(),
        "middle_y": ((y + y[:, None]) / 2).ravel(),
        "across": streets,
        "along": avenues,
        "bearing": np.degrees(np.arctan2(dy, dx)),
        "straight_miles": np.hypot(dx, dy),
        "grid_miles": np.abs(streets) + np.abs(avenues),
    }
    for end in ("pickup", "dropoff"):
        tables |= {f"{end}_x": x, f"{end}_y": y}
        tables |= {f"{end}_across": across, f"{end}_along": along}
    return {name: np.round(table, 4) + 0.0 for name, table in tables.items()}


def _grid(values: np.ndarray) -> np.ndarray:
    """Round to multiples of 2**-20, whose sums are exact below 2**33."""
    return np.rint(values * _GRID) / _GRID


class _Sums:
    """Sums over the training trips, by fold and cell, for the kinds of statistics asked for."""

    def __init__(self, kinds: Iterable[str], folds: int) -> None:
        self._kinds = set(kinds)
        self._folds = folds
        self._sums: dict[str, np.ndarray] = {}

    def add(self, block: _Block, fold: np.ndarray) -> None:
        """Count a block of trips in."""
        log_minutes = _grid(np.log(np.maximum(block.arrays["duration"], 1 / 60)))
        if "minutes" in self._kinds:
            self._count("all", "pair", block, fold, n=1.0, y=log_minutes)
        if self._kinds & {"distance", "residual"}:
            # Trips without a distance go to one more fold, which nobody reads.
            fold = np.where(block.metered, fold, self._folds)
            log_miles = _grid(np.log(np.where(block.metered, block.arrays["trip_distance"], 1.0)))
            sums: dict[str, Any] = {"n": 1.0, "x": log_miles}
            if "residual" in self._kinds:
                sums["y"] = log_minutes
                squares = {"xx": _grid(log_miles**2), "xy": _grid(log_miles * log_minutes)}
                self._count("clock", "clock", block, fold, **sums, **squares)
            self._count("pair", "pair", block, fold, **sums)

    def _count(
        self, name: str, key: _Key, block: _Block, fold: np.ndarray, **weights: np.ndarray | float
    ) -> None:
        # A cell's folds lie side by side, so that a zone pair takes one line of the cache.
        cell = getattr(block, key) * np.int64(self._folds + 1) + fold
        for axis, weight in weights.items():
            place = f"{name}_{axis}"
            if place not in self._sums:
                self._sums[place] = np.zeros((self._folds + 1) * _SIZES[key])
            np.add.at(self._sums[place], cell, weight)

    def seen(self, name: str) -> np.ndarray:
        """The cells that any training trip was in."""
        return np.flatnonzero(self._sums[f"{name}_n"].reshape(-1, self._folds + 1).any(axis=1))

    def without_fold(self, name: str, cells: np.ndarray | None = None) -> np.ndarray:
        """A sum over all folds but the row's, and in the last row over all; (folds + 1, cells)."""
        sums = self._sums[name].reshape(-1, self._folds + 1)
        sums = (sums if cells is None else sums[cells])[:, : self._folds].T
        total = sums.sum(axis=0)
        return np.concatenate([total - sums, total[None]])


def _mean(total: np.ndarray, count: np.ndarray, prior: np.ndarray, weight: float) -> np.ndarray:
    """The mean with ``weight`` trips that are like the prior mixed in."""
    return (total + weight * prior) / (count + weight)


def _learned(sums: _Sums, kinds: Iterable[str]) -> dict[str, np.ndarray]:
    """Tables of shape (folds + 1, cells): row k is learned without fold k, the last from all."""
    tables: dict[str, np.ndarray] = {}
    sources = {"minutes": ("all", "y"), "distance": ("pair", "x"), "residual": ("pair", "y")}
    with np.errstate(invalid="ignore", divide="ignore"):  # a mean of no trips is missing: NaN
        for kind in sorted(kinds):
            source, axis = sources[kind]
            pairs = sums.seen(source)
            count = sums.without_fold(f"{source}_n", pairs)
            total = sums.without_fold(f"{source}_{axis}", pairs)
            if kind == "residual":
                slope, level = _line(sums)
                total = total - level * count - slope * sums.without_fold("pair_x", pairs)
                hours = sums.without_fold("clock_n")
                slow = sums.without_fold("clock_y") - slope * sums.without_fold("clock_x")
                mean = _mean(slow - level * hours, hours, level * 0.0, _CLOCK_WEIGHT)
                tables["hour_residual"] = np.round(mean, 6) + 0.0
            tables |= _by_zones(kind, pairs, count, total)
    return tables


def _line(sums: _Sums) -> tuple[np.ndarray, np.ndarray]:
    """Slope and level of the line log minutes = level + slope * log miles, by least squares.

    Both have the shape (folds + 1, 1).
    """
    n, x, y, xx, xy = (
        sums.without_fold(f"clock_{axis}").sum(axis=1, keepdims=True)
        for axis in ("n", "x", "y", "xx", "xy")
    )
    spread = xx / n - (x / n) ** 2
    slope = (xy / n - x * y / n**2) / spread
    slope = np.where(spread > 1e-9, slope, 0.0)  # all trips equally far: the mean alone
    return slope, y / n - slope * x / n


def _by_zones(
    kind: str, pairs: np.ndarray, count: np.ndarray, total: np.ndarray
) -> dict[str, np.ndarray]:
    """Means of the pickup zone, the drop-off zone and the pair, each falling back on the last.

    A zone falls back on the mean of all trips, a pair on the middle between its two zones. Means
    of logarithms (of miles, of minutes) are given as what they are logarithms of.

    Parameters
    ----------
    kind : {"distance", "minutes", "residual"}
        What the means are of.
    pairs : array of shape (pairs,)
        The pairs that occur. The tables hold no others but in their last row, which serves.
    count, total : arrays of shape (folds + 1, pairs)
        Trips, and the sum over them.
    """
    logs = kind != "residual"
    overall = total.sum(axis=1, keepdims=True) / count.sum(axis=1, keepdims=True)
    if not logs:  # zero but for rounding, and NaN where there are no trips
        overall = overall * 0.0
    ends = np.divmod(pairs, ZONES)
    zones = []
    for end in ends:
        n, t = (
            np.stack([np.bincount(end, row, minlength=ZONES) for row in table])
            for table in (count, total)
        )
        mean = _mean(t, n, overall, _ZONE_WEIGHT)
        zones.append(np.round(np.exp(mean) if logs else mean, 6) + 0.0)
    table = np.full((len(count), PAIRS), np.nan)
    table[-1] = _middle(kind, zones[0][-1][:, None], zones[1][-1]).ravel()
    prior = _middle(kind, zones[0][:, ends[0]], zones[1][:, ends[1]])
    mean = _mean(total, count, np.log(prior) if logs else prior, _PAIR_WEIGHT)
    table[:, pairs] = np.where(count > 0, np.round(np.exp(mean) if logs else mean, 6) + 0.0, prior)
    return {f"pickup_{kind}": zones[0], f"dropoff_{kind}": zones[1], f"pair_{kind}": table}


def _middle(kind: str, pickup: np.ndarray, dropoff: np.ndarray) -> np.ndarray:
    """What is said of pairs that no training trip had, from what is said of their zones."""
    middle = (pickup + dropoff) / 2 if kind == "residual" else np.sqrt(np.abs(pickup * dropoff))
    return np.round(middle, 6) + 0.0


# Checking what was asked for


def _refuse(name: object, key: str) -> NoReturn:
    text = str(name)
    lower = text.strip().lower()
    leak = "dropoff" if lower.endswith(("dropoff_datetime", "dropoff_time")) else lower
    if leak in _LEAKS:
        raise SettingsError(
            f"{key} names {text!r}, which leaks the answer: {_LEAKS[leak]}; remove it."
        )
    known = [_TLC_NAMES[lower]] if lower in _TLC_NAMES else []
    near = [*known, *difflib.get_close_matches(lower, _FEATURES, n=5, cutoff=0.6)]
    listed = list(dict.fromkeys([*near, *_FEATURES]))
    raise SettingsError(
        f"{key} names {text!r}, which is no feature: expected one of {', '.join(listed)}."
    )


def _checked(
    preset: str,
    categorical: Sequence[str] | None,
    numerical: Sequence[str] | None,
    trend: bool = False,
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The preset and its categorical and numerical columns."""
    if not categorical and not numerical:
        if preset in PRESETS:
            late = ["date"] if trend else []
            return preset, tuple(PRESETS[preset][0]), (*PRESETS[preset][1], *late)
        if preset == "custom":
            raise SettingsError(
                "features.categorical and features.numerical are both empty: with features.preset "
                "custom, name at least one column, like features.categorical=[PU_DO]."
            )
        raise SettingsError(
            f"features.preset is {preset!r}: expected {', '.join(PRESETS)}, or custom with columns "
            "of your own under features.categorical and features.numerical."
        )
    chosen: dict[str, tuple[str, ...]] = {}
    for key, names in (("categorical", categorical), ("numerical", numerical)):
        if isinstance(names, str):
            raise SettingsError(f"features.{key} is {names!r}: expected a list, like [{names}].")
        chosen[key] = tuple(names or ())
        for name in chosen[key]:
            if name not in _FEATURES:
                _refuse(name, f"features.{key}")
    for name in chosen["categorical"]:
        if not _FEATURES[name].whole:
            raise SettingsError(
                f"features.categorical names {name!r}, which is measured and has no categories: "
                "move it to features.numerical."
            )
    if "PU_DO" in chosen["numerical"]:
        raise SettingsError(
            "features.numerical names 'PU_DO', which is a word: move it to features.categorical."
        )
    every = chosen["categorical"] + chosen["numerical"]
    for name in every:
        if every.count(name) > 1:
            raise SettingsError(
                f"features.categorical and features.numerical name {name!r} more than once: "
                "name it once."
            )
    return "custom", chosen["categorical"], chosen["numerical"]


def check(categorical: Sequence[str], numerical: Sequence[str]) -> None:
    """Refuse columns of one's own that do not exist, do not fit or leak the answer.

    Raises
    ------
    SettingsError
        One sentence that names the setting.
    """
    _checked("custom", categorical, numerical)


# The builder


class FeatureBuilder:
    """Features as they were fitted on the training months; make one with `fit` or `from_json`.

    The presets ``metered`` and ``booking`` are native: float32 columns, zones as category codes.
    All else is one-hot like the course's: `transform` gives a compact code for each category, and
    `matrix` expands the codes to the columns of a `DictVectorizer`.

    Attributes
    ----------
    preset : str
        ``course``, ``metered``, ``booking``, or ``custom`` where columns were named.
    categorical, numerical : tuple of str
        The features, by name.
    seed, folds : int
        What the folds of the training trips were drawn from, and how many there are.
    places : numpy.ndarray of shape (266, 2) or None
        Miles east and north by zone id, NaN where not known; None where no feature needs them.
    """

    preset: str
    categorical: tuple[str, ...]
    numerical: tuple[str, ...]
    seed: int
    folds: int
    places: np.ndarray | None
    _levels: dict[str, np.ndarray]  # categories of each one-hot feature, in rising order
    _served: dict[str, np.ndarray]  # tables of shape (cells,), learned from all training trips
    _held_out: dict[str, np.ndarray] | None  # (cells * folds,), each learned without a fold

    @classmethod
    def fit(
        cls,
        months: "Month | Sequence[Month]",
        *,
        preset: str = "course",
        categorical: Sequence[str] | None = None,
        numerical: Sequence[str] | None = None,
        seed: int = 42,
        folds: int = 5,
        places: np.ndarray | None = None,
        trend: bool = False,
    ) -> "FeatureBuilder":
        """Learn from the training months, in one pass and in memory that does not grow with them.

        Parameters
        ----------
        months : sequence of callable, path or pyarrow.Table, or one of them
            Canonical trips of each month: a callable gives an iterable of tables or batches, and
            a path is a canonical Parquet file. `transform_training` counts months in this order.
        preset : {"course", "metered", "booking", "custom"}
            Which features. Ignored where columns are named.
        categorical, numerical : sequence of str, optional
            Names of `CATALOGUE`: columns that are one-hot, and columns that are taken as they are.
        seed : int
            Draws the folds.
        folds : int
            Parts of the training trips; a trip's encodings come from the parts it is not in.
        places : array of shape (266, 2), optional
            Miles east and north by zone id, as `trip_duration.geometry.projected` makes them of a
            map. Without, they are learned from the training trips' distances.
        trend : bool
            Add the ``date`` to the preset's columns.

        Returns
        -------
        FeatureBuilder

        Raises
        ------
        SettingsError
            If a name is unknown, cannot be used that way, or leaks the answer.
        TripDurationError
            If there are no trips, or they lack a column.
        """
        if not 2 <= folds <= 50:
            raise SettingsError(f"features.folds is {folds}: expected 2 to 50.")
        builder = cls()
        builder.preset, builder.categorical, builder.numerical = _checked(
            preset, categorical, numerical, trend
        )
        builder.seed, builder.folds = int(seed), int(folds)

        kinds = {_ENCODED[name] for name in builder._encoded}
        sums = _Sums(kinds, folds)
        onehot = {} if builder.native else dict.fromkeys(builder.categorical)
        present = {name: np.zeros(CODES + 1, bool) for name in onehot}
        located = [name for name in builder.features if name in _GEOMETRY]
        driven = PairDistances() if located and places is None else None
        learning = [*builder._encoded, *onehot, *(located if driven else [])]
        needed = list(dict.fromkeys(["duration", *_columns_learned(learning)]))
        rows = 0
        for month, parts in enumerate(_sources(months)):
            first = 0
            for part in _tables(parts, needed):
                trips = _read(part, needed)
                if not np.isfinite(trips.arrays["duration"].sum()):
                    raise TripDurationError(
                        "The column 'duration' has training trips whose minutes are missing or "
                        "infinite: expected a finite number in each; remove those trips."
                    )
                drawn = _Folds(folds, builder.seed, month, first)
                for held, block in trips.blocks:
                    if kinds:
                        sums.add(block, drawn.draw(held))
                    if driven:
                        driven.add(block.pickup, block.dropoff, block.arrays["trip_distance"])
                    for name, seen in present.items():
                        seen[block.code(name)] = True  # -1, missing, is the last place
                first += trips.rows
            rows += first
        if not rows:
            raise TripDurationError(
                "The training months have no trips, so there is nothing to learn features from: "
                "look at what was set aside in metrics/ingest.json, or name other months in "
                "data.train."
            )
        if driven:
            places = learned(*driven.medians())
        builder.places = _placed(places) if located else None
        builder._levels = {name: _codes_present(seen) for name, seen in present.items()}
        tables = _learned(sums, kinds) if kinds else {}
        # Which sign a NaN has depends on the processor; `from_json` makes them all alike too.
        tables = {name: np.where(np.isnan(t), np.nan, t) for name, t in tables.items()}
        builder._served = {name: table[-1] for name, table in tables.items()}
        builder._held_out = {name: table[:-1].T.ravel() for name, table in tables.items()}
        return builder

    # What it makes

    @property
    def native(self) -> bool:
        """Whether zones are category codes in a dense matrix, and nothing is one-hot."""
        return self.preset in _NATIVE

    @property
    def features(self) -> list[str]:
        """The columns of what `transform` gives, less ``day`` and ``duration``."""
        return [*self.categorical, *self.numerical]

    @property
    def schema(self) -> pa.Schema:
        """The schema of what `transform` gives for trips that have a duration."""
        answer = [pa.field("day", pa.date32()), pa.field("duration", pa.float64())]
        return pa.schema([*self._fields, *answer])

    @property
    def columns(self) -> list[str]:
        """The names of the columns of `matrix`: of `features`, or one for each category."""
        if self.native:
            return self.features
        return [column for name in self._in_order for column in self._expanded(name)]

    @property
    def feature_types(self) -> list[str]:
        """XGBoost's type of each column of `matrix`: ``c`` for category codes, else ``q``."""
        if self.native:
            return ["c"] * len(self.categorical) + ["q"] * len(self.numerical)
        return ["q"] * len(self.columns)

    def transform(self, trips: "pa.Table | pd.DataFrame") -> pa.Table:
        """Make the features that one would serve; no row depends on the others.

        Parameters
        ----------
        trips : pyarrow.Table or pandas.DataFrame
            Canonical trips; columns that no feature reads may be missing, and so may optional ones.

        Returns
        -------
        pyarrow.Table
            A row for each trip. Native: float32, NaN where a value is missing. One-hot: a category
            as int32, its place among those of the training months or -1, and numbers as float64.
            Where the trips have a duration, ``day`` (of the pickup) and ``duration`` follow.
        """
        return self._table(trips, self._serving)

    def transform_training(
        self, trips: "pa.Table | pd.DataFrame", *, month: int = 0, first_row: int = 0
    ) -> pa.Table:
        """Make the features of training trips, encoded without the fold that each trip is in.

        Parameters
        ----------
        trips : pyarrow.Table or pandas.DataFrame
            Rows of a month that `fit` has seen.
        month : int
            The month's place, from 0, among those given to `fit`.
        first_row : int
            The place of the first of these trips in their month.

        Returns
        -------
        pyarrow.Table
            As `transform` gives it.

        Raises
        ------
        TripDurationError
            If the builder was loaded from JSON, which holds only what serving needs.
        """
        return self._table(trips, self._training(month, first_row))

    def transform_month(self, month: "Month", *, training: int | None = None) -> Iterator[pa.Table]:
        """Make the features of a month, table by table, in memory that its size does not change.

        Parameters
        ----------
        month : callable, path or pyarrow.Table
            As `fit` takes it.
        training : int, optional
            The month's place, from 0, among those given to `fit`, of which it then must be one:
            its trips are encoded as `transform_training` does. By default as `transform` does.

        Yields
        ------
        pyarrow.Table
            Under `schema`.
        """
        columns = list(dict.fromkeys([*_columns_read(self.features), "pickup", "duration"]))
        first = 0
        for part in _tables(month, columns):
            assert isinstance(part, pa.Table)
            source = self._serving if training is None else self._training(training, first)
            yield self._table(part, source)
            first += part.num_rows

    def matrix(self, features: pa.Table) -> "np.ndarray | csr_matrix":
        """Turn what `transform` gave into XGBoost's input.

        Parameters
        ----------
        features : pyarrow.Table
            Has the columns `features`.

        Returns
        -------
        numpy.ndarray or scipy.sparse.csr_matrix
            Native: float32 of shape (rows, columns), C-order. One-hot: float64, with an entry
            for each category that training knew and for each number, zeros included.
        """
        arrays = {name: _numpy(features.column(name)) for name in self.features}
        if not self.native:
            return self._expand(arrays, features.num_rows)
        X = np.empty((features.num_rows, len(arrays)), np.float32)
        for start in range(0, len(X), _BLOCK):  # whole columns would miss the cache
            part = slice(start, start + _BLOCK)
            for place, array in enumerate(arrays.values()):
                X[part, place] = array[part]
        return X

    @property
    def uses_distance(self) -> bool:
        """Whether the miles that a trip was driven change any of its features."""
        return bool(_DRIVEN & set(self.features))

    def metered(self, X: "np.ndarray | csr_matrix") -> np.ndarray:
        """Tell of which trips the features know how far they were driven.

        Parameters
        ----------
        X : array or csr_matrix of shape (rows, columns)
            What `matrix` gave.

        Returns
        -------
        ndarray of bool, shape (rows,)
            All true where no column of numbers goes by the distance.
        """
        known = np.full(X.shape[0], not self._driven)
        for name, place in self._driven.items():
            column = X[:, place] if isinstance(X, np.ndarray) else X[:, [place]].toarray()[:, 0]
            known |= column == 0 if name == "distance_odd" else ~np.isnan(column)
        return known

    def without_distance(self, X: "np.ndarray | csr_matrix") -> "np.ndarray | csr_matrix":
        """Give the same trips as if nobody knew how far they were driven.

        Parameters
        ----------
        X : array or csr_matrix of shape (rows, columns)
            What `matrix` gave. It stays as it is.

        Returns
        -------
        array or csr_matrix of shape (rows, columns)
            What `matrix` gives of them, their ``trip_distance`` left out.
        """
        X = X.copy()
        for name, place in self._driven.items():
            missing = 1.0 if name == "distance_odd" else np.nan
            if isinstance(X, np.ndarray):
                X[:, place] = missing
            else:
                X.data[X.indices == place] = missing
        return X

    def rows(self, columns: Mapping[str, np.ndarray]) -> "np.ndarray | csr_matrix":
        """Make `matrix` of `transform` from plain arrays, without the tables in between.

        For a few trips at a time, where tables would take longer than the features.

        Parameters
        ----------
        columns : mapping of str to array of shape (rows,)
            ``pickup``: int64, seconds since 1970 by the clocks of New York; ``pickup_zone`` and
            ``dropoff_zone``: int32, 1 to 265, or 0 for no zone; other columns, which may be left
            out: float64, NaN where a value is missing.

        Returns
        -------
        numpy.ndarray or scipy.sparse.csr_matrix
            As `matrix` gives it.
        """
        rows = len(columns["pickup"])
        missing = np.full(rows, np.nan)
        arrays = {name: columns.get(name, missing) for name in _columns_read(self.features)}
        return self._matrix(_Trips(arrays, rows), self._serving)

    def vectorizer(self) -> "DictVectorizer":
        """A fitted `DictVectorizer` that makes `matrix`'s rows from `feature_dicts`."""
        from sklearn.feature_extraction import DictVectorizer

        if self.native:
            dense = DictVectorizer(dtype=np.float32, sparse=False, sort=False)
            return dense.fit([dict.fromkeys(self.columns, 0.0)])
        known = {name: _words(name, codes) for name, codes in self._levels.items()}
        return DictVectorizer().fit([known | dict.fromkeys(self.numerical, 0.0)])

    def feature_dicts(self, trips: "pa.Table | pd.DataFrame") -> list[dict[str, Any]]:
        """A dict of features for each trip: words for categories that are one-hot, else numbers."""
        made = self.transform(trips)
        values: dict[str, list[Any]] = {n: made.column(n).to_pylist() for n in self.features}
        if not self.native:
            block = _Block(_read(trips, _columns_read(self.categorical)).arrays)
            for name in self.categorical:
                codes, rows = np.unique(block.code(name), return_inverse=True)
                values[name] = np.array(_words(name, codes), object)[rows].tolist()
        return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]

    # As plain data

    def to_json(self) -> dict[str, Any]:
        """What serving needs, as plain JSON data; `from_json` makes the same bits from it."""
        encodings: dict[str, Any] = {}
        for name, table in self._served.items():
            if not name.startswith("pair_"):
                encodings[name] = _listed(table)
                continue
            usual = self._usual(name)
            own = np.flatnonzero((table != usual) & ~(np.isnan(table) & np.isnan(usual)))
            encodings[name] = {"pairs": own.tolist(), "values": _listed(table[own])}
        return {
            "format": FORMAT,
            "preset": self.preset,
            "categorical": list(self.categorical),
            "numerical": list(self.numerical),
            "seed": self.seed,
            "folds": self.folds,
            "places": None if self.places is None else [_listed(row) for row in self.places],
            "levels": {name: codes.tolist() for name, codes in self._levels.items()},
            "encodings": encodings,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "FeatureBuilder":
        """Make a builder from what `to_json` gave, trusting nothing of it.

        Raises
        ------
        TripDurationError
            If the data is not what `to_json` gives.
        """
        fields = {"format", "preset", "categorical", "numerical", "seed", "folds"}
        fields |= {"places", "levels", "encodings"}
        _expect(isinstance(data, Mapping) and set(data) == fields, f"the keys {sorted(fields)}")
        _expect(data["format"] == FORMAT, f"format {FORMAT}")
        builder = cls()
        lists = [data["categorical"], data["numerical"]]
        _expect(
            all(isinstance(n, list) and all(isinstance(x, str) for x in n) for n in lists),
            "lists of names",
        )
        preset = data["preset"]
        _expect(isinstance(preset, str), "a preset")
        custom = preset == "custom"
        chosen = lists if custom else [None, None]
        trend = not custom and "date" in data["numerical"]
        made = _checked(preset, chosen[0], chosen[1], trend)
        _expect(made == (preset, *map(tuple, lists)), "the preset's own columns")
        builder.preset, builder.categorical, builder.numerical = made
        builder.seed = _whole(data["seed"], "seed", -(2**63), 2**63 - 1)
        builder.folds = _whole(data["folds"], "folds", 2, 50)

        places, located = data["places"], _GEOMETRY & set(builder.features)
        _expect((places is not None) == bool(located), "places, where a feature needs them")
        if located:
            _expect(isinstance(places, list) and len(places) == ZONES, f"places of {ZONES} zones")
            places = np.array([_numbers(row, "places", 2) for row in places])
        builder.places = places
        onehot = () if builder.native else builder.categorical
        levels, encodings = data["levels"], data["encodings"]
        _expect(isinstance(levels, Mapping) and set(levels) == set(onehot), "levels by category")
        builder._levels = {}
        for name in onehot:
            low, high = (0, PAIRS - 1) if name == "PU_DO" else (-1, CODES - 1)
            builder._levels[name] = _places(levels[name], f"levels of {name}", low, high)

        kinds = {_ENCODED[name] for name in builder._encoded}
        names = [name for name, kind in _ENCODED.items() if kind in kinds]
        _expect(
            isinstance(encodings, Mapping) and set(encodings) == set(names),
            "the preset's encodings",
        )
        builder._served = {}
        for name in names:  # a pair's follow those of its zones, which it falls back on
            found = encodings[name]
            if not name.startswith("pair_"):
                size = _SIZES[_FEATURES[name].key]
                builder._served[name] = _numbers(found, name, size)
                continue
            _expect(isinstance(found, Mapping) and set(found) == {"pairs", "values"}, name)
            pairs = _places(found["pairs"], name, 0, PAIRS - 1)
            table = builder._usual(name)
            table[pairs] = _numbers(found["values"], name, len(pairs))
            builder._served[name] = table
        builder._held_out = None
        return builder

    # Inside

    @property
    def _encoded(self) -> list[str]:
        """The encodings that the features need."""
        names = [name for name in self.features if name in _ENCODED]
        return [*names, *(["pair_distance"] if "distance_ratio" in self.features else [])]

    @property
    def _fields(self) -> list[pa.Field]:
        if self.native:
            return [pa.field(name, pa.float32()) for name in self.features]
        return [
            pa.field(name, pa.int32() if name in self.categorical else pa.float64())
            for name in self.features
        ]

    @cached_property
    def _driven(self) -> dict[str, int]:
        """Where in `matrix` the columns of numbers are that go by the miles driven."""
        places = {name: place for place, name in enumerate(self.columns)}
        return {name: places[name] for name in self.numerical if name in _DRIVEN}

    @property
    def _in_order(self) -> list[str]:
        """One-hot features as `DictVectorizer` sorts them: a category's names are ``name=word``."""
        return sorted(self.features, key=lambda n: f"{n}=" if n in self.categorical else n)

    def _expanded(self, name: str) -> list[str]:
        if name in self.numerical:
            return [name]
        return sorted(f"{name}={word}" for word in _words(name, self._levels[name]))

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        """For each feature, the matrix's column of each of its categories, then -1 for others."""
        places, first = {}, 0
        for name in self._in_order:
            if name in self.numerical:
                places[name] = np.array([first, -1], np.int32)
            else:
                words = np.array(_words(name, self._levels[name]), object)
                places[name] = np.full(len(words) + 1, -1, np.int32)
                places[name][np.argsort(words)] = np.arange(first, first + len(words))
            first += len(places[name]) - 1
        return places

    @cached_property
    def _compact(self) -> dict[str, np.ndarray]:
        """For each one-hot feature, the place among its levels of each code; code -1 is last."""
        compact = {}
        for name, codes in self._levels.items():
            compact[name] = np.full(CODES + 1, -1, np.int32)
            compact[name][codes] = np.arange(len(codes), dtype=np.int32)
        return compact

    def _usual(self, name: str) -> np.ndarray:
        """What a pair's encoding is where no training trip had the pair."""
        kind = _ENCODED[name]
        pickup, dropoff = (self._served[f"{end}_{kind}"] for end in ("pickup", "dropoff"))
        return _middle(kind, pickup[:, None], dropoff).ravel()

    def _training(self, month: int = 0, first_row: int = 0) -> _Encodings:
        if self._held_out is None:
            raise TripDurationError(
                "This FeatureBuilder was loaded from JSON, which holds only what serving needs: "
                "fit one on the training months to transform them."
            )
        folds = _Folds(self.folds, self.seed, month, first_row)
        return _Encodings(self._held_out, self._where, folds if self._held_out else None)

    @cached_property
    def _where(self) -> dict[str, np.ndarray]:
        """The tables of the geometry that the features read."""
        tables = {} if self.places is None else _where(self.places)
        needed = {*self.features, "straight_miles"}
        return {name: table for name, table in tables.items() if name in needed}

    @property
    def _serving(self) -> _Encodings:
        return _Encodings(self._served, self._where)

    def _fill(self, trips: _Trips, source: _Encodings, out: Sequence[np.ndarray]) -> None:
        """Write the features of trips into ``out``, one array of shape (rows,) for each."""
        for part, block in trips.blocks:
            drawn = source.folds
            fold = drawn.draw(part) if drawn else None
            for name, column in zip(self.features, out, strict=True):
                if name in self._levels:
                    column[part] = self._compact[name].take(block.code(name), mode="wrap")
                else:
                    column[part] = source.value(name, block, fold)

    def _columns(self, trips: _Trips, source: _Encodings) -> dict[str, np.ndarray]:
        made = {f.name: np.empty(trips.rows, f.type.to_pandas_dtype()) for f in self._fields}
        self._fill(trips, source, list(made.values()))
        return made

    def _table(self, trips: "pa.Table | pd.DataFrame", source: _Encodings) -> pa.Table:
        made = self._columns(_read(trips, _columns_read(self.features)), source)
        if "duration" in _names(trips):
            answer = _read(trips, ["pickup", "duration"]).arrays
            made["day"] = (answer["pickup"] // 86400).astype("datetime64[D]")
            made["duration"] = answer["duration"]
        return pa.table(made)

    def _matrix(self, trips: _Trips, source: _Encodings) -> "np.ndarray | csr_matrix":
        """`matrix` of the features, without the table in between."""
        if not self.native:
            return self._expand(self._columns(trips, source), trips.rows)
        X = np.empty((trips.rows, len(self.features)), np.float32)
        self._fill(trips, source, list(X.T))
        return X

    def _expand(self, arrays: Mapping[str, np.ndarray], rows: int) -> "csr_matrix":
        from scipy.sparse import csr_matrix

        names = self._in_order  # so that a row's entries come out sorted
        columns = np.empty((rows, len(names)), np.int32)
        values = np.empty((rows, len(names)))
        known = True
        for place, name in enumerate(names):
            if name in self.categorical:
                codes = arrays[name]
                known = known and (not rows or int(codes.min()) >= 0)
                columns[:, place] = self._places[name].take(codes, mode="wrap")
                values[:, place] = 1.0
            else:
                columns[:, place] = self._places[name][0]
                values[:, place] = arrays[name]
        width = sum(len(places) - 1 for places in self._places.values())
        ends = np.arange(rows + 1, dtype=np.int64) * len(names)
        indices, data = columns.ravel(), values.ravel()
        if not known:
            kept = columns >= 0
            ends[1:] = np.cumsum(kept.sum(axis=1))
            indices, data = columns[kept], values[kept]
        X = csr_matrix((rows, width), dtype=np.float64)
        X.data, X.indices, X.indptr = data, indices, _narrow(ends)
        X.has_sorted_indices = True
        return X


def _placed(places: np.ndarray | None) -> np.ndarray:
    places = np.asarray(places, np.float64)
    if places.shape != (ZONES, 2):
        raise TripDurationError(
            f"The zones' places have the shape {places.shape}: expected ({ZONES}, 2), miles east "
            "and north by zone id, as trip_duration.geometry.projected makes them."
        )
    return places


def _narrow(ends: np.ndarray) -> np.ndarray:
    return ends.astype(np.int32) if ends[-1] < 2**31 else ends


def _codes_present(seen: np.ndarray) -> np.ndarray:
    """Codes in rising order, from the flags of 0 to `CODES` - 1 and, last, of -1."""
    codes = np.flatnonzero(seen[:-1])
    return np.concatenate([[-1], codes]) if seen[-1] else codes


def _sources(months: "Month | Sequence[Month]") -> "list[Month]":
    if callable(months) or isinstance(months, str | PathLike | pa.Table | _Trips):
        return [months]
    return list(months)


def _tables(month: "Month", columns: list[str]) -> "Iterator[pa.Table | _Trips]":
    """A month's trips, table by table."""
    if isinstance(month, pa.Table | _Trips):
        yield month
    elif isinstance(month, str | PathLike):
        yield from read_parts(month, columns)
    else:
        for part in month():
            yield part if isinstance(part, pa.Table) else pa.Table.from_batches([part])


# Plain data, written and checked


def _listed(table: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in table.tolist()]


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise TripDurationError(
            f"These are no features that this version wrote: expected {what}; run featurize again."
        )


def _whole(value: Any, name: str, low: int, high: int) -> int:
    holds = type(value) is int and low <= value <= high
    _expect(holds, f"{name} to be a whole number from {low} to {high}")
    return value


def _places(values: Any, name: str, low: int, high: int) -> np.ndarray:
    """Different whole numbers in rising order."""
    what = f"{name} to be rising whole numbers from {low} to {high}"
    _expect(isinstance(values, list), what)
    _expect(all(type(value) is int and low <= value <= high for value in values), what)
    places = np.array(values, np.int64)
    _expect(bool((np.diff(places) > 0).all()), what)
    return places


def _numbers(values: Any, name: str, size: int) -> np.ndarray:
    """Finite numbers, and NaN for null."""
    what = f"{name} to be {size} numbers or nulls"
    _expect(isinstance(values, list) and len(values) == size, what)
    given = [value for value in values if value is not None]
    _expect(all(type(value) in (int, float) and abs(value) < 1e9 for value in given), what)
    return np.array([math.nan if value is None else value for value in values], np.float64)


# The course's function


def add_features(
    train: "pd.DataFrame | pa.Table",
    val: "pd.DataFrame | pa.Table",
    *,
    preset: str = "course",
    categorical: Sequence[str] | None = None,
    numerical: Sequence[str] | None = None,
    seed: int = 42,
    places: np.ndarray | None = None,
    trend: bool = False,
) -> "tuple[Any, Any, np.ndarray, np.ndarray, DictVectorizer]":
    """Fit features on the training trips and apply them to both, as the course's function does.

    Parameters
    ----------
    train, val : pandas.DataFrame or pyarrow.Table
        Canonical trips, as `read_dataframe` gives them.
    preset : {"course", "metered", "booking"}
        ``course`` is one-hot ``PU_DO`` and ``trip_distance``; ``metered`` is the best that may use
        the metered distance; ``booking`` uses only what is known when a ride is booked.
    categorical, numerical : sequence of str, optional
        Names of `CATALOGUE` to use in place of a preset: one-hot columns, and columns as they are.
    seed : int
        Draws the folds that the training trips' encodings are made with.
    places, trend
        As in `FeatureBuilder.fit`.

    Returns
    -------
    X_train, X_val : scipy.sparse.csr_matrix or numpy.ndarray
        Of shape (trips, columns): for ``metered`` and ``booking`` dense float32 with NaN for what
        is missing, else what ``DictVectorizer().fit_transform`` and ``.transform`` give.
    y_train, y_val : numpy.ndarray
        Minutes, float64, of shape (trips,).
    dv : sklearn.feature_extraction.DictVectorizer
        Turns feature dicts into the same columns; see `FeatureBuilder.feature_dicts`.

    Raises
    ------
    SettingsError
        If a name is unknown, cannot be used that way, or leaks the answer.
    TripDurationError
        If there are no training trips, or they lack a column.
    """
    _, *names = _checked(preset, categorical, numerical, trend)
    columns = dict.fromkeys(["duration", *_columns_learned([*names[0], *names[1]])])
    trips = [_read(frame, columns) for frame in (train, val)]
    builder = FeatureBuilder.fit(
        trips[0],
        preset=preset,
        categorical=categorical,
        numerical=numerical,
        seed=seed,
        places=places,
        trend=trend,
    )
    X_train = builder._matrix(trips[0], builder._training())
    X_val = builder._matrix(trips[1], builder._serving)
    y_train, y_val = (part.arrays["duration"] for part in trips)
    return X_train, X_val, y_train, y_val, builder.vectorizer()


def add_features_slow(
    train: "pd.DataFrame", val: "pd.DataFrame"
) -> "tuple[csr_matrix, csr_matrix, np.ndarray, np.ndarray, DictVectorizer]":
    """`add_features` for the preset ``course`` in the course's own words: the tests' oracle."""
    from sklearn.feature_extraction import DictVectorizer

    dicts = [frame[["PU_DO", "trip_distance"]].to_dict("records") for frame in (train, val)]
    dv = DictVectorizer()
    X_train, X_val = dv.fit_transform(dicts[0]), dv.transform(dicts[1])
    return X_train, X_val, train["duration"].to_numpy(), val["duration"].to_numpy(), dv
