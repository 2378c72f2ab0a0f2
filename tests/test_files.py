"""Files that repeat to the byte, and are whole or not there."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trip_duration import files


def table(rows: int) -> pa.Table:
    return pa.table(
        {"a": pa.array(range(rows), pa.int64()), "b": [f"{n % 7}" for n in range(rows)]}
    )


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=6))
def test_the_batches_of_a_stream_leave_no_trace(tmp_path_factory: object, cuts: list[int]) -> None:
    folder: Path = tmp_path_factory.mktemp("stream")  # type: ignore[attr-defined]
    whole = table(40)
    files.write_parquet(whole, folder / "whole.parquet")
    edges = [0, *sorted(cuts), 40]
    parts = [whole.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    files.write_parquet(iter(parts), folder / "parts.parquet", whole.schema)
    assert files.sha256(folder / "whole.parquet") == files.sha256(folder / "parts.parquet")


def test_row_groups_are_cut_alike_for_any_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ROW_GROUP", 16)
    files.write_parquet(table(40), tmp_path / "whole.parquet")
    stream = (batch for batch in table(40).to_batches(max_chunksize=7))
    files.write_parquet(stream, tmp_path / "parts.parquet", table(1).schema)
    assert files.sha256(tmp_path / "whole.parquet") == files.sha256(tmp_path / "parts.parquet")
    metadata = pq.read_metadata(tmp_path / "parts.parquet")
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [16, 16, 8]


def test_metadata_of_pandas_leaves_no_trace(tmp_path: Path) -> None:
    plain = table(3)
    marked = plain.replace_schema_metadata({"pandas": '{"pandas_version": "3.1.1"}'})
    files.write_parquet(plain, tmp_path / "a.parquet")
    files.write_parquet(marked, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.read_table(tmp_path / "b.parquet").equals(plain)


def test_an_empty_stream_is_an_empty_table(tmp_path: Path) -> None:
    files.write_parquet(iter(()), tmp_path / "empty.parquet", table(0).schema)
    assert pq.read_table(tmp_path / "empty.parquet").equals(table(0))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.txt"
    files.write_bytes(b"old", path)

    def fail() -> None:
        with files.atomic(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]
    assert path.read_bytes() == b"old"


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".x.parquet.partial").write_bytes(b"half")
    (tmp_path / "x.parquet").write_bytes(b"whole")
    files.remove_temporary(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]


def test_json_is_sorted_and_refuses_what_is_no_json(tmp_path: Path) -> None:
    files.write_json({"b": 1.5, "a": "é"}, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text("utf-8") == '{\n  "a": "é",\n  "b": 1.5\n}\n'
    assert files.read_json(tmp_path / "x.json") == {"a": "é", "b": 1.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json({"a": float("nan")}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["b"] == 1.5


def test_csv_reads_as_written(tmp_path: Path) -> None:
    files.write_csv(pa.table({"hour": ["00", "01"], "rmse": [1.25, None]}), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == '"hour","rmse"\n"00",1.25\n"01",\n'


def test_a_column_may_have_an_encoding_of_its_own(tmp_path: Path) -> None:
    files.write_parquet(table(40), tmp_path / "a.parquet", encodings={"a": "DELTA_BINARY_PACKED"})
    group = pq.read_metadata(tmp_path / "a.parquet").row_group(0)
    assert "DELTA_BINARY_PACKED" in group.column(0).encodings
    assert "RLE_DICTIONARY" in group.column(1).encodings
    assert pq.read_table(tmp_path / "a.parquet").equals(table(40))


def test_a_stream_ahead_gives_the_same_and_makes_one_more_at_most() -> None:
    made = []

    def stream() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    for count, number in enumerate(files.ahead(stream())):
        assert number == count
        assert len(made) <= count + 2
    assert made == list(range(5))
    assert list(files.ahead(iter(()))) == []


def test_a_stream_ahead_that_fails_gives_what_came_before() -> None:
    def stream() -> Iterator[int]:
        yield 1
        raise RuntimeError("broken")

    given = files.ahead(stream())
    assert next(given) == 1
    with pytest.raises(RuntimeError, match="broken"):
        next(given)
