"""Months that lie in files: a path or an fsspec URL with the month in its name, Parquet or CSV."""

import codecs
import csv
import errno
import gzip
import hashlib
import os
import re
import stat
import string
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import pyarrow as pa

from trip_duration.errors import SettingsError, SourceError, shown
from trip_duration.files import atomic
from trip_duration.months import parse_month
from trip_duration.trips import wanted

__all__ = ["Reading", "local_copy", "opened", "read_batches", "resolve"]

BATCH_ROWS = 1 << 16  # of Parquet; its columns stay in the processor's cache
BLOCK_BYTES = 1 << 23  # of CSV that become one batch
HEADER_BYTES = 1 << 18  # of CSV that its first line may have: other files may have no lines
_ADVICE = "fetch it again, or point data.source at Parquet or CSV files of trips"
_GZIP, _ZIP = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06")  # a zip with and without members
_PACKED = (_GZIP, *_ZIP)
# What the readers of files raise; of names that are not UTF-8, too.
_BROKEN = (
    *(pa.ArrowException, OSError, EOFError, UnicodeDecodeError),
    *(zlib.error, zipfile.BadZipFile),
)
_STRADDLES = "straddling object"  # what Arrow says of a line that is longer than a block
_BOM = b"\xef\xbb\xbf"
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_MOMENT = re.compile(r"\s*\d{4}-\d{2}-\d{2}[ T]\d{2}:")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
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


def local_copy(url: str, cache_dir: str | Path, key: str = "data.source") -> Path:
    """Give a file on this machine: a path itself, or a copy of what a URL names.

    A copy is made anew unless the store says (by ETag, time of change and size) that it has not
    changed since. It comes under a temporary name first, so what is there is whole; what broke off
    over http(s) is continued by the next attempt, as `tlc.download` does it.

    Parameters
    ----------
    url : str
        A path, or a URL that fsspec understands (``s3://``, ``gs://``, ``https://``, …).
    cache_dir : str or Path
        Where copies are kept.
    key : str
        The setting that gave the path or URL, for messages.

    Raises
    ------
    SourceError
        If it cannot be had; transient where another try may succeed.
    """
    if "://" not in url and "::" not in url:
        return _checked(Path(url), key)

    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    try:
        if url.startswith(("http://", "https://")):
            return _downloaded(url, Path(cache_dir))
        system, name = fsspec.url_to_fs(url)
        if isinstance(system, LocalFileSystem):
            return _checked(Path(name), key)
        return _copied(system, name, url, Path(cache_dir))
    except SourceError:
        raise
    except FileNotFoundError:
        raise SourceError(
            f"{url} does not exist: correct {key}, or choose a month that is there."
        ) from None
    except PermissionError as error:
        raise SourceError(
            f"{url} may not be read ({error}): give this machine the credentials that the store of "
            f"{key} asks for."
        ) from None  # these errors may hold credentials, and Prefect keeps what one comes from
    except (ImportError, ValueError) as error:
        raise SourceError(f"{url} cannot be opened ({error}): correct {key}.") from None
    except Exception as error:  # each kind of store has errors of its own
        reason = str(error) or type(error).__name__
        raise SourceError(
            f"{url} could not be fetched ({reason}): try again, or correct {key}.",
            transient=True,
        ) from None


def _downloaded(url: str, cache_dir: Path) -> Path:
    from trip_duration.sources import tlc

    path = _copy_path(cache_dir, url, urlsplit(url).path)
    if not tlc.unchanged(url, path):
        tlc.download(url, path)
    return path


def _copy_path(folder: Path, identity: str, name: str) -> Path:
    """A name of its own in the folder, whatever a URL holds; people know the file by its end."""
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    last = re.sub(r"[^A-Za-z0-9._-]", "_", name.rsplit("/", 1)[-1])
    return folder / f"{digest}-{last[-80:]}"


