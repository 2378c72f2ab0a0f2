"""A clone of the repository's commit in which a monthly run does its work.

The months of a run are not those of the repository's own settings. So the pipeline runs in a clone
under ``.cache/retrain``: nobody's working tree is changed, the commit alone decides what runs, and
the clone stays, so that a run that was killed goes on where it was. DVC's cache is the
repository's.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trip_duration import params as settings
from trip_duration.errors import TripDurationError, redacted
from trip_duration.files import write_bytes
from trip_duration.locking import locked
from trip_duration.orchestration import OURS
from trip_duration.params import Params

if TYPE_CHECKING:
    import psutil

__all__ = ["FOLDER", "Workspace", "absolute", "opened"]

FOLDER = Path(".cache/retrain")
GRACE = 8.0  # seconds that a pipeline is given to end: a stage takes 4 at most
MARK = "TRIP_DURATION_WORKSPACE"  # in the environment of what works in a clone: which one
SHOWN = 12  # last lines of the log, where the pipeline fails


@dataclass(frozen=True)
class Workspace:
    """The clone, on the repository's commit.

    Attributes
    ----------
    root : Path
        The repository's folder.
    folder : Path
        The clone's.
    commit : str
        What is checked out there.
    """

    root: Path
    folder: Path
    commit: str

    @property
    def log(self) -> Path:
        """What the pipeline said when it last ran here."""
        return self.root / FOLDER / "pipeline.log"

    def choose(self, overrides: Mapping[str, Any]) -> Params:
        """Write ``params.yaml``: the repository's present one, with other values for some keys.

        Paths of ``data`` are made absolute, since those that begin here do not begin there.

        Raises
        ------
        SettingsError
            If the settings are wrong.
        """
        text = (self.root / "params.yaml").read_text(encoding="utf-8")
        data = settings.load(self.root / "params.yaml").data
        paths = {
            f"data.{name}": absolute(self.root, value)
            for name, value in (("source", data.source), ("zones", data.zones))
            if value is not None and value != absolute(self.root, value)
        }
        text, chosen = settings.override(text, {**paths, **overrides})
        there = self.folder / "params.yaml"
        if not there.exists() or there.read_text(encoding="utf-8") != text:
            write_bytes(text.encode(), there)
        return chosen

    def run(self, command: str) -> None:
        """Run one of the pipeline's commands, like ``train``; what it says goes to `log`.

        Raises
        ------
        TripDurationError
            If it fails; the message holds what it said last.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "src/commands", command],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be ended whole
            )
            try:
                code = process.wait()
            except BaseException:  # the run is cancelled: its stages must not go on alone
                self.end_all()
                process.wait()
                raise
        if code:
            said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise TripDurationError(redacted("\n".join(said[-SHOWN:])) or f"{command} failed.")

    def end_all(self) -> bool:
        """End what a run has at work in the clone, politely first; whether anything was.

        A run that was killed leaves its pipeline behind, which would go on beside the next. What
        else is open there, like a person's shell, has no mark of ours.
        """
        import psutil

        found = _working_in(self.folder)
        for process in found:
            with suppress(psutil.Error):
                process.terminate()
        _, left = psutil.wait_procs(found, timeout=GRACE)
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=GRACE)
        return bool(found)

    def _environment(self) -> dict[str, str]:
        """This process's, with its Prefect server and MLflow's store as the user's own.

        So the stages use them too, and do not begin others in the clone. The mark is for `end_all`.
        """
        kept = {
            name: value
            for name, value in os.environ.items()
            if name != OURS and not name.startswith("PREFECT__")  # of the flow's run, not of theirs
        }
        return kept | {MARK: str(self.folder)}


def absolute(root: Path, place: str) -> str:
    """A source or a file of the settings, as it is called from anywhere: a path from its root."""
    if place in ("simulated", "tlc") or "://" in place or "::" in place:
        return place
    return os.path.normpath(root / Path(place).expanduser())


@contextmanager
def opened(root: str | Path, wait: Callable[[], object] = lambda: None) -> Iterator[Workspace]:
    """The clone, made or brought to the repository's commit, for one run at a time.

    What the last run computed there stays, as far as the commit is the same; DVC knows what of it
    still holds. What is left of a run that was killed is ended.

    Parameters
    ----------
    root : str or Path
        The repository's folder.
    wait : callable
        Called once if another run works there, for which this one waits.

    Raises
    ------
    TripDurationError
        If the repository is no git clone with a commit.
    """
    root = Path(root).resolve()
    folder = root / FOLDER / "clone"
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        raise TripDurationError(
            f"{root} is no git clone with a commit, which a monthly run works from: use "
            "`git clone`, or `git init`, `git add --all` and `git commit`."
        )
    with locked(root / FOLDER / "lock", wait):
        workspace = Workspace(root, folder, commit)
        workspace.end_all()
        _bring(workspace)
        yield workspace


def _bring(workspace: Workspace) -> None:
    """Make the clone, or have it hold the commit."""
    root, folder, commit = workspace.root, workspace.folder, workspace.commit
    if not (folder / ".git").is_dir():
        _clone(root, folder)
    if _git(folder, "rev-parse", "--quiet", "HEAD") != commit:
        _git(folder, "fetch", "--quiet", "--tags", str(root), "HEAD", must=True)
        _git(folder, "checkout", "--quiet", "--force", "--detach", commit, must=True)
    cache = root / ".dvc/cache"
    write_bytes(f"[cache]\n    dir = {cache}\n".encode(), folder / ".dvc/config.local")


def _clone(root: Path, folder: Path) -> None:
    """Clone under another name first: a clone that was cut off is begun anew."""
    partial = folder.with_name("clone.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    _git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(partial), must=True)
    partial.replace(folder)


def _git(folder: Path, *words: str, must: bool = False) -> str:
    """What git says; nothing where it fails, unless it must not."""
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise TripDurationError(f"git cannot be run ({error.strerror}): install it.") from None
    if done.returncode == 0:
        return done.stdout.strip()
    if must:
        reason = " ".join(done.stderr.split()) or "no reason given"
        raise TripDurationError(
            f"`git {words[0]}` failed in {folder} ({reason}): remove {FOLDER} and run again."
        )
    return ""


def _working_in(folder: Path) -> "list[psutil.Process]":
    """The processes that a run started for this folder, and that are in it or below it."""
    import psutil

    found = []
    for process in psutil.process_iter(["cwd"]):
        cwd = process.info["cwd"]
        if cwd and Path(cwd).is_relative_to(folder) and process.pid != os.getpid():
            with suppress(psutil.Error):  # whose environment cannot be read is not ours
                if process.environ().get(MARK) == str(folder):
                    found.append(process)
    return found
