"""What is said of disks that are full or shut."""

import errno
import sqlite3
from pathlib import Path

import pytest

from trip_duration.errors import GO_BACK, disk_trouble


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
