"""Who may run the pipeline, and what a DVC that was killed leaves behind."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import locks
from trip_duration.errors import TripDurationError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path(".dvc/tmp/exps").mkdir(parents=True)
    return tmp_path


def notes(pid: int) -> str:
    info = {"pid": pid, "cmd": "dvc repro"}
    return json.dumps({"read": {"a": [info]}, "write": {"b": info}})


def test_the_second_command_is_told_of_the_first(here: Path) -> None:
    with locks.alone("make train"):
        with pytest.raises(TripDurationError) as error, locks.alone("make ingest"):
            pass
        assert str(error.value).startswith(f"`make train` (process {os.getpid()}, since ")
        assert str(here) in str(error.value)
    with locks.alone("make ingest"):
        assert "make train" not in locks.LOCK.read_text()


@pytest.mark.parametrize("name", [".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock"])
@pytest.mark.parametrize("text", [notes(os.getpid()), notes(2**22 + 1), "", '{"read', "[]", "{}"])
def test_notes_of_what_is_no_dvc_are_removed(name: str, text: str) -> None:
    Path(name).write_text(text)
    locks.release_dead()
    assert not Path(name).exists()


def test_notes_of_a_dvc_that_lives_stay(here: Path) -> None:
    (here / "dvc").write_text("print(flush=True)\ninput()")
    pipe = subprocess.PIPE
    alive = subprocess.Popen([sys.executable, here / "dvc"], stdin=pipe, stdout=pipe)
    try:
        assert alive.stdout
        alive.stdout.readline()  # before that it may still look like the one that started it
        locks.HELD[0].write_text(notes(alive.pid))
        locks.release_dead()
        assert locks.HELD[0].exists()
        alive.kill()  # a zombie, until somebody waits for it
        os.waitid(os.P_PID, alive.pid, os.WEXITED | os.WNOWAIT)
        locks.release_dead()
        assert not locks.HELD[0].exists()
    finally:
        alive.kill()
        alive.communicate()


def test_notes_that_somebody_changes_are_left_alone() -> None:
    locks.HELD[0].write_text("")
    with locks.HELD[0].with_name("rwlock.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        locks.release_dead()
        assert locks.HELD[0].exists()
