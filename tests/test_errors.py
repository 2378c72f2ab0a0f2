"""What is said: of disks that are full or shut, and without credentials."""

import errno
import pickle
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from trip_duration.errors import (
    GO_BACK,
    SettingsError,
    SourceError,
    TripDurationError,
    disk_trouble,
    redacted,
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "models/x"), "no room to write models/x"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no room to write ("),
        (RuntimeError("[14:02:11] io.cc:7: write failed: No space left on device"), "no room"),
        (sqlite3.OperationalError("database or disk is full"), "no room to write ("),
        (OSError(errno.EROFS, "Read-only file system", b"data"), "to read or write data is not"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "(Permission denied)"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "not allowed (attempt"),
    ],
)
def test_a_disk_in_trouble_is_one_sentence(error: Exception, words: str, tmp_path: Path) -> None:
    said = disk_trouble(error, tmp_path)
    assert said is not None
    assert words in said
    assert GO_BACK in said
    assert "\n" not in said


def test_the_reason_may_lie_below(tmp_path: Path) -> None:
    above = RuntimeError("the task failed")
    above.__cause__ = OSError(errno.ENOSPC, "No space left on device", "x")
    assert "no room to write x" in str(disk_trouble(above, tmp_path))


@pytest.mark.parametrize("error", [ValueError("no"), FileNotFoundError(errno.ENOENT, "No", "x")])
def test_other_errors_are_not_the_disks(error: Exception, tmp_path: Path) -> None:
    assert disk_trouble(error, tmp_path) is None


def test_on_a_full_disk_any_error_is_the_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SimpleNamespace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    said = disk_trouble(RuntimeError("Server error '500 Internal Server Error'"), tmp_path)
    assert said is not None
    assert said.startswith("there is no room to write (1 MB are free on the disk of ")


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2/hunter2")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:through-the-wall@127.0.0.1:1")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "trip-duration")
    monkeypatch.setenv("SOME_TOKEN", "short")
    monkeypatch.setenv("PWD", "/home/me/trips")  # which every shell sets
    monkeypatch.setenv("OLDPWD", "/home/me/trips/data")
    monkeypatch.setenv("MYSQL_PWD", "of-the-data")


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("can't open s3://me:word@host/x?sig=abc now", "can't open s3://host/x?sig=… now"),
        ("'https://token@host:80/x'", "'https://host:80/x'"),
        ("postgresql://me:a/b@c@host/x", "postgresql://host/x"),
        ("url: /x?a=1&X-Amz-Signature=abc&b=2)", "url: /x?a=1&X-Amz-Signature=…&b=2)"),
        ("the key hunter2/hunter2 is wrong", "the key … is wrong"),
        ("in a query: hunter2%2Fhunter2", "in a query: …"),
        ("the proxy knows no through-the-wall", "the proxy knows no …"),
        ("Unable to locate credentials", "Unable to locate credentials"),
        ("/home/me/trips/data/trips.csv is no file", "/home/me/trips/data/trips.csv is no file"),
        ("refused: of-the-data", "refused: …"),
        ("trip-duration, in short", "trip-duration, in short"),
        ("http://127.0.0.1:80/a@b and https://host/?author=x", None),
        ("did you mean data.zones? Mail me@host: key=1", None),
    ],
)
def test_credentials_are_not_said(text: str, said: str | None) -> None:
    assert redacted(text) == (said or text)


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("kind", [TripDurationError, SettingsError, SourceError])
def test_no_sentence_holds_any(kind: type[TripDurationError]) -> None:
    error = kind("https://me:word@host/x and hunter2/hunter2")
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert str(one) == "https://host/x and …"
        assert "word" not in repr(one)
