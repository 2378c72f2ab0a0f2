"""Which process does a scheduled run, so that the next worker knows which runs were killed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trip_duration.files import write_json
from trip_duration.processes import living

__all__ = ["forget", "lives_on", "noted"]

FOLDER = Path(".cache/runs")


@contextmanager
def noted(root: Path, run: str) -> Iterator[None]:
    """Note that this process does a run, until the block ends; a kill leaves the note."""
    import psutil

    this = psutil.Process()
    write_json({"pid": this.pid, "created": this.create_time()}, _note(root, run))
    try:
        yield
    finally:
        forget(root, run)


def lives_on(root: Path, run: str) -> bool | None:
    """Whether the process that does a run lives; None where no process has noted that it does."""
    path = _note(root, run)
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        pid, created = int(note["pid"]), float(note["created"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return living(pid, created) is not None


def forget(root: Path, run: str) -> None:
    """Remove a run's note."""
    _note(root, run).unlink(missing_ok=True)


def _note(root: Path, run: str) -> Path:
    if not run or os.sep in run:
        raise ValueError(f"{run!r} is no run's id")
    return root / FOLDER / f"{run}.json"
