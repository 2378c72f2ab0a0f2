"""Batch scoring: files of trips in, the same files with predictions out, batch by batch.

All columns and the order of the rows stay as they are. A file of CSV is text, and stays the text
that it was. What is written has a temporary name until it is whole.
"""

import codecs
import csv
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trip_duration import trips
from trip_duration.errors import SettingsError, SourceError, TripDurationError, shown
from trip_duration.files import atomic
from trip_duration.prediction import Model, load
from trip_duration.sources.files import Reading, local_copy, opened

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from trip_duration.registry import Served

__all__ = ["ADDED", "REASON", "Scored", "score"]

ADDED = ("predicted_minutes", "predicted_lower", "predicted_upper", "model_version")
"""The columns that scoring adds: minutes, the ends of their interval, and which model said so."""
REASON = "reason"
"""The column that says of a row which could not be scored why."""

SUFFIXES = (".parquet", ".csv", ".csv.gz")  # of what is written, and with .zip of what is read
TEXT_BYTES = 1 << 20  # of CSV that are looked through at a time
WORKERS = 8  # batches that are predicted at a time, at most; one for each core
_END = "dropoff_datetime"  # stands in for when a trip ends, which is not known yet

S = TypeVar("S")
T = TypeVar("T")


@dataclass
class Scored:
    """What was scored.

    Attributes
    ----------
    rows : int
        Rows that were read.
    rejected : Counter of str
        Rows that could not be scored, by the reason's key in `trips.REASONS`.
    files : list of str
        The paths or URLs that were written.
    foreign : list of str
        The names of the files whose columns are those of another kind of taxi than the model's.
    seconds : float
        How long it took.
    """

    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    seconds: float = 0.0


def score(
    served: "Served",
    source: str,
    target: str,
    *,
    cache: Path,
    locate: trips.Locate | None = None,
    progress: Callable[[int], object] = lambda rows: None,
) -> Scored:
    """Predict the trips of a file, or of each file of a folder.

    A trip can be scored if its pickup time can be read. What else is missing, or makes no sense, is
    unknown to the model, which learned from trips with such gaps: a zone that does not exist is
    one.

    Parameters
    ----------
    served : Served
        The model.
    source, target : str
        Paths or URLs that fsspec understands: of Parquet or CSV, or of folders. Of a folder each
        file is scored into one of the same name.
    cache : Path
        A folder on this machine for copies of what is not on it.
    locate : callable, optional
        As in `trips.to_canonical`; for trips with coordinates in place of zones.
    progress : callable, optional
        Told how many rows are done, batch by batch.

    Returns
    -------
    Scored

    Raises
    ------
    SettingsError
        If the target cannot be written to, or is the source or within it.
    TripDurationError
        If a file cannot be read, or a prediction cannot be made from its columns. Nothing is left
        of the file that was to be written; files that were scored before it stay.
    """
    began = perf_counter()
    pairs = list(_pairs(_Place.of(source, "INPUT"), _Place.of(target, "OUTPUT")))
    for one, _ in pairs:
        if one.local:  # what cannot be opened is told before anything is scored
            local_copy(one.url, cache, "INPUT")
    model = load(served.folder)
    done = Scored()
    for one, other in pairs:
        _score_file(served, model, one, other, cache, locate, progress, done)
    done.seconds = perf_counter() - began
    return done


# Where files lie


