"""The canonical trip: its columns, types and units, TLC's names for them, and the cleaning rules.

TLC has renamed and retyped its columns many times since 2009. One table, `_ALIASES`, says which
of its names mean what; names are compared without regard to case and surrounding spaces, so
``Lpep_dropoff_datetime``, ``PUlocationID``, ``RateCodeID``, ``" pickup_datetime"`` and
``"Trip_type "`` need no entries of their own. Everything here is pure: tables in, tables out.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trip_duration.errors import TripDurationError, shown
from trip_duration.months import bounds

if TYPE_CHECKING:
    from trip_duration.params import Data

__all__ = [
    "OUTSIDE",
    "REASONS",
    "SCHEMA",
    "UNKNOWN",
    "Locate",
    "Rules",
    "clean",
    "month_path",
    "month_paths",
    "order",
    "read_month",
    "read_parts",
    "refuse_other_taxi",
    "sort",
    "sort_slow",
    "taken",
    "to_canonical",
    "wanted",
]

SCHEMA = pa.schema(
    [
        pa.field("pickup", pa.timestamp("s"), nullable=False),  # New York wall time
        pa.field("duration", pa.float64(), nullable=False),  # minutes: whole seconds / 60
        pa.field("pickup_zone", pa.int16()),  # TLC's zone id, 1 to 265
        pa.field("dropoff_zone", pa.int16()),
        pa.field("trip_distance", pa.float64()),  # miles, as the meter gave it, dirt included
        pa.field("passenger_count", pa.int16()),
        pa.field("vendor", pa.int32()),  # the number in TLC's id
        pa.field("rate_code", pa.int16()),
        pa.field("trip_type", pa.int16()),  # 1 hailed on the street, 2 dispatched
        pa.field("store_and_forward", pa.bool_()),
    ]
)
UNKNOWN = 264  # TLC's zone id for "unknown"
OUTSIDE = 265  # TLC's zone id for "outside of New York City"

REASONS = {
    "cut_record": "line of the file cut short or with stray fields",
    "no_pickup_time": "no readable pickup time",
    "no_dropoff_time": "no readable drop-off time",
    "negative_duration": "drop-off before pickup",
    "under_min_minutes": "shorter than the shortest trip asked for",
    "over_max_minutes": "longer than the longest trip asked for",
    "other_month": "pickup dated in another month",
    "unknown_zone": "zone missing, unknown or outside of the city",
    "over_max_distance": "farther than the farthest trip asked for",
}

Locate = Callable[[np.ndarray, np.ndarray], np.ndarray]

_YEARS = (-62_135_596_800, 253_402_300_800)  # 0001 and 10000 begin, in seconds since 1970
_PICKUP_BITS, _DURATION_BITS, _ROW_BITS = 22, 12, 30  # of a key of `order`

# Canonical name: what TLC called it over the years, in lower case and without spaces around it.
_ALIASES = {
    "pickup": (
        "pickup",
        "tpep_pickup_datetime",
        "lpep_pickup_datetime",
        "pickup_datetime",
        "trip_pickup_datetime",
        "pickup_date",
    ),
    "dropoff": (
        "tpep_dropoff_datetime",
        "lpep_dropoff_datetime",
        "dropoff_datetime",
        "trip_dropoff_datetime",
    ),
    "duration": ("duration",),
    "pickup_zone": ("pickup_zone", "pulocationid"),
    "dropoff_zone": ("dropoff_zone", "dolocationid"),
    "pickup_longitude": ("pickup_longitude", "start_lon"),
    "pickup_latitude": ("pickup_latitude", "start_lat"),
    "dropoff_longitude": ("dropoff_longitude", "end_lon"),
    "dropoff_latitude": ("dropoff_latitude", "end_lat"),
    "trip_distance": ("trip_distance", "trip_miles"),
    "passenger_count": ("passenger_count",),
    "vendor": (
        "vendor",
        "vendorid",
        "vendor_id",
        "vendor_name",
        "hvfhs_license_num",
        "dispatching_base_num",
        "dispatching_base_number",
    ),
    "rate_code": ("rate_code", "ratecodeid"),
    "trip_type": ("trip_type",),
    "store_and_forward": ("store_and_forward", "store_and_fwd_flag"),
}
# For-hire files have up to three columns that say who drove; the first with a value counts.
_FIRST_VALUE_COUNTS = {"vendor"}
_VENDOR_NAMES = ["CMT", "VTS", "DDS"]  # 2009 to 2014; today's VendorID 1, 2 and, gone by then, 3
# Names that TLC gave to one kind of taxi alone.
_TAXIS = {
    "tpep_pickup_datetime": "yellow",
    "tpep_dropoff_datetime": "yellow",
    "lpep_pickup_datetime": "green",
    "lpep_dropoff_datetime": "green",
    "hvfhs_license_num": "fhvhv",
}
_MISSING = ["", "NA", "N/A", "NULL", "null", "None", "nan", "NaN", "NV", "\\N"]

# What `to_canonical` gives: a pickup or a duration may be missing until `clean` has set it aside.
_LOOSE = pa.schema([field.with_nullable(True) for field in SCHEMA])


def wanted(names: Sequence[str]) -> list[str]:
    """Which of a file's columns the canonical trip is made of, in the file's order.

    Parameters
    ----------
    names : sequence of str
        The file's column names as they stand there.

    Raises
    ------
    TripDurationError
        If a trip cannot be made from these columns: one is missing, or two claim the same place.
    """
    used = {name for columns in _layout(names).values() for name in columns}
    return [name for name in names if name in used]


def refuse_other_taxi(names: Sequence[str], taxi: str) -> None:
    """Refuse columns that TLC gives to another kind of taxi alone.

    Parameters
    ----------
    names : sequence of str
        The file's columns that trips are made of.
    taxi : str
        ``data.taxi``.

    Raises
    ------
    TripDurationError
        If one is another's, like ``tpep_pickup_datetime``, which only yellow taxis have.
    """
    for name in names:
        other = _TAXIS.get(_same(name), taxi)
        if other != taxi:
            raise TripDurationError(
                f"The column {name!r} is one of {other} trips and data.taxi is {taxi!r}: set "
                f"data.taxi to {other}, or point data.source at files of {taxi} trips."
            )


def to_canonical(
    batch: pa.RecordBatch | pa.Table,
    locate: Locate | None = None,
    unread: dict[str, str] | None = None,
) -> pa.Table:
    """Map trips of any of TLC's layouts, or trips that are canonical already, to `SCHEMA`.

    No row is dropped: a trip without a readable pickup time keeps a null pickup and duration, one
    without a drop-off time a null duration, and `clean` sets them aside. Values of optional columns
    that make no sense (text where a number belongs, half a passenger) become null. Fractions of a
    second are cut off. Times that carry a zone are read as New York wall time.

    Parameters
    ----------
    batch : pyarrow.RecordBatch or pyarrow.Table
        Trips under TLC's names, or canonical ones.
    locate : callable, optional
        Gives the zone id (int16, 0 where there is none) of each longitude and latitude in degrees;
        needed where the trips have coordinates in place of zones. What lies in no zone becomes 265
        (outside), coordinates that are missing or zero become 264 (unknown).
    unread : dict, optional
        For trips that are a part of a file: gets, by the name of each needed column that holds
        text, a sentence if nothing in it could be read, and "" if something could. Without it the
        sentence is raised.

    Returns
    -------
    pyarrow.Table
        One row for each row of ``batch``, in the same order, under `SCHEMA` with nulls allowed.

    Raises
    ------
    TripDurationError
        If a needed column is missing, doubled, or holds nothing that can be read.
    """
    table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
    layout = _layout(table.column_names)
    raw = {name: [_plain(table.column(c)) for c in found] for name, found in layout.items()}

    _refuse_mixed_times(layout, raw)
    with _reading(layout["pickup"]):
        pickup = _times(layout["pickup"][0], raw["pickup"][0], unread)
    if "dropoff" in raw:
        with _reading(layout["dropoff"]):
            dropoff = _times(layout["dropoff"][0], raw["dropoff"][0], unread)
        seconds = pc.subtract(dropoff.cast(pa.int64()), pickup.cast(pa.int64()))
        duration = pc.divide(seconds.cast(pa.float64()), 60.0)
    else:
        duration = _measures(raw["duration"][0])
    made = {"pickup": pickup, "duration": pc.if_else(pickup.is_valid(), duration, None)}
    for end in _ENDS:
        made[f"{end}_zone"] = _zones(end, layout, raw, locate, unread)
    for name, read in _OPTIONAL.items():
        if name in raw:  # more than one column only for the vendor: the first with a value counts
            with _reading(layout[name]):
                made[name] = pc.coalesce(*[_each_once(read, column) for column in raw[name]])
    absent = {f.name: pa.nulls(table.num_rows, f.type) for f in _LOOSE if f.name not in made}
    made |= absent
    return pa.table([made[name] for name in _LOOSE.names], schema=_LOOSE)


@dataclass(frozen=True)
class Rules:
    """Which trips `clean` keeps; the defaults are the course's filter and nothing more.

    Parameters
    ----------
    min_minutes, max_minutes : float
        The shortest and the longest trip that is kept, both included.
    month : str or None
        The month, ``YYYY-MM``, that the trips are said to be of.
    other_months : bool
        Whether trips whose pickup lies outside of ``month`` are set aside.
    max_distance : float or None
        Miles; trips whose meter gave more are set aside.
    unknown_zones : bool
        Whether trips are set aside that begin or end in zone 264, in zone 265 or in no zone.
    """

    min_minutes: float = 1.0
    max_minutes: float = 60.0
    month: str | None = None
    other_months: bool = False
    max_distance: float | None = None
    unknown_zones: bool = False


def clean(trips: pa.Table, rules: Rules) -> tuple[pa.Table, dict[str, int]]:
    """Keep the trips that break no rule, and count the others by the first rule that they break.

    Parameters
    ----------
    trips : pyarrow.Table
        Trips as `to_canonical` gives them.
    rules : Rules
        What to set aside.

    Returns
    -------
    kept : pyarrow.Table
        The trips that are left, in their order, under `SCHEMA`.
    set_aside : dict of str to int
        The number of other trips for each reason of `REASONS` that a trip can have, zeros included;
        with the kept ones they add up to all trips.

    Notes
    -----
    With the defaults ``(duration >= 1) & (duration <= 60)`` decides, as in the course's
    ``read_dataframe`` (DataTalksClub's MLOps Zoomcamp, module 2).
    """
    breaks = _breaks(trips, rules)
    good = np.ones(trips.num_rows, bool)
    left, set_aside = trips.num_rows, {}
    for reason, broken in breaks.items():
        if broken is not None:
            good &= ~broken
        now = int(np.count_nonzero(good))
        set_aside[reason], left = left - now, now
    kept = trips.filter(pa.array(good)) if left < trips.num_rows else trips
    return pa.table(kept.columns, schema=SCHEMA), set_aside


def sort(trips: pa.Table) -> pa.Table:
    """Order trips by all their columns, nulls last, so that the source's order leaves no trace."""
    return trips.take(pa.array(order(trips)))


def sort_slow(trips: pa.Table) -> pa.Table:
    """Do what `sort` does, as Arrow does it: the oracle that `sort` is tested against."""
    return trips.take(pa.array(_order_slow(trips)))


def order(trips: pa.Table) -> np.ndarray:
    """Say in which order `sort` puts the trips, for who takes them a part at a time.

    Parameters
    ----------
    trips : pyarrow.Table
        Canonical trips; those that may miss a pickup or a duration are ordered slowly.

    Returns
    -------
    numpy.ndarray of int64, shape (n,)
        Row numbers: the row that comes first, the one that comes second, and so on.

    Notes
    -----
    Each trip becomes a key of 64 bits: the pickup in 22 (seconds, counted from 24 days before the
    middle of all pickups), the duration in 12 (seconds), the row number in 30. numpy sorts such
    keys with the processor's vector instructions, some 50 times as fast as Arrow compares columns.
    Keys never contradict the order of the trips, but may leave it open: what the bits cannot hold
    gets the value at their edge. Where keys differ in the row number alone, Arrow has to compare.
    """
    pickup, minutes = trips.column("pickup"), trips.column("duration")
    missing = pickup.null_count or minutes.null_count or pc.any(pc.is_nan(minutes)).as_py()
    if missing or trips.num_rows > 1 << _ROW_BITS:
        return _order_slow(trips)
    keys = _sort_keys(trips)
    keys.sort()
    same = keys[1:] ^ keys[:-1] < np.uint64(1 << _ROW_BITS)  # neighbours, but for the row number
    tied = np.zeros(len(keys), bool)
    tied[1:] |= same
    tied[:-1] |= same
    keys &= np.uint64((1 << _ROW_BITS) - 1)
    rows = keys.view(np.int64)
    if tied.any():
        among = rows[tied]
        rows[tied] = among[_order_slow(trips.take(pa.array(among)))]
    return rows


def _order_slow(trips: pa.Table) -> np.ndarray:
    keys = [(name, "ascending", "at_end") for name in trips.column_names]
    return _numpy(pc.sort_indices(trips, sort_keys=keys)).astype(np.int64)


def _sort_keys(trips: pa.Table) -> np.ndarray:
    """The keys of `order`, uint64, made from a few thousand trips at a time to spare memory."""
    keys = np.empty(trips.num_rows, np.uint64)
    latest, longest = (1 << _PICKUP_BITS) - 1, (1 << _DURATION_BITS) - 1
    every = max(1, trips.num_rows // 1000)
    some = _numpy(trips.column("pickup").cast(pa.int64()))[::every]
    start = (int(np.sort(some)[len(some) // 2]) if len(some) else 0) - latest // 2
    row = 0
    for batch in trips.select(["pickup", "duration"]).to_batches(max_chunksize=1 << 16):
        pickup = _numpy(batch.column("pickup").cast(pa.int64())) - start
        seconds = np.rint(60 * _numpy(batch.column("duration")).clip(0, longest)).clip(0, longest)
        # At an edge the pickup is left open, and the duration must not decide before it.
        inside = (pickup > 0) & (pickup < latest)
        key = pickup.clip(0, latest) << _DURATION_BITS
        key |= np.where(inside, seconds.astype(np.int64), 0)
        part = keys[row : row + len(key)]
        np.left_shift(key.view(np.uint64), np.uint64(_ROW_BITS), out=part)
        part |= np.arange(row, row + len(key), dtype=np.uint64)
        row += len(key)
    return keys


def month_path(folder: str | Path, taxi: str, month: str) -> Path:
    """Where a canonical month is kept."""
    return Path(folder) / f"{taxi}-{month}.parquet"


def month_paths(data: "Data", split: str, folder: str | Path = "data/trips") -> list[Path]:
    """The canonical months of ``train``, ``validation`` or ``test``, in the order of time."""
    return [month_path(folder, data.taxi, month) for month in sorted(getattr(data, split))]


def read_month(path: str | Path) -> pa.Table:
    """Read a canonical month as `SCHEMA` has it; Parquet itself knows no whole seconds."""
    import pyarrow.parquet as pq

    return pq.read_table(path).cast(SCHEMA)


def read_parts(
    month: "pa.Table | str | PathLike[str]",
    columns: Sequence[str] | None = None,
    rows: int = 1 << 18,
) -> Iterator[pa.Table]:
    """Read a month of trips, or of features, so many rows at once.

    Parameters
    ----------
    month : pyarrow.Table or path
        A file that ingest or featurize wrote, or a table, which comes as a whole.
    columns : sequence of str, optional
        Columns to read; those that are not there are passed over.
    rows : int
        Rows at most.

    Raises
    ------
    TripDurationError
        If the file is missing or no Parquet.
    """
    if isinstance(month, pa.Table):
        yield (
            month
            if columns is None
            else month.select([c for c in columns if c in month.schema.names])
        )
        return
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(month, pre_buffer=False) as file:  # see sources.files
            names = file.schema_arrow.names
            chosen = None if columns is None else [name for name in columns if name in names]
            for batch in file.iter_batches(rows, columns=chosen):
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        raise TripDurationError(
            f"{month} cannot be read ({str(error).splitlines()[0]}): expected a Parquet file that "
            "ingest or featurize wrote; run the stage again."
        ) from None


def taken(months: "Iterable[pa.Table | str | PathLike[str]]", rows: np.ndarray) -> pa.Table:
    """The rows with these numbers, in rising order, of months read as `read_parts` does.

    Parameters
    ----------
    months : iterable of pyarrow.Table or path
        Of trips or of features.
    rows : array of int, shape (n,)
        Counted from 0 over all months.
    """
    parts, first = [], 0
    for month in months:
        for part in read_parts(month):
            start, end = np.searchsorted(rows, [first, first + part.num_rows])
            parts.append(part.take(rows[start:end] - first))
            first += part.num_rows
    return pa.concat_tables(parts)


def _breaks(trips: pa.Table, rules: Rules) -> dict[str, np.ndarray | None]:
    """For each reason, in the order that decides, the mask of the trips it sets aside, if any."""
    pickup = trips.column("pickup")
    minutes = _numpy(trips.column("duration"))
    breaks: dict[str, np.ndarray | None] = {
        "no_pickup_time": _numpy(pickup.is_null()) if pickup.null_count else None,
        "no_dropoff_time": np.isnan(minutes),
        "negative_duration": minutes < 0,
        "under_min_minutes": minutes < rules.min_minutes,
        "over_max_minutes": minutes > rules.max_minutes,
        "other_month": None,
        "unknown_zone": None,
        "over_max_distance": None,
    }
    if rules.other_months and rules.month is not None:
        start, end = (pa.scalar(moment, pa.timestamp("s")) for moment in bounds(rules.month))
        inside = pc.and_(pc.greater_equal(pickup, start), pc.less(pickup, end))
        breaks["other_month"] = ~_numpy(inside.fill_null(False))
    if rules.unknown_zones:
        zones = [_numpy(trips.column(f"{end}_zone").fill_null(0)) for end in ("pickup", "dropoff")]
        breaks["unknown_zone"] = np.any([(z < 1) | (z >= UNKNOWN) for z in zones], axis=0)
    if rules.max_distance is not None:
        breaks["over_max_distance"] = _numpy(trips.column("trip_distance")) > rules.max_distance
    return breaks


# Finding the columns

_ENDS = {"pickup": "pickup", "dropoff": "drop-off"}  # of a trip, and the word for people


def _same(name: str) -> str:
    """The name as `_ALIASES` writes it."""
    return name.strip().lower()


def _layout(names: Sequence[str]) -> dict[str, list[str]]:
    """The file's columns that each canonical one is made of; more than one only for the vendor."""
    layout: dict[str, list[str]] = {}
    for canonical, aliases in _ALIASES.items():
        found = [name for alias in aliases for name in names if _same(name) == alias]
        if found:
            layout[canonical] = found
    if "dropoff" in layout:
        layout.pop("duration", None)  # the two 2021 files have one too: the times decide
    for end in _ENDS:
        if f"{end}_zone" in layout:
            layout.pop(f"{end}_longitude", None)
            layout.pop(f"{end}_latitude", None)
    _refuse_doubled(layout)
    _refuse_missing(layout, names)
    return layout


def _refuse_doubled(layout: dict[str, list[str]]) -> None:
    for canonical, found in layout.items():
        kinds = {_same(name) for name in found}
        if len(found) > (len(kinds) if canonical in _FIRST_VALUE_COUNTS else 1):
            columns = " and ".join(repr(name) for name in found)
            raise TripDurationError(
                f"The columns {columns} could each be the trip's {canonical}, and one was "
                "expected: rename or remove the others."
            )


def _refuse_missing(layout: dict[str, list[str]], names: Sequence[str]) -> None:
    found = "the columns " + ", ".join(map(repr, names)) if names else "no columns at all"
    # Only canonical trips, which say `pickup`, may give a duration in place of the drop-off time.
    timeless = "pickup" in layout and "dropoff" not in layout
    if timeless and not ("duration" in layout and _same(layout["pickup"][0]) == "pickup"):
        raise TripDurationError(
            f"These trips have no drop-off time, so no duration exists: found {found}, expected "
            "one like 'dropoff_datetime' too; name it so, or choose other months than those of "
            "TLC's fhv files of 2015 and 2016, which record pickups alone."
        )
    missing = [] if "pickup" in layout else ["the pickup time (like 'tpep_pickup_datetime')"]
    for end, word in _ENDS.items():
        axes = [f"{end}_longitude", f"{end}_latitude"]
        absent = [axis for axis in axes if axis not in layout]
        if f"{end}_zone" in layout or not absent:
            continue
        example = "PULocationID" if end == "pickup" else "DOLocationID"
        both = [f"the {word} zone (like {example!r})"]
        missing += both if len(absent) == 2 else [f"the {word} coordinates ({absent[0]!r})"]
    if missing:
        raise TripDurationError(
            f"These trips have no column for {' and for '.join(missing)}: found {found}; name them "
            "as TLC does, or point data.source at files of trips."
        )


def _refuse_mixed_times(layout: dict[str, list[str]], raw: dict[str, list[pa.Array]]) -> None:
    """Refuse two columns of times of which one alone carries a time zone: hours lie between."""
    ends = [end for end in _ENDS if end in raw and pa.types.is_timestamp(raw[end][0].type)]
    zones = [raw[end][0].type.tz for end in ends]
    if any(zones) and None in zones:
        told = [
            f"{layout[end][0]!r} ({zone or 'none'})" for end, zone in zip(ends, zones, strict=True)
        ]
        raise TripDurationError(
            f"The columns {' and '.join(told)} differ in whether their times carry a time zone: "
            "expected one for both, or New York's wall time in both; correct the columns."
        )


# Reading the values


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """One array without dictionaries, and with text of one type."""
    # One chunk is the common case, which combine_chunks would copy.
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # of no chunks, or of more than one array can hold
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.nulls(0, array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    return array


def _numpy(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return (
        column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    )


def _is_text(column: pa.Array) -> bool:
    return pa.types.is_large_string(column.type)


def _text(column: pa.Array) -> pa.Array:
    """Text without spaces around it; what stands for a missing value becomes null."""
    text = pc.utf8_trim_whitespace(column)
    missing = pc.is_in(text, value_set=pa.array(_MISSING, pa.large_string()))
    return pc.if_else(missing, None, text)


@contextmanager
def _reading(names: Sequence[str]) -> Iterator[None]:
    """Say which column it is that Arrow cannot read: text that is not UTF-8."""
    try:
        yield
    except pa.ArrowInvalid as error:
        columns = " or ".join(map(repr, names))
        raise TripDurationError(
            f"The column {columns} cannot be read ({shown(str(error).splitlines()[0])}): correct "
            "the column or point data.source at other files."
        ) from error


def _refuse_unreadable(
    name: str, text: pa.Array, parsed: pa.Array, needed: str, unread: dict[str, str] | None
) -> None:
    if text.null_count == len(text):
        return
    said = ""
    if parsed.null_count == len(parsed):
        example = text.drop_null()[0].as_py()
        said = (
            f"Nothing in the column {name!r} can be read: found {example!r}, expected {needed}; "
            "correct the column or point data.source at other files."
        )
    if unread is not None:
        unread[name] = said
    elif said:
        raise TripDurationError(said)


def _numbers(
    column: pa.Array, name: str = "", needed: str = "", unread: dict[str, str] | None = None
) -> np.ndarray:
    """Finite numbers, float64, NaN where there is none; text that is no number counts as none.

    Where ``needed`` says what the column called ``name`` must hold, a column that has values of
    which none is a number is refused.
    """
    if _is_text(column):
        text = _text(column)
        parsed = _parsed_numbers(text)
        if needed:
            _refuse_unreadable(name, text, parsed, needed, unread)
    elif _is_numeric(column.type):
        parsed = column.cast(pa.float64(), safe=False)
    elif needed and not pa.types.is_null(column.type):
        raise TripDurationError(
            f"The column {name!r} cannot be read: found values of type {column.type}, expected "
            f"{needed}; correct the column or point data.source at other files."
        )
    else:
        parsed = pa.nulls(len(column), pa.float64())
    values = _numpy(parsed)  # NaN where there is none
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.nan)


def _is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _parsed_numbers(text: pa.Array) -> pa.Array:
    try:
        return text.cast(pa.float64())  # the common case: all of it is numbers
    except pa.ArrowInvalid:
        number = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
        kept = pc.if_else(pc.match_substring_regex(text, number), text, None)
        return kept.cast(pa.float64())


def _whole(values: np.ndarray, dtype: type[np.signedinteger], low: int, high: int) -> pa.Array:
    """Whole numbers from ``low`` to ``high``; null for all else."""
    fits = (values >= low) & (values <= high) & (np.floor(values) == values)
    if fits.all():
        return pa.array(values.astype(dtype))
    return pa.array(np.where(fits, values, 0).astype(dtype), mask=~fits)


def _counts(column: pa.Array) -> pa.Array:
    return _integers(column, np.int16, -(2**15), 2**15 - 1)


def _integers(
    column: pa.Array,
    dtype: type[np.signedinteger],
    low: int,
    high: int,
    name: str = "",
    needed: str = "",
    unread: dict[str, str] | None = None,
) -> pa.Array:
    """`_whole` of `_numbers`; whole numbers, of which none is missing, take no detour by floats."""
    if not pa.types.is_integer(column.type) or column.null_count:
        return _whole(_numbers(column, name, needed, unread), dtype, low, high)
    values = _numpy(column)
    if len(values) and (values.min() < low or values.max() > high):
        return _whole(_numbers(column, name, needed, unread), dtype, low, high)
    return pa.array(values.astype(dtype))


def _measures(column: pa.Array) -> pa.Array:
    values = _numbers(column) + 0.0  # a negative zero would sort as equal but not be it
    missing = np.isnan(values)
    return pa.array(values, mask=missing) if missing.any() else pa.array(values)


def _times(name: str, column: pa.Array, unread: dict[str, str] | None) -> pa.Array:
    """Wall times in New York, in whole seconds, of the years 1 to 9999."""
    kind = column.type
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.timestamp("s"))
    if _is_text(column):
        text = _text(column)
        times = _parsed_times(text)
        _refuse_unreadable(name, text, times, "times like 2021-01-31 23:59:59", unread)
        return times
    if not pa.types.is_timestamp(kind):
        raise TripDurationError(
            f"The column {name!r} cannot be read: found values of type {kind}, expected times like "
            "2021-01-31 23:59:59; correct the column or point data.source at other files."
        )
    if kind.tz is not None:
        column = pc.local_timestamp(column.cast(pa.timestamp(kind.unit, "America/New_York")))
    return _in_calendar(column.cast(pa.timestamp("s"), safe=False))


def _in_calendar(times: pa.Array) -> pa.Array:
    """The times, null where no calendar has them: milliseconds that were taken for seconds."""
    seconds = times.cast(pa.int64())
    found = pc.min_max(seconds)
    low, high = found["min"].as_py(), found["max"].as_py()
    if low is None or (low >= _YEARS[0] and high < _YEARS[1]):
        return times
    inside = pc.and_(pc.greater_equal(seconds, _YEARS[0]), pc.less(seconds, _YEARS[1]))
    return pc.if_else(inside, times, None)


def _parsed_times(text: pa.Array) -> pa.Array:
    shape = r"^\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d+)?$"
    shaped = pc.if_else(pc.match_substring_regex(text, shape), text, None)
    plain = pc.utf8_replace_slice(pc.utf8_slice_codeunits(shaped, 0, 19), 10, 11, " ")
    try:
        return plain.cast(pa.timestamp("s"))  # the common case: each is a time
    except pa.ArrowInvalid:
        layout = "%Y-%m-%d %H:%M:%S"
        times = pc.strptime(plain, format=layout, unit="s", error_is_null=True)
        # strptime takes 30 February for 2 March: only what it would write the same way is a time.
        same = pc.equal(pc.strftime(times, format=layout).cast(pa.large_string()), plain)
        return pc.if_else(same, times, None)


def _vendors(column: pa.Array) -> pa.Array:
    """The number in a vendor's id: 2, 2.0, VTS -> 2; HV0003 -> 3; B02876 -> 2876."""
    if not _is_text(column):
        return _integers(column, np.int32, 0, 2**31 - 1)
    text = pc.utf8_upper(_text(column))
    named = pc.add(pc.index_in(text, value_set=pa.array(_VENDOR_NAMES, pa.large_string())), 1)
    digits = pc.extract_regex(text, r"^[A-Z]*(?P<number>\d{1,9})(?:\.0*)?$")
    return pc.coalesce(named, pc.struct_field(digits, "number").cast(pa.int32()))


def _each_once(read: Callable[[pa.Array], pa.Array], column: pa.Array) -> pa.Array:
    """Read text value by value, not row by row: of ids and flags there are few."""
    if not _is_text(column):
        return read(column)
    encoded = column.dictionary_encode()
    return read(encoded.dictionary).take(encoded.indices)


def _flags(column: pa.Array) -> pa.Array:
    """Yes and no, which TLC has written Y and N, 1 and 0, as text and as numbers."""
    if pa.types.is_boolean(column.type):
        return column
    if _is_text(column):
        text = pc.utf8_upper(_text(column))
        yes, no = (
            pc.is_in(text, value_set=pa.array(words, pa.large_string()))
            for words in (["Y", "1", "1.0", "TRUE"], ["N", "0", "0.0", "FALSE"])
        )
    else:
        values = _numbers(column)
        yes, no = pa.array(values == 1), pa.array(values == 0)
    return pc.if_else(pc.or_(yes, no), yes, None)


def _zones(
    end: str,
    layout: dict[str, list[str]],
    raw: dict[str, list[pa.Array]],
    locate: Locate | None,
    unread: dict[str, str] | None,
) -> pa.Array:
    """The zones of one end of the trips, as their column says or from their coordinates."""
    zone = f"{end}_zone"
    if zone in raw:
        needed = f"zone ids from 1 to {OUTSIDE}"
        with _reading(layout[zone]):
            return _integers(raw[zone][0], np.int16, 1, OUTSIDE, layout[zone][0], needed, unread)
    axes = [f"{end}_longitude", f"{end}_latitude"]
    if locate is None:
        found = " and ".join(repr(layout[axis][0]) for axis in axes)
        raise TripDurationError(
            f"These trips give {found} in place of the {_ENDS[end]} zone: set data.zones to TLC's "
            "zone shapes (its taxi_zones.zip, or a GeoJSON file of them)."
        )
    with _reading([layout[axis][0] for axis in axes]):
        longitude, latitude = (
            _numbers(raw[axis][0], layout[axis][0], "degrees", unread) for axis in axes
        )
    zones = np.full(len(longitude), UNKNOWN, np.int16)
    # Meters without a fix wrote zeros.
    known = ~np.isnan(longitude) & ~np.isnan(latitude) & (longitude != 0) & (latitude != 0)
    located = np.asarray(locate(longitude[known], latitude[known]))
    zones[known] = np.where(located > 0, located, OUTSIDE)
    return pa.array(zones)


_OPTIONAL = {
    "trip_distance": _measures,
    "passenger_count": _counts,
    "vendor": _vendors,
    "rate_code": _counts,
    "trip_type": _counts,
    "store_and_forward": _flags,
}
