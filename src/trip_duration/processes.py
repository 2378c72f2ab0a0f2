"""Other processes: whether one lives, and which of those above this one is DVC."""

import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

__all__ = ["abandoned", "asker", "is_dvc", "lives", "living"]

CLOCK = 2.0  # seconds by which two readings of one process's start may differ


def living(pid: int, created: float) -> "psutil.Process | None":
    """The living process that had this pid at that time."""
    import psutil

    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < CLOCK
        return process if same and lives(process) else None
    except psutil.NoSuchProcess:
        return None


def lives(process: "psutil.Process") -> bool:
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:  # it went while it was looked at
        return False


def asker() -> int:
    """The process to which this stage belongs: the nearest DVC above it, else itself."""
    import psutil

    this = psutil.Process()
    return next((above.pid for above in this.parents() if is_dvc(above)), this.pid)


def abandoned() -> bool:
    """Whether a DVC started this stage and was gone before the stage could look for it.

    DVC names the stage in the environment and leaves it in its own session; init, or who else takes
    a dead process's children over, has another.
    """
    return "DVC_STAGE" in os.environ and os.getsid(os.getppid()) != os.getsid(0)


def is_dvc(process: "psutil.Process") -> bool:
    """Whether a process is DVC's command line."""
    import psutil

    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    # The script itself, Python with the script, or `python -m dvc`.
    return any(Path(word).name == "dvc" for word in words[:2]) or ("-m", "dvc") in pairwise(words)
