"""DVC's hashes of files and folders."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["folder_md5", "listed", "md5"]


def md5(path: Path) -> str:
    """The MD5 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def listed(folder: Path) -> dict[str, Path]:
    """The files below a folder by their path in it, with slashes, sorted."""
    found = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(parent) / name
            found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def folder_md5(files: Mapping[str, str]) -> str:
    """What DVC calls the MD5 of a folder: that of its list of files, as JSON, and ``.dir``.

    Parameters
    ----------
    files : mapping
        The MD5 of each file by its path in the folder.
    """
    rows = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    text = json.dumps(rows, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"
