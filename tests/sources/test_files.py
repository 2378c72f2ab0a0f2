"""Files of trips: their names, their copies, and what is broken about them."""

import gzip
import io
import os
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from trip_duration.errors import SettingsError, SourceError, TripDurationError
from trip_duration.sources import files
from trip_duration.sources.files import local_copy, read_batches, resolve
from trip_duration.trips import to_canonical

HEADER = "pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,fare"
LINE = "2021-01-01 10:00:00,2021-01-01 10:12:30,74,75,9.5"
USED = ["pickup_datetime", "dropoff_datetime", "PULocationID", "DOLocationID"]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def parquet(path: Path, rows: int = 3) -> Path:
    header, line = HEADER.split(","), LINE.split(",")
    pq.write_table(pa.table({n: [v] * rows for n, v in zip(header, line, strict=True)}), path)
    return path


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    reading = read_batches(path)
    rows = [row for batch in reading for row in batch.to_pylist()]
    return rows, reading.cut_records


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert not caught.value.transient
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Names


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("data/{taxi}_tripdata_{year}-{month}.parquet", "data/green_tripdata_2021-02.parquet"),
        ("s3://trips/{year}/{month}/{taxi}.csv", "s3://trips/2021/02/green.csv"),
        ("/mine/{year}{month}.csv", "/mine/202102.csv"),
        ("{{x}}/{year}-{month}", "{x}/2021-02"),
    ],
)
def test_a_template_is_filled_in(template: str, expected: str) -> None:
    assert resolve(template, "green", "2021-02") == expected


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{taxi}_{year}-{mouth}.csv", "'mouth'"),
        ("{}_{year}-{month}.csv", "''"),
        ("{taxi.x}_{year}-{month}.csv", "'taxi.x'"),
        ("{year}-{month:>3}.csv", "'month'"),
        ("{year!r}-{month}.csv", "'year'"),
        ("{taxi}_{year}.csv", "{month}"),
        ("{taxi}.csv", "{year} and no {month}"),
        ("{taxi}_{year}-{month.csv", "expected '}'"),
    ],
)
def test_a_template_that_cannot_work_is_refused(template: str, found: str) -> None:
    with pytest.raises(SettingsError, match=r"data\.source") as caught:
        resolve(template, "green", "2021-02")
    assert found in str(caught.value)
    assert template in str(caught.value)


def test_a_month_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="2021-13"):
        resolve("{year}-{month}.csv", "green", "2021-13")


# Copies


@pytest.fixture
def store() -> Iterator[MemoryFileSystem]:
    store = fsspec.filesystem("memory")
    store.pipe("/trips/a.csv", f"{HEADER}\n{LINE}\n".encode())
    yield store
    store.rm("/trips", recursive=True)


def test_a_path_is_used_where_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", HEADER)
    assert local_copy(str(path), tmp_path / "cache") == path
    assert local_copy(f"file://{path}", tmp_path / "cache") == path
    assert not (tmp_path / "cache").exists()


def test_a_path_at_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path / "a.csv", HEADER)
    assert local_copy("~/a.csv", tmp_path) == path


def test_a_url_is_copied_once_for_each_version(store: MemoryFileSystem, tmp_path: Path) -> None:
    first = local_copy("memory://trips/a.csv", tmp_path)
    assert first.read_bytes() == store.cat("/trips/a.csv")
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert read(first)[0][0]["PULocationID"] == "74"

    stamp = first.stat().st_mtime_ns
    assert local_copy("memory://trips/a.csv", tmp_path) == first
    assert first.stat().st_mtime_ns == stamp

    store.pipe("/trips/a.csv", f"{HEADER}\n{LINE}\n{LINE}\n".encode())
    assert len(read(local_copy("memory://trips/a.csv", tmp_path))[0]) == 2


