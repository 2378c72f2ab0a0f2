"""A real scheduler and two workers on loopback: what they compute, and how they are survived."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.conftest import Clone

pytest.importorskip("prefect_dask", reason="needs Dask: make setup EXTRAS=dask")

# Without draws of rows and columns, what is left between two fits is the edges of the bins.
ENGINE = {
    "data.simulated.trips_per_month": 800,
    "search.parallel_trials": 2,
    "train.num_boost_round": 60,
    "train.num_parallel_tree": 1,
    "train.params": {"subsample": 1, "colsample_bynode": 1, "learning_rate": 0.1},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def clone(
    make_clone: Callable[[Path], Clone], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Clone]:
    made = make_clone(tmp_path_factory.mktemp("dask") / "clone")
    made.change(ENGINE)
    yield made
    made.check_that_nothing_runs()


@pytest.fixture(scope="module")
def scheduler(clone: Clone) -> Iterator[str]:
    """The address of a scheduler with two workers, which have the clone's code."""
    address = f"tcp://127.0.0.1:{free_port()}"
    dask = [sys.executable, "-m", "dask"]
    here = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    commands = [
        [*dask, "scheduler", "--port", address.rpartition(":")[2], *here],
        *(2 * [[*dask, "worker", address, "--nthreads", "1", "--memory-limit", "0", *here]]),
    ]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
    inherited |= {"PYTHONPATH": str(clone.folder / "src"), "HOME": str(clone.folder.parent)}
    inherited |= {"DASK_TEMPORARY_DIRECTORY": str(clone.folder.parent / "spill")}
    log = (clone.folder.parent / "dask.log").open("wb")
    started = [
        # Not from the clone's folder: a task must find it by itself.
        subprocess.Popen(
            command, cwd=clone.folder.parent, env=inherited, stdout=log, stderr=subprocess.STDOUT
        )
        for command in commands
    ]
    try:
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()


@pytest.fixture(scope="module")
def found(clone: Clone, scheduler: str) -> dict[str, Any]:
    """What dask_steps.py says."""
    store = clone.folder.parent / "store"
    done = clone.run(sys.executable, "tests/pipeline/dask_steps.py", scheduler, str(store))
    return json.loads(done.stdout.splitlines()[-1])


def test_ingest_featurize_and_search_write_the_same_bytes(found: dict[str, Any]) -> None:
    assert len([name for name in found["local"] if name.endswith(".parquet")]) == 9
    assert "search/trials.csv" in found["local"]
    assert found["dask"] == found["local"]


def test_so_they_do_through_a_storage(found: dict[str, Any]) -> None:
    assert found["storage"] == found["local"]
    months = {sha for name, sha in found["local"].items() if "/trips/" in name}
    assert months <= set(found["stored"])
    assert all(len(name) == 64 for name in found["stored"])  # and nothing half-written


def test_a_worker_that_is_killed_while_it_writes_is_survived(found: dict[str, Any]) -> None:
    assert found["died"].endswith(".partial")
    assert found["survived"] == {n: sha for n, sha in found["local"].items() if "trips" in n}


@pytest.mark.parametrize("run", ["distributed", "again", "killed"])
def test_distributed_training_is_as_good(found: dict[str, Any], run: str) -> None:
    assert found["rmse"][run]["held_out"] == pytest.approx(
        found["rmse"]["local"]["held_out"], rel=0.01
    )


def test_distributed_training_repeats_with_as_many_workers(found: dict[str, Any]) -> None:
    assert found["rmse"]["again"] == found["rmse"]["distributed"]


def test_a_worker_that_is_killed_while_it_trains_is_survived(found: dict[str, Any]) -> None:
    assert found["attempts"] == 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("code", "has other code or other packages than this process: start it from"),
        ("folder", "does not see /not/there (No such file or directory): mount"),
        ("prefect", "does not reach Prefect's server at 127.0.0.1:1"),
    ],
)
def test_a_worker_that_cannot_do_the_work_is_refused(
    found: dict[str, Any], wrong: str, words: str
) -> None:
    said = found["refused"][wrong]
    assert said.startswith("the Dask worker tcp://127.0.0.1:")
    assert words in said


def test_a_scheduler_that_is_not_there_is_said_in_a_sentence(clone: Clone) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    before = clone.read("params.yaml")
    clone.change({"engine.runner": "dask", "engine.dask_scheduler": address})
    try:
        done = clone.run(sys.executable, "src/stages", "ingest", check=False)
    finally:
        (clone.folder / "params.yaml").write_text(before, encoding="utf-8")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"ingest: no Dask scheduler answers at {address}")
    assert f"`dask worker {address}" in line


def test_a_cluster_of_this_machine_runs_a_stage(clone: Clone, found: dict[str, Any]) -> None:
    before = clone.read("params.yaml")
    clone.change({"engine.runner": "dask", "engine.workers": 1})
    for path in (clone.folder / "data/trips").iterdir():
        path.unlink()
    try:
        done = clone.run(sys.executable, "src/stages", "ingest")
    finally:
        (clone.folder / "params.yaml").write_text(before, encoding="utf-8")
    assert (done.stdout, done.stderr) == ("", "")  # who watches DVC reads every line
    again = {path.name for path in (clone.folder / "data/trips").iterdir()}
    assert again == {Path(name).name for name in found["local"] if "data/trips" in name}
