"""Who may run the pipeline here, and what a killed DVC leaves behind."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from trip_duration.errors import TripDurationError
from trip_duration.processes import is_dvc, lives

__all__ = ["alone", "release_dead"]

LOCK = Path(".cache/pipeline.lock")
# Which process reads and writes what, as DVC notes it, of the pipeline and of its experiments.
HELD = (Path(".dvc/tmp/rwlock"), Path(".dvc/tmp/exps/rwlock"))


@contextlib.contextmanager
def alone(command: str) -> Iterator[None]:
    """Be the only command that runs the pipeline here; the lock dies with its holder.

    Parameters
    ----------
    command : str
        What another one is told that it has to wait for.

    Raises
    ------
    TripDurationError
        If another is running; the message names it.
    """
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise TripDurationError(
                f"{file.read().strip() or 'Another command'} is running in {Path.cwd()}: wait "
                "until it ends, or end it, and run the same command again."
            ) from None
        file.truncate(0)
        file.write(f"`{command}` (process {os.getpid()}, since {time.strftime('%H:%M')})\n")
        file.flush()
        yield


def release_dead() -> None:
    """Remove DVC's notes of who reads and writes what, if none of those processes lives.

    DVC itself asks only whether there is a process of that number. After a kill there may be
    another's, or one that nobody has waited for, and DVC then waits for it for ever; and a kill in
    the middle of a write leaves notes that DVC cannot read.
    """
    for notes in filter(Path.exists, HELD):
        with notes.with_name("rwlock.lock").open("a") as guard:  # what DVC locks to change them
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # a DVC that lives
            if not any(_lives(pid) for pid in _holders(notes)):
                notes.unlink()


def _holders(notes: Path) -> set[int]:
    """The processes that DVC has noted; none where the notes make no sense."""
    try:
        noted = json.loads(notes.read_text(encoding="utf-8"))
        readers = chain.from_iterable(noted.get("read", {}).values())
        return {int(one["pid"]) for one in (*noted.get("write", {}).values(), *readers)}
    except (ValueError, TypeError, KeyError, AttributeError):
        return set()


def _lives(pid: int) -> bool:
    """Whether a process is DVC and runs."""
    import psutil

    try:
        process = psutil.Process(pid)
    except psutil.Error:
        return False
    return lives(process) and is_dvc(process)
