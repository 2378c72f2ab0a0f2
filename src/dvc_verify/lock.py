"""What ``dvc.lock`` and ``.dvc`` files say that was written."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dvc_verify.errors import VerifyError
from dvc_verify.hashes import folder_md5

__all__ = ["Out", "read_locks", "read_sources", "read_yaml"]


@dataclass(frozen=True)
class Out:
    """A file or a folder that a stage wrote, or that a ``.dvc`` file tracks."""

    stage: str  # as DVC names it: train, or sub/dvc.yaml:train
    path: str  # from the folder that has .dvc, with slashes
    md5: str  # ends in .dir for a folder
    nfiles: int = 1
    files: tuple[tuple[str, str], ...] = ()  # path and md5, where the lock itself lists a folder's
    frozen: bool = False  # DVC does not rerun its stage

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder."""
        return self.md5.endswith(".dir")


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises
    ------
    VerifyError
        If it is no YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path)
    except (YAMLError, ValueError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise VerifyError(f"{path.name} is no valid YAML ({first}): mend and commit it.") from None


def read_locks(root: Path, pipelines: Iterable[str]) -> dict[str, dict[str, Out]]:
    """The outs of each stage, by the stage's name and the out's path.

    Parameters
    ----------
    root : Path
        The folder that has ``.dvc``.
    pipelines : iterable of str
        The paths of the ``dvc.yaml`` files below it; each has its ``dvc.lock`` beside it, or none.

    Raises
    ------
    VerifyError
        If an out lies outside of the repository, or a lock is not of DVC 3.
    """
    found: dict[str, dict[str, Out]] = {}
    for pipeline in pipelines:
        lock = (root / pipeline).with_name("dvc.lock")
        if not lock.exists():
            continue
        described = (read_yaml(root / pipeline) or {}).get("stages") or {}
        for name, entry in ((read_yaml(lock) or {}).get("stages") or {}).items():
            stage = name if pipeline == "dvc.yaml" else f"{pipeline}:{name}"
            group, _, item = name.partition("@")
            about = described.get(name) or described.get(group) or {}
            about = about.get("do", about)
            wdir = about.get("wdir", ".")
            for word in re.findall(r"\$\{\s*(?:item|key)\s*\}", wdir):
                wdir = wdir.replace(word, item)
            if "${" in wdir:
                raise VerifyError(
                    f"stage {stage} has the wdir {wdir!r}: only ${{item}} and ${{key}} can be "
                    "followed there; write the folder out."
                )
            base = PurePosixPath(pipeline).parent / wdir
            frozen = bool(about.get("frozen"))
            outs = _outs(entry.get("outs") or [], stage, base, frozen=frozen)
            found[stage] = {out.path: out for out in outs}
    return found


def read_sources(root: Path, names: Iterable[str]) -> list[Out]:
    """What the ``.dvc`` files of these names track."""
    found: list[Out] = []
    for name in names:
        entry = read_yaml(root / name) or {}
        base = PurePosixPath(name).parent / entry.get("wdir", ".")
        found += _outs(entry.get("outs") or [], name, base, frozen=True)
    return found


def _outs(
    entries: list[dict[str, Any]], stage: str, base: PurePosixPath, *, frozen: bool
) -> Iterator[Out]:
    for entry in entries:
        given = str(entry["path"])
        path = os.path.normpath(base / given)
        if "://" in given or path.split("/")[0] in ("", ".."):
            raise VerifyError(
                f"{stage} writes {given}, outside of the repository, where a rerun would overwrite "
                "it: only pipelines that write below the repository's folder can be verified."
            )
        files = {str(file["relpath"]): str(file["md5"]) for file in entry.get("files", ())}
        if "hash" not in entry or ("md5" not in entry and not files):
            raise VerifyError(
                f"dvc.lock has no MD5 of DVC 3 for {path}: run `dvc cache migrate --dvc-files` or "
                "`dvc repro --force`, and commit it."
            )
        yield Out(
            stage=stage,
            path=path,
            md5=folder_md5(files) if files else str(entry["md5"]),
            nfiles=entry.get("nfiles", len(files) or 1),
            files=tuple(sorted(files.items())),
            frozen=frozen,
        )