def _copied(system: Any, name: str, url: str, cache_dir: Path) -> Path:
    info = system.info(name)
    if info.get("type") == "directory":
        raise SourceError(f"{url} is a folder: data.source must name one file for each month.")
    version = [str(info[key]) for key in _VERSIONS if info.get(key) is not None]
    identity = "\n".join([url, str(info.get("size")), *version])
    path = _copy_path(cache_dir, identity, name)
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
        self._parquet = False
        with self._refusing():
            self._parquet = _is_parquet(self._path)
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
        with opened(self._path) as file:
            return _header(self._path, file)

    def _parquet_batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        rows = 0
        # A buffer that is filled ahead is kept to the end: all of the file, in memory.
        with pq.ParquetFile(self._path, pre_buffer=False, page_checksum_verification=True) as file:
            # Who maps the batches does so in threads of their own.
            for batch in file.iter_batches(BATCH_ROWS, columns=self.columns, use_threads=False):
                rows += batch.num_rows
                yield batch
            if rows != file.metadata.num_rows:
                raise pa.ArrowInvalid(f"{rows} rows of {file.metadata.num_rows}")

    def _csv_batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow.csv

        with opened(self._path) as file:
            file.readline()
            start, line = file.tell(), file.readline(HEADER_BYTES)
            # Some of TLC's files have blank lines after the header.
            while line.isspace() and start < HEADER_BYTES:
                start, line = file.tell(), file.readline(HEADER_BYTES)
            if not line:
                return
            names = self._header + self._stray(line)
            file.seek(start)
            lines = _Lines(file)
            reader = pyarrow.csv.open_csv(
                lines,
                read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES),
                parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=self._skip),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=self.columns,
                    column_types={name: pa.string() for name in self.columns},
                ),
            )
            rows = 0
            for batch in reader:
                rows += batch.num_rows
                if batch.num_rows:
                    yield batch
            if lines.quotes and rows + self.cut_records < lines.count:
                file.seek(start)
                if rows + self.cut_records < sum(1 for line in file if line.strip(b"\r\n")):
                    raise pa.ArrowInvalid(_STRADDLES)

    def _skip(self, row: Any) -> str:
        # A quote that is never closed makes one row of several lines.
        self.cut_records += row.text.strip("\r\n").count("\n") + 1
        return "skip"

    def _stray(self, first: bytes) -> list[str]:
        """Names for fields beyond the header's: green of 2014 ends its lines in two commas."""
        stray = _fields(first)[len(self._header) :]
        if any(stray):
            raise SourceError(
                f"{shown(self._path)} has {len(self._header)} column names but "
                f"{len(self._header) + len(stray)} values in its first line: correct its header, "
                "or point data.source at other files."
            )
        return [f"stray {number}" for number in range(len(stray))]

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Say of whatever is wrong with the bytes which file it is."""
        try:
            yield
        except FileNotFoundError:
            raise SourceError(
                f"{shown(self._path)} vanished while it was read: put it back, and run again."
            ) from None
        except _BROKEN as error:
            raise SourceError(f"{shown(self._path)} {self._wrong(error)}.") from error

    def _wrong(self, error: Exception) -> str:
        """What is wrong with the file, and what to do, in our words where Arrow's help nobody."""
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if self._parquet:
            return (
                f"is a broken or truncated Parquet file ({_first_line(reason)}): fetch it again, "
                "or point data.source at a whole file"
            )
        if _STRADDLES in reason or "out of sync" in reason:
            return (
                "has a quoted value that goes on over several lines, or a line of more than "
                f"{BLOCK_BYTES >> 20} MiB: expected a line for each trip; close the quote"
            )
        return (
            f"is broken ({_first_line(reason)}): fetch it again, or point data.source at a whole "
            "file"
        )


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


class _Lines:
    """A file of text as Arrow reads it, and how many lines that was.

    A byte that is no UTF-8 becomes a question mark: Arrow gives up at one in a column that it
    reads, and loses count at one in a line that it skips.
    """

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.count = 0  # of line ends: a last line without one is not counted
        self.quotes = False
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def read(self, size: int) -> bytes:
        """At most so many bytes; Arrow asks for blocks."""
        held, _ = self._decoder.getstate()  # a character that the last block cut in two
        data = self._file.read(size - len(held))
        if held or not data.isascii():
            # As many bytes come out as went in, or the next ones are held.
            text = self._decoder.decode(data, final=not data)
            if data and not text:
                return self.read(size)
            data = text.encode("utf-8", "replace")
        self.count += data.count(b"\n")
        self.quotes = self.quotes or b'"' in data
        return data

    def close(self) -> None:
        self.closed = True


def _first_line(text: str) -> str:
    return shown(text.splitlines()[0].partition(". ")[0].rstrip("."))


def _header(path: Path, file: BinaryIO) -> list[str]:
    """The names in the first line of CSV."""
    line = file.readline(HEADER_BYTES)
    text = line.removeprefix(_BOM).decode("utf-8", "replace").rstrip("\r\n")
    found = ""
    names: list[str] = []
    if len(line) == HEADER_BYTES:
        found = f"has a first line of more than {HEADER_BYTES >> 10} KiB"
    elif "\r" in text:
        found = "ends its lines in a carriage return alone"
    else:
        try:
            names = next(csv.reader([text], strict=True), [])
        except csv.Error as error:
            found = f"has a first line that cannot be read ({error})"
    separators = [word for sign, word in _SEPARATORS.items() if sign in text and len(names) == 1]
    if separators:
        found = f"has {separators[0]} between its values"
    elif any(_MOMENT.match(name) for name in names):
        found = "begins with a trip and has no header"
    if found:
        raise SourceError(
            f"{shown(path)} {found}: expected the names of the columns with commas between, then a "
            "line for each trip; write it again so, or point data.source at other files."
        )
    return names


