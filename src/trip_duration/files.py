"""Files that come out the same each time, and are either whole or not there.

Everything is written to a temporary name beside its target, flushed to the disk and renamed, so a
kill at any moment leaves the old file or the new one. Parquet's settings are fixed here and
nothing about the writer's environment (pandas' metadata, time, host) goes in: the same rows give
the same bytes under one lock file.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = [
    "ROW_GROUP",
    "ahead",
    "atomic",
    "read_json",
    "remove_temporary",
    "sha256",
    "unique_temporaries",
    "write_bytes",
    "write_csv",
    "write_json",
    "write_parquet",
]

ROW_GROUP = 1 << 18  # rows; a reader that streams holds one group of each column
_TEMPORARY = ".partial"
_unique = False

T = TypeVar("T")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path that becomes ``path`` if the block succeeds and vanishes if not.

    The name is the same for every run, so a run after a kill overwrites what the kill left;
    unless `unique_temporaries` was called, where `remove_temporary` is left to clean up.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    own = f".{uuid.uuid4().hex}" if _unique else ""
    temporary = target.with_name(f".{target.name}{own}{_TEMPORARY}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def unique_temporaries() -> None:
    """From here on, give this process's temporary files names that no other writer has.

    For a worker of a cluster: one that was thought to be dead may still write the same file.
    """
    global _unique
    _unique = True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary(folder: str | Path) -> None:
    """Remove what a killed writer left in ``folder``."""
    for path in Path(folder).glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_parquet(
    data: pa.Table | Iterable[pa.RecordBatch | pa.Table],
    path: str | Path,
    schema: pa.Schema | None = None,
    *,
    encodings: Mapping[str, str] | None = None,
) -> None:
    """Write a table, or a stream of batches, as Parquet that repeats to the byte.

    Parameters
    ----------
    data : pyarrow.Table, or an iterable of record batches or tables
        What to write. A stream is regrouped into row groups of `ROW_GROUP` rows, so its batch
        size leaves no trace in the file.
    path : str or Path
        The file's name; its folder is made.
    schema : pyarrow.Schema, optional
        The schema of a stream; needed where ``data`` is no table.
    encodings : mapping of str to str, optional
        Parquet's encoding of some columns, like ``DELTA_BINARY_PACKED`` for whole numbers that are
        in order; the others have a dictionary.
    """
    if isinstance(data, pa.Table):
        schema, data = data.schema, [data]
    if schema is None:
        raise TypeError("a stream of batches needs its schema")
    schema = schema.remove_metadata()
    given = dict(encodings or {})
    with (
        atomic(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            compression_level=3,
            data_page_version="1.0",
            version="2.6",
            use_dictionary=[name for name in schema.names if name not in given],
            column_encoding=given or None,
            write_statistics=True,
            store_schema=True,
        ) as writer,
    ):
        for group in _regroup(data, schema):
            writer.write_table(group, row_group_size=ROW_GROUP)


def _regroup(stream: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    rows = 0
    for part in stream:
        table = pa.Table.from_batches([part]) if isinstance(part, pa.RecordBatch) else part
        waiting.append(table.replace_schema_metadata(None))
        rows += table.num_rows
        while rows >= ROW_GROUP:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, ROW_GROUP).combine_chunks()
            waiting, rows = [whole.slice(ROW_GROUP)], rows - ROW_GROUP
    last = pa.concat_tables(waiting) if waiting else schema.empty_table()
    if last.num_rows:
        yield last.combine_chunks()


def ahead(stream: Iterable[T]) -> Iterator[T]:
    """Give what a stream gives, while a thread makes the next of it: two are held at a time."""
    source = iter(stream)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, source, _END)
        while (part := waiting.result()) is not _END:
            waiting = pool.submit(next, source, _END)
            yield part


_END: Any = object()


def write_json(obj: Any, path: str | Path) -> None:
    """Write JSON with sorted keys, two spaces and a last newline; NaN is refused."""
    text = json.dumps(obj, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(f"{text}\n".encode(), path)


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_csv(table: pa.Table, path: str | Path) -> None:
    """Write a small table as CSV with a header, for DVC's plots and for people."""
    import pyarrow.csv

    with atomic(path) as temporary:
        pyarrow.csv.write_csv(table, temporary, pyarrow.csv.WriteOptions(quoting_style="needed"))


def write_bytes(data: bytes, path: str | Path) -> None:
    """Write bytes."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def sha256(path: str | Path) -> str:
    """The file's SHA-256, as lower-case hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