def test_a_store_without_versions_is_asked_again(
    store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(store.cat("/trips/a.csv"))
    monkeypatch.setattr(
        MemoryFileSystem, "info", lambda *_, **__: {"name": "a.csv", "size": size, "type": "file"}
    )
    first = local_copy("memory://trips/a.csv", tmp_path)
    store.pipe("/trips/a.csv", b"x" * size)
    assert local_copy("memory://trips/a.csv", tmp_path) == first
    assert first.read_bytes() == b"x" * size


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionResetError("broken"), True),
        (TimeoutError(), True),
        (RuntimeError("503"), True),
        (PermissionError("no"), False),
        (FileNotFoundError("none"), False),
    ],
)
def test_what_a_store_cannot_give_is_named(
    store: MemoryFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    transient: bool,
) -> None:
    def fail(_: object, name: str, target: str, **__: object) -> None:
        Path(target).write_bytes(b"half")
        raise error

    monkeypatch.setattr(MemoryFileSystem, "get_file", fail)
    with pytest.raises(SourceError, match=r"memory://trips/a\.csv") as caught:
        local_copy("memory://trips/a.csv", tmp_path)
    assert caught.value.transient is transient
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_comes_short_is_not_kept(
    store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        MemoryFileSystem, "get_file", lambda _, name, target: Path(target).write_bytes(b"half")
    )
    with pytest.raises(SourceError, match="came short: 4 bytes") as caught:
        local_copy("memory://trips/a.csv", tmp_path)
    assert caught.value.transient
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://trips/none.csv", "does not exist"),
        ("memory://trips", "is a folder"),
        ("nonsense://trips/a.csv", "nonsense"),
    ],
)
def test_a_url_that_cannot_work_is_refused(
    store: MemoryFileSystem, tmp_path: Path, url: str, words: str
) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        local_copy(url, tmp_path)
    assert url in str(caught.value)
    assert not caught.value.transient


def test_a_path_that_is_not_there_is_named_as_resolved(tmp_path: Path) -> None:
    path = resolve(f"{tmp_path}/{{taxi}}_{{year}}-{{month}}.csv", "green", "2021-02")
    for attempt in (lambda: local_copy(path, tmp_path), lambda: read_batches(path)):
        with pytest.raises(SourceError, match=r"green_2021-02\.csv does not exist.*data\.source"):
            attempt()


# Reading


def archive(text: bytes, *names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, text)
    return buffer.getvalue()


@pytest.mark.parametrize("packing", ["plain", "gzip", "zip"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_csv_is_read_as_text(tmp_path: Path, packing: str, newline: str, last: bool) -> None:
    lines = [HEADER, "", LINE, LINE.replace("74", "")]
    text = (newline.join(lines) + newline * last).encode()
    data = {"plain": text, "gzip": gzip.compress(text), "zip": archive(text, "x/", "x/a.csv")}
    rows, cut = read(write(tmp_path / "a", data[packing]))
    values = LINE.split(",")
    assert rows == [
        dict(zip(USED, values[:4], strict=True)),
        dict(zip(USED, [*values[:2], "", "75"], strict=True)),
    ]
    assert cut == 0


def test_parquet_is_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 2)
    reading = read_batches(parquet(tmp_path / "a.parquet"))
    assert reading.columns == USED
    assert [(batch.num_rows, batch.schema.names) for batch in reading] == [(2, USED), (1, USED)]
    assert [batch.num_rows for batch in reading] == [2, 1]  # once more from the beginning


def test_parquet_is_read_without_being_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    part = pa.table({"fare": np.random.default_rng(7).random(1 << 17)})
    with pq.ParquetWriter(path, part.schema, use_dictionary=False) as writer:
        for _ in range(48):
            writer.write_table(part)
    reading = read_batches(path, ["fare"])
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() for _ in reading]
    assert max(held) - before < path.stat().st_size / 2


def test_columns_may_be_named(tmp_path: Path) -> None:
    text = f"{HEADER}\n{LINE}\n"
    for path in (write(tmp_path / "a.csv", text), parquet(tmp_path / "a.parquet")):
        (batch,) = read_batches(path, ["fare"])
        assert batch.schema.names == ["fare"]


@pytest.mark.parametrize(
    "cut", ["2021-01-01 10", "2021-01-01 10:00:00,2021-01-01 10:12:30,7", '"2021-01-01', '"a","b']
)
def test_a_record_cut_short_is_counted(tmp_path: Path, cut: str) -> None:
    path = write(tmp_path / "a.csv", f"{HEADER}\n{LINE}\n{LINE}\n{cut}")
    reading = read_batches(path)
    for _ in range(2):  # the count begins anew
        assert sum(batch.num_rows for batch in reading) == 2
        assert reading.cut_records == 1


def test_lines_with_other_fields_are_counted(tmp_path: Path) -> None:
    lines = [HEADER, LINE, "1,2", LINE, f"{LINE},more", LINE]
    rows, cut = read(write(tmp_path / "a.csv", "\n".join(lines)))
    assert (len(rows), cut) == (3, 2)


def test_an_open_quote_loses_no_line_from_the_count(tmp_path: Path) -> None:
    lines = [HEADER, LINE, f'"{LINE}', LINE, LINE]
    rows, cut = read(write(tmp_path / "a.csv", "\n".join(lines) + "\n"))
    assert len(rows) + cut == 4


