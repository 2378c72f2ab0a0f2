"""One month: from its source to canonical Parquet and a ledger of what was set aside.

Each month ``data/trips/<taxi>-<month>.parquet`` has its ledger beside it, as JSON. The ledger also
says what the month was made from, so that a month which is there and unchanged is neither fetched
nor written again.
"""

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from trip_duration import trips
from trip_duration.errors import SourceError, TripDurationError, shown
from trip_duration.files import (
    ROW_GROUP,
    ahead,
    read_json,
    remove_temporary,
    sha256,
    write_json,
    write_parquet,
)
from trip_duration.months import bounds
from trip_duration.params import Clean, Data
from trip_duration.zones import Zones, load_zones

__all__ = [
    "any_changed",
    "current",
    "fetch",
    "fetch_zones",
    "ingest_month",
    "is_local",
    "ledger_rows",
    "made_alike",
    "remove_others",
    "summary",
    "zones_table",
]


S = TypeVar("S")
T = TypeVar("T")

THREADS = 2  # that map and clean; each holds one batch
# Reasons that no setting changes.
_BROKEN = {"cut_record", "no_pickup_time", "no_dropoff_time", "negative_duration"}
# Pickups are sorted, and their differences small: half the bytes of a month, and faster to write.
_ENCODINGS = {"pickup": "DELTA_BINARY_PACKED"}


def _ledger_path(path: Path) -> Path:
    return path.with_suffix(".json")


@functools.cache
def _code() -> str:
    """A digest of the code that decides what a month holds: a mended rule rewrites the months."""
    here = Path(__file__).parent
    names = ("ingest.py", "trips.py", "zones.py", "files.py", "months.py", "sources/simulated.py")
    digest = hashlib.sha256()
    for name in (*names, "sources/files.py"):
        digest.update((here / name).read_bytes())
    return digest.hexdigest()


def _ledger(path: Path) -> dict[str, Any]:
    """The ledger of the month at ``path``; empty where there is none that can be read."""
    try:
        found = read_json(_ledger_path(path))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(path: Path | None) -> str | None:
    try:
        return sha256(path) if path else None
    except OSError as error:
        raise SourceError(
            f"{shown(path)} could not be read ({error.strerror}): see that it is there and whole, "
            "and run again."
        ) from error


def _stamp(path: Path | None) -> tuple[int, ...]:
    """What changes when a file does: its inode, size and time."""
    try:
        found = path.stat() if path else None
    except OSError:
        return ()  # it is gone, for who reads it to say
    return (found.st_ino, found.st_size, found.st_mtime_ns) if found else ()