@dataclass(frozen=True)
class _Place:
    """A path or URL, and how fsspec calls it."""

    url: str
    store: "AbstractFileSystem"
    path: str
    local: bool
    key: str

    @classmethod
    def of(cls, url: str, key: str) -> "_Place":
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        try:
            if "://" not in url and "::" not in url:
                system, path = LocalFileSystem(), str(Path(url).expanduser())
            else:
                system, path = fsspec.url_to_fs(url)
        except (ImportError, ValueError, RuntimeError) as error:
            raise SourceError(f"{url} cannot be opened ({error}): correct {key}.") from None
        local = isinstance(system, LocalFileSystem)
        if local:
            path = str(Path(path).resolve())
        return cls(url, system, path, local, key)

    @property
    def name(self) -> str:
        # Only over http(s) does a name end at a question mark or a hash.
        at_a_site = self.path.startswith(("http://", "https://"))
        path = urlsplit(self.path).path if at_a_site else self.path
        return path.rstrip("/").rsplit("/", 1)[-1]

    def within(self, name: str) -> "_Place":
        """The file of this name in the folder."""
        url, path = f"{self.url.rstrip('/')}/{name}", f"{self.path.rstrip('/')}/{name}"
        return _Place(url, self.store, path, self.local, self.key)

    def beside(self, name: str) -> "_Place":
        """The file of this name in the same folder."""
        url, path = (f"{at.removesuffix(self.name)}{name}" for at in (self.url, self.path))
        return _Place(url, self.store, path, self.local, self.key)

    def is_folder(self) -> bool:
        if self.url.startswith(("http://", "https://")):
            return False
        with self.reached():
            return bool(self.store.isdir(self.path))

    def files(self) -> list[str]:
        """The names of the files of trips in the folder, in order."""
        with self.reached():
            found = self.store.ls(self.path, detail=True)
            paths = [one["name"] for one in found if self._is_file(one)]
        names = [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]
        return sorted(n for n in names if n.endswith((*SUFFIXES, ".csv.zip")) and n[0] not in "._")

    def _is_file(self, info: dict[str, Any]) -> bool:
        """Whether it is a file, or a link to one; a broken link is one, and is told when opened."""
        if info.get("islink") or info["type"] == "link":
            return not self.store.isdir(info["name"])
        return bool(info["type"] == "file")

    def holds(self, other: "_Place") -> bool:
        """Whether the other place is this one, or lies in it."""
        return type(self.store) is type(other.store) and (
            f"{other.path.rstrip('/')}/".startswith(f"{self.path.rstrip('/')}/")
        )

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Say of whatever a store answers which URL it was; a disk's errors stay what they are."""
        try:
            yield
        except (TripDurationError, pa.ArrowException):
            raise
        except Exception as error:  # each kind of store has errors of its own
            if self.local:
                raise
            reason = str(error) or type(error).__name__
            raise SourceError(
                f"{self.url} could not be reached ({shown(reason)}): try again, or correct "
                f"{self.key}.",
                transient=True,
            ) from None


def _pairs(source: _Place, target: _Place) -> Iterator[tuple[_Place, _Place]]:
    """The files to read, each with the one to write."""
    expected = f"expected a name that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
    if source.is_folder():
        if target.name.endswith(SUFFIXES):
            raise SettingsError(
                f"INPUT {source.url} is a folder and OUTPUT {target.url} names a file: name a "
                "folder."
            )
        if source.holds(target):
            raise SettingsError(
                f"OUTPUT {target.url} lies in INPUT {source.url}, whose files would be scored "
                "again: name a folder outside of it."
            )
        names = source.files()
        if not names:
            raise SourceError(
                f"{source.url} is a folder without a file that ends in {', '.join(SUFFIXES)} or "
                ".csv.zip: correct INPUT."
            )
        made = {name: name.removesuffix(".zip") for name in names}
        _refuse_names_twice(source, made)
        pairs = [(source.within(name), target.within(made[name])) for name in names]
        _refuse_links_to_results(pairs)
        yield from pairs
        return
    if target.is_folder():
        raise SettingsError(f"OUTPUT {target.url} is a folder and INPUT one file: {expected}.")
    if not target.name.endswith(SUFFIXES):
        raise SettingsError(f"OUTPUT is {target.url}: {expected}.")
    for one in _written_of(target):
        if one.holds(source):
            raise SettingsError(
                f"INPUT {source.url} would be overwritten by OUTPUT {target.url}: name another."
            )
    yield source, target


def _refuse_names_twice(source: _Place, made: dict[str, str]) -> None:
    """Refuse files of a folder if two would write the same one; ``made`` has their results."""
    if len(set(made.values())) < len(made):
        twice = next(n for n in made if n != made[n] and made[n] in made)
        raise SettingsError(
            f"{source.url} has {made[twice]} and {twice}, whose results would have the same name: "
            "rename one."
        )
    made_of = {result: name for name, result in made.items()}
    for name, result in made.items():
        beside = _rejected_name(result)
        if beside in made_of:
            raise SettingsError(
                f"{source.url} has {name} and {made_of[beside]}, and what cannot be scored of the "
                f"one would have the name of the other's results, {beside}: rename one."
            )


