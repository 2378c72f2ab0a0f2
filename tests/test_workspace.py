"""The clone of monthly runs, of a small repository whose commands are scripts."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from tests.turns import check_that_the_second_waits

from trip_duration import params
from trip_duration.errors import TripDurationError
from trip_duration.processes import lives
from trip_duration.workspace import FOLDER, MARK, opened

COMMANDS = """
import os, pathlib, sys, time
name = sys.argv[1]
if name == "fails":
    print("what it did first")
    sys.exit("the reason, at https://me:secret1@127.0.0.1/")
if name == "sleeps":
    pathlib.Path("sleeping").touch()
    time.sleep(60)
pathlib.Path("ran").write_text(name + os.environ.get("TRIP_DURATION_ENVIRONMENT", "."))
"""


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, root: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "src/commands").mkdir(parents=True)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").touch()
    (folder / ".gitignore").write_text("/.cache/\n")
    (folder / "src/commands/__main__.py").write_text(COMMANDS)
    shutil.copy(root / "params.yaml", folder)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=First")
    return folder


def test_it_is_a_clone_of_the_commit(repository: Path) -> None:
    (repository / "src/commands/__main__.py").write_text("changed, not committed")
    with opened(repository) as workspace:
        assert workspace.folder == repository / FOLDER / "clone"
        assert (workspace.folder / "src/commands/__main__.py").read_text() == COMMANDS
        assert workspace.commit == git(repository, "rev-parse", "HEAD")
        config = (workspace.folder / ".dvc/config.local").read_text()
        assert f"dir = {repository}/.dvc/cache" in config
    assert git(repository, "status", "--porcelain") == "M src/commands/__main__.py"


def test_it_follows_a_commit_and_keeps_what_was_computed(repository: Path) -> None:
    with opened(repository) as workspace:
        (workspace.folder / "computed").touch()
    with opened(repository) as workspace:
        assert (workspace.folder / "computed").exists()
    (repository / "later").touch()
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=Later")
    with opened(repository) as workspace:
        assert (workspace.folder / "later").exists()
        assert (workspace.folder / "computed").exists()


def test_a_clone_that_was_cut_off_is_begun_anew(repository: Path) -> None:
    partial = repository / FOLDER / "clone.partial"
    partial.mkdir(parents=True)
    (partial / "half").touch()
    with opened(repository) as workspace:
        assert not (workspace.folder / "half").exists()


def test_no_commit_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TripDurationError, match="no git clone with a commit"), opened(tmp_path):
        pass


def test_settings_are_the_present_ones_with_paths_that_hold_there(repository: Path) -> None:
    text = (repository / "params.yaml").read_text()
    given = {
        "data.source": "../months/{taxi}_{year}-{month}.parquet",
        "data.zones": "zones.geojson",
    }
    (repository / "params.yaml").write_text(params.override(text, given)[0])
    with opened(repository) as workspace:
        chosen = workspace.choose({"data.train": ["2021-01"], "data.validation": ["2021-02"]})
        assert (
            chosen.data.source == f"{repository.parent}/months/{{taxi}}_{{year}}-{{month}}.parquet"
        )
        assert chosen.data.zones == f"{repository}/zones.geojson"
        assert params.load(workspace.folder / "params.yaml") == chosen


@pytest.mark.parametrize("source", ["simulated", "tlc", "s3://bucket/{taxi}-{year}-{month}.csv"])
def test_sources_that_are_no_paths_stay(repository: Path, source: str) -> None:
    text = (repository / "params.yaml").read_text()
    (repository / "params.yaml").write_text(params.override(text, {"data.source": source})[0])
    with opened(repository) as workspace:
        assert workspace.choose({}).data.source == source


def test_settings_that_are_the_same_are_not_written_again(repository: Path) -> None:
    with opened(repository) as workspace:
        workspace.choose({"data.test": []})
        before = (workspace.folder / "params.yaml").stat().st_mtime_ns
        workspace.choose({"data.test": []})
        assert (workspace.folder / "params.yaml").stat().st_mtime_ns == before


def test_a_command_runs_there_and_is_not_told_which_settings_are_ours(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIP_DURATION_ENVIRONMENT", "{}")
    with opened(repository) as workspace:
        workspace.run("train")
        assert (workspace.folder / "ran").read_text() == "train."


def test_a_command_that_fails_says_what_it_said_last_without_secrets(repository: Path) -> None:
    with opened(repository) as workspace:
        with pytest.raises(TripDurationError) as caught:
            workspace.run("fails")
        assert "the reason" in str(caught.value)
        assert "secret1" not in str(caught.value)
        assert "what it did first" in workspace.log.read_text()


RUN = """
import sys
from trip_duration.workspace import opened
with opened(sys.argv[1]) as workspace:
    workspace.run("sleeps")
"""


def until(there: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait for a file that a process makes."""
    while not there.exists():
        assert process.poll() is None
        time.sleep(0.02)


def left_behind(repository: Path) -> psutil.Process:
    """The pipeline of a run that was killed."""
    run = subprocess.Popen([sys.executable, "-c", RUN, str(repository)])
    until(repository / FOLDER / "clone/sleeping", run)
    [pipeline] = psutil.Process(run.pid).children()
    run.kill()
    run.wait()
    return pipeline


@contextmanager
def somebodys(folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that a person has in a folder, as a shell or an editor is."""
    command = [sys.executable, "-c", "open('open', 'w'); input()"]
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, env=os.environ | environment
    )
    try:
        until(folder / "open", process)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_what_a_killed_run_left_behind_is_ended_by_the_next(repository: Path) -> None:
    pipeline = left_behind(repository)
    assert lives(pipeline)
    with opened(repository) as workspace:
        assert not lives(pipeline)
        assert not (workspace.folder / "ran").exists()


@pytest.mark.parametrize("mark", [{}, {MARK: "/another/clone"}])
def test_what_a_person_has_open_there_is_not_ended(repository: Path, mark: dict[str, str]) -> None:
    pipeline = left_behind(repository)
    with somebodys(repository / FOLDER / "clone", **mark) as shell:
        with opened(repository) as workspace:
            assert not lives(pipeline)
            assert shell.poll() is None
            workspace.run("train")
        assert shell.poll() is None


def test_a_process_that_does_not_say_whose_it_is_is_not_ended(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(process: psutil.Process) -> dict[str, str]:
        raise psutil.AccessDenied(process.pid)

    with opened(repository) as workspace:
        pass
    with somebodys(workspace.folder, **{MARK: str(workspace.folder)}) as process:
        with monkeypatch.context() as patch:
            patch.setattr(psutil.Process, "environ", denied)
            assert not workspace.end_all()
        assert process.poll() is None
        assert workspace.end_all()
        process.wait(20)


def test_a_command_that_is_interrupted_leaves_nothing_behind(repository: Path) -> None:
    with opened(repository) as workspace:

        def interrupt() -> None:
            deadline = time.monotonic() + 20
            while not (workspace.folder / "sleeping").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            main = threading.main_thread().ident
            assert main
            signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            workspace.run("sleeps")
        left = [
            process
            for process in psutil.process_iter(["cwd"])
            if process.info["cwd"] == str(workspace.folder)
        ]
        assert not left


def test_a_second_run_waits_for_the_first(repository: Path) -> None:
    check_that_the_second_waits(partial(opened, repository))
