"""Bad files.

Each month, or file of zones, is broken in one way and read as the stage reads it, with a good month
beside it. Either a person gets the sentence below, nothing is written and the good month stays as
it was; or the month is written, and its ledger says how many trips were read, kept and set aside.
"""

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import socket
import stat
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from tests.pipeline.conftest import Clone

from trip_duration import ingest, params
from trip_duration.errors import SourceError, TripDurationError, shown
from trip_duration.files import read_json, sha256, write_parquet
from trip_duration.sources import files
from trip_duration.trips import REASONS, month_path, read_month

GOOD, BAD = "2024-01", "2024-02"
ROWS = 40
P, D = "lpep_pickup_datetime", "lpep_dropoff_datetime"
NOON = datetime(2024, 2, 5, 12)
NULLS = pa.nulls(ROWS)
Make = Callable[[Path], bytes | None]


@dataclass(frozen=True)
class Case:
    """A fault, and what it must end in: a sentence, or a ledger."""

    fault: str
    said: str  # what follows the path
    make: Make  # gives the file's bytes, or makes what is there
    aside: dict[str, int] | None = None  # None where there must be no month
    rows: int = ROWS
    holds: dict[str, set] = field(default_factory=dict)  # of columns that are kept
    name: str = "green_2024-02.parquet"
    zones: str = ""  # the file of zones that is made in place of the month's
    settings: dict[str, Any] = field(default_factory=dict)
    beside: tuple[str, bytes] | None = None  # a good file of zones


# What files are made of


def trips(month: str = BAD, rows: int = ROWS, **changed: Any) -> pa.Table:
    """Good trips of ten minutes, as TLC names their columns; None removes a column."""
    start = datetime.fromisoformat(f"{month}-05 08:00:00")
    pickup = [start + timedelta(minutes=number) for number in range(rows)]
    columns = {
        "VendorID": [2] * rows,
        P: pickup,
        D: [moment + timedelta(minutes=10) for moment in pickup],
        "store_and_fwd_flag": ["N"] * rows,
        "PULocationID": [74] * rows,
        "DOLocationID": [75] * rows,
        "passenger_count": [1] * rows,
        "trip_distance": [1.5] * rows,
        "fare_amount": [9.5] * rows,
    }
    return pa.table({name: v for name, v in (columns | changed).items() if v is not None})


def with_column(name: str, column: Any) -> pa.Table:
    table = trips()
    return table.set_column(table.column_names.index(name), name, column)


def first(name: str, *values: Any, kind: pa.DataType | None = None) -> pa.Table:
    """Good trips, of which the first have these values in a column."""
    rest = trips().column(name).to_pylist()[len(values) :]
    return with_column(name, pa.array([*values, *rest], kind))


def cast(name: str, kind: pa.DataType) -> pa.Table:
    return with_column(name, trips().column(name).cast(kind, safe=False))


def zoned(*names: str) -> pa.Table:
    """Good trips whose times in these columns are said to be in UTC."""
    return trips(**{name: trips().column(name).cast(pa.timestamp("us", "UTC")) for name in names})


def renamed(**names: str) -> pa.Table:
    table = trips()
    return table.rename_columns([names.get(name, name) for name in table.column_names])


def doubled(name: str) -> pa.Table:
    table = trips()
    return pa.table([*table.columns, table.column(name)], names=[*table.column_names, name])


def placed(x: float = -73.95, y: float = 40.75) -> pa.Table:
    """Good trips with coordinates in place of zones."""
    axes = {"longitude": [x] * ROWS, "latitude": [y] * ROWS}
    places = {f"{end}_{axis}": v for end in ("Pickup", "Dropoff") for axis, v in axes.items()}
    return trips(PULocationID=None, DOLocationID=None, **places)


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def csv(table: pa.Table | None = None, delimiter: str = ",") -> bytes:
    table = trips() if table is None else table
    columns = [
        column.cast(pa.timestamp("s")).cast(pa.string())
        if pa.types.is_timestamp(column.type)
        else column
        for column in table.columns
    ]
    sink = io.BytesIO()
    plain = pyarrow.csv.WriteOptions(
        include_header=False, delimiter=delimiter, quoting_style="none"
    )
    pyarrow.csv.write_csv(pa.table(columns, names=table.column_names), sink, plain)
    return delimiter.join(table.column_names).encode() + b"\n" + sink.getvalue()


def zipped(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content)
    return sink.getvalue()


def damaged_page() -> bytes:
    """Parquet with a bit flipped in a distance, and a checksum for each page."""
    whole = bytearray(
        parquet(trips(), compression="none", use_dictionary=False, write_page_checksum=True)
    )
    whole[whole.index(struct.pack("<d", 1.5) * 3) + 6] ^= 1
    return bytes(whole)


def locked() -> bytes:
    """A zip that says that its member is encrypted."""
    whole = bytearray(zipped(**{"a.csv": csv()}))
    whole[6] |= 1
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    return bytes(whole)


def open_quote(*numbers: int) -> bytes:
    """CSV in which the last value of these lines has a quote before it."""
    return b"".join(
        line.replace(b"9.5", b'"9.5') if number in numbers else line
        for number, line in enumerate(LINES)
    )


SQUARE = [[[-74.0, 40.7], [-73.9, 40.7], [-73.9, 40.8], [-74.0, 40.8], [-74.0, 40.7]]]


