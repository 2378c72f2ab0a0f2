"""``make push`` and ``make pull``: what dvc.lock names, to a DVC remote and from it.

DVC is called as a library, because its errors have types there, and its command line succeeds when
half of the files to send are missing.
"""

import logging
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trip_duration.errors import SettingsError, TripDurationError

__all__ = ["pull", "push", "without_credentials"]

# What stores and their clients call an access that they refuse.
_NO_ACCESS = re.compile(
    r"credential|permission|denied|forbidden|unauthori[sz]ed|authenticat|\b40[13]\b", re.I
)
_NO_ROOM = re.compile(r"no space left|quota", re.I)
_MISSING = "Some of the cache files do not exist"


def push(root: Path, name: str) -> int:
    """Send the files that dvc.lock names and the remote does not have yet.

    Parameters
    ----------
    root : Path
        The repository's folder.
    name : str
        The remote; empty for the default one.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    TripDurationError
        If there is no such remote, it cannot be written to, or files are missing here.
    """
    with _opened(root) as repo:
        where = _Remote(repo, name)
        stale = _stale(repo)
        with where.explained() as heard:
            sent = repo.push(remote=where.name)
            if heard.missing:
                raise TripDurationError(
                    f"{heard.missing} of the files that dvc.lock names are neither here nor in "
                    f"{where}: compute them with `make train`, then `make push` again."
                )
    if sent:
        print(f"Sent {_files(sent)} to {where}.")
    else:
        print(f"Nothing to send: {where} has every file that dvc.lock names.")
    if stale:
        print(
            f"Not up to date: {', '.join(stale)}. What is there is the run that dvc.lock names; "
            "`make train`, then `make push` sends the present one."
        )
    if _uncommitted(root):
        print("dvc.lock is not committed: others know what to pull once it is, and pushed by git.")
    return 0


def pull(root: Path, name: str) -> int:
    """Bring the files that dvc.lock names, and put them into their places.

    Parameters
    ----------
    root : Path
        The repository's folder.
    name : str
        The remote; empty for the default one.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    TripDurationError
        If there is no such remote, it cannot be read, it lacks a file, or a file that would be
        replaced is nowhere else.
    """
    with _opened(root) as repo:
        where = _Remote(repo, name)
        where.check_folder()
        with where.explained():
            done = repo.pull(remote=where.name)
        stale = _stale(repo)
    placed = sum(done["stats"][key] for key in ("added", "modified", "deleted"))
    if done["stats"]["fetched"]:
        print(f"Fetched {_files(done['stats']['fetched'])} from {where}.")
    elif placed:
        print("Nothing to fetch: every file that dvc.lock names was in DVC's cache.")
    else:
        print("Nothing to fetch: every file that dvc.lock names is in its place.")
    if stale:
        print(f"Left to compute, for the code and settings here: {', '.join(stale)} and on.")
    else:
        print("Nothing is left to compute: `make train` and `dvc repro` find all up to date.")
    return 0


@contextmanager
def _opened(root: Path) -> Iterator[Any]:
    """This repository, as DVC's library has it."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if not (root / "dvc.lock").exists():
        raise TripDurationError(
            "There is no dvc.lock, which names the files of a run: compute one with `make train`, "
            "or check out a commit that has one."
        )
    try:
        with Repo(str(root)) as repo:
            yield repo
    except DvcException as error:
        raise TripDurationError(f"DVC gave up: {_first_line(error)}.") from error


class _Heard(logging.Handler):
    """What DVC says while it works: the reasons of single files, and those that are missing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.missing = 0
        self.reasons: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(_MISSING):
            self.missing = max(self.missing, len(text.splitlines()) - 1)
        elif record.exc_info and record.exc_info[1]:
            self.reasons.append(_first_line(record.exc_info[1]))