def _fields(line: bytes) -> list[str]:
    """The fields of one line; none if a quote in it is not closed."""
    try:
        return next(csv.reader([line.decode("utf-8", "replace").rstrip("\r\n")], strict=True), [])
    except csv.Error:
        return []


def _checked(path: Path, key: str = "data.source") -> Path:
    """The path, if a file is there: to open a pipe, or to read a device, might never end."""
    at = shown(path)
    one = "must name one file" + (" for each month" if key == "data.source" else "")
    other = ", or choose a month that is there" if key == "data.source" else ""
    try:
        path = path.expanduser()
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise SourceError(
                f"{at} is a link to {shown(path.readlink())}, which does not exist: mend the "
                f"link, or correct {key}."
            ) from None
        raise SourceError(f"{at} does not exist: correct {key}{other}.") from None
    except PermissionError as error:
        raise _forbidden(path, error, key) from error
    except (OSError, ValueError, RuntimeError) as error:  # too long, a loop of links, nobody's home
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{at} cannot be opened ({reason}): correct {key}.") from error
    if stat.S_ISDIR(mode):
        raise SourceError(f"{at} is a folder: {key} {one}.")
    if not stat.S_ISREG(mode):
        raise SourceError(f"{at} is a pipe, a socket or a device: {key} {one}.")
    if not os.access(path, os.R_OK, effective_ids=os.geteuid() != os.getuid()):
        raise _forbidden(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)), key)
    return path


def _forbidden(path: Path, error: PermissionError, key: str = "data.source") -> SourceError:
    return SourceError(
        f"{shown(path)} may not be read ({error.strerror}): give yourself permission to read the "
        f"files of {key}."
    )


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except PermissionError as error:
        raise _forbidden(path, error) from error
    if head.startswith(b"PAR1"):
        return True
    if path.suffix == ".parquet" or not head.startswith(_PACKED):
        _refuse_no_text(path, head)
    if path.suffix == ".parquet":
        raise SourceError(
            f"{shown(path)} begins with {head[:4]!r}, so it is no Parquet as its name says: "
            f"{_ADVICE}."
        )
    return False


def _refuse_no_text(path: Path, head: bytes, verb: str = "is") -> None:
    """Refuse what by its first bytes is no CSV; ``verb`` is "holds" for what was packed."""
    advice = _ADVICE
    bare = head.lstrip(_BOM + b" \t\r\n")
    line, end, _ = head.partition(b"\n")
    found = ""
    if not head:
        found = "is empty" if verb == "is" else f"{verb} an empty file"
    elif bare.startswith(b"<"):
        found = f"{verb} a web page or XML, not data"
    elif bare.startswith((b"{", b"[")):
        found = f"{verb} JSON, not trips"
    elif head.startswith((b"\xff\xfe", b"\xfe\xff")):
        found = f"{verb} text in UTF-16, and UTF-8 was expected"
        advice = "save it as UTF-8, or point data.source at other files"
    elif head.startswith(b"PAR1"):
        found = f"{verb} Parquet, and CSV was expected"
        advice = "unpack it, since Parquet is packed in itself, and point data.source at that"
    # A stray byte further down spoils its record alone.
    elif _CONTROL.search(head) and not (end and _is_clean(line)):
        begin = "begins with" if verb == "is" else f"{verb} a file that begins with"
        found = f"{begin} {head[:4]!r}, so it is neither Parquet nor CSV"
    if found:
        raise SourceError(f"{shown(path)} {found}: {advice}.")


def _is_clean(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return not _CONTROL.search(line)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open CSV that may be compressed, to be read as bytes.

    Raises
    ------
    SourceError
        If what is packed is no text, or not one file.
    """
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head.startswith(_GZIP):
            with gzip.GzipFile(fileobj=file) as inside:
                _refuse_no_text(path, inside.peek(512)[:512], "holds")
                yield cast(BinaryIO, inside)
        elif head.startswith(_ZIP):
            with zipfile.ZipFile(file) as archive, _member(path, archive) as member:
                _refuse_no_text(path, member.peek(512)[:512], "holds")
                yield cast(BinaryIO, member)
        else:
            yield file


def _member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipExtFile:
    try:
        return cast(zipfile.ZipExtFile, archive.open(_only_member(path, archive)))
    except RuntimeError as error:  # a password, or a packing that Python does not know
        raise SourceError(
            f"{shown(path)} cannot be unpacked ({_first_line(str(error))}): unpack it and point "
            "data.source at the CSV files."
        ) from error


def _only_member(path: Path, archive: zipfile.ZipFile) -> str:
    members = [
        name
        for name in archive.namelist()
        if not name.endswith("/") and not name.startswith("__MACOSX/")
    ]
    if len(members) != 1:
        raise SourceError(
            f"{shown(path)} holds {len(members)} files and one CSV file was expected: unpack it "
            "and point data.source at the CSV files."
        )
    return members[0]
