"""git and DVC, as programs that are run."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from dvc_verify.errors import VerifyError

__all__ = ["dvc", "end", "environment", "git", "output"]

PATIENCE = 10.0  # seconds that an interrupted stage is given to end by itself
# What git sets for its hooks, and make for the makes below it: true of where they were started.
THEIRS = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_WORK_TREE",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
)


def environment() -> dict[str, str]:
    """This process's environment, without what is true only of where it was started."""
    return {name: value for name, value in os.environ.items() if name not in THEIRS}


def dvc() -> list[str]:
    """How DVC is called.

    Raises
    ------
    VerifyError
        If it is not installed.
    """
    if importlib.util.find_spec("dvc"):
        return [sys.executable, "-m", "dvc"]
    found = shutil.which("dvc")
    if not found:
        raise VerifyError("DVC is not installed here: activate the environment that has it.")
    return [found]


def git(folder: Path, *arguments: str) -> str:
    """What a command of git prints in a folder, without the newlines at its end.

    Raises
    ------
    VerifyError
        If it fails, with git's last line.
    """
    return output(["git", *arguments], folder, environment()).rstrip("\n")


def output(command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    """What a command prints.

    Raises
    ------
    VerifyError
        If it fails, with its last line.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="surrogateescape",
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        name = "git" if command[0] == "git" else "dvc"
        verb = command[1] if name == "git" else command[len(dvc())]
        raise VerifyError(f"`{name} {verb}` failed: {last}")
    return done.stdout


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its group: as Ctrl-C would, and by force where that does not do."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        _signal(process, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
            break
    _signal(process, signal.SIGKILL)  # what it left behind


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