def _made_from(
    data: Data, clean: Clean, seed: int, month: str, raw: str | None, zones: str | None
) -> str:
    """A digest of all that decides what the month holds; ``raw`` and ``zones`` are files' own."""
    source: dict[str, Any] = {"source": data.source, "taxi": data.taxi, "month": month}
    if data.source == "simulated":
        source |= {"seed": seed, **data.simulated.model_dump()}
    if raw is not None:
        source["sha256"] = raw
    if zones is not None:
        source["zones"] = zones
    parts = [source, clean.model_dump(), _code()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def is_local(data: Data) -> bool:
    """Whether the months are files of this machine's, which nothing needs to fetch."""
    source = data.source.removeprefix("file://")
    return source not in ("simulated", "tlc") and "://" not in source


def current(
    data: Data, clean: Clean, seed: int, month: str, folder: Path, zones: Path | None = None
) -> dict | None:
    """The month's ledger, if the month is there, whole, and made from what it would be made from.

    A remote month counts as unchanged while its address is the same; a local file is hashed.
    """
    path = trips.month_path(folder, data.taxi, month)
    ledger = _ledger(path)
    if not (ledger and path.exists()):
        return None
    raw = _digest(fetch(data, month, path.parent)) if is_local(data) else None
    made_from = _made_from(data, clean, seed, month, raw, _digest(zones))
    same = ledger.get("made_from") == made_from
    return ledger if same and ledger.get("sha256") == sha256(path) else None


def made_alike(
    ledger: dict, data: Data, clean: Clean, seed: int, month: str, zones: Path | None = None
) -> bool:
    """Whether a month was made as it would be made today, from the bytes that its ledger names."""
    raw = ledger.get("raw") if is_local(data) else None
    return ledger.get("made_from") == _made_from(data, clean, seed, month, raw, _digest(zones))


def any_changed(data: Data, folder: Path) -> bool:
    """Whether a local file has changed since the month that is there was made from it.

    Of months that come over a network or are drawn, nothing is asked, and of missing ones neither.
    """
    if not is_local(data):
        return False
    for month in data.months:
        found = _ledger(trips.month_path(folder, data.taxi, month))
        if "raw" not in found:
            continue
        try:
            raw = fetch(data, month, folder)
            changed = found["raw"] != _digest(raw)
        except SourceError:
            continue  # for the stage to say
        if raw and changed and found["source"] == _name(data, month, raw):
            return True
    return False


def fetch(data: Data, month: str, cache: Path) -> Path | None:
    """Bring a month's raw file here: one attempt.

    Parameters
    ----------
    data : Data
        The source and the taxi.
    month : str
        ``YYYY-MM``.
    cache : Path
        The folder for what comes over a network. A whole file there is not fetched again.

    Returns
    -------
    Path or None
        The file; None where there is none, because the source draws its trips.

    Raises
    ------
    SourceError
        If it cannot be had; ``transient`` where another attempt may succeed.
    """
    from trip_duration.sources import files

    if data.source == "simulated":
        return None
    if data.source == "tlc":
        from trip_duration.sources import tlc

        return _downloaded(tlc.url(data.taxi, month), cache)
    return files.local_copy(files.resolve(data.source, data.taxi, month), cache)


def fetch_zones(data: Data, cache: Path) -> Path | None:
    """Bring the zones' shapes here, where the settings name some: one attempt, like `fetch`."""
    if data.zones is not None:
        from trip_duration.sources import files

        return files.local_copy(data.zones, cache, "data.zones")
    if data.source == "tlc":
        from trip_duration.sources import tlc

        return _downloaded(tlc.zones_url(), cache)
    return None


def _downloaded(url: str, cache: Path) -> Path:
    from trip_duration.sources import tlc

    path = cache / url.rsplit("/", 1)[-1]
    if not path.exists():
        tlc.download(url, path)
    return path


def ingest_month(
    data: Data,
    clean: Clean,
    seed: int,
    month: str,
    *,
    raw: Path | None,
    zones: Path | None,
    folder: Path,
) -> dict:
    """Write one canonical month and its ledger.

    Parameters
    ----------
    data, clean, seed
        The settings.
    month : str
        ``YYYY-MM``.
    raw : Path or None
        What `fetch` brought.
    zones : Path or None
        What `fetch_zones` brought; needed where the trips carry coordinates.
    folder : Path
        Where canonical months are kept.

    Returns
    -------
    dict
        The ledger: ``read``, ``kept``, ``set_aside`` by reason, ``source``, ``sha256`` of what was
        written, ``raw``, that of the file it was made from, and for the simulated city the parts of
        its noise floor.

    Raises
    ------
    TripDurationError
        If the file's columns fit no layout, its trips are another month's, or none is kept.
    """
    rules = trips.Rules(
        min_minutes=clean.min_minutes,
        max_minutes=clean.max_minutes,
        month=month,
        other_months=clean.other_months,
        max_distance=clean.max_miles,
        unknown_zones=clean.unknown_zones,
    )
    city = None
    before = _stamp(raw), _stamp(zones)
    if raw is None:
        from trip_duration.sources import simulated  # with SciPy, which files do without

        name = "simulated"
        city = simulated.SimulatedMonth(
            month,
            taxi=data.taxi,
            seed=seed,
            trips=data.simulated.trips_per_month,
            drift=data.simulated.drift,
            min_minutes=clean.min_minutes,
            max_minutes=clean.max_minutes,
        )
        table, read, set_aside = _cleaned(city.batches(), rules, None)
    else:
        name = _name(data, month, raw)
        table, read, set_aside = _read_cleaned(raw, shown(name), data.taxi, rules, zones)
    _check_month(table, shown(name), month, read, set_aside)
    path = trips.month_path(folder, data.taxi, month)
    kept = table.num_rows
    with ThreadPoolExecutor(1) as pool:  # has hashed the files before the trips are in order
        hashed, shapes = pool.submit(_digest, raw), pool.submit(_digest, zones)

        def written() -> Iterator[pa.Table]:
            yield from _sorted(table)
            hashed.result()
            shapes.result()
            for file, stamp in zip((raw, zones), before, strict=True):
                if _stamp(file) != stamp:
                    raise SourceError(
                        f"{shown(file)} changed while it was read: wait until whatever writes it "
                        "has finished, and run again."
                    )

        write_parquet(written(), path, trips.SCHEMA, encodings=_ENCODINGS)
    digest = hashed.result()
    local = digest if is_local(data) else None  # what came over a network has its address alone
    ledger = {
        "source": name,
        "read": read,
        "kept": kept,
        "set_aside": {reason: count for reason, count in sorted(set_aside.items()) if count},
        "sha256": sha256(path),
        "made_from": _made_from(data, clean, seed, month, local, shapes.result()),
    }
    if digest is not None:
        ledger["raw"] = digest
    # The floor knows the rule on minutes; with others the kept trips are not those it speaks of.
    others = clean.max_miles is not None or clean.other_months or clean.unknown_zones
    if city is not None and not others:
        ledger["noise"] = city.noise()
    write_json(ledger, _ledger_path(path))
    return ledger


def _name(data: Data, month: str, raw: Path) -> str:
    from trip_duration.sources import files

    return raw.name if data.source == "tlc" else files.resolve(data.source, data.taxi, month)


def _read_cleaned(
    raw: Path, name: str, taxi: str, rules: trips.Rules, zones: Path | None
) -> tuple[pa.Table, int, Counter[str]]:
    """`_cleaned` of a file; its errors name the file, and a record cut short is set aside."""
    from trip_duration.sources import files

    locate = _Places(zones) if zones else None
    try:
        reading = files.read_batches(raw)
        trips.refuse_other_taxi(reading.columns, taxi)
        table, read, set_aside = _cleaned(reading, rules, locate)
        if locate:
            locate.refuse_if_none_was_found()
    except TripDurationError as error:
        # A copy of what a URL names has another name, which alone would tell nobody which it is.
        if name in str(error) or (shown(raw) in str(error) and name.endswith(raw.name)):
            raise
        raise TripDurationError(f"{name}: {error}") from None
    if reading.cut_records:
        set_aside["cut_record"] = reading.cut_records
    return table, read + reading.cut_records, set_aside


def _cleaned(
    batches: Iterable[pa.RecordBatch], rules: trips.Rules, locate: trips.Locate | None
) -> tuple[pa.Table, int, Counter[str]]:
    """The trips that are kept, the rows read, and those set aside by reason."""

    def one(batch: pa.RecordBatch) -> tuple[pa.Table, int, dict[str, int], dict[str, str]]:
        unread: dict[str, str] = {}
        good, counts = trips.clean(trips.to_canonical(batch, locate, unread), rules)
        return good, batch.num_rows, counts, unread

    set_aside: Counter[str] = Counter()
    said: dict[str, list[str]] = {}
    goods, read = [trips.SCHEMA.empty_table()], 0
    for good, rows, counts, unread in _in_threads(one, batches):
        goods.append(good)
        read += rows
        set_aside.update(counts)
        for name, sentence in unread.items():
            said.setdefault(name, []).append(sentence)
    for sentences in said.values():
        if all(sentences):  # a column that can be read nowhere; what is amiss here and there is not
            raise TripDurationError(sentences[0])
    columns = pa.concat_tables(goods).columns
    # To take rows from chunks is to join them each time, so join them here; column by column, so
    # that the memory never holds two of the whole.
    goods.clear()
    for number, column in enumerate(columns):
        columns[number] = column.combine_chunks()
    return pa.table(columns, schema=trips.SCHEMA), read, set_aside


def _in_threads(call: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Give ``call`` of each item, in their order; each thread holds one item at a time.

    Of several errors that of the first item is raised, whichever thread was faster.
    """
    numbered, one_at_a_time = enumerate(items), Lock()
    results: dict[int, T] = {}
    errors: dict[float, BaseException] = {}

    def work() -> None:
        while not errors:
            number = math.inf  # an error of the items themselves comes after all that were given
            try:
                with one_at_a_time:
                    taken = next(numbered, None)
                if taken is None:
                    return
                number, item = taken
                results[number] = call(item)
            except BaseException as error:
                errors[number] = error

    with ThreadPoolExecutor(THREADS - 1) as pool:
        for _ in range(THREADS - 1):
            pool.submit(work)
        work()
    if errors:
        raise errors[min(errors)]
    return [results[number] for number in sorted(results)]


def _sorted(table: pa.Table) -> Iterator[pa.Table]:
    """The trips in order, a row group at a time: one is taken while the one before is written."""
    order = trips.order(table)
    starts = range(0, len(order), ROW_GROUP)
    return ahead(table.take(pa.array(order[start : start + ROW_GROUP])) for start in starts)


class _Places:
    """The zones of places; their shapes are loaded at the first place, and only then."""

    def __init__(self, zones: Path) -> None:
        self._path = zones
        self._zones: Zones | None = None
        self._one_at_a_time = Lock()
        self._asked = self._found = 0
        self._example = ""

    def __call__(self, longitude: Any, latitude: Any) -> Any:
        with self._one_at_a_time:
            if self._zones is None:
                self._zones = load_zones(self._path)
            if len(longitude) and not self._example:
                self._example = f"longitude {longitude[0]:g} and latitude {latitude[0]:g}"
        found = self._zones.locate(longitude, latitude)
        with self._one_at_a_time:
            self._asked += len(found)
            self._found += int((found > 0).sum())
        return found

    def refuse_if_none_was_found(self) -> None:
        """Refuse places that all lie elsewhere: degrees swapped, or another city's zones."""
        if self._asked and not self._found:
            raise TripDurationError(
                f"None of the {self._asked:,} places, like {self._example}, lies in a zone of "
                f"{shown(self._path)} (data.zones): expected degrees; correct the columns of the "
                "coordinates, or set data.zones to TLC's taxi_zones.zip."
            )


def _check_month(
    table: pa.Table, name: str, month: str, read: int, set_aside: Counter[str]
) -> None:
    if not read:
        raise TripDurationError(f"{name} has no rows: fetch it again, or name another month.")
    if not table.num_rows:
        counted = [(reason, count) for reason, count in set_aside.most_common() if count]
        reasons = ", ".join(f"{trips.REASONS[reason]}: {count:,}" for reason, count in counted)
        broken = counted[0][0] in _BROKEN
        remedy = "correct the file" if broken else "widen the rules under clean in params.yaml"
        raise TripDurationError(
            f"{name}: all of its {read:,} trips were set aside ({reasons}): {remedy}, "
            "or name another month."
        )
    start, end = (pa.scalar(moment, pa.timestamp("s")) for moment in bounds(month))
    pickup = table["pickup"]
    inside = pc.sum(pc.and_(pc.greater_equal(pickup, start), pc.less(pickup, end))).as_py()
    if inside < table.num_rows / 2:
        middle = pc.sort_indices(pickup)[table.num_rows // 2]
        raise TripDurationError(
            f"{name}: {table.num_rows - inside:,} of its {table.num_rows:,} trips lie outside "
            f"{month}, most around {pickup[middle.as_py()].as_py():%Y-%m}: expected the trips of "
            f"{month}; put the right file there."
        )


def remove_others(folder: Path, taxi: str, months: Iterable[str]) -> list[str]:
    """Remove months that are no longer asked for, and what a killed run left half-written.

    Returns
    -------
    list of str
        The names of the files that were removed.
    """
    remove_temporary(folder)
    keep = {trips.month_path(folder, taxi, month) for month in months}
    keep |= {_ledger_path(path) for path in keep}
    others = sorted(path for path in folder.glob("*-????-??.*") if path not in keep)
    for path in others:
        path.unlink()
    return [path.name for path in others]


def zones_table(data: Data, seed: int, zones: Path | None) -> pa.Table:
    """What is known of the zones: number, borough, name, and the middle's coordinates.

    Without shapes or a lookup table there are its columns and no rows.
    """
    if zones is not None:
        return load_zones(zones).table()
    if data.source == "simulated":
        from trip_duration.sources import simulated

        return simulated.city(seed).zones()
    return Zones([], [], []).table()


def summary(ledgers: dict[str, dict], judged: list[str]) -> dict:
    """What ``metrics/ingest.json`` says.

    Parameters
    ----------
    ledgers : dict
        Ledgers by month.
    judged : list of str
        The months that the noise floor is stated for: those the model is judged on.
    """
    reasons: Counter[str] = Counter()
    for ledger in ledgers.values():
        reasons.update(ledger["set_aside"])
    said = ("source", "read", "kept", "set_aside", "sha256")
    found = {
        "read": sum(ledger["read"] for ledger in ledgers.values()),
        "kept": sum(ledger["kept"] for ledger in ledgers.values()),
        "set_aside": dict(sorted(reasons.items())),
        "months": {
            month: {key: ledger[key] for key in said} for month, ledger in sorted(ledgers.items())
        },
    }
    noise = list(_noise(ledgers, judged))
    if noise:
        from trip_duration.sources import simulated

        found["noise_floor"] = simulated.noise_floor(noise)
    return found


def _noise(ledgers: dict[str, dict], judged: list[str]) -> Iterator[dict]:
    for month in judged:
        if "noise" in ledgers[month]:
            yield ledgers[month]["noise"]


def ledger_rows(found: dict) -> list[dict[str, str | int]]:
    """The ledger as a person reads it: a row a month and one for all, a column a reason.

    Parameters
    ----------
    found : dict
        What `summary` gave.
    """
    reasons = list(found["set_aside"])
    lines = dict(found["months"])
    if len(lines) > 1:
        lines["all"] = found
    return [
        {"month": month, "read": line["read"], "kept": line["kept"]}
        | {reason.replace("_", " "): line["set_aside"].get(reason, 0) for reason in reasons}
        for month, line in lines.items()
    ]
