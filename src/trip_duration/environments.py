"""Environments of their own for packages that do not go together with ours."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

from trip_duration.locking import locked

__all__ = ["environment"]

ROOT = Path(__file__).resolve().parents[2]


def environment(venv: Path, lock: Path, whose: str) -> bool:
    """Make a virtual environment hold what a lock file says, once; false if it can't be.

    Parameters
    ----------
    venv : Path
        The environment's folder.
    lock : Path
        Its complete lock, with hashes.
    whose : str
        Of what it is the environment, like ``the AutoML libraries'``.
    """
    ready = venv / ".ready"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    with locked(venv.with_name(f"{venv.name}.lock")):  # another command may be making it
        if ready.exists() and ready.read_text() == digest:
            return True
        where = os.path.relpath(venv, ROOT)
        print(f"Making {whose} environment in {where}, once; half a minute …", flush=True)
        began = time.perf_counter()
        variables = dict(os.environ)
        if "PIP_INDEX_URL" in variables:  # as for our own environment, in src/commands/setup.py
            variables.setdefault("UV_DEFAULT_INDEX", variables["PIP_INDEX_URL"])
        uv = [sys.executable, "-m", "uv"]
        sync = ["pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode"]
        for command in (
            [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)],
            [*uv, *sync, "--python", str(venv / "bin" / "python"), str(lock)],
        ):
            if subprocess.call(command, env=variables):
                return False
        ready.write_text(digest)
    print(f"The environment is ready after {time.perf_counter() - began:.0f} s.", flush=True)
    return True
