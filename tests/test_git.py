"""What git says, and its silence."""

import subprocess
from pathlib import Path

import pytest

from trip_duration.git import said


def test_what_it_prints(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    assert said(tmp_path, "rev-parse", "--show-toplevel") == str(tmp_path.resolve())


def test_nothing_where_it_fails_or_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(tmp_path, "rev-parse", "HEAD") == ""
    assert said(tmp_path / "nowhere", "status") == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert said(tmp_path, "version") == ""
