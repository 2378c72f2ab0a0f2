"""Which process does a run, so that those who come next know which runs were killed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from trip_duration.files import remove_temporary, write_json
from trip_duration.locking import locked
from trip_duration.processes import living

__all__ = ["forget", "killed", "lives_on", "note", "noted", "tidy"]

FOLDER = Path(".cache/runs")
SCHEDULED = "scheduled"  # a run that a worker does, and the next one takes up
STAGE = "stage"  # one that nobody takes up: the next is another


def note(root: Path, run: str, kind: str) -> None:
    """Note that this process does a run, of the kind `SCHEDULED` or `STAGE`."""
    import psutil

    this = psutil.Process()
    made = {"kind": kind, "pid": this.pid, "created": this.create_time()}
    path = _path(root, run)
    with locked(_lock(root)):
        write_json(made, path)


@contextmanager
def noted(root: Path, run: str) -> Iterator[None]:
    """`note` a scheduled run until the block ends; a kill leaves the note."""
    note(root, run, SCHEDULED)
    try:
        yield
    finally:
        forget(root, run)


def lives_on(root: Path, run: str) -> bool | None:
    """Whether the process that does a run lives; None where no process has noted that it does."""
    found = _read(_path(root, run))
    return None if found is None else found.lives


def killed(root: Path, kind: str) -> list[str]:
    """The runs of a kind whose process is gone, and has not said that it ended."""
    notes = {path.stem: _read(path) for path in sorted((root / FOLDER).glob("*.json"))}
    return [run for run, note in notes.items() if note and note.kind == kind and not note.lives]


def forget(root: Path, run: str) -> None:
    """Remove a run's note."""
    _path(root, run).unlink(missing_ok=True)


def tidy(root: Path) -> None:
    """Remove the half-written notes of processes that were killed at it."""
    if any((root / FOLDER).glob(".*")):
        with locked(_lock(root)):  # who lives and writes holds it
            remove_temporary(root / FOLDER)


class _Note(NamedTuple):
    kind: str
    lives: bool


def _read(path: Path) -> _Note | None:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        kind, pid, created = str(note["kind"]), int(note["pid"]), float(note["created"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return _Note(kind, living(pid, created) is not None)


def _lock(root: Path) -> Path:
    return root / FOLDER / "lock"


def _path(root: Path, run: str) -> Path:
    if not run or os.sep in run:
        raise ValueError(f"{run!r} is no run's id")
    return root / FOLDER / f"{run}.json"
