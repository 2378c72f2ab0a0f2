"""How two files differ: by value where the format is known, else by bytes.

Rows are counted from 0, as pandas does, lines of text from 1, as editors do. A relative difference
of two numbers is that to the larger one, so that it is the same both ways round.
"""

import contextlib
import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

__all__ = ["MISSING", "Change", "Difference", "changes", "compare", "percent", "read_tree", "shown"]

CHUNK = 1 << 20  # bytes read at a time
ROWS = 1 << 16  # Parquet rows read at a time
TREE_BYTES = 200 << 20  # JSON and YAML are held in memory: larger files are compared as bytes
MISSING = object()


@dataclass(frozen=True)
class Difference:
    """How a file differs.

    Attributes
    ----------
    text : str
        In words.
    relative : float or None
        The largest relative difference of its numbers, and 0 where all values are the same; None
        where more than numbers differs, or nobody knows.
    """

    text: str
    relative: float | None = None


@dataclass(frozen=True)
class Change:
    """A value in a tree of keys and lists, on both sides."""

    key: str  # like model.errors[3].rmse
    committed: Any
    rerun: Any

    @property
    def relative(self) -> float | None:
        """The relative difference, where both are numbers."""
        return _relative(self.committed, self.rerun)


class _UnreadableError(Exception):
    """The file is not what its name says."""


def compare(committed: Path, rerun: Path, name: str) -> Difference:
    """Say how two files differ that don't have the same bytes.

    Parameters
    ----------
    committed, rerun : Path
        The files.
    name : str
        Its ending chooses how they are read.
    """
    try:
        return _comparer(Path(name).suffix.lower())(committed, rerun, name)
    except (_UnreadableError, ImportError):
        return _bytes(committed, rerun, name)


def _comparer(suffix: str) -> Callable[[Path, Path, str], Difference]:
    match suffix:
        case ".parquet" | ".pq":
            return _parquet
        case ".csv" | ".tsv":
            return _csv
        case ".json" | ".yaml" | ".yml" | ".toml":
            return _tree
        case _:
            return _bytes


# Numbers and words


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _relative(a: Any, b: Any) -> float | None:
    if not (_is_number(a) and _is_number(b)):
        return None
    with contextlib.suppress(OverflowError):  # JSON has whole numbers of any length
        if math.isfinite(a) and math.isfinite(b):
            return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0
    return None


def _same(a: Any, b: Any) -> bool:
    if _is_number(a) and _is_number(b):
        return a == b or (a != a and b != b)
    return type(a) is type(b) and a == b


def percent(relative: float) -> str:
    """A relative difference for people: ``0.02 %``."""
    return f"{100 * relative:.0f} %" if relative >= 0.1 else f"{100 * relative:.2g} %"


def shown(value: Any) -> str:
    """A value for people, cut where it is long."""
    if value is MISSING:
        return "nothing"
    text = str(value) if _is_number(value) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _largest(relative: float | None, absolute: float | None = None) -> str:
    if relative is None:
        return "not only numbers"
    by = "" if absolute is None else f"{absolute:.3g}, "
    return f"numbers by at most {by}{percent(relative)}"


def _of(count: int, total: int, word: str) -> str:
    return f"{count:,} of {total:,} {word}"


# Bytes


def _bytes(committed: Path, rerun: Path, name: str) -> Difference:
    sizes = [path.stat().st_size for path in (committed, rerun)]
    said = (
        f"both {sizes[0]:,} bytes" if sizes[0] == sizes[1] else f"{sizes[0]:,} → {sizes[1]:,} bytes"
    )
    offset = 0
    with committed.open("rb") as first, rerun.open("rb") as second:
        while True:
            a, b = first.read(CHUNK), second.read(CHUNK)
            if a != b or not a:
                break
            offset += len(a)
    length = min(len(a), len(b))
    at = next((i for i in range(length) if a[i] != b[i]), length)
    return Difference(f"from byte {offset + at:,} on; {said}")


# JSON, YAML and TOML


def read_tree(path: Path, suffix: str) -> Any:
    """What a JSON, YAML or TOML file holds.

    Raises
    ------
    ValueError
        If it can't be read as that.
    """
    if suffix == ".json":
        return json.loads(path.read_bytes())
    if suffix == ".toml":
        import tomllib

        return tomllib.loads(path.read_text(encoding="utf-8"))
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path)
    except YAMLError as error:
        raise ValueError(str(error)) from None


