"""``make train`` and its parts: check the settings, have DVC run the stages, say what came out."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from commands import locks, summary
from trip_duration import git, ingest, params, readiness
from trip_duration.errors import TripDurationError
from trip_duration.files import read_json, write_bytes, write_json
from trip_duration.search import forget_finished

__all__ = ["run"]

SETTINGS = Path("params.yaml")
WRITTEN = ("params.yaml", "dvc.lock", "metrics", "plots", "search")  # what git tracks of a run
CHANGED = Path(".cache/settings.json")  # what params.yaml was before a run with SET changed it

_interrupted = False


def run(name: str, overrides: str) -> int:
    """Run a command of the pipeline.

    Parameters
    ----------
    name : str
        ``train``, ``ingest``, ``featurize``, ``search`` or ``evaluate``.
    overrides : str
        ``key=value`` pairs for this run. With any, DVC runs an experiment, which the workspace
        then holds; if it fails, ``params.yaml`` is put back.

    Returns
    -------
    int
        The exit code: 0, or 1 where a stage or DVC failed and has said why.

    Raises
    ------
    SettingsError
        If a setting is wrong; nothing has run then.
    """
    with locks.alone(f"make {name}"):
        locks.release_dead()
        _put_back()
        return _run(name, overrides)


def _run(name: str, overrides: str) -> int:
    target = [] if name == "train" else [name]  # train is the whole pipeline, to its last stage
    began = time.time()
    changes = params.parse_overrides(overrides)
    chosen = params.load(SETTINGS)
    before = SETTINGS.read_text(encoding="utf-8")
    after, chosen = params.override(before, changes) if changes else (before, chosen)
    readiness.check(chosen)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt_all)
    code = 1
    try:
        if changes:
            write_json({"before": before, "after": after, "set": overrides}, CHANGED)
            write_bytes(after.encode(), SETTINGS)
        if ingest.any_changed(chosen.data, Path("data/trips")):
            # DVC does not know the files that the months come from, so it is told.
            code = _dvc("repro", "--quiet", "--force", "--single-item", "ingest")
            if code:
                return 1
        code = _dvc(*(("exp", "run") if changes else ("repro",)), *target)
    finally:
        if code and changes:
            write_bytes(before.encode(), SETTINGS)
        CHANGED.unlink(missing_ok=True)
    if code and _interrupted:
        raise KeyboardInterrupt
    if code == 0:
        forget_finished(".cache/search")
        summary.show(name, chosen, began, experiment=bool(changes))
    return 1 if code else 0


def _put_back() -> None:
    """Undo the change to params.yaml of a run with ``SET`` that was killed."""
    if not CHANGED.exists():
        return
    known = read_json(CHANGED)
    if SETTINGS.exists() and SETTINGS.read_text(encoding="utf-8") == known["after"]:
        write_bytes(known["before"].encode(), SETTINGS)
        # DVC had put what it changed into git's index, to make a commit of the experiment of it.
        git.said(".", "reset", "--quiet", "--", *WRITTEN)
        print(f'params.yaml is as it was before SET="{known["set"]}", whose run was killed.')
    CHANGED.unlink()


def _interrupt_all(*_: object) -> None:
    """On SIGTERM or a closed terminal, do what Ctrl-C does: reach DVC and its stage as well."""
    import psutil

    global _interrupted
    _interrupted = True
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.send_signal(signal.SIGINT)


def _dvc(*arguments: str) -> int:
    """Run DVC with this environment's programs first on the PATH, and return its exit code."""
    if not git.said(".", "rev-parse", "HEAD"):
        raise TripDurationError(
            f"{Path.cwd()} is no git clone with a commit, which DVC needs: use `git clone`, or "
            "`git init`, `git add --all` and `git commit`."
        )
    global _interrupted
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", "")]),
        "DVC_NO_ANALYTICS": "1",
        "TRIP_DURATION_COMMAND": "1",  # its stages leave it to us to say that they were interrupted
    }
    if not git.said(
        ".", "config", "user.email"
    ):  # DVC signs its experiments, and refuses to without a name
        for role in ("AUTHOR", "COMMITTER"):
            environment.setdefault(f"GIT_{role}_NAME", "trip-duration")
            environment.setdefault(f"GIT_{role}_EMAIL", "trip-duration@localhost")
    process = subprocess.Popen([sys.executable, "-m", "dvc", *arguments], env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            _interrupted = True
            continue  # Ctrl-C reached DVC and its stage as well: they end first, then we
