"""Months that lie in files: a path or an fsspec URL with the month in its name, Parquet or CSV."""

import csv
import gzip
import hashlib
import string
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from trip_duration.errors import SettingsError, SourceError
from trip_duration.files import atomic
from trip_duration.months import parse_month
from trip_duration.trips import wanted

__all__ = ["Reading", "local_copy", "read_batches", "resolve"]

BATCH_ROWS = 1 << 16  # of Parquet; its columns stay in the processor's cache
BLOCK_BYTES = 1 << 23  # of CSV that become one batch
_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")


def resolve(template: str, taxi: str, month: str) -> str:
    """Fill in a month's path or URL.

    Parameters
    ----------
    template : str
        ``data.source``, with ``{year}`` and ``{month}`` (two digits), and ``{taxi}`` where the name
        has it.
    taxi, month : str
        Like ``green`` and ``2021-01``.

    Raises
    ------
    SettingsError
        If a field is unknown, or the name cannot tell one month from another.
    """
    year, number = parse_month(month)
    expected = "expected a path or URL with {year} and {month}, and {taxi} where the name has it"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise SettingsError(
            f"data.source {template!r} cannot be read ({error}): {expected}."
        ) from None
    values = {"taxi": taxi, "year": f"{year:04d}", "month": f"{number:02d}"}
    fields = [name for _, name, _, _ in parts if name is not None]
    for _, name, layout, conversion in parts:
        if name is not None and (name not in values or layout or conversion):
            raise SettingsError(
                f"data.source {template!r} has a field {name!r} that is unknown or formatted: "
                f"{expected}."
            )
    missing = " and no ".join(f"{{{name}}}" for name in ("year", "month") if name not in fields)
    if missing:
        raise SettingsError(
            f"data.source {template!r} has no {missing}, so several months would be the same file: "
            f"{expected}."
        )
    return template.format(**values)


def local_copy(url: str, cache_dir: str | Path) -> Path:
    """Give a file on this machine: a path itself, or a copy of what a URL names.

    A copy is made anew unless the store says (by ETag, time of change and size) that it has not
    changed since. It comes under a temporary name first, so what is there is whole.

    Parameters
    ----------
    url : str
        A path, or a URL that fsspec understands (``s3://``, ``gs://``, ``https://``, …).
    cache_dir : str or Path
        Where copies are kept.

    Raises
    ------
    SourceError
        If it cannot be had; transient where another try may succeed.
    """
    if "://" not in url and "::" not in url:
        return _checked(Path(url).expanduser())

    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    try:
        system, name = fsspec.url_to_fs(url)
        if isinstance(system, LocalFileSystem):
            return _checked(Path(name))
        return _copied(system, name, url, Path(cache_dir))
    except SourceError:
        raise
    except FileNotFoundError:
        raise SourceError(
            f"{url} does not exist: correct data.source, or choose a month that is there."
        ) from None
    except PermissionError as error:
        raise SourceError(
            f"{url} may not be read ({error}): give this machine the credentials that the store of "
            "data.source asks for."
        ) from error
    except (ImportError, ValueError) as error:
        raise SourceError(f"{url} cannot be opened ({error}): correct data.source.") from error
    except Exception as error:  # each kind of store has errors of its own
        reason = str(error) or type(error).__name__
        raise SourceError(
            f"{url} could not be fetched ({reason}): try again, or correct data.source.",
            transient=True,
        ) from error


def _copied(system: Any, name: str, url: str, cache_dir: Path) -> Path:
    info = system.info(name)
    if info.get("type") == "directory":
        raise SourceError(f"{url} is a folder: data.source must name one file for each month.")
    version = [str(info[key]) for key in _VERSIONS if info.get(key) is not None]
    identity = "\n".join([url, str(info.get("size")), *version])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path = cache_dir / f"{digest}-{Path(name).name}"
    if version and path.is_file():
        return path
    with atomic(path) as temporary:
        system.get_file(name, str(temporary))
        size = info.get("size")
        if size is not None and temporary.stat().st_size != size:
            raise SourceError(
                f"{url} came short: {temporary.stat().st_size} bytes of {size}; try again.",
                transient=True,
            )
    return path