def test_a_quote_over_several_lines_is_refused(tmp_path: Path) -> None:
    lines = [HEADER, LINE, LINE.replace("9.5", '"9.5'), LINE, LINE]
    message = refusal(write(tmp_path / "a.csv", "\n".join(lines)))
    assert "quoted value that goes on over several lines" in message
    whole = LINE.replace("9.5", '"9.5"')
    rows, cut = read(write(tmp_path / "a.csv", "\n\n".join([HEADER, whole, LINE, whole])))
    assert (len(rows), cut) == (3, 0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=60) | st.text("aé☃😀\n", max_size=30).map(str.encode), st.integers(4, 9))
def test_bytes_that_are_no_text_become_question_marks(data: bytes, size: int) -> None:
    lines = files._Lines(io.BytesIO(data))
    parts = list(iter(lambda: lines.read(size), b""))
    text = b"".join(parts)
    assert text == data.decode("utf-8", "surrogateescape").encode("utf-8", "replace")
    assert max(map(len, parts), default=0) <= size  # Arrow copies what it gets into a block
    assert lines.count == data.count(b"\n")


def test_a_file_in_another_encoding_is_counted_right(tmp_path: Path) -> None:
    lines = [HEADER, LINE.replace("74", "é"), LINE, "é,1", f"{LINE},é"]
    rows, cut = read(write(tmp_path / "a.csv", "\n".join(lines).encode("latin-1")))
    assert [row["PULocationID"] for row in rows] == ["?", "74"]
    assert cut == 2


def test_lines_may_end_in_commas(tmp_path: Path) -> None:
    rows, cut = read(write(tmp_path / "a.csv", f"{HEADER}\n\r\n{LINE},,\n{LINE},,\n2021-01-01"))
    assert (len(rows), cut) == (2, 1)
    message = refusal(write(tmp_path / "b.csv", f"{HEADER}\n1,{LINE}\n"))
    assert "5 column names but 6 values" in message


def test_many_lines_in_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 999)
    text = HEADER + "\n" + "".join(f"{LINE[:-3]}{number}\n" for number in range(3000))
    reading = read_batches(write(tmp_path / "a.csv", text), ["fare"])
    fares = [fare for batch in reading for fare in batch.column("fare").to_pylist()]
    assert fares == [str(number) for number in range(3000)]
    assert reading.cut_records == 0
    assert sum(1 for _ in reading) > 100


@pytest.mark.parametrize("text", [HEADER, f"{HEADER}\n", f"{HEADER}\r\n\r\n", f"\ufeff{HEADER}\n"])
def test_a_header_alone_is_no_trips(tmp_path: Path, text: str) -> None:
    assert read(write(tmp_path / "a.csv", text)) == ([], 0)


def test_a_header_and_half_a_record(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", f"{HEADER}\n2021-01")) == ([], 1)


def test_unused_columns_may_share_a_name(tmp_path: Path) -> None:
    rows, _ = read(write(tmp_path / "a.csv", f"{HEADER},fare,\n{LINE},1,2\n"))
    assert [list(row) for row in rows] == [USED]


def test_columns_that_make_no_trips_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TripDurationError, match="PULocationID"):
        read_batches(write(tmp_path / "a.csv", "pickup_datetime,dropoff_datetime\n"))


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    assert "is empty" in refusal(write(path, b""))
    assert "web page" in refusal(write(path, b"\n<!DOCTYPE html><html></html>"))
    assert "no Parquet as its name says" in refusal(write(path, HEADER))
    assert "neither Parquet nor CSV" in refusal(write(tmp_path / "a.csv", b"\x00\x01\x02"))
    assert "is a folder" in refusal(tmp_path)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    whole = parquet(tmp_path / "whole.parquet").read_bytes()
    path = tmp_path / "a.parquet"
    assert "truncated Parquet" in refusal(write(path, whole[:-10]))
    assert "truncated Parquet" in refusal(write(path, b"PAR1"))
    damaged = whole[:4] + b"\xff" * 60 + whole[64:]
    assert "Parquet" in refusal(write(path, damaged))

    text = f"{HEADER}\n{LINE}\n".encode() * 50
    assert "broken" in refusal(write(tmp_path / "a.csv.gz", gzip.compress(text)[:-20]))
    assert "broken" in refusal(write(tmp_path / "a.zip", archive(text, "a.csv")[:-40]))
    assert "2 files" in refusal(write(tmp_path / "b.zip", archive(text, "a.csv", "b.csv")))


def test_a_file_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.csv", HEADER)
    if os.geteuid() == 0:  # the superuser may read all

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    else:
        path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_a_real_month_comes_whole(tlc: Path) -> None:
    path = tlc / "green_tripdata_2024-01.parquet"
    reading = read_batches(local_copy(str(path), "unused"))
    assert "fare_amount" not in reading.columns
    trips = pa.concat_tables([to_canonical(batch) for batch in reading])
    assert trips.num_rows == 56551
    assert trips.column("pickup")[0].as_py() == datetime(2024, 1, 1, 0, 46, 55)
