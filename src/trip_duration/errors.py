"""Errors that are meant for a person: one sentence, no traceback, no credentials."""

import errno
import os
import re
import shutil
from pathlib import Path
from urllib.parse import quote

__all__ = [
    "GO_BACK",
    "SettingsError",
    "SourceError",
    "TripDurationError",
    "disk_trouble",
    "holds_credentials",
    "redacted",
    "shown",
]

# What DVC has cached is not computed again.
GO_BACK = "git checkout params.yaml dvc.lock metrics plots search && make train"

_FULL = re.compile(r"no space left|disk is full|disk quota|file too large|not enough space", re.I)
_FULL_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ROOM = 4e6  # bytes that are free on a disk that is full
_SHUT = re.compile(r"read-only|readonly|permission denied|not permitted", re.I)
_SHUT_NUMBERS = {errno.EROFS, errno.EACCES, errno.EPERM}

# A name that says so: of a variable in the environment, or of a field in a URL's query.
_SECRET = re.compile(
    r"key(?![a-z])|secret|token|passw|pwd|credential|signature|auth(?!or)|jwt", re.I
)
_FOLDERS = {"PWD", "OLDPWD"}  # where a shell is, and was
_FIELD = re.compile(
    r"([?&;#](?:sig|policy|[\w.%-]*(?:" + _SECRET.pattern + r")[\w.%-]*)=)[^\s&;#'\"]+", re.I
)
_PASSWORD = r"[^\s/@:]*:(?!\d+(?:[/\s]|$))\S*@"  # with its user; a port is none
_USER = re.compile(rf"(\w://)(?:{_PASSWORD}|[^\s/?#]*@)")
_LOGIN = re.compile(rf"https?://[^\s/?#]*@|\w://{_PASSWORD}")
_LEAST = 8  # characters of a variable's value that is looked for: a shorter one is any word


def redacted(text: object) -> str:
    """A text without credentials: users in URLs, signatures in queries, secret variables' values.

    A variable of the environment is secret if its name says so (``…_KEY``, ``…_TOKEN``, …), and so
    is the password of a URL that any variable holds, such as a proxy's.
    """
    said = _FIELD.sub(r"\1…", _USER.sub(r"\1", str(text)))
    for secret in _secrets():
        said = said.replace(secret, "…")
    return said


def holds_credentials(url: str) -> bool:
    """Whether a URL holds a password, a token or a signature.

    A user alone is one only in ``http`` and ``https``: ``sftp://me@host`` and Azure's
    ``abfs://container@account`` are addresses.
    """
    return bool(_LOGIN.search(url) or _FIELD.search(url))


def _secrets() -> list[str]:
    found = set()
    for name, value in os.environ.items():
        if _SECRET.search(name) and name not in _FOLDERS:
            found.add(value)
        found |= {word.partition(":")[2] for word in re.findall(r"\w://([^\s/]*:[^\s/]*)@", value)}
    found = {secret for secret in found if len(secret) >= _LEAST}
    return sorted(found | {quote(secret, safe="") for secret in found}, key=len, reverse=True)


class TripDurationError(Exception):
    """What was found, where, what was expected and what to do, in one sentence.

    What it says is `redacted`, whoever reads it: a person, a log, MLflow or Prefect.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redacted(message))


class SettingsError(TripDurationError):
    """A key of ``params.yaml`` or of ``SET`` that cannot be used; the message names the key."""


class SourceError(TripDurationError):
    """A month that cannot be had from its source.

    Parameters
    ----------
    message : str
        The sentence for the person who meets it.
    transient : bool
        Whether the same request may succeed later: a retry is worth its wait.
    retry_after : float or None
        Seconds that the server asked us to wait, where it did.
    status : int or None
        The HTTP status that it answered with, where it did.

    Attributes
    ----------
    month : str or None
        Which month it was, where that is known.
    """

    def __init__(
        self,
        message: str,
        *,
        transient: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after
        self.status = status
        self.month: str | None = None


def disk_trouble(error: BaseException, folder: Path) -> str | None:
    """What to say of an error that a disk is to blame for; None of any other.

    Where the disk is all but full, that is any error: a server that can't write says no more than
    that it failed.

    Parameters
    ----------
    error : BaseException
        What was raised. XGBoost, SQLite and servers put the reason into words only, or into the
        error that theirs came from.
    folder : Path
        What is written to: its disk's free space is said.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for one in chain:
        number = one.errno if isinstance(one, OSError) else None
        words = str(one)
        if number in _FULL_NUMBERS or _FULL.search(words):
            return _no_room(_where(one), folder)
        if number in _SHUT_NUMBERS or (number is None and _SHUT.search(words)):
            return (
                f"to read or write{_where(one)} is not allowed ({_reason(one)}): allow it, and run "
                f"the same command again, or go back to what is committed with `{GO_BACK}`."
            )
    return _no_room("", folder) if shutil.disk_usage(folder).free < _NO_ROOM else None


def _no_room(where: str, folder: Path) -> str:
    free = shutil.disk_usage(folder).free / 1e6
    return (
        f"there is no room to write{where} ({free:,.0f} MB are free on the disk of {folder}): free "
        "some, and run the same command again, or go back to what is committed with "
        f"`{GO_BACK}`."
    )


def _where(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return f" {os.fsdecode(name)}" if isinstance(name, str | bytes) else ""


def _reason(error: BaseException) -> str:
    words = getattr(error, "strerror", None) or str(error)
    return " ".join(str(words).split())[:200]


def shown(text: object) -> str:
    """A path, a URL or a library's words as a sentence has them: no line break, nothing unseen."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
