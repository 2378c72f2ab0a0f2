"""Months that their source has published again: whether, what changed in them, and taking them.

What a month was made from is in its ledger, as the SHA-256 of the raw file: that, not a file's name
or time, says whether the source has another one today. A republished month is looked at beside the
present one, which stays until it is taken.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trip_duration import ingest
from trip_duration.errors import SourceError
from trip_duration.files import atomic, read_json, sha256
from trip_duration.params import Data
from trip_duration.trips import month_path

__all__ = ["QUANTILES", "Change", "compare", "differing", "present", "take"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MEASURES = ("duration", "trip_distance")

_WAITING = "republished"  # the folder, in the cache, of raw files that are not taken yet
_ATTEMPTS = 3
_SECONDS = 2.0  # before the second attempt; twice that before the third
_LONGEST = 60.0  # that a server's Retry-After is heeded

T = TypeVar("T")


@dataclass(frozen=True)
class Change:
    """What changed between two versions of a month.

    Attributes
    ----------
    before, after : dict
        Their ledgers.
    quantiles : dict
        For ``duration`` (minutes) and ``trip_distance`` (miles), the `QUANTILES` before and after:
        two lists, of None where no trip has a value.
    same : int
        How many of the trips that are kept are in both, equal in every column.
    """

    before: dict
    after: dict
    quantiles: dict[str, tuple[list[float | None], list[float | None]]]
    same: int


def present(data: Data, month: str, folder: Path) -> dict | None:
    """The ledger of the month that is in ``folder``, if it is there and whole."""
    path = month_path(folder, data.taxi, month)
    if not (path.is_file() and path.with_suffix(".json").is_file()):
        return None
    ledger: dict = read_json(path.with_suffix(".json"))
    return ledger if ledger.get("sha256") == sha256(path) else None


def differing(
    data: Data, month: str, ledger: dict, cache: Path, say: Callable[[str], Any] = print
) -> Path | None:
    """Ask the source for a month; its raw file, if it is not the one the ledger names.

    TLC is asked for the file's ETag and length; only where they differ, or the present raw file is
    not here, is it fetched, into a folder beside that. Another store is asked as `ingest.fetch`
    does, which keeps a file for each version. A file of this machine's is hashed.

    Parameters
    ----------
    data : Data
        The source, which is not ``simulated``, and the taxi.
    month : str
        ``YYYY-MM``.
    ledger : dict
        Of the month that is there.
    cache : Path
        The folder for what comes over a network.
    say : callable
        Told in a sentence where nothing can be asked without fetching the file.

    Raises
    ------
    SourceError
        If the source cannot be asked; a transient error is met with three attempts.
    """
    if data.source != "tlc":
        found = _patiently(lambda: ingest.fetch(data, month, cache))
        return None if found is None or sha256(found) == ledger.get("raw") else found

    from trip_duration.sources import tlc

    url = tlc.url(data.taxi, month)
    raw, waiting = _places(url, cache)
    if _patiently(lambda: tlc.unchanged(url, raw)):
        return None if sha256(raw) == ledger.get("raw") else raw
    if not raw.is_file():
        say(f"{month}: {raw} is not here, by which TLC could be asked, so it is fetched.")
    if not _patiently(lambda: tlc.unchanged(url, waiting)):
        _patiently(lambda: tlc.download(url, waiting))
    if sha256(waiting) != ledger.get("raw"):
        return waiting
    _settle(waiting, raw)
    return None


def compare(before: Path, after: Path) -> Change:
    """Compare two versions of a canonical month, each with its ledger beside it.

    Takes some two seconds and 80 MB for a million trips.
    """
    return Change(
        before=read_json(before.with_suffix(".json")),
        after=read_json(after.with_suffix(".json")),
        quantiles={name: (_quantiles(before, name), _quantiles(after, name)) for name in MEASURES},
        same=_in_both(_fingerprints(before), _fingerprints(after)),
    )


def take(made: Path, raw: Path, folder: Path, cache: Path) -> None:
    """Put a month that was looked at in the place of the present one.

    What is taken is what was shown: the canonical month itself. DVC then finds ``folder`` other
    than dvc.lock says, and `dvc repro` runs ingest, which finds the month made.

    Each file is replaced whole. A kill before the canonical file leaves the old month. One between
    it and its ledger leaves a month that ingest makes again, from the raw file, which is in place
    first.

    Parameters
    ----------
    made : Path
        The canonical month, its ledger beside it.
    raw : Path
        What `differing` gave, from which it was made.
    folder : Path
        Where canonical months are kept.
    cache : Path
        As for `differing`.
    """
    if raw.parent == cache / _WAITING:
        _settle(raw, cache / raw.name)
    for file in (made, made.with_suffix(".json")):
        with atomic(folder / file.name) as temporary:
            shutil.copyfile(file, temporary)


def _places(url: str, cache: Path) -> tuple[Path, Path]:
    """Where TLC's raw file of a month is kept, and where one that is not taken yet waits."""
    name = url.rsplit("/", 1)[-1]
    return cache / name, cache / _WAITING / name


def _settle(waiting: Path, raw: Path) -> None:
    """Move a raw file, then the note beside it; with another's note it counts as changed."""
    for suffix in ("", ".json"):
        waiting.with_name(waiting.name + suffix).replace(raw.with_name(raw.name + suffix))


def _patiently(ask: Callable[[], T]) -> T:
    """What ``ask`` gives, with another attempt where one may help."""
    for attempt in range(_ATTEMPTS):
        try:
            return ask()
        except SourceError as error:
            if not error.transient or attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(min(error.retry_after or _SECONDS * 2**attempt, _LONGEST))
    raise AssertionError("an attempt returns or raises")


def _quantiles(path: Path, name: str) -> list[float | None]:
    """Linearly interpolated, of a column's values that are not missing."""
    column = pq.read_table(path, columns=[name])[name]
    found: list[float | None] = pc.quantile(column, list(QUANTILES)).to_pylist()
    return found


def _fingerprints(path: Path) -> np.ndarray:
    """A 64-bit hash of each row, sorted; (trips,), uint64."""
    import pandas as pd

    parts = [np.empty(0, np.uint64)]
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches():
            # As doubles, in which each column's values are exact: a type must not depend on
            # whether a batch has missing values.
            columns = [_doubles(column) for column in batch.columns]
            frame = pd.DataFrame(dict(enumerate(columns)))
            parts.append(pd.util.hash_pandas_object(frame, index=False).to_numpy())
    found = np.concatenate(parts)
    found.sort()
    return found


def _doubles(column: pa.Array) -> np.ndarray:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _in_both(first: np.ndarray, second: np.ndarray) -> int:
    """How many values two sorted arrays share, one that is there twice counted twice."""
    edges = np.arange(1, 16, dtype=np.uint64) << np.uint64(60)  # in parts, to need little memory
    parts = (np.split(values, np.searchsorted(values, edges)) for values in (first, second))
    return sum(map(_in_both_parts, *parts))


def _in_both_parts(first: np.ndarray, second: np.ndarray) -> int:
    values, counts = np.unique(first, return_counts=True)
    others, more = np.unique(second, return_counts=True)
    _, here, there = np.intersect1d(values, others, assume_unique=True, return_indices=True)
    return int(np.minimum(counts[here], more[there]).sum())