class Reading:
    """The trips of one file in batches, restricted to the columns that trips are made of.

    Iterate over it for record batches; each iteration begins anew. CSV gives all columns as text,
    which `trip_duration.trips.to_canonical` reads.

    Attributes
    ----------
    columns : list of str
        The columns that the batches have.
    cut_records : int
        Lines of CSV that were skipped so far in the present iteration because they have too few or
        too many fields: a download that broke off leaves one at its end.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self.cut_records = 0
        self._path = _checked(path)
        self._parquet = _is_parquet(self._path)
        with self._refusing():
            self._header = self._read_header()
        self.columns = wanted(self._header) if columns is None else list(columns)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        self.cut_records = 0
        with self._refusing():
            yield from self._parquet_batches() if self._parquet else self._csv_batches()

    def _read_header(self) -> list[str]:
        if self._parquet:
            import pyarrow.parquet as pq

            return pq.read_schema(self._path).names
        with _opened(self._path) as file:
            return _fields(file.readline().removeprefix(b"\xef\xbb\xbf"))

    def _parquet_batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._path) as file:
            # Who maps the batches does so in threads of their own.
            yield from file.iter_batches(BATCH_ROWS, columns=self.columns, use_threads=False)

    def _csv_batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow.csv

        with _opened(self._path) as file:
            file.readline()
            start, line = file.tell(), file.readline()
            while line.isspace():  # some of TLC's files have blank lines after the header
                start, line = file.tell(), file.readline()
            if not line:
                return
            names = self._header + self._stray(line)
            file.seek(start)
            reader = pyarrow.csv.open_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES),
                parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=self._skip),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=self.columns,
                    column_types={name: pa.string() for name in self.columns},
                ),
            )
            yield from (batch for batch in reader if batch.num_rows)

    def _skip(self, row: Any) -> str:
        # A quote that is never closed makes one row of several lines.
        self.cut_records += row.text.strip("\r\n").count("\n") + 1
        return "skip"

    def _stray(self, first: bytes) -> list[str]:
        """Names for fields beyond the header's: green of 2014 ends its lines in two commas."""
        stray = _fields(first)[len(self._header) :]
        if any(stray):
            raise SourceError(
                f"{self._path} has {len(self._header)} column names but {len(stray)} fields more "
                "in its first line: correct its header, or point data.source at other files."
            )
        return [f"stray {number}" for number in range(len(stray))]

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Say of whatever is wrong with the bytes which file it is."""
        try:
            yield
        except (pa.ArrowException, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            what = "a broken or truncated Parquet file" if self._parquet else "broken"
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            raise SourceError(
                f"{self._path} is {what} ({reason}): fetch it again, or point data.source at a "
                "whole file."
            ) from error


def read_batches(path: str | Path, columns_hint: Sequence[str] | None = None) -> Reading:
    """Open a file of trips, Parquet or CSV (plain, gzipped or zipped, by its first bytes).

    Parameters
    ----------
    path : str or Path
        The file.
    columns_hint : sequence of str, optional
        The columns to read, by the file's names; by default those that
        `trip_duration.trips.wanted` finds.

    Returns
    -------
    Reading
        An iterable of `pyarrow.RecordBatch` with the count ``cut_records``.

    Raises
    ------
    SourceError
        If there is no such file, or it is no whole Parquet or CSV file.
    TripDurationError
        If no trip can be made from the file's columns.
    """
    return Reading(Path(path), columns_hint)


def _fields(line: bytes) -> list[str]:
    """The fields of one line; none if a quote in it is not closed."""
    try:
        return next(csv.reader([line.decode("utf-8", "replace").rstrip("\r\n")], strict=True), [])
    except csv.Error:
        return []


def _checked(path: Path) -> Path:
    if path.is_dir():
        raise SourceError(f"{path} is a folder: data.source must name one file for each month.")
    if not path.exists():
        raise SourceError(
            f"{path} does not exist: correct data.source, or choose a month that is there."
        )
    return path


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except PermissionError as error:
        raise SourceError(
            f"{path} may not be read ({error.strerror}): give yourself permission to read the "
            "files of data.source."
        ) from error
    advice = "fetch it again, or point data.source at Parquet or CSV files of trips"
    if not head:
        raise SourceError(f"{path} is empty: {advice}.")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise SourceError(f"{path} is a web page or XML, not data: {advice}.")
    if head.startswith(b"PAR1"):
        return True
    text = head.startswith((b"\x1f\x8b", b"PK\x03\x04")) or b"\0" not in head
    if path.suffix == ".parquet" or not text:
        raise SourceError(
            f"{path} begins with {head[:4]!r}, so it is neither Parquet nor CSV: {advice}."
        )
    return False


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open CSV that may be compressed."""
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as inside:
                yield cast(BinaryIO, inside)
        elif head.startswith(b"PK\x03\x04"):
            with (
                zipfile.ZipFile(file) as archive,
                archive.open(_only_member(path, archive)) as inside,
            ):
                yield cast(BinaryIO, inside)
        else:
            yield file


def _only_member(path: Path, archive: zipfile.ZipFile) -> str:
    members = [
        name
        for name in archive.namelist()
        if not name.endswith("/") and not name.startswith("__MACOSX/")
    ]
    if len(members) != 1:
        raise SourceError(
            f"{path} holds {len(members)} files and one CSV file was expected: unpack it and point "
            "data.source at the CSV files."
        )
    return members[0]