def geojson(*polygons: Any, **geometry: Any) -> bytes:
    features = [
        {
            "type": "Feature",
            "properties": {"LocationID": number},
            "geometry": geometry or {"type": "Polygon", "coordinates": polygon},
        }
        for number, polygon in enumerate(polygons, 1)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def moved(change: Callable[[float, float], list[float]]) -> Any:
    return [[change(*place) for place in ring] for ring in SQUARE]


def nothing(path: Path) -> None:
    pass


def looped(path: Path) -> None:
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


def bound(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # a socket's whole path may not be long


def of(fault: str, said: str, make: Make | pa.Table | bytes, **more: Any) -> Case:
    """A case; a table becomes Parquet."""
    if isinstance(make, pa.Table | bytes):
        content = parquet(make) if isinstance(make, pa.Table) else make
        return Case(fault, said, lambda _: content, **more)
    return Case(fault, said, make, **more)


def kept(fault: str, make: Make | pa.Table | bytes, **more: Any) -> Case:
    """A case whose month is written."""
    return of(fault, "", make, **({"aside": {}} | more))


HTML = b"<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head></html>\n"
JSON = b'{"trips": [{"PULocationID": 74}]}\n'
LINES = csv().splitlines(keepends=True)
WHOLE = parquet(trips())
CSV = {"name": "green_2024-02.csv"}
GZ = {"name": "green_2024-02.csv.gz"}
ZIP = {"name": "green_2024-02.zip"}
SHAPES = ("zones.geojson", geojson(SQUARE))
LOOKUP = ("lookup.csv", b"LocationID,Borough,Zone\n1,EWR,Newark Airport\n")

# What many sentences have in common.
TORN = " is a broken or truncated Parquet file ("
WHOLE_FILE = "): fetch it again, or point data.source at a whole file."
AGAIN = ": fetch it again, or point data.source at Parquet or CSV files of trips."
LAYOUT = (
    ": expected the names of the columns with commas between, then a line for each trip; write it "
    "again so, or point data.source at other files."
)
CORRECT = "; correct the column or point data.source at other files."
TIMES = f", expected times like 2021-01-31 23:59:59{CORRECT}"
IDS = f", expected zone ids from 1 to 265{CORRECT}"
NAMES = "; name them as TLC does, or point data.source at files of trips."
SPECIAL = " is a pipe, a socket or a device: data.source must name one file for each month."
WIDEN = "): widen the rules under clean in params.yaml, or name another month."
ZONES = "expected TLC's taxi_zones.zip, a GeoJSON file of the zones or taxi_zone_lookup.csv."
POLYGONS = ": expected a polygon for each zone, in degrees; take TLC's taxi_zones.zip."
ALL_ASIDE = ": all of its 40 trips were set aside ("
MAGIC = "Parquet magic bytes not found in footer"
OPEN = (
    " has a quoted value that goes on over several lines, or a line of more than 8 MiB: expected a "
    "line for each trip; close the quote."
)
NO_ROWS = " has no rows: fetch it again, or name another month."
TAKE = "; take TLC's taxi_zones.zip or taxi_zone_lookup.csv."
CHANGED = " changed while it was read: wait until whatever writes it has finished, and run again."


# What is broken

BROKEN = [
    of("Parquet that ends in its footer", f"{TORN}{MAGIC}{WHOLE_FILE}", WHOLE[:-10]),
    of("Parquet cut in its metadata", f"{TORN}{MAGIC}{WHOLE_FILE}", WHOLE[:-200]),
    of("Parquet cut in a column", f"{TORN}{MAGIC}{WHOLE_FILE}", WHOLE[:300]),
    of("half of a Parquet file", f"{TORN}{MAGIC}{WHOLE_FILE}", WHOLE[: len(WHOLE) // 2]),
    of(
        "Parquet of which only the first four bytes are there",
        (
            f"{TORN}Parquet file size is 4 bytes, smaller than the minimum file footer (8 "
            f"bytes){WHOLE_FILE}"
        ),
        b"PAR1",
    ),
    of(
        "Parquet's first and last bytes, and nothing between",
        f"{TORN}Couldn't deserialize thrift: No more data to read{WHOLE_FILE}",
        b"PAR1" + bytes(60) + b"PAR1",
    ),
    of(
        "Parquet with zeros in place of its data",
        f"{TORN}Couldn't deserialize thrift: TProtocolException: Invalid data{WHOLE_FILE}",
        WHOLE[:4] + bytes(400) + WHOLE[404:],
    ),
    of(
        "Parquet with a byte flipped in a checksummed page",
        (
            f"{TORN}could not verify page integrity, CRC checksum verification failed for "
            f"page_ordinal 0{WHOLE_FILE}"
        ),
        damaged_page(),
    ),
    of(
        "Parquet whose footer says that it is 2 GB long",
        (
            f"{TORN}Parquet file size is {len(WHOLE)} bytes, smaller than the size reported by "
            f"footer's (2147483647bytes){WHOLE_FILE}"
        ),
        WHOLE[:-8] + b"\xff\xff\xff\x7fPAR1",
    ),
    of(
        "an encrypted Parquet file",
        (
            f"{TORN}Could not read encrypted metadata, no decryption found in reader's "
            f"properties{WHOLE_FILE}"
        ),
        WHOLE[:-4] + b"PARE",
    ),
    of("zero bytes, named .parquet", f" is empty{AGAIN}", b""),
    of("zero bytes, named .csv", f" is empty{AGAIN}", b"", **CSV),
    of("a web page, named .parquet", f" is a web page or XML, not data{AGAIN}", HTML),
    of("a web page, named .csv", f" is a web page or XML, not data{AGAIN}", HTML, **CSV),
    of("JSON, named .parquet", f" is JSON, not trips{AGAIN}", JSON),
    of("JSON, named .csv", f" is JSON, not trips{AGAIN}", JSON, **CSV),
    of(
        "CSV, named .parquet",
        f" begins with b'Vend', so it is no Parquet as its name says{AGAIN}",
        csv(),
    ),
    of(
        "a gzip of Parquet",
        (
            " holds Parquet, and CSV was expected: unpack it, since Parquet is packed in "
            "itself, and point data.source at that."
        ),
        gzip.compress(WHOLE, mtime=0),
        name="green_2024-02.parquet.gz",
    ),
    of(
        "a gzip that is cut",
        (
            " is broken (Compressed file ended before the end-of-stream marker was "
            f"reached{WHOLE_FILE}"
        ),
        gzip.compress(csv(), mtime=0)[:-30],
        **GZ,
    ),
    of(
        "a gzip with another checksum",
        f" is broken (CRC check failed 0x0 != 0x465c9dfe{WHOLE_FILE}",
        gzip.compress(csv(), mtime=0)[:-8] + bytes(8),
        **GZ,
    ),
    of("a gzip of nothing", f" holds an empty file{AGAIN}", gzip.compress(b"", mtime=0), **GZ),
    of(
        "a gzip of a web page",
        f" holds a web page or XML, not data{AGAIN}",
        gzip.compress(HTML, mtime=0),
        **GZ,
    ),
    of(
        "a zip that is cut",
        f" is broken (File is not a zip file{WHOLE_FILE}",
        zipped(**{"a.csv": csv()})[:-40],
        **ZIP,
    ),
    of(
        "a zip with nothing in it",
        (
            " holds 0 files and one CSV file was expected: unpack it and point data.source "
            "at the CSV files."
        ),
        zipped(),
        **ZIP,
    ),
    of(
        "a zip with two files",
        (
            " holds 2 files and one CSV file was expected: unpack it and point data.source "
            "at the CSV files."
        ),
        zipped(**{"a.csv": csv(), "b.csv": csv()}),
        **ZIP,
    ),
    of(
        "a zip with a text that is no CSV",
        (
            ": These trips have no column for the pickup time (like "
            "'tpep_pickup_datetime') and for the pickup zone (like 'PULocationID') and for "
            "the drop-off zone (like 'DOLocationID'): found the columns 'Trips of green "
            f"taxis.'{NAMES}"
        ),
        zipped(**{"readme.txt": b"Trips of green taxis.\n"}),
        **ZIP,
    ),
    of(
        "a zip of Parquet",
        (
            " holds Parquet, and CSV was expected: unpack it, since Parquet is packed in "
            "itself, and point data.source at that."
        ),
        zipped(**{"a.parquet": WHOLE}),
        **ZIP,
    ),
    of(
        "a zip with a password",
        (
            " cannot be unpacked (File 'a.csv' is encrypted, password required for "
            "extraction): unpack it and point data.source at the CSV files."
        ),
        locked(),
        **ZIP,
    ),
    kept("a zip whose member leads out of its folder", zipped(**{"../../a.csv": csv()}), **ZIP),
    of(
        "bzip2",
        f" begins with b'BZh9', so it is neither Parquet nor CSV{AGAIN}",
        b"BZh91AY&SY" + bytes(range(256)),
        **CSV,
    ),
    of(
        "a picture",
        f" begins with b'\\x89PNG', so it is neither Parquet nor CSV{AGAIN}",
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        **CSV,
    ),
]
TEXTS = [
    kept("CSV cut in its last record", csv()[:-30], aside={"cut_record": 1}, **CSV),
    of(
        "CSV separated by semicolons",
        f" has semicolons between its values{LAYOUT}",
        csv(delimiter=";"),
        **CSV,
    ),
    of(
        "CSV separated by tabs", f" has tabs between its values{LAYOUT}", csv(delimiter="\t"), **CSV
    ),
    kept("CSV with a byte order mark", b"\xef\xbb\xbf" + csv(), **CSV),
    of(
        "CSV in UTF-16",
        (
            " is text in UTF-16, and UTF-8 was expected: save it as UTF-8, or point "
            "data.source at other files."
        ),
        csv().decode().encode("utf-16"),
        **CSV,
    ),
    of(
        "CSV in UTF-16, gzipped",
        (
            " holds text in UTF-16, and UTF-8 was expected: save it as UTF-8, or point "
            "data.source at other files."
        ),
        gzip.compress(csv().decode().encode("utf-16"), mtime=0),
        **GZ,
    ),
    kept(
        "CSV in Latin-1",
        csv(first("store_and_fwd_flag", "é", "Y")).decode().encode("latin-1"),
        holds={"store_and_forward": {None, True, False}},
        **CSV,
    ),
    kept(
        "CSV in Latin-1 whose last record is cut",
        csv(trips(VendorID=["é"] * ROWS)).decode().encode("latin-1")[:-30],
        aside={"cut_record": 1},
        **CSV,
    ),
    kept(
        "CSV in Latin-1, in a column that is not read",
        csv(trips(café=["é"] * ROWS)).decode().encode("latin-1"),
        **CSV,
    ),
    kept(
        "CSV with NUL bytes in a record",
        csv().replace(b",74,", b",7\0,", 1).replace(b"08:05:00", b"08:0\0:00", 1),
        aside={"no_pickup_time": 1},
        holds={"pickup_zone": {74, None}},
        **CSV,
    ),
    kept(
        "CSV with a quote never closed, which spoils its record",
        b"".join([*LINES[:10], b'"' + LINES[10], *LINES[11:]]),
        aside={"cut_record": 31},
        **CSV,
    ),
    of("CSV with a quote never closed in its last column", OPEN, open_quote(10), **CSV),
    of("CSV with two quotes never closed", OPEN, open_quote(10, 20), **CSV),
    of(
        "CSV with a quote in its header never closed",
        f" has a first line that cannot be read (unexpected end of data){LAYOUT}",
        b'"' + csv(),
        **CSV,
    ),
    of("CSV with a header alone", NO_ROWS, LINES[0], **CSV),
    of(
        "CSV without a header",
        f" begins with a trip and has no header{LAYOUT}",
        b"".join(LINES[1:]),
        **CSV,
    ),
    kept(
        "CSV with its header twice", LINES[0] + csv(), aside={"no_pickup_time": 1}, rows=41, **CSV
    ),
    of(
        "CSV with lines that end in a carriage return alone",
        f" ends its lines in a carriage return alone{LAYOUT}",
        csv().replace(b"\n", b"\r"),
        **CSV,
    ),
    of(
        "CSV with a value more than names",
        (
            " has 9 column names but 10 values in its first line: correct its header, or "
            "point data.source at other files."
        ),
        LINES[0] + b"".join(b"x," + line for line in LINES[1:]),
        **CSV,
    ),
    kept(
        "CSV with a record of too many values",
        csv() + LINES[1].rstrip() + b",1,2\n",
        aside={"cut_record": 1},
        rows=41,
        **CSV,
    ),
    of(
        "CSV with an endless first line",
        f" has a first line of more than 256 KiB{LAYOUT}",
        b"a" * (1 << 21),
        **CSV,
    ),
    kept(
        "CSV with a record of ten megabytes",
        csv() + b"2" * 10_000_000 + b"\n" + LINES[1],
        aside={"cut_record": 1},
        rows=42,
        **CSV,
    ),
    of(
        "CSV with a quote never closed, before ten megabytes",
        OPEN,
        open_quote(10) + LINES[1] * 150_000,
        **CSV,
    ),
    kept(
        "CSV with two megabytes of blank lines under its header",
        LINES[0] + b"\n" * (1 << 21) + b"".join(LINES[1:]),
        **CSV,
    ),
    kept("CSV with blank lines between", csv().replace(b"\n", b"\n\r\n\n"), **CSV),
]
COLUMNS = [
    of(
        "no column for the pickup time",
        (
            ": These trips have no column for the pickup time (like "
            "'tpep_pickup_datetime'): found the columns 'VendorID', 'x', "
            "'lpep_dropoff_datetime', 'store_and_fwd_flag', 'PULocationID', "
            f"'DOLocationID', 'passenger_count', 'trip_distance', 'fare_amount'{NAMES}"
        ),
        renamed(**{P: "x"}),
    ),
    of(
        "no column for the drop-off time",
        (
            ": These trips have no drop-off time, so no duration exists: found the columns "
            "'VendorID', 'lpep_pickup_datetime', 'x', 'store_and_fwd_flag', "
            "'PULocationID', 'DOLocationID', 'passenger_count', 'trip_distance', "
            "'fare_amount', expected one like 'dropoff_datetime' too; name it so, or "
            "choose other months than those of TLC's fhv files of 2015 and 2016, which "
            "record pickups alone."
        ),
        renamed(**{D: "x"}),
    ),
    of(
        "no column for the pickup zone",
        (
            ": These trips have no column for the pickup zone (like 'PULocationID'): found "
            "the columns 'VendorID', 'lpep_pickup_datetime', 'lpep_dropoff_datetime', "
            "'store_and_fwd_flag', 'x', 'DOLocationID', 'passenger_count', "
            f"'trip_distance', 'fare_amount'{NAMES}"
        ),
        renamed(PULocationID="x"),
    ),
    of(
        "no column for the drop-off zone",
        (
            ": These trips have no column for the drop-off zone (like 'DOLocationID'): "
            "found the columns 'VendorID', 'lpep_pickup_datetime', "
            "'lpep_dropoff_datetime', 'store_and_fwd_flag', 'PULocationID', 'x', "
            f"'passenger_count', 'trip_distance', 'fare_amount'{NAMES}"
        ),
        renamed(DOLocationID="x"),
    ),
    *(
        kept(f"no column {name}, which may be missing", trips(**{name: None}))
        for name in ("VendorID", "passenger_count", "trip_distance", "store_and_fwd_flag")
    ),
    of(
        "two columns of one name",
        (
            ": The columns 'PULocationID' and 'PULocationID' could each be the trip's "
            "pickup_zone, and one was expected: rename or remove the others."
        ),
        renamed(fare_amount="PULocationID"),
    ),
    of(
        "two columns of one name, in CSV",
        (
            ": The columns 'lpep_pickup_datetime' and 'lpep_pickup_datetime' could each be "
            "the trip's pickup, and one was expected: rename or remove the others."
        ),
        csv(renamed(fare_amount=P)),
        **CSV,
    ),
    of(
        "two columns for the pickup time",
        (
            ": The columns 'lpep_pickup_datetime' and 'pickup_datetime' could each be the "
            "trip's pickup, and one was expected: rename or remove the others."
        ),
        renamed(fare_amount="pickup_datetime"),
    ),
    kept("two columns of one name that are not read", doubled("fare_amount")),
    of(
        "yellow taxis where green ones are expected",
        (
            ": The column 'tpep_pickup_datetime' is one of yellow trips and data.taxi is "
            "'green': set data.taxi to yellow, or point data.source at files of green "
            "trips."
        ),
        renamed(**{P: "tpep_pickup_datetime", D: "tpep_dropoff_datetime"}),
    ),
    of(
        "green taxis where yellow ones are expected",
        (
            ": The column 'lpep_pickup_datetime' is one of green trips and data.taxi is "
            "'yellow': set data.taxi to green, or point data.source at files of yellow "
            "trips."
        ),
        trips(),
        name="yellow_2024-02.parquet",
        settings={"data.taxi": "yellow"},
    ),
    of(
        "for-hire trips without a drop-off",
        (
            ": These trips have no drop-off time, so no duration exists: found the columns "
            "'Pickup_date', 'locationID', expected one like 'dropoff_datetime' too; name "
            "it so, or choose other months than those of TLC's fhv files of 2015 and 2016, "
            "which record pickups alone."
        ),
        pa.table({"Pickup_date": [NOON], "locationID": [74]}),
    ),
    kept(
        "coordinates, and shapes of the zones", placed(), holds={"pickup_zone": {1}}, beside=SHAPES
    ),
    of(
        "coordinates, and no shapes of the zones",
        (
            ": These trips give 'Pickup_longitude' and 'Pickup_latitude' in place of the "
            "pickup zone: set data.zones to TLC's zone shapes (its taxi_zones.zip, or a "
            "GeoJSON file of them)."
        ),
        placed(),
    ),
    of(
        "coordinates, and zones without shapes",
        (
            ": …/lookup.csv names zones but gives no shapes, so coordinates cannot be "
            "placed: set data.zones to TLC's taxi_zones.zip or to a GeoJSON file of the "
            "zones."
        ),
        placed(),
        beside=LOOKUP,
    ),
    of(
        "longitude and latitude swapped",
        (
            ": None of the 80 places, like longitude 40.75 and latitude -73.95, lies in a "
            "zone of …/zones.geojson (data.zones): expected degrees; correct the columns "
            "of the coordinates, or set data.zones to TLC's taxi_zones.zip."
        ),
        placed(40.75, -73.95),
        beside=SHAPES,
    ),
    of(
        "a longitude without its latitude",
        (
            ": These trips have no column for the pickup coordinates ('pickup_latitude'): "
            "found the columns 'VendorID', 'lpep_pickup_datetime', "
            "'lpep_dropoff_datetime', 'store_and_fwd_flag', 'Pickup_longitude', "
            f"'DOLocationID', 'passenger_count', 'trip_distance', 'fare_amount'{NAMES}"
        ),
        renamed(PULocationID="Pickup_longitude"),
    ),
    of(
        "none of the columns",
        (
            ": These trips have no column for the pickup time (like "
            "'tpep_pickup_datetime') and for the pickup zone (like 'PULocationID') and for "
            f"the drop-off zone (like 'DOLocationID'): found the columns 'a', 'b'{NAMES}"
        ),
        pa.table({"a": [1], "b": [2]}),
    ),
    of(
        "no columns at all",
        (
            ": These trips have no column for the pickup time (like "
            "'tpep_pickup_datetime') and for the pickup zone (like 'PULocationID') and for "
            f"the drop-off zone (like 'DOLocationID'): found no columns at all{NAMES}"
        ),
        pa.table({}),
    ),
]
DECIMAL = pa.decimal128(21, 2)
TYPES = [
    of(
        "text where zones belong",
        f": Nothing in the column 'PULocationID' can be read: found 'Astoria'{IDS}",
        trips(PULocationID=["Astoria"] * ROWS),
    ),
    kept(
        "text where a zone belongs, in one trip",
        trips(PULocationID=["N/A", "Astoria", *["74"] * 38]),
        holds={"pickup_zone": {74, None}},
    ),
    of(
        "text where zones belong, in CSV",
        f": Nothing in the column 'DOLocationID' can be read: found 'Astoria'{IDS}",
        csv(trips(DOLocationID=["Astoria"] * ROWS)),
        **CSV,
    ),
    of(
        "text where times belong",
        f": Nothing in the column 'lpep_pickup_datetime' can be read: found 'soon'{TIMES}",
        trips(**{P: ["soon"] * ROWS}),
    ),
    kept(
        "text where a time belongs, in one trip",
        csv().replace(b"2024-02-05 08:00:00", b"soon"),
        aside={"no_pickup_time": 1},
        **CSV,
    ),
    of(
        "numbers where times belong",
        f": The column 'lpep_pickup_datetime' cannot be read: found values of type double{TIMES}",
        trips(**{P: [1.5] * ROWS}),
    ),
    of(
        "seconds since 1970 where times belong",
        f": The column 'lpep_pickup_datetime' cannot be read: found values of type int64{TIMES}",
        trips(**{P: [1707120000] * ROWS}),
    ),
    of(
        "seconds since 1970 where times belong, in CSV",
        f": Nothing in the column 'lpep_pickup_datetime' can be read: found '1707120000'{TIMES}",
        csv(trips(**{P: [1707120000] * ROWS})),
        **CSV,
    ),
    of(
        "dates without a time",
        (
            ": The column 'lpep_pickup_datetime' cannot be read: found values of type "
            f"date32[day]{TIMES}"
        ),
        trips(**{P: pa.array([NOON.date()] * ROWS)}),
    ),
    of(
        "dates without a time, in CSV",
        f": Nothing in the column 'lpep_pickup_datetime' can be read: found '2024-02-05'{TIMES}",
        csv(trips(**{P: ["2024-02-05"] * ROWS})),
        **CSV,
    ),
    of(
        "times in American order",
        (
            ": Nothing in the column 'lpep_pickup_datetime' can be read: found '02/05/2024 "
            f"08:00:00 AM'{TIMES}"
        ),
        trips(**{P: ["02/05/2024 08:00:00 AM"] * ROWS}),
    ),
    of(
        "times of day",
        (
            ": The column 'lpep_pickup_datetime' cannot be read: found values of type "
            f"time64[us]{TIMES}"
        ),
        trips(**{P: pa.array([NOON.time()] * ROWS)}),
    ),
    of(
        "binary where times belong",
        f": The column 'lpep_pickup_datetime' cannot be read: found values of type binary{TIMES}",
        trips(**{P: [b"2024-02-05 08:00:00"] * ROWS}),
    ),
    *(kept(f"times in {unit}", cast(P, pa.timestamp(unit))) for unit in ("ns", "us", "ms", "s")),
    kept(
        "times in nanoseconds of Parquet's first version",
        parquet(cast(P, pa.timestamp("ns")), use_deprecated_int96_timestamps=True),
    ),
    kept("times as text", cast(P, pa.string())),
    kept(
        "times in UTC, which become New York's",
        zoned(P, D),
        holds={"pickup": {NOON.replace(hour=3, minute=minute) for minute in range(ROWS)}},
    ),
    of(
        "pickups in UTC and drop-offs without a time zone",
        (
            ": The columns 'lpep_pickup_datetime' (UTC) and 'lpep_dropoff_datetime' (none) "
            "differ in whether their times carry a time zone: expected one for both, or "
            "New York's wall time in both; correct the columns."
        ),
        zoned(P),
    ),
    of(
        "text times with an offset",
        (
            ": Nothing in the column 'lpep_pickup_datetime' can be read: found '2024-02-05 "
            f"08:00:00-05:00'{TIMES}"
        ),
        trips(**{P: ["2024-02-05 08:00:00-05:00"] * ROWS}),
    ),
    of(
        "text times in UTC",
        (
            ": Nothing in the column 'lpep_pickup_datetime' can be read: found "
            f"'2024-02-05T13:00:00Z'{TIMES}"
        ),
        csv(trips(**{P: ["2024-02-05T13:00:00Z"] * ROWS})),
        **CSV,
    ),
    of(
        "booleans where zones belong",
        f": The column 'PULocationID' cannot be read: found values of type bool{IDS}",
        trips(PULocationID=[True] * ROWS),
    ),
    of(
        "booleans where times belong",
        f": The column 'lpep_dropoff_datetime' cannot be read: found values of type bool{TIMES}",
        trips(**{D: [True] * ROWS}),
    ),
    of(
        "lists where zones belong",
        (
            ": The column 'PULocationID' cannot be read: found values of type "
            f"list<element: int64>{IDS}"
        ),
        trips(PULocationID=[[74]] * ROWS),
    ),
    of(
        "structs where zones belong",
        (
            ": The column 'DOLocationID' cannot be read: found values of type struct<id: "
            f"int64>{IDS}"
        ),
        trips(DOLocationID=[{"id": 75}] * ROWS),
    ),
    kept(
        "lists where an optional column belongs",
        trips(
            trip_distance=[[1.5]] * ROWS,
            passenger_count=[{"n": 1}] * ROWS,
            VendorID=[[2]] * ROWS,
            store_and_fwd_flag=[["N"]] * ROWS,
        ),
        holds={
            "trip_distance": {None},
            "passenger_count": {None},
            "vendor": {None},
            "store_and_forward": {None},
        },
    ),
    kept(
        "text where distances belong",
        trips(trip_distance=["far"] * ROWS),
        holds={"trip_distance": {None}},
    ),
    kept(
        "decimals where zones and distances belong",
        trips(
            PULocationID=cast("PULocationID", DECIMAL)["PULocationID"],
            trip_distance=cast("trip_distance", DECIMAL)["trip_distance"],
        ),
        holds={"pickup_zone": {74}, "trip_distance": {1.5}},
    ),
    kept(
        "dictionaries of text",
        trips(
            **{n: trips()[n].cast(pa.string()).dictionary_encode() for n in trips().column_names}
        ),
    ),
    of(
        "a needed column of Parquet that is not UTF-8",
        (
            ": The column 'lpep_pickup_datetime' cannot be read (Invalid UTF8 sequence in "
            "input): correct the column or point data.source at other files."
        ),
        trips(**{P: pa.array([b"\xff\xfe"] * ROWS).view(pa.string())}),
    ),
    of(
        "an optional column that is not UTF-8",
        (
            ": The column 'store_and_fwd_flag' cannot be read (Invalid UTF8 sequence in "
            "input): correct the column or point data.source at other files."
        ),
        trips(store_and_fwd_flag=pa.array([b"\xe9"] * ROWS).view(pa.string())),
    ),
]
VALUES = [
    of("no rows", NO_ROWS, trips().slice(0, 0)),
    of(
        "all trips set aside",
        f"{ALL_ASIDE}shorter than the shortest trip asked for: 40{WIDEN}",
        trips(**{D: trips()[P]}),
    ),
    of(
        "all trips without a pickup time",
        f"{ALL_ASIDE}no readable pickup time: 40): correct the file, or name another month.",
        trips(**{P: NULLS}),
    ),
    of(
        "no value in any column",
        f"{ALL_ASIDE}no readable pickup time: 40): correct the file, or name another month.",
        pa.table(dict.fromkeys(trips().column_names, NULLS)),
    ),
    kept(
        "no zone in any trip",
        trips(PULocationID=NULLS, DOLocationID=pa.nulls(ROWS, pa.int64())),
        holds={"pickup_zone": {None}, "dropoff_zone": {None}},
    ),
    of(
        "no zone in any trip, and these are not wanted",
        f"{ALL_ASIDE}zone missing, unknown or outside of the city: 40{WIDEN}",
        trips(PULocationID=NULLS),
        settings={"clean.unknown_zones": True},
    ),
    kept(
        "nulls everywhere in ten trips",
        pa.concat_tables(
            [trips().slice(10), pa.table({f.name: pa.nulls(10, f.type) for f in trips().schema})]
        ),
        aside={"no_pickup_time": 10},
    ),
    of(
        "a month of another year",
        (
            ": 40 of its 40 trips lie outside 2024-02, most around 2023-02: expected the "
            "trips of 2024-02; put the right file there."
        ),
        trips("2023-02"),
    ),
    of(
        "the month before",
        (
            ": 40 of its 40 trips lie outside 2024-02, most around 2024-01: expected the "
            "trips of 2024-02; put the right file there."
        ),
        trips("2024-01"),
    ),
    kept(
        "half of it another month",
        pa.concat_tables([trips().slice(20), trips("2024-01").slice(20)]),
    ),
    kept(
        "half of it another month, set aside as asked",
        pa.concat_tables([trips().slice(20), trips("2024-01").slice(20)]),
        aside={"other_month": 20},
        settings={"clean.other_months": True},
    ),
    of(
        "more than half of it another month",
        (
            ": 21 of its 40 trips lie outside 2024-02, most around 2024-01: expected the "
            "trips of 2024-02; put the right file there."
        ),
        pa.concat_tables([trips().slice(21), trips("2024-01").slice(19)]),
    ),
    kept("each trip twice", pa.concat_tables([trips(), trips()]), rows=80),
    kept("drop-off before pickup", first(D, NOON.replace(hour=1)), aside={"negative_duration": 1}),
    kept("no drop-off", first(D, None), aside={"no_dropoff_time": 1}),
    kept(
        "pickups of 1900, 1970 and 2099, ten minutes long",
        pa.concat_tables(
            [trips().slice(3), *(trips(y).slice(0, 1) for y in ("1900-01", "1970-01", "2099-01"))]
        ),
    ),
    kept(
        "drop-offs of 1900, 1970 and 2099",
        first(D, datetime(1900, 1, 1), datetime(1970, 1, 1), datetime(2099, 1, 1)),
        aside={"negative_duration": 2, "over_max_minutes": 1},
    ),
    kept("times that are NaT", first(P, None, None), aside={"no_pickup_time": 2}),
    kept(
        "30 February and 25 o'clock",
        csv(
            trips(
                **{P: ["2024-02-30 08:00:00", "2024-02-05 25:00:00", *["2024-02-05 08:05:00"] * 38]}
            )
        ),
        aside={"no_pickup_time": 2},
        **CSV,
    ),
    of(
        "milliseconds taken for seconds: the year 56065",
        f"{ALL_ASIDE}no readable pickup time: 40): correct the file, or name another month.",
        trips(
            **{
                P: pa.array([1707120000000] * ROWS, pa.timestamp("s")),
                D: pa.array([1707120000600] * ROWS, pa.timestamp("s")),
            }
        ),
    ),
    kept(
        "distances of a billion, of less than nothing, infinite, and none",
        first("trip_distance", 1e9, -5.0, float("inf"), float("-inf"), float("nan"), None),
        holds={"trip_distance": {1e9, -5.0, None, 1.5}},
    ),
    kept(
        "distances of a billion, set aside as asked",
        first("trip_distance", 1e9, float("inf")),
        aside={"over_max_distance": 1},
        settings={"clean.max_miles": 100.0},
    ),
    kept(
        "distances of text like inf and 1e400",
        trips(trip_distance=["inf", "1e400", "1,5", *["1.5"] * 37]),
        holds={"trip_distance": {None, 1.5}},
    ),
    kept(
        "zones 0, 264, 265, 999, -1 and 74.5",
        first(
            "PULocationID",
            0.0,
            264.0,
            265.0,
            999.0,
            -1.0,
            74.5,
            float("nan"),
            1e300,
            kind=pa.float64(),
        ),
        holds={"pickup_zone": {None, 264, 265, 74}},
    ),
    kept(
        "unknown zones, set aside as asked",
        first("PULocationID", 0, 264, 265, 999, -1),
        aside={"unknown_zone": 5},
        settings={"clean.unknown_zones": True},
    ),
    kept(
        "passengers by the billion",
        first("passenger_count", 10**9, -(10**9)),
        holds={"passenger_count": {None, 1}},
    ),
]
PLACES = [
    of(
        "a file that is not there",
        " does not exist: correct data.source, or choose a month that is there.",
        nothing,
    ),
    of(
        "a folder",
        " is a folder: data.source must name one file for each month.",
        lambda path: path.mkdir(),
    ),
    of(
        "a link to nothing",
        " is a link to …/gone, which does not exist: mend the link, or correct data.source.",
        lambda path: path.symlink_to(path.with_name("gone")),
    ),
    of(
        "a link to itself",
        " cannot be opened (Too many levels of symbolic links): correct data.source.",
        looped,
    ),
    of("a pipe", SPECIAL, lambda path: os.mkfifo(path)),
    of("a socket", SPECIAL, bound),
    of("a link to /dev/zero", SPECIAL, lambda path: path.symlink_to("/dev/zero")),
    of("a link to /dev/null", SPECIAL, lambda path: path.symlink_to("/dev/null")),
    of(
        "a file in place of its folder",
        " does not exist: correct data.source, or choose a month that is there.",
        lambda path: path.parent.touch(),
        name="in/green_2024-02.parquet",
    ),
    kept(
        "a name with spaces, accents and quotes", trips(), name="Green 'été' \"☃\"_2024-02.parquet"
    ),
]
ZONE_FILES = [
    of(
        "zones: GeoJSON that is cut",
        (
            " (data.zones) cannot be read (Failed to read GeoJSON data; At line 1, "
            f"character 60: Unterminated object): {ZONES}"
        ),
        geojson(SQUARE)[:-40],
        zones="zones.geojson",
    ),
    of(
        "zones: GeoJSON without features",
        f" (data.zones) has no column 'LocationID': found none{TAKE}",
        geojson(),
        zones="zones.geojson",
    ),
    of(
        "zones: JSON that is no GeoJSON",
        f" (data.zones) cannot be read (its format is not known): {ZONES}",
        JSON,
        zones="zones.geojson",
    ),
    of(
        "zones: zero bytes",
        f" (data.zones) is empty: {ZONES}",
        b"",
        zones="zones.geojson",
    ),
    of(
        "zones: a web page",
        f" (data.zones) is a web page or XML: {ZONES}",
        HTML,
        zones="zones.geojson",
    ),
    of(
        "zones: GeoJSON without LocationID",
        f" (data.zones) has no column 'LocationID': found 'Number'{TAKE}",
        geojson(SQUARE).replace(b"LocationID", b"Number"),
        zones="zones.geojson",
    ),
    of(
        "zones: a number that is none",
        (
            " (data.zones) has a zone with the id 'one': expected a whole number from 1 to "
            f"32767{TAKE}"
        ),
        geojson(SQUARE).replace(b'"LocationID": 1', b'"LocationID": "one"'),
        zones="zones.geojson",
    ),
    of(
        "zones: a number too large",
        (
            " (data.zones) has a zone with the id 70000: expected a whole number from 1 to "
            f"32767{TAKE}"
        ),
        geojson(SQUARE).replace(b'"LocationID": 1', b'"LocationID": 70000'),
        zones="zones.geojson",
    ),
    of(
        "zones: a feature without a shape",
        f" (data.zones) has zones without a shape{POLYGONS}",
        geojson(SQUARE, type="Polygon", coordinates=[]),
        zones="zones.geojson",
    ),
    of(
        "zones: NaN among the coordinates",
        f" (data.zones) has a corner at longitude nan and latitude 40.7{POLYGONS}",
        geojson(SQUARE).replace(b"-73.9", b"NaN"),
        zones="zones.geojson",
    ),
    of(
        "zones: points in place of polygons",
        f" (data.zones) has zones that are points or lines{POLYGONS}",
        geojson(SQUARE, type="Point", coordinates=[-74.0, 40.7]),
        zones="zones.geojson",
    ),
    of(
        "zones: longitude and latitude swapped",
        (
            " (data.zones) has a corner at longitude 40.7 and latitude -74, which may be "
            f"swapped{POLYGONS}"
        ),
        geojson(moved(lambda x, y: [y, x])),
        zones="zones.geojson",
    ),
    of(
        "zones: feet in place of degrees",
        f" (data.zones) has a corner at longitude 999926 and latitude 200041{POLYGONS}",
        geojson(moved(lambda x, y: [1e6 + x, 2e5 + y])),
        zones="zones.geojson",
    ),
    kept(
        "zones: one zone twice",
        geojson(SQUARE, SQUARE).replace(b'"LocationID": 2', b'"LocationID": 1'),
        zones="zones.geojson",
    ),
    of(
        "zones: a zip without a shapefile",
        " (data.zones) holds 0 shapefiles and one was expected: take TLC's taxi_zones.zip.",
        zipped(**{"readme.txt": b"none"}),
        zones="zones.zip",
    ),
    of(
        "zones: a zip that is none",
        f" (data.zones) cannot be read (File is not a zip file): {ZONES}",
        b"PK is not all",
        zones="zones.zip",
    ),
    of(
        "zones: XML that names another file",
        f" (data.zones) is a web page or XML: {ZONES}",
        b'<OGRVRTDataSource><OGRVRTLayer name="a"/></OGRVRTDataSource>',
        zones="zones.geojson",
    ),
    of(
        "zones: a ring of two corners",
        (
            " (data.zones) cannot be read (IllegalArgumentException: Points of LinearRing "
            f"do not form a closed linestring): {ZONES}"
        ),
        geojson([SQUARE[0][:2]]),
        zones="zones.geojson",
    ),
    of(
        "zones: a zip with a shapefile alone",
        " (data.zones) holds 'a.shp' without its 'a.shx': take TLC's taxi_zones.zip.",
        zipped(**{"a.shp": b"\0\0\x27\x0a"}),
        zones="zones.zip",
    ),
    of(
        "zones: a zip with a shapefile that is cut",
        f" (data.zones) cannot be read (.shp file is unreadable, or corrupt): {ZONES}",
        zipped(**{"a.shp": b"\0\0\x27\x0a", "a.shx": b"", "a.dbf": b""}),
        zones="zones.zip",
    ),
    of(
        "zones: a zip with a web page for a shapefile",
        " (data.zones) holds 'a.shp', which is no shapefile: take TLC's taxi_zones.zip.",
        zipped(**{"a.shp": HTML, "a.shx": b"", "a.dbf": b""}),
        zones="zones.zip",
    ),
    of(
        "zones: a zip that leads out of its folder",
        " (data.zones) holds '../../out.shp', which leads out of it: take TLC's taxi_zones.zip.",
        zipped(**{"../../out.shp": b"nothing"}),
        zones="zones.zip",
    ),
    of(
        "zones: a lookup without LocationID",
        f" (data.zones) has no column 'LocationID': found 'Borough', 'Zone'{TAKE}",
        b"Borough,Zone\nEWR,Newark Airport\n",
        zones="lookup.csv",
    ),
    of(
        "zones: a lookup with a header alone",
        " (data.zones) holds no zones: take TLC's taxi_zones.zip.",
        b"LocationID,Borough,Zone\n",
        zones="lookup.csv",
    ),
    of(
        "zones: a lookup with a record cut short",
        (
            " (data.zones) cannot be read (CSV parse error: Expected 3 columns, got 2: "
            f"1,EWR): {ZONES}"
        ),
        b"LocationID,Borough,Zone\n1,EWR\n",
        zones="lookup.csv",
    ),
    of(
        "zones: a lookup in UTF-16",
        (
            " (data.zones) cannot be read (CSV parse error: Expected 3 columns, got 1: "
            f"\\x00): {ZONES}"
        ),
        "LocationID,Borough,Zone\n1,EWR,Newark\n".encode("utf-16"),
        zones="lookup.csv",
    ),
    of(
        "zones: a lookup in Latin-1",
        f" (data.zones) cannot be read (the column 'Zone' is not UTF-8): {ZONES}",
        "LocationID,Borough,Zone\n1,EWR,Café\n".encode("latin-1"),
        zones="lookup.csv",
    ),
    of(
        "zones: a lookup that is empty",
        f" (data.zones) cannot be read (Empty CSV file): {ZONES}",
        b"",
        zones="lookup.csv",
    ),
    of(
        "zones: a lookup with numbers that are none",
        (
            " (data.zones) has a zone with the id 'EWR': expected a whole number from 1 to "
            f"32767{TAKE}"
        ),
        b"LocationID,Borough,Zone\nEWR,1,Newark Airport\n",
        zones="lookup.csv",
    ),
    kept(
        "zones: a lookup with a zone twice",
        b"LocationID,Borough,Zone\n1,EWR,Newark\n1,EWR,Newark\n",
        zones="lookup.csv",
    ),
    of(
        "zones: a file that is not there",
        " does not exist: correct data.zones.",
        nothing,
        zones="zones.geojson",
    ),
    of(
        "zones: a folder",
        " is a folder: data.zones must name one file.",
        lambda path: path.mkdir(),
        zones="zones.geojson",
    ),
    of(
        "zones: a pipe",
        " is a pipe, a socket or a device: data.zones must name one file.",
        lambda path: os.mkfifo(path),
        zones="zones.geojson",
    ),
]
CASES = [*BROKEN, *TEXTS, *COLUMNS, *TYPES, *VALUES, *PLACES, *ZONE_FILES]


# How they are read


def chosen_for(root: Path, folder: Path, name: str, **given: Any) -> params.Params:
    """Settings that read February from a file of this name."""
    source = f"{folder}/{name}".replace(BAD, "{year}-{month}")
    given = {"data.source": source, "data.train": [BAD]} | given
    return params.override((root / "params.yaml").read_text(encoding="utf-8"), given)[1]


def made(case: Case, folder: Path, root: Path) -> params.Params:
    """Make the files of a case, and give the settings that name them."""
    given = dict(case.settings)
    if case.beside:
        name, content = case.beside
        (folder / name).write_bytes(content)
        given["data.zones"] = f"{folder}/{name}"
    if case.zones:
        (folder / case.name).write_bytes(WHOLE)
        given["data.zones"] = f"{folder}/{case.zones}"
    path = folder / (case.zones or case.name)
    bad = case.make(path)
    if bad is not None:
        path.write_bytes(bad)
    return chosen_for(root, folder, case.name, **given)


def stage(chosen: params.Params, folder: Path) -> dict:
    """What the stage does with a month, but for Prefect; it gives the ledger."""
    data, months = chosen.data, folder / "trips"
    zones = ingest.fetch_zones(data, folder / "cache")
    write_parquet(ingest.zones_table(data, 0, zones), folder / "zones.parquet")
    known = ingest.current(data, chosen.clean, 0, BAD, months, zones)
    raw = ingest.fetch(data, BAD, folder / "cache")
    return known or ingest.ingest_month(
        data, chosen.clean, 0, BAD, raw=raw, zones=zones, folder=months
    )


def state(folder: Path) -> dict[str, tuple]:
    """All that is below a folder, but for the table of zones, which is made before the months."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about, name = path.lstat(), str(path.relative_to(folder))
        if stat.S_ISREG(about.st_mode) and name != "zones.parquet":
            found[name] = (about.st_mtime_ns, path.read_bytes())
    return found


def refusal(chosen: params.Params, folder: Path) -> str:
    """The sentence that a person gets; nothing may have been written."""
    before = state(folder)
    with pytest.raises(TripDurationError) as caught:
        stage(chosen, folder)
    assert state(folder) == before
    return str(caught.value).replace(shown(folder), "…")


@pytest.fixture(scope="module")
def good(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with January, as ingest wrote it."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "green_2024-01.parquet").write_bytes(parquet(trips(GOOD)))
    chosen = chosen_for(root, folder, "green_2024-02.parquet")
    raw = ingest.fetch(chosen.data, GOOD, folder)
    ingest.ingest_month(
        chosen.data, chosen.clean, 0, GOOD, raw=raw, zones=None, folder=folder / "trips"
    )
    return folder / "trips"


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A folder of one test, with January in its trips."""
    shutil.copytree(good, tmp_path / "trips")
    return tmp_path


def ledger_said(ledger: dict) -> str:
    aside = "".join(f", {n:,} set aside: {REASONS[why]}" for why, n in ledger["set_aside"].items())
    return f"{ledger['read']:,} read, {ledger['kept']:,} kept{aside}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_a_bad_file(
    case: Case, folder: Path, root: Path, record_property: Callable[[str, object], None]
) -> None:
    chosen = made(case, folder, root)
    record_property("fault", case.fault)
    if case.aside is None:
        said = refusal(chosen, folder)
        assert said == f"…/{shown(case.zones or case.name)}{case.said}"
        assert said.isprintable()
        record_property("said", said)
        return
    before = state(folder)
    ledger = stage(chosen, folder)
    assert (ledger["read"], ledger["set_aside"]) == (case.rows, case.aside)
    assert ledger["kept"] + sum(ledger["set_aside"].values()) == ledger["read"]
    path = month_path(folder / "trips", chosen.data.taxi, BAD)
    month = read_month(path)
    assert month.num_rows == ledger["kept"]
    for name, values in case.holds.items():
        assert set(month[name].to_pylist()) == values
    after = state(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {f"trips/{path.name}", f"trips/{path.stem}.json"}
    record_property("said", ledger_said(ledger))


# What goes wrong while a file is read


@pytest.fixture
def csv_month(folder: Path, root: Path) -> params.Params:
    """A month of good trips in CSV."""
    (folder / CSV["name"]).write_bytes(csv())
    return chosen_for(root, folder, CSV["name"])


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(LINES[1])


def replace(path: Path) -> None:
    path.with_name("other").write_bytes(csv())
    path.with_name("other").replace(path)


@pytest.mark.parametrize(
    ("fault", "change", "said"),
    [
        ("a file that grows while it is read", grow, CHANGED),
        ("a file that another takes the place of while it is read", replace, CHANGED),
        (
            "a file that vanishes while it is read",
            Path.unlink,
            " could not be read (No such file or directory): see that it is there and whole, and "
            "run again.",
        ),
    ],
    ids=["grows", "is replaced", "vanishes"],
)
def test_a_file_changes_while_it_is_read(
    fault: str,
    change: Callable[[Path], None],
    said: str,
    csv_month: params.Params,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    cleaned = ingest._cleaned

    def then_changed(*arguments: Any) -> Any:
        found = cleaned(*arguments)
        change(folder / CSV["name"])
        return found

    before = state(folder / "trips")
    monkeypatch.setattr(ingest, "_cleaned", then_changed)
    with pytest.raises(SourceError) as caught:
        stage(csv_month, folder)
    assert str(caught.value).replace(str(folder), "…") == f"…/{CSV['name']}{said}"
    assert state(folder / "trips") == before
    record_property("fault", fault)
    record_property("said", f"…/{CSV['name']}{said}")
    monkeypatch.undo()
    if change is not Path.unlink:
        assert stage(csv_month, folder)["raw"] == sha256(folder / CSV["name"])


def test_a_file_vanishes_before_it_is_read(csv_month: params.Params, folder: Path) -> None:
    raw = ingest.fetch(csv_month.data, BAD, folder)
    assert raw
    raw.unlink()
    with pytest.raises(SourceError, match=r"does not exist: correct data\.source"):
        ingest.ingest_month(
            csv_month.data, csv_month.clean, 0, BAD, raw=raw, zones=None, folder=folder / "trips"
        )


@pytest.mark.parametrize("broken", [b"", b'{"sha256": "', b"[]", b"\xff\xfe"])
def test_a_broken_ledger_is_made_again(
    broken: bytes, csv_month: params.Params, folder: Path
) -> None:
    ledger = stage(csv_month, folder)
    path = folder / "trips/green-2024-02.json"
    whole = path.read_bytes()
    path.write_bytes(broken)
    assert not ingest.any_changed(csv_month.data, folder / "trips")
    assert stage(csv_month, folder) == ledger
    assert path.read_bytes() == whole


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of the superuser, for whom no file is forbidden."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("needs a user for whom permissions hold")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("forbidden", ["the file", "its folder"])
@pytest.mark.parametrize("what", ["month", "zones"])
def test_no_permission(
    forbidden: str, what: str, root: Path, record_property: Callable[[str, object], None]
) -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies where nobody may look
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "in").mkdir()
        (folder / "in/green_2024-02.parquet").write_bytes(WHOLE)
        (folder / "in/zones.geojson").write_bytes(geojson(SQUARE))
        chosen = chosen_for(
            root,
            folder,
            "in/green_2024-02.parquet",
            **{"data.zones": f"{folder}/in/zones.geojson" if what == "zones" else None},
        )
        blamed = "zones.geojson" if what == "zones" else "green_2024-02.parquet"
        locked = folder / "in" / (blamed if forbidden == "the file" else "")
        locked.chmod(0)
        with as_nobody(), pytest.raises(TripDurationError) as caught:
            stage(chosen, folder)
        locked.chmod(0o700)
        said = str(caught.value).replace(name, "…")
    key = "data.zones" if what == "zones" else "data.source"
    assert said == (
        f"…/in/{blamed} may not be read (Permission denied): give yourself permission to read the "
        f"files of {key}."
    )
    record_property("fault", f"no permission to read {forbidden} ({what})")
    record_property("said", said)


def test_what_cannot_be_read_in_some_batches_is_set_aside(
    folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 8)
    path = folder / "green_2024-02.parquet"
    chosen = chosen_for(root, folder, path.name)
    times = [str(time) for time in trips()[P].to_pylist()]
    path.write_bytes(parquet(trips(**{P: ["soon"] * 8 + times[8:32] + ["later"] * 8})))
    assert stage(chosen, folder)["set_aside"] == {"no_pickup_time": 16}
    path.write_bytes(parquet(trips(**{P: [""] * 8 + ["soon"] * 24 + ["later"] * 8})))
    with pytest.raises(TripDurationError, match=r"Nothing in the column .* found 'soon'"):
        stage(chosen, folder)


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """Bytes of which some are others, are missing, or are too many."""
    found = bytearray(whole)
    for _ in range(draw.choice([1, 1, 2, 5, 40])):
        at = draw.randrange(len(found))
        what = draw.random()
        if what < 0.6:
            found[at] = draw.randrange(256)
        elif what < 0.8:
            del found[at : at + draw.randrange(1, 30)]
        else:
            found[at:at] = bytes(draw.choices(b'",\n\0\xff\r;', k=3))
    return bytes(found)


WHOLES = [
    ("green_2024-02.parquet", WHOLE),
    ("green_2024-02.parquet", parquet(trips(), compression="zstd", data_page_version="2.0")),
    (CSV["name"], csv()),
    (GZ["name"], gzip.compress(csv(), mtime=0)),
    (ZIP["name"], zipped(**{"a.csv": csv()})),
]


def test_damage_anywhere(
    all_faults: bool, folder: Path, root: Path, record_property: Callable[[str, object], None]
) -> None:
    draw, tried = random.Random(5), 400 if all_faults else 50
    ended = {True: 0, False: 0}
    for _ in range(tried):
        name, whole = draw.choice(WHOLES)
        (folder / name).write_bytes(damaged(whole, draw))
        chosen = chosen_for(root, folder, name)
        ledger, said = None, ""
        try:
            ledger = stage(chosen, folder)
        except TripDurationError as error:
            said = str(error)
        assert said.isprintable()
        months = sorted((folder / "trips").glob("*2024-02*"))
        assert len(months) == (2 if ledger else 0)
        if ledger:
            assert ledger["kept"] + sum(ledger["set_aside"].values()) == ledger["read"]
        ended[bool(ledger)] += 1
        for path in [*months, folder / name]:
            path.unlink()
    assert min(ended.values()) > 0
    record_property("tried", tried)
    record_property("fault", f"{tried:,} times: bytes changed, lost or added anywhere")
    record_property("said", f"{ended[False]:,} sentences, {ended[True]:,} ledgers that add up")


# What takes longer


def test_a_month_of_a_hundred_times_its_size(
    all_faults: bool,
    folder: Path,
    root: Path,
    record_property: Callable[[str, object], None],
) -> None:
    once = 60_000 if all_faults else 600  # trips of green taxis in a month
    path = folder / "green_2024-02.parquet"
    month = pa.concat_tables([trips(rows=once // 10)] * 10)
    bad = first(D, None, NOON.replace(hour=1))
    with pq.ParquetWriter(path, month.schema) as writer:
        for _ in range(100):
            writer.write_table(month)
        writer.write_table(bad)
    ledger = stage(chosen_for(root, folder, path.name), folder)
    assert ledger["read"] == 100 * once + ROWS
    assert ledger["kept"] == ledger["read"] - 2
    assert ledger["set_aside"] == {"negative_duration": 1, "no_dropoff_time": 1}
    record_property("fault", f"a month of {ledger['read']:,} trips")
    record_property("said", ledger_said(ledger))


BOMBS = {  # what comes first, what is repeated, and what is said
    "zeros": (
        b"",
        b"\0",
        f" holds a file that begins with {bytes(4)!r}, so it is neither Parquet nor CSV{AGAIN}",
    ),
    "one endless line": (b"", b"2", f" has a first line of more than 256 KiB{LAYOUT}"),
    "zeros under a header": (LINES[0], b"\0", OPEN),
    "zeros under a trip": (LINES[0] + LINES[1], b"\0", OPEN),
    "blank lines under a header": (LINES[0], b"\n", NO_ROWS),
    "records of commas": (
        LINES[0],
        b",,,,,,,,\n",
        ": all of its {rows} trips were set aside (no readable pickup time: {rows}): correct the "
        "file, or name another month.",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_unpacks_to_much(
    name: str,
    all_faults: bool,
    folder: Path,
    root: Path,
    record_property: Callable[[str, object], None],
) -> None:
    begin, repeated, said = BOMBS[name]
    few = 1 << 20 if b"\n" in repeated else 1 << 22  # a line must be longer than two blocks
    times = (1 << 26 if all_faults else few) // len(repeated)
    member = gzip.compress(repeated * times, mtime=0)
    # Gzips in a row are one file.
    (folder / GZ["name"]).write_bytes(gzip.compress(begin, mtime=0) + member * 8)
    chosen = chosen_for(root, folder, GZ["name"])
    with most_memory() as grown:
        sentence = refusal(chosen, folder)
    assert sentence == f"…/{GZ['name']}{said.format(rows=f'{8 * times:,}')}"
    assert (
        grown[0] < 1000
    )  # two batches of the shortest records; all of them would be several times as much
    record_property("fault", f"a small gzip that unpacks to much: {name}")
    record_property("said", sentence)


@contextlib.contextmanager
def most_memory() -> Iterator[list[float]]:
    """By how many megabytes this process grew at most; 0 where the system does not say."""
    reset, about = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    grown = [0.0]
    if not reset.exists():
        yield grown
        return

    def megabytes(key: str) -> float:
        [line] = [line for line in about.read_text().splitlines() if line.startswith(key)]
        return int(line.split()[1]) / 1024

    reset.write_text("5")  # the most that there was begins anew
    before = megabytes("VmRSS")
    yield grown
    grown[0] = megabytes("VmHWM") - before


# The stage itself

STAGE = (
    "Parquet cut in a column",
    "all trips set aside",
    "a pipe",
    "zones: a web page",
    "drop-off before pickup",  # that one trip is set aside
)


@pytest.fixture(scope="module")
def clone(
    all_faults: bool,
    make_clone: Callable[[Path], Clone],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Clone]:
    """A clone in which January and a good February are ingested."""
    if not all_faults:
        pytest.skip("`make test-faults` runs the stage itself")
    clone = make_clone(tmp_path_factory.mktemp("stage") / "clone")
    raw = clone.folder / "raw"
    raw.mkdir()
    for month in (GOOD, BAD):
        (raw / f"green_{month}.parquet").write_bytes(parquet(trips(month)))
    source = f"{raw}/green_{{year}}-{{month}}.parquet"
    clone.change(
        {"data.source": source, "data.train": [GOOD], "data.validation": [BAD], "data.test": []}
    )
    clone.run(sys.executable, "src/stages", "ingest")
    yield clone
    clone.check_that_nothing_runs()


@pytest.mark.parametrize("fault", STAGE)
def test_the_stage_ends_so_too(
    fault: str, clone: Clone, root: Path, record_property: Callable[[str, object], None]
) -> None:
    [case] = [case for case in CASES if case.fault == fault]
    raw, months = clone.folder / "raw", clone.folder / "data/trips"
    for path in [*raw.glob("*2024-02*"), *months.glob("*2024-02*")]:
        path.unlink()
    before = state(months)
    chosen = made(case, raw, root)
    clone.change({"data.zones": chosen.data.zones})
    done = clone.run(sys.executable, "src/stages", "ingest", check=False)
    record_property("fault", f"{fault}, met by the stage itself")
    if case.aside is None:
        said = f"ingest: {raw}/{case.zones or case.name}{case.said}"
        assert (done.returncode, done.stderr) == (1, f"{said}\n")
        assert state(months) == before
        record_property("said", said.replace(str(raw), "…"))
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert {name: state(months)[name] for name in before} == before
        ledger = read_json(months / "green-2024-02.json")
        assert ledger["set_aside"] == case.aside
        record_property("said", ledger_said(ledger))
    assert not list(clone.folder.rglob("*.partial"))
