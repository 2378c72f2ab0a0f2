"""Two at once.

Two runs in one clone, in either order of `dvc repro` and `make train`; two clones that share one
MLflow store and one Prefect server; a run while `make ui` is open. Each works, or says who holds
the lock; what is there in the end is what one run alone would have made.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from tests.faults.conftest import ALL
from tests.pipeline.conftest import Clone

rare = pytest.mark.skipif(not ALL, reason="make test-faults")
TRAIN = (sys.executable, "src/commands", "train")
REPRO = ("dvc", "repro")
ONE_EXPERIMENT = """
import json, mlflow
mlflow.set_tracking_uri({store!r})
found = mlflow.search_runs(experiment_names=["trip-duration"], output_format="list")
print(json.dumps([[run.info.run_name.split()[0], run.info.status] for run in found]))
"""


@pytest.fixture(scope="module")
def lock(make_clone: Callable[[Path], Clone], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dvc.lock of a run that nobody disturbed."""
    clone = make_clone(tmp_path_factory.mktemp("alone") / "clone")
    clone.run(*REPRO)
    return clone.read("dvc.lock")


@pytest.fixture
def clone(make_clone: Callable[[Path], Clone], tmp_path: Path) -> Iterator[Clone]:
    clone = make_clone(tmp_path / "clone")
    yield clone
    clone.check_that_nothing_runs()


def until(happens: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def holds(clone: Clone) -> bool:
    """Whether a stage of the clone runs, as DVC notes it."""
    notes = clone.folder / ".dvc/tmp/rwlock"
    return notes.exists() and '"pid"' in notes.read_text()


@pytest.mark.parametrize(
    ("first", "second", "who"),
    [
        pytest.param(TRAIN, TRAIN, "`make train` (process {pid}, since ", id="make train twice"),
        pytest.param(REPRO, TRAIN, "(PID {pid})", id="dvc repro first", marks=rare),
        pytest.param(TRAIN, REPRO, "(PID ", id="make train first", marks=rare),
        pytest.param(REPRO, REPRO, "(PID {pid})", id="dvc repro twice", marks=rare),
    ],
)
def test_two_runs_in_one_clone(
    clone: Clone, lock: str, first: tuple[str, ...], second: tuple[str, ...], who: str
) -> None:
    running = clone.start(*first)
    try:
        until(lambda: holds(clone))
        done = clone.run(*second, check=False)
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert who.format(pid=running.pid) in said
        assert "Traceback" not in said
    finally:
        said, _ = running.communicate(timeout=900)
    assert running.returncode == 0, said
    assert clone.read("dvc.lock") == lock
    assert "Running stage" not in clone.run(*second).stdout


def test_two_clones_share_a_store_and_a_server(
    make_clone: Callable[[Path], Clone], tmp_path: Path, lock: str
) -> None:
    store = f"sqlite:///{tmp_path / 'shared.db'}"
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    start = ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    server = subprocess.Popen(
        [sys.executable, *start],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT")},
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        until(lambda: answers(f"{address}/api/health"))
        clones = [make_clone(tmp_path / name / "clone") for name in ("one", "two")]
        both = {"MLFLOW_TRACKING_URI": store, "PREFECT_API_URL": f"{address}/api"}
        running = [clone.start(*TRAIN, **both) for clone in clones]
        said = side_by_side(running)
        assert [one.returncode for one in running] == [0, 0], said
        assert "Traceback" not in "".join(said)
        assert {clone.read("dvc.lock") for clone in clones} == {lock}
        found = clones[0].run(sys.executable, "-c", ONE_EXPERIMENT.format(store=store)).stdout
        assert found.count('"FINISHED"') + found.count('"KILLED"') == 2 * (2 + 4)
        assert not any((clone.folder / ".prefect").exists() for clone in clones)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@rare
def test_a_run_while_the_pages_are_open(clone: Clone, lock: str) -> None:
    pages = clone.start(sys.executable, "src/commands", "ui")
    try:
        lines: list[str] = []
        assert pages.stdout is not None
        for line in pages.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        done = clone.run(*TRAIN)
        assert "Traceback" not in done.stdout + done.stderr
        assert clone.read("dvc.lock") == lock
        for line in lines[:2]:
            assert answers(line.split()[-1])  # still there
    finally:
        os.killpg(pages.pid, signal.SIGINT)
        rest, _ = pages.communicate(timeout=60)
    assert pages.returncode == 0, rest


def side_by_side(running: list[subprocess.Popen[str]]) -> list[str]:
    """What processes print, read at the same time so that none waits for its reader."""
    said = [""] * len(running)

    def read(number: int) -> None:
        said[number] = running[number].communicate(timeout=900)[0]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(running))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
