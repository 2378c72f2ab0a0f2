"""What git says of a folder."""

import subprocess
from pathlib import Path

__all__ = ["said"]


def said(folder: str | Path, *words: str) -> str:
    """What git prints, without the white space around it; nothing where it fails or is not there.

    Parameters
    ----------
    folder : str or Path
        Where it is run.
    *words : str
        Its command, like ``rev-parse HEAD``.
    """
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
