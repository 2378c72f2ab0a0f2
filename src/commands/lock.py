"""``make lock``: resolve requirements.in into the complete, hashed requirements.txt."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["lock"]


def lock(root: Path) -> int:
    """Write requirements.txt for every platform and Python from 3.11 on; returns uv's exit code.

    What is locked stays as it is, as far as it fits; ``ARGS=--upgrade`` takes the newest.
    """
    options = ["--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    options += ["--fork-strategy", "fewest", "--custom-compile-command", "make lock"]
    options += ["requirements.in", "-o", "requirements.txt", *os.environ.get("ARGS", "").split()]
    code = subprocess.call([sys.executable, "-m", "uv", "pip", "compile", *options], cwd=root)
    if code == 0:
        print("Locked. Other packages may write other bytes: `make train`, `dvc repro --force`")
        print("in the new environment, and commit dvc.lock with requirements.txt.")
    return code