def changes(committed: Any, rerun: Any, key: str = "") -> Iterator[Change]:
    """The values that differ between two trees of dicts and lists, in the order of the first."""
    if isinstance(committed, dict) and isinstance(rerun, dict):
        for name in [*committed, *(name for name in rerun if name not in committed)]:
            a, b = committed.get(name, MISSING), rerun.get(name, MISSING)
            yield from changes(a, b, f"{key}.{name}" if key else str(name))
    elif isinstance(committed, list) and isinstance(rerun, list):
        for number, (a, b) in enumerate(zip_longest(committed, rerun, fillvalue=MISSING)):
            yield from changes(a, b, f"{key}[{number}]")
    elif not _same(committed, rerun):
        yield Change(key, committed, rerun)


def _tree(committed: Path, rerun: Path, name: str) -> Difference:
    suffix = Path(name).suffix.lower()
    if max(path.stat().st_size for path in (committed, rerun)) > TREE_BYTES:
        raise _UnreadableError
    try:
        trees = [read_tree(path, suffix) for path in (committed, rerun)]
        found = list(changes(*trees))
    except (ValueError, RecursionError):
        raise _UnreadableError from None
    if not found:
        return Difference("the same values, written in another way", 0.0)
    first = found[0]
    relative = _most(change.relative for change in found)
    where = f"{first.key}: " if first.key else ""
    return Difference(
        f"{where}{shown(first.committed)} → {shown(first.rerun)} "
        f"({_of(len(found), _leaves(trees[0]), 'values')}; {_largest(relative)})",
        relative,
    )


def _most(relatives: Iterator[float | None]) -> float | None:
    largest = 0.0
    for relative in relatives:
        if relative is None:
            return None
        largest = max(largest, relative)
    return largest


def _leaves(tree: Any) -> int:
    if isinstance(tree, dict | list):
        inner = tree.values() if isinstance(tree, dict) else tree
        return sum(map(_leaves, inner))
    return 1


# CSV


def _csv(committed: Path, rerun: Path, name: str) -> Difference:
    delimiter = "\t" if name.lower().endswith(".tsv") else ","
    first: str | None = None
    count, total, largest = 0, 0, 0.0
    only_numbers = True
    limit = csv.field_size_limit(CHUNK)
    try:
        with _text(committed) as left, _text(rerun) as right:
            rows = csv.reader(left, delimiter=delimiter)
            others = csv.reader(right, delimiter=delimiter)
            header: list[str] = []
            while True:
                a, b = next(rows, None), next(others, None)
                if a is None and b is None:
                    break
                if total == 0:
                    header = a or []
                total += 1
                if a == b:
                    continue
                count += 1
                said, relative = _row(a, b, header)
                if first is None:
                    first = f"line {rows.line_num if a is not None else others.line_num}{said}"
                if relative is None:
                    only_numbers = False
                else:
                    largest = max(largest, relative)
    except csv.Error:
        raise _UnreadableError from None
    finally:
        csv.field_size_limit(limit)
    if first is None:
        return Difference("the same values, written in another way", 0.0)
    relative = largest if only_numbers else None
    return Difference(f"{first} ({_of(count, total, 'records')}; {_largest(relative)})", relative)


def _text(path: Path) -> Any:
    return path.open(encoding="utf-8", errors="surrogateescape", newline="")


def _row(a: list[str] | None, b: list[str] | None, header: list[str]) -> tuple[str, float | None]:
    """Where two records differ first, and their largest relative difference."""
    if a is None or b is None:
        return f": {'no longer there' if b is None else 'more than the commit has'}", None
    relatives: list[float | None] = []
    said = ""
    for number, (x, y) in enumerate(zip_longest(a, b, fillvalue=MISSING)):
        if x == y:
            continue
        column = header[number] if number < len(header) else f"number {number + 1}"
        said = said or f", column {column}: {_cell(x)} → {_cell(y)}"
        relatives.append(_relative(_number(x), _number(y)))
    return said, _most(iter(relatives))