def _refuse_links_to_results(pairs: list[tuple[_Place, _Place]]) -> None:
    """Refuse files that are links to what others are written to."""
    written = {one.path for _, target in pairs for one in _written_of(target) if one.local}
    for source, _ in pairs:
        if source.local and os.path.realpath(source.path) in written:
            raise SettingsError(
                f"INPUT {source.url} is a link to {os.path.realpath(source.path)}, which would be "
                "overwritten: name another folder as OUTPUT."
            )


def _written_of(target: _Place) -> tuple[_Place, _Place]:
    """What a target is: the file of the trips that were scored, and of those that were not."""
    return target, target.beside(_rejected_name(target.name))


def _rejected_name(name: str) -> str:
    suffix = max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len)
    return f"{name.removesuffix(suffix)}.rejected{suffix}"


# Reading


class _Trips(Reading):
    """A file with all its columns, and the text of the lines that `cut_records` counts."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, ())
        self.columns = list(self._header)
        self.schema = pa.schema([(name, pa.string()) for name in self.columns])
        if self._parquet:
            import pyarrow.parquet as pq

            self.schema = pq.read_schema(path)
        else:
            self._refuse_other_text()
        self._cut: deque[str] = deque()

    def cut(self) -> pa.Table:
        """The lines that were skipped since the last call, with as many fields as there are."""
        rows = []
        while self._cut:
            text = self._cut.popleft().strip("\r\n")
            try:
                fields = next(csv.reader([text], strict=True), [])
            except csv.Error:
                fields = [text]
            width = len(self.columns)
            over = [",".join(fields[width - 1 :])] if len(fields) > width else []
            rows.append((fields[: width - len(over)] + over + [""] * width)[:width])
        if not rows:
            return self.schema.empty_table()
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        return pa.table(columns, schema=self.schema)

    def _refuse_other_text(self) -> None:
        """Refuse text that is not UTF-8, which would not stay the text that it was."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        line, data = 1, b"\n"
        with self._refusing(), opened(self._path) as file:
            while data:
                data = file.read(TEXT_BYTES)
                try:
                    decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    line += error.object[: error.start].count(b"\n")
                    raise SourceError(
                        f"{shown(self._path)} has {error.object[error.start : error.end]!r} in "
                        f"line {line}, which is not UTF-8: expected UTF-8, since all its text is "
                        "written to OUTPUT; save it as UTF-8."
                    ) from None
                line += data.count(b"\n")

    def _skip(self, row: Any) -> str:
        self._cut.append(row.text)
        return super()._skip(row)


def _known(names: list[str]) -> list[str]:
    """The columns that predictions can be made from; `_END` is to be added to them."""
    answers = ("dropoff_datetime", "duration")
    ahead = [name for name in names if not name.strip().lower().endswith(answers)]
    try:
        return [name for name in trips.wanted([*ahead, _END]) if name != _END]
    except TripDurationError as error:
        raise TripDurationError(str(error).replace(f", {_END!r}", "", 1)) from None


def _refuse_columns(reading: _Trips) -> None:
    twice = [name for name, count in Counter(reading.columns).items() if count > 1]
    if twice:
        raise TripDurationError(
            f"It has the column {twice[0]!r} twice: expected each name once; rename one."
        )
    taken = [name for name in (*ADDED, REASON) if name in reading.columns]
    if taken:
        raise TripDurationError(
            f"It has a column {taken[0]!r} already, which scoring writes: remove or rename it."
        )