class _Remote:
    """A remote that the settings of DVC know; as text, its name and where it is."""

    def __init__(self, repo: Any, name: str) -> None:
        known = repo.config["remote"]
        self.name = name or repo.config["core"].get("remote", "")
        names = ", ".join(sorted(known))
        if not self.name:
            have = f"; there is {names}: `REMOTE={min(known)}` uses it once" if known else ""
            raise SettingsError(
                "DVC has no default remote: name one, a folder or a store, with `.venv/bin/dvc "
                f"remote add --default storage s3://bucket/folder`{have}."
            )
        if self.name not in known:
            raise SettingsError(
                f"DVC knows no remote {self.name!r}: expected {names or 'one that is configured'}; "
                f"`.venv/bin/dvc remote add {self.name} s3://bucket/folder` makes it known."
            )
        self.url = str(known[self.name]["url"])

    def __str__(self) -> str:
        return f"{self.name} ({without_credentials(self.url)})"

    def check_folder(self) -> None:
        """Refuse a folder that is not there: nothing can come from it."""
        if "://" not in self.url and not Path(self.url).is_dir():
            raise TripDurationError(
                f"The remote {self} is no folder on this machine: mount it, or correct it with "
                f"`.venv/bin/dvc remote modify {self.name} url …`."
            )

    @contextmanager
    def explained(self) -> Iterator[_Heard]:
        """Turn what goes wrong between here and the remote into one sentence."""
        from dvc.exceptions import CheckoutError, DvcException

        heard = _Heard()
        loggers = [logging.getLogger(name) for name in ("dvc", "dvc_data", "dvc_objects")]
        before = [(logger.handlers, logger.propagate) for logger in loggers]
        for logger in loggers:
            logger.handlers, logger.propagate = [heard], False
        try:
            yield heard
        except TripDurationError:
            raise
        except CheckoutError as error:
            if not heard.missing:
                raise
            raise TripDurationError(
                f"{self} lacks {heard.missing} of the files that dvc.lock names: `make push` where "
                "they were computed, or compute them here with `make train`."
            ) from error
        except ImportError as error:
            raise self._plugin(error) from error
        except Exception as error:
            if unsaved := re.search(r"unsaved files.*\n(.+)", str(error)):
                raise TripDurationError(
                    f"{os.path.relpath(unsaved[1])} differs from dvc.lock and is kept nowhere "
                    "else: move it away, or have `make train` make it again; then `make pull`."
                ) from error
            reasons = [*heard.reasons, _first_line(error)]
            known = isinstance(error, DvcException) and not heard.reasons
            if known and not _NO_ACCESS.search(reasons[0]):
                raise  # a failure of DVC's that is not between here and there
            raise self._unreachable(reasons[0]) from error
        finally:
            for logger, (handlers, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate

    def _plugin(self, error: ImportError) -> TripDurationError:
        kind = urlsplit(self.url).scheme
        if Path(f"requirements-{kind}.txt").exists():
            return TripDurationError(
                f"The remote {self} needs DVC's package for {kind}: `make setup EXTRAS={kind}`."
            )
        return TripDurationError(
            f"The remote {self} needs a package of DVC's that is not here ({_first_line(error)}): "
            "add it to a requirements-….in, `make lock`, then `make setup EXTRAS=…`."
        )

    def _unreachable(self, reason: str) -> TripDurationError:
        reason = without_credentials(reason.replace(self.url, without_credentials(self.url)))
        what, remedy = "can't be used", "check its address and the network, and try again"
        if _NO_ROOM.search(reason):
            what, remedy = "or this disk is full", "free some room, and run the same command again"
        elif _NO_ACCESS.search(reason):
            what = "gives no access"
            remedy = "give this machine the credentials that it asks for (README, Sharing a run)"
        return TripDurationError(f"The remote {self} {what} ({reason}): {remedy}.")


def without_credentials(text: str) -> str:
    """A URL, or a text with URLs, without users, passwords and queries."""
    return re.sub(r"(\w+://)[^/\s@]*@", r"\1", re.sub(r"(\w+://[^\s?]+)\?\S*", r"\1", text))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def _stale(repo: Any) -> list[str]:
    """The stages that are not as dvc.lock says, in the pipeline's order."""
    found = repo.status()
    return [stage.addressing for stage in repo.index.stages if stage.addressing in found]


def _uncommitted(root: Path) -> bool:
    done = subprocess.run(
        ["git", "status", "--porcelain", "dvc.lock"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return bool(done.stdout.strip())


def _files(count: int) -> str:
    return f"{count:,} file{'s' if count > 1 else ''}"