def _number(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def _cell(text: Any) -> str:
    return text if _is_number(_number(text)) and isinstance(text, str) else shown(text)


# Parquet


class _Column:
    """What is known so far of one column's differences."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.first: tuple[int, Any, Any] | None = None
        self.absolute = 0.0
        self.relative: float | None = 0.0

    def add(self, a: Any, b: Any, start: int) -> Any:
        """Compare a stretch of rows; returns which of them differ, None where none does."""
        if a.equals(b):
            return None
        import pyarrow.compute as pc

        mask = _different(a, b)
        if not pc.any(mask).as_py():
            return None
        a, b = a.filter(mask), b.filter(mask)
        if self.first is None:
            at = pc.index(mask, True).as_py()
            self.first = (start + at, a[0].as_py(), b[0].as_py())
        self._measure(a, b)
        return mask

    def _measure(self, a: Any, b: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = pa.types
        numeric = kind.is_integer(a.type) or kind.is_floating(a.type) or kind.is_decimal(a.type)
        if self.relative is None or not numeric:
            self.relative = None
            return
        x, y = (side.cast(pa.float64(), safe=False) for side in (a, b))
        finite = pc.and_(pc.is_finite(x), pc.is_finite(y))
        if finite.null_count or not pc.all(finite).as_py():
            self.relative = None
            return
        gap = pc.abs(pc.subtract(x, y))
        scale = pc.max_element_wise(pc.abs(x), pc.abs(y))
        share = pc.if_else(pc.equal(scale, 0.0), 0.0, pc.divide(gap, scale))
        self.absolute = max(self.absolute, pc.max(gap).as_py())
        self.relative = max(self.relative, pc.max(share).as_py())


def _different(a: Any, b: Any) -> Any:
    """Which elements differ: nothing is the same as nothing, and NaN as NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        unequal = pc.fill_null(pc.not_equal(a, b), False)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # lists and the like
        pairs = zip(a.to_pylist(), b.to_pylist(), strict=True)
        return pa.array([any(True for _ in changes(x, y)) for x, y in pairs], pa.bool_())
    if pa.types.is_floating(a.type):
        nan = pc.fill_null(pc.and_(pc.is_nan(a), pc.is_nan(b)), False)
        unequal = pc.and_not(unequal, nan)
    return pc.or_(unequal, pc.xor(a.is_null(), b.is_null()))


def _batches(file: Any) -> Callable[[int], Any]:
    """A function that gives the next rows of a file, so many as one asks for."""
    import pyarrow as pa

    waiting = file.iter_batches(batch_size=ROWS)
    kept = pa.table({})

    def take(rows: int) -> Any:
        nonlocal kept
        while kept.num_rows < rows:
            batch = pa.Table.from_batches([next(waiting)])
            kept = batch if kept.num_rows == 0 else pa.concat_tables([kept, batch])
        taken, kept = kept.slice(0, rows), kept.slice(rows)
        return taken

    return take


def _parquet(committed: Path, rerun: Path, name: str) -> Difference:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # A buffer that is filled ahead is kept to the end: all of both files, in memory.
        with (
            pq.ParquetFile(committed, pre_buffer=False) as left,
            pq.ParquetFile(rerun, pre_buffer=False) as right,
        ):
            return _tables(left, right)
    except pa.ArrowException:
        raise _UnreadableError from None


def _tables(left: Any, right: Any) -> Difference:
    import pyarrow.compute as pc

    if said := _schemas(left.schema_arrow, right.schema_arrow):
        return Difference(said)
    counts = [file.metadata.num_rows for file in (left, right)]
    columns = [_Column(field.name) for field in left.schema_arrow]
    rows, total, differing = 0, min(counts), 0
    take, take_other = _batches(left), _batches(right)
    while rows < total:
        size = min(ROWS, total - rows)
        a, b = take(size), take_other(size)
        either = None
        for number, column in enumerate(columns):
            mask = column.add(_plain(a.column(number)), _plain(b.column(number)), rows)
            if mask is not None:
                either = mask if either is None else pc.or_(either, mask)
        differing += 0 if either is None else pc.sum(either).as_py()
        rows += size
    found = [column for column in columns if column.first is not None]
    if counts[0] != counts[1]:
        where = f", the shared ones first {_first(found[0])}" if found else ""
        return Difference(f"{counts[0]:,} → {counts[1]:,} rows{where}")
    if not found:
        return Difference(
            "the same values and other bytes: encoding, metadata or the version that wrote it", 0.0
        )
    relative = _most(column.relative for column in found)
    absolute = max(column.absolute for column in found)
    return Difference(
        f"{_first(found[0])} ({_of(differing, total, 'rows')}, "
        f"{_of(len(found), len(columns), 'columns')}; {_largest(relative, absolute)})",
        relative,
    )


def _first(column: _Column) -> str:
    assert column.first is not None
    row, a, b = column.first
    return f"column {column.name}, row {row:,}: {shown(a)} → {shown(b)}"


def _plain(column: Any) -> Any:
    """A column as one array, of its values where it is a dictionary or an extension."""
    import pyarrow as pa

    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _schemas(left: Any, right: Any) -> str:
    """How the columns differ, empty where they don't."""
    gone = [name for name in left.names if name not in right.names]
    more = [name for name in right.names if name not in left.names]
    if gone or more:
        said = [f"no column {', '.join(gone)}"] if gone else []
        said += [f"columns that the commit has not: {', '.join(more)}"] if more else []
        return "; ".join(said)
    for number, (a, b) in enumerate(zip(left, right, strict=False)):
        if a.name != b.name:
            return f"column {number} is {b.name}, and {a.name} in the commit: another order"
        if a.type != b.type:
            return f"column {a.name} is {b.type}, and {a.type} in the commit"
    if len(left) != len(right):
        return f"{len(left)} → {len(right)} columns"
    return ""