class _Places:
    """Where places are, and whether any of them lies in a zone."""

    def __init__(self, locate: trips.Locate | None) -> None:
        self._locate = locate
        self._found: list[bool] = []  # of each batch: threads may append to a list

    def __call__(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        assert self._locate is not None
        zones = self._locate(longitude, latitude)
        if len(zones):
            self._found.append(bool((zones > 0).any()))
        return zones

    def refuse_if_none_was_found(self) -> None:
        if self._found and not any(self._found):
            raise TripDurationError(
                "None of its places lies in a zone of data.zones: expected degrees of longitude "
                "and latitude; correct the columns of the coordinates, or set data.zones to TLC's "
                "taxi_zones.zip."
            )


# Predicting


@dataclass(frozen=True)
class _Part:
    """A batch, divided into what was scored and what was not."""

    scored: pa.Table
    rejected: pa.Table
    unread: dict[str, str]


@dataclass(frozen=True)
class _Predictor:
    """What makes a `_Part` of a batch, in any thread."""

    model: Model
    version: str
    names: list[str]  # of the columns that are read
    locate: trips.Locate | None

    def __call__(self, batch: pa.RecordBatch) -> _Part:
        table = pa.Table.from_batches([batch])
        unread: dict[str, str] = {}
        known = table.select(self.names).append_column(_END, pa.nulls(len(table)))
        found = trips.to_canonical(known, self.locate, unread).drop_columns("duration")
        timed = found.column("pickup").is_valid()
        rejected = table.slice(0, 0)
        if found.column("pickup").null_count:
            rejected = table.filter(pc.invert(timed))
            table, found = table.filter(timed), found.filter(timed)
        for name, values in self._predicted(found).items():
            table = table.append_column(name, pa.array(values))
        version = pa.repeat(pa.scalar(self.version, pa.string()), len(table))
        return _Part(table.append_column(ADDED[3], version), rejected, unread)

    def _predicted(self, found: pa.Table) -> dict[str, np.ndarray]:
        """What ``model.predict`` says, faster, for the trips in another order.

        Trips that are alike take the same way in a tree, and XGBoost looks for what is missing in
        all of the few trips that it takes at a time if one of them lacks anything.
        """
        features = self.model.builder.transform(found)
        lacks = np.zeros(len(features), bool)
        for column in features.columns:
            lacks |= np.isnan(column.to_numpy())
        keys = [found.column(name) for name in ("trip_distance", "dropoff_zone", "pickup_zone")]
        order = np.lexsort([*(column.fill_null(0).to_numpy() for column in keys), lacks])
        said = self.model.predict_features(features.take(pa.array(order)))
        predicted = {}
        for name, key in zip(ADDED, ("minutes", "lower", "upper"), strict=False):
            predicted[name] = np.empty(len(order))
            predicted[name][order] = said[key]
        return predicted


def _one_thread() -> None:
    """Have XGBoost use no threads but the one that calls it, so that none waits for another."""
    import xgboost

    xgboost.set_config(nthread=1)


def _mapped(call: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Give ``call`` of each item, in their order, from threads that hold a few items at a time."""
    workers = min(WORKERS, len(os.sched_getaffinity(0)))
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=_one_thread)
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) > workers:  # one waits for whoever is free first
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


# Writing


class _Writer:
    """A file that is written table by table, Parquet or CSV as its name says."""

    def __init__(self, path: Path, name: str, schema: pa.Schema, files: ExitStack) -> None:
        self._parquet = None
        if name.endswith(".parquet"):
            import pyarrow.parquet as pq

            self._parquet = files.enter_context(
                pq.ParquetWriter(
                    path,
                    schema,
                    compression="zstd",
                    use_dictionary=[n for n in schema.names if n not in ADDED[:3]],
                )
            )
            return
        packed = "gzip" if name.endswith(".gz") else None
        self._file = files.enter_context(pa.output_stream(str(path), compression=packed))
        self._schema = _readable(schema, name)
        names = pa.table([[column] for column in schema.names], names=schema.names)
        self._write_lines(names)

    def write(self, table: pa.Table) -> None:
        if self._parquet is not None:
            self._parquet.write_table(table)
        else:
            self._write_lines(table.cast(self._schema))

    def _write_lines(self, table: pa.Table) -> None:
        import pyarrow.csv

        for style in ("none", "needed"):  # which puts quotes around all text
            options = pyarrow.csv.WriteOptions(include_header=False, quoting_style=style)
            lines = pa.BufferOutputStream()
            try:
                pyarrow.csv.write_csv(table, lines, options)
            except pa.ArrowInvalid:
                if style == "none":
                    continue  # a quote or a comma in a value
                raise
            self._file.write(lines.getvalue())
            return


def _readable(schema: pa.Schema, name: str) -> pa.Schema:
    """The columns as CSV can have them; one that it cannot is refused."""
    import pyarrow.csv

    fields = []
    for column in schema:
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.with_type(kind.value_type)
        try:
            pyarrow.csv.write_csv(pa.schema([column]).empty_table(), pa.BufferOutputStream())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise TripDurationError(
                f"The column {column.name!r} holds values of type {kind}, which CSV cannot: "
                f"expected an OUTPUT that ends in .parquet; found {name}."
            ) from None
        fields.append(column)
    return pa.schema(fields)


@contextmanager
def _written(place: _Place, scratch: Path) -> Iterator[Path]:
    """Give a path that becomes the file at ``place`` if the block succeeds."""
    if place.local:
        with atomic(place.path) as path:
            yield path
        return
    path = scratch / place.name
    yield path
    temporary = place.beside(f".{place.name}.partial")
    with place.reached():
        place.store.makedirs(place.path.rpartition("/")[0], exist_ok=True)
        place.store.put_file(str(path), temporary.path)
        place.store.mv(temporary.path, place.path)


class _Results:
    """What is written of one file: the trips that were scored, and those that could not be."""

    def __init__(self, target: _Place, schema: pa.Schema, scratch: Path, files: ExitStack) -> None:
        self._schema, self._scratch, self._files = schema, scratch, files
        _, self._beside = _written_of(target)
        added = [*((name, pa.float64()) for name in ADDED[:3]), (ADDED[3], pa.string())]
        for name, kind in added:
            schema = schema.append(pa.field(name, kind))
        path = files.enter_context(_written(target, scratch))
        self._scored = _Writer(path, target.name, schema, files)
        self._rejected: _Writer | None = None
        self.urls = [target.url]

    def write(self, table: pa.Table) -> None:
        self._scored.write(table)

    def reject(self, table: pa.Table, reason: str) -> None:
        if not len(table):
            return
        if self._rejected is None:
            schema = self._schema.append(pa.field(REASON, pa.string()))
            path = self._files.enter_context(_written(self._beside, self._scratch))
            self._rejected = _Writer(path, self._beside.name, schema, self._files)
            self.urls.append(self._beside.url)
        words = pa.repeat(pa.scalar(trips.REASONS[reason], pa.string()), len(table))
        self._rejected.write(table.append_column(REASON, words))

    def remove_old(self) -> None:
        """Remove the rejected trips of an earlier run, if this one has none."""
        if self._rejected is None:
            with self._beside.reached():
                if self._beside.store.exists(self._beside.path):
                    self._beside.store.rm_file(self._beside.path)


def _score_file(
    served: "Served",
    model: Model,
    source: _Place,
    target: _Place,
    cache: Path,
    locate: trips.Locate | None,
    progress: Callable[[int], object],
    done: Scored,
) -> None:
    """Score one file, and add to ``done`` what came of it."""
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache) as scratch:
        path = local_copy(source.url, Path(scratch) / "copy", "INPUT")
        try:
            reading = _Trips(path)
            _refuse_columns(reading)
            _convert(served, model, reading, target, Path(scratch), locate, progress, done)
        except TripDurationError as error:
            said = str(error).replace("data.source", "INPUT")
            said = said.replace(shown(path), shown(source.url))
            if shown(source.url) not in said:
                said = f"{shown(source.url)}: {said}"
            raise TripDurationError(said) from error
        try:
            trips.refuse_other_taxi(reading.columns, served.taxi)
        except TripDurationError:
            done.foreign.append(source.url)


def _convert(
    served: "Served",
    model: Model,
    reading: _Trips,
    target: _Place,
    scratch: Path,
    locate: trips.Locate | None,
    progress: Callable[[int], object],
    done: Scored,
) -> None:
    places = _Places(locate)
    predictor = _Predictor(model, served.version, _known(reading.columns), locate and places)
    rows, rejected, said = 0, Counter[str](), dict[str, list[str]]()
    with ExitStack() as files:
        results = _Results(target, reading.schema, scratch, files)
        for part in _mapped(predictor, reading):
            cut = reading.cut()
            results.reject(cut, "cut_record")
            results.reject(part.rejected, "no_pickup_time")
            results.write(part.scored)
            rejected.update(cut_record=len(cut), no_pickup_time=len(part.rejected))
            read = len(cut) + len(part.rejected) + len(part.scored)
            rows += read
            progress(read)
            for name, sentence in part.unread.items():
                said.setdefault(name, []).append(sentence)
        cut = reading.cut()
        results.reject(cut, "cut_record")
        rejected.update(cut_record=len(cut))
        for sentences in said.values():
            if all(sentences):  # a column that can be read nowhere
                raise TripDurationError(sentences[0])
        places.refuse_if_none_was_found()
        results.remove_old()
    done.rows += rows + len(cut)
    done.rejected.update(+rejected)
    done.files += results.urls
