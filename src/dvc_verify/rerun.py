"""A commit's clone in a temporary folder, and the rerun of its pipeline there."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc_verify.committed import Committed
from dvc_verify.errors import VerifyError
from dvc_verify.lock import Out, read_locks, read_sources
from dvc_verify.processes import dvc, end, environment, git, output

__all__ = ["Clone", "Repository", "conditions", "find", "remove", "uncommitted"]

POLL = 0.1  # seconds between two looks at the log
PATIENCE = 10.0  # seconds in which a folder must be removed
SHOWN = 20  # last lines of the log, where the rerun fails
RUNNING = re.compile(rb"^Running stage '(.+)':\s*$", re.M)


@dataclass(frozen=True)
class Repository:
    """The repository that is verified; nothing is written there but the log."""

    top: Path  # git's folder
    root: Path  # the folder that has .dvc: the same one, or below it
    commit: str


def find(folder: Path, rev: str) -> Repository:
    """The repository that a folder belongs to.

    Parameters
    ----------
    folder : Path
        Any folder of it.
    rev : str
        A commit, as git names it.

    Raises
    ------
    VerifyError
        If there is no git repository, no such commit, or no DVC.
    """
    try:
        top = Path(git(folder, "rev-parse", "--show-toplevel"))
    except FileNotFoundError:
        raise VerifyError("git is not installed, or not on the PATH.") from None
    except VerifyError:
        raise VerifyError(
            f"{folder} is in no git repository: run this in the clone of a DVC project."
        ) from None
    try:
        commit = git(top, "rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
    except VerifyError:
        there = "has no commit yet" if rev == "HEAD" else f"has no commit {rev}"
        raise VerifyError(f"{top} {there}: what is verified is a commit.") from None
    here = folder.resolve()
    for root in (here, *here.parents):
        if (root / ".dvc").is_dir():
            return Repository(top, root, commit)
        if root == top.resolve():
            break
    raise VerifyError(f"{folder} belongs to no DVC project (no folder .dvc): run `dvc init`.")


def uncommitted(repository: Repository) -> list[str]:
    """The files that are not as the commit has them, or that it does not have."""
    said = git(repository.top, "status", "--porcelain", "-z", "--no-renames")
    return [entry[3:] for entry in said.split("\0") if entry]


def conditions(environ: Mapping[str, str]) -> dict[str, str]:
    """Another locale, time zone and hash seed than those of an environment.

    Parameters
    ----------
    environ : mapping
        The environment's variables.

    Returns
    -------
    dict
        The variables to change.
    """
    locale = environ.get("LC_ALL") or environ.get("LANG") or "C"
    zone, seconds = "Pacific/Chatham", 45_900
    if time.localtime().tm_gmtoff in (seconds, seconds + 3600):
        zone = "America/St_Johns"
    if not any((Path(folder) / zone).is_file() for folder in zoneinfo.TZPATH):
        zone = "<+1245>-12:45" if zone == "Pacific/Chatham" else "<-0330>3:30"  # POSIX's own words
    return {
        "LC_ALL": "C.UTF-8" if locale in ("C", "POSIX") else "C",
        "TZ": zone,
        "PYTHONHASHSEED": "4021" if environ.get("PYTHONHASHSEED") != "4021" else "4022",
    }


class Clone:
    """A commit's clone, with a DVC that knows no cache, and the rerun there.

    Parameters
    ----------
    repository : Repository
        What is cloned.
    folder : Path
        An empty folder.
    changed : mapping
        Variables of the environment to change.

    Raises
    ------
    VerifyError
        If the commit has no pipeline, or no ``dvc.lock``.
    """

    def __init__(self, repository: Repository, folder: Path, changed: Mapping[str, str]) -> None:
        self.repository = repository
        self.top = folder / "clone"
        self.root = self.top / repository.root.resolve().relative_to(repository.top.resolve())
        self.log = folder / "verify.log"
        self.log.touch()
        git(folder, "clone", "--quiet", "--no-checkout", str(repository.top), str(self.top))
        git(self.top, "checkout", "--quiet", "--detach", repository.commit)
        if not (self.root / ".dvc").is_dir():
            raise VerifyError("the commit has no folder .dvc: git add it, and commit.")
        names = git(self.root, "ls-files", "-z").split("\0")
        self.pipelines = [name for name in names if name.split("/")[-1] == "dvc.yaml"]
        self.environment = self._environment(changed)
        (self.root / ".dvc/config.local").write_text("[cache]\n    dir = cache\n", encoding="utf-8")
        if not self.pipelines:
            raise VerifyError("the commit has no dvc.yaml, so there is no pipeline to verify.")
        if not any((self.root / name).with_name("dvc.lock").exists() for name in self.pipelines):
            raise VerifyError(
                "the commit has no dvc.lock to compare with: run `dvc repro`, and commit dvc.lock."
            )
        self.committed = read_locks(self.root, self.pipelines)
        sources = read_sources(self.root, (name for name in names if name.endswith(".dvc")))
        frozen = [out for outs in self.committed.values() for out in outs.values() if out.frozen]
        self.bytes = Committed(repository.root, self.root, folder / "blobs", self.dvc_outside)
        self._bring([*sources, *frozen])

    def stale(self) -> list[str]:
        """Why the committed ``dvc.lock`` is not that of the commit: one entry for each stage."""
        said = self.dvc("status", "--json", "--no-updates")
        found = []
        for stage, entries in json.loads(said or "{}").items():
            reasons = []
            for entry in entries:
                if not isinstance(entry, dict):
                    reasons += [entry] if entry == "changed command" else []
                    continue
                for what, states in entry.items():
                    wanted = {"modified", "new"} if what == "changed deps" else {"modified"}
                    reasons += _reasons(states, wanted)
            if reasons:
                more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
                found.append(f"{stage}: {reasons[0]}{more}")
        return found

    def clear(self) -> None:
        """Remove the locks and all that stages wrote, so that nothing of the commit's is reused."""
        for name in self.pipelines:
            (self.root / name).with_name("dvc.lock").unlink(missing_ok=True)
        for outs in self.committed.values():
            for out in outs.values():
                path = self.root / out.path
                if out.frozen or not path.exists():
                    continue
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def repro(self, targets: list[str], told: Callable[[str, float | None], None]) -> None:
        """Run every stage.

        Parameters
        ----------
        targets : list of str
            The stages to end with; all where it is empty.
        told : callable
            Called with a stage's name as it begins (and None), and as it ends (and seconds).

        Raises
        ------
        VerifyError
            If a stage fails; the end of the log is printed before.
        """
        command = [*dvc(), "repro", "--force", "--no-run-cache", "--no-commit"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*command, *(targets or ["--all-pipelines"])],
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._follow(process, told)
        except BaseException:
            end(process)
            raise
        if process.returncode:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            print("\n" + "\n".join(lines[-SHOWN:]) + "\n", file=sys.stderr)
            full = shutil.disk_usage(self.root).free < 1 << 20
            room = f"; no room is left for {self.top}: set TMPDIR to a larger disk" if full else ""
            raise VerifyError(f"the rerun failed, as the end of its log above says{room}.")

    def rerun(self) -> dict[str, dict[str, Out]]:
        """What the rerun wrote, by stage and path."""
        return read_locks(self.root, self.pipelines)

    def metrics(self) -> list[str]:
        """The files of metrics that the pipeline declares."""
        said = json.loads(self.dvc("metrics", "show", "--json") or "{}")
        return sorted(name for rev in said.values() for name in rev.get("data", {}))

    def dvc(self, *arguments: str) -> str:
        """What a command of DVC prints in the clone."""
        return output([*dvc(), *arguments], self.root, self.environment)

    def dvc_outside(self, *arguments: str) -> str:
        """What a command of DVC prints in the repository itself."""
        return output([*dvc(), *arguments], self.repository.root, environment())

    def _environment(self, changed: Mapping[str, str]) -> dict[str, str]:
        inherited = environment()
        programs = str(Path(sys.executable).parent)
        inherited["PATH"] = os.pathsep.join([programs, inherited.get("PATH", os.defpath)])
        if "PYTHONPATH" in inherited:  # the clone's own code, where it names the repository's
            old, new = str(self.repository.top), str(self.top)
            entries = inherited["PYTHONPATH"].split(os.pathsep)
            inherited["PYTHONPATH"] = os.pathsep.join(
                new + entry[len(old) :] if Path(entry).is_relative_to(old) else entry
                for entry in entries
            )
        ours = {
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.log.with_name("site")),
            "PWD": str(self.root),
        }
        return {**inherited, **changed, **ours}

    def _follow(
        self, process: subprocess.Popen[bytes], told: Callable[[str, float | None], None]
    ) -> None:
        """Say which stage runs, as the log says."""
        stage, began, read = "", 0.0, b""
        with self.log.open("rb") as log:
            running = True
            while running:
                running = process.poll() is None
                read += log.read()
                lines, newline, rest = read.rpartition(b"\n")
                for match in RUNNING.finditer(lines + newline):
                    if stage:
                        told(stage, time.monotonic() - began)
                    stage, began = match[1].decode(errors="replace"), time.monotonic()
                    told(stage, None)
                read = rest
                if running:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(POLL)
        if stage:
            told(stage, time.monotonic() - began)

    def _bring(self, outs: list[Out]) -> None:
        """Copy what stages read and no stage that runs writes."""
        for out in outs:
            target = self.root / out.path
            if target.exists():
                continue
            files = self.bytes.files(out)
            if files is None or None in files.values():
                raise VerifyError(
                    f"{out.path}, which {out.stage} tracks, is not here as the commit has it: run "
                    "`dvc pull`."
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            if out.is_folder:
                target.mkdir()
            for name, path in files.items():
                assert path is not None
                copy = target / name if name else target
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


def remove(folder: Path) -> None:
    """Remove a temporary folder, in which a process that ends may still write for a moment."""
    deadline = time.monotonic() + PATIENCE
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            time.sleep(POLL)
    if folder.exists():
        raise VerifyError(f"{folder} could not be removed: remove it by hand.")


def _reasons(states: Any, wanted: set[str], name: str = "") -> list[str]:
    """The paths and settings of `dvc status` that are in one of the wanted states."""
    if isinstance(states, dict):
        return [
            reason
            for key, inner in states.items()
            for reason in _reasons(inner, wanted, f"{name} {key}".strip())
        ]
    return [f"{name} is {states}"] if states in wanted else []
