"""``make lock``: resolve each requirements*.in into a complete, hashed requirements*.txt."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["lock"]


def lock(root: Path) -> int:
    """Write the locks for every platform and Python from 3.11 on; returns uv's exit code.

    What is locked stays as it is, as far as it fits; ``ARGS=--upgrade`` takes the newest. The
    extras (``requirements-dask.in``) are resolved under the versions of ``requirements.txt``, so
    that an environment that has them computes with the same packages.
    """
    options = ["--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    options += ["--fork-strategy", "fewest", "--custom-compile-command", "make lock"]
    options += os.environ.get("ARGS", "").split()
    extras = sorted(path.stem for path in root.glob("requirements-*.in"))
    beside = [(name, ["-c", "requirements.txt"]) for name in extras]
    apart: list[tuple[str, list[str]]] = [
        ("src/drift_report/requirements", [])
    ]  # of an environment of its own
    for name, under in [("requirements", []), *beside, *apart]:
        files = [*under, f"{name}.in", "-o", f"{name}.txt"]
        command = [sys.executable, "-m", "uv", "pip", "compile", *options, *files]
        code = subprocess.call(command, cwd=root)
        if code:
            return code
    print("Locked. Other packages may write other bytes: `make train`, `dvc repro --force`")
    print("in the new environment, and commit dvc.lock with the locks.")
    return 0
