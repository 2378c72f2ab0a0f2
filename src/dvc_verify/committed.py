"""The bytes of a commit: from the workspace, from DVC's cache or from git, wherever they are."""

import json
import subprocess
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from dvc_verify.hashes import folder_md5, listed, md5
from dvc_verify.lock import Out
from dvc_verify.processes import environment

__all__ = ["Committed"]


class Committed:
    """Finds files by their path and MD5.

    Parameters
    ----------
    root : Path
        The repository that may have them, in its workspace or its cache.
    clone : Path
        The same folder of the clone, where git has the commit.
    folder : Path
        Where files out of git are put.
    dvc : callable
        What runs a command of DVC in the repository and returns what it prints.
    """

    def __init__(self, root: Path, clone: Path, folder: Path, dvc: Callable[..., str]) -> None:
        self._root, self._clone, self._folder, self._dvc = root, clone, folder, dvc
        self._known: dict[Path, str] = {}

    def files(self, out: Out) -> dict[str, Path | None] | None:
        """The files of an out, by their path in it (empty for a file); None for one not here.

        Returns
        -------
        dict or None
            None where nobody here knows which files a folder had.
        """
        if not out.is_folder:
            return {"": self._file(out.path, out.md5)}
        hashes = self.hashes(out)
        if hashes is None:
            return None
        return {name: self._file(f"{out.path}/{name}", hashes[name]) for name in sorted(hashes)}

    def hashes(self, out: Out) -> dict[str, str] | None:
        """The MD5 of each file of a folder, None where nobody here knows."""
        if out.files:
            return dict(out.files)
        cached = self._cached(out.md5)
        if cached:
            return {row["relpath"]: row["md5"] for row in json.loads(cached.read_bytes())}
        found = {name: self._md5(path) for name, path in listed(self._root / out.path).items()}
        return found if folder_md5(found) == out.md5 else None

    def _file(self, path: str, digest: str) -> Path | None:
        workspace = self._root / path
        if workspace.is_file() and self._md5(workspace) == digest:
            return workspace
        return self._cached(digest) or self._blob(path, digest)

    def _md5(self, path: Path) -> str:
        if path not in self._known:
            self._known[path] = md5(path)
        return self._known[path]

    @cached_property
    def _cache(self) -> Path:
        return Path(self._dvc("cache", "dir").strip())

    def _cached(self, digest: str) -> Path | None:
        path = self._cache / "files" / "md5" / digest[:2] / digest[2:]
        return path if path.is_file() else None

    def _blob(self, path: str, digest: str) -> Path | None:
        """A file that git has, as it has it, whatever the workspace says."""
        target = self._folder / digest
        target.parent.mkdir(exist_ok=True)
        with target.open("wb") as file:
            done = subprocess.run(
                ["git", "cat-file", "blob", f"HEAD:./{path}"],
                cwd=self._clone,
                env=environment(),
                stdout=file,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        return target if done.returncode == 0 and md5(target) == digest else None
