"""Kills and interrupts.

SIGKILL to the whole process group, at moments that a seed draws: right before a file is opened,
renamed or removed by a stage or by DVC, or a little after, in the middle of a write or a trial.
Then the same command again: it must end with the very `dvc.lock` of a run that nobody disturbed,
repeat no trial that had ended, and leave the same files, no server and no lock. Ctrl-C and SIGTERM
must end the pipeline within five seconds, with one line that says what is kept.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.faults.conftest import ALL
from tests.pipeline.conftest import SMALL, Clone

SEED = 20240101
KILLS = range(40 if ALL else 3)
ROLES = ("search", "ingest", "dvc", "train", "featurize", "evaluate")
TRAIN = (sys.executable, "src/commands", "train")
WATCH = Path(__file__).parent / "moments"
SECONDS = 5.0  # that a stage may take to end
SPARE = 2.0  # more of them where the machine is shared by several test runs
WHOLE = 20.0  # that the stage, DVC and the command may take together


@dataclass
class Reference:
    """A clone in which nothing has run, and what a run of it gives."""

    pristine: Clone
    lock: str
    files: set[str]
    moments: dict[str, list[str]]  # by role: what was done to which file


def logged(log: Path) -> dict[str, list[str]]:
    """What each process did, in its order."""
    found: dict[str, list[str]] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        role, _, what = line.split(" ", 2)
        found.setdefault(role, []).append(what)
    return found


def watched(clone: Clone, log: Path, kill: str = "") -> dict[str, str]:
    """The environment that has moments counted."""
    log.unlink(missing_ok=True)
    return {
        "PYTHONPATH": str(WATCH),
        "MOMENTS_ROOT": str(clone.folder),
        "MOMENTS_LOG": str(log),
        "MOMENTS_KILL": kill,
    }


def files(clone: Clone) -> set[str]:
    """All files, less those of git, servers and MLflow, whose names never repeat."""
    apart = {".git", ".prefect", ".mlflow", "__pycache__"}
    paths = (path.relative_to(clone.folder) for path in clone.folder.rglob("*"))
    return {str(path) for path in paths if not apart & set(path.parts)}


@pytest.fixture(scope="module")
def reference(
    make_clone: Callable[[Path], Clone], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reference]:
    folder = tmp_path_factory.mktemp("reference")
    pristine, ran = make_clone(folder / "pristine"), Clone(folder / "ran")
    shutil.copytree(pristine.folder, ran.folder)
    log = folder / "moments"
    ran.run(*TRAIN, **watched(ran, log))
    yield Reference(pristine, ran.read("dvc.lock"), files(ran), logged(log))
    ran.check_that_nothing_runs()


@pytest.fixture
def clone(reference: Reference, tmp_path: Path) -> Iterator[Clone]:
    """A copy in which nothing has run."""
    folder = tmp_path / "clone"
    shutil.copytree(reference.pristine.folder, folder)
    yield Clone(folder)
    shutil.rmtree(folder, ignore_errors=True)


def drawn(reference: Reference, number: int) -> tuple[str, int, float]:
    """The role, the number and the delay in seconds of a kill."""
    generator = np.random.default_rng([SEED, number])
    role = ROLES[number % len(ROLES)]
    # How much DVC has to do to its own notes is not always the same, so the last are left out.
    moment = int(generator.integers(1, 0.8 * len(reference.moments[role])))
    return role, moment, [0.0, 0.02, 0.5][int(generator.integers(3))] * generator.random()


def ended_trials(clone: Clone) -> int:
    """How many trials are safe: those in the journal, or all once DVC knows the search."""
    lock = clone.folder / "dvc.lock"
    if lock.exists() and "search:" in lock.read_text():
        return int(SMALL["search.max_evals"])
    count = 0
    for path in (clone.folder / ".cache/search").glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            try:
                count += "loss" in json.loads(line)
            except ValueError:
                continue
    return count


def check_that_it_is_whole(clone: Clone, reference: Reference) -> None:
    assert clone.read("dvc.lock") == reference.lock
    assert files(clone) == reference.files
    assert clone.read(".dvc/tmp/rwlock") == "{}"
    clone.check_that_nothing_runs()


@pytest.mark.parametrize("number", KILLS)
def test_a_run_after_a_kill_ends_as_if_there_had_been_none(
    reference: Reference, clone: Clone, number: int, tmp_path: Path
) -> None:
    role, moment, seconds = drawn(reference, number)
    log = tmp_path / "moments"
    killed = clone.start(*TRAIN, **watched(clone, log, f"{role} {moment} {seconds:.3f}"))
    said, _ = killed.communicate(timeout=900)
    assert killed.returncode == -signal.SIGKILL, said
    ended = ended_trials(clone)
    done = clone.run(*TRAIN, **watched(clone, log))
    assert "Traceback" not in done.stdout + done.stderr
    tried = sum(what.endswith(".jsonl") for what in logged(log).get("search", ()))
    assert tried == int(SMALL["search.max_evals"]) - ended
    check_that_it_is_whole(clone, reference)


def test_the_moments_are_in_all_stages_and_of_all_kinds(reference: Reference) -> None:
    assert set(ROLES) <= set(reference.moments)
    for role in ROLES:
        assert {what.split()[0] for what in reference.moments[role]} >= {"open", "os.rename"}
    journal = [what for what in reference.moments["search"] if what.endswith(".jsonl")]
    assert len(journal) == SMALL["search.max_evals"]
    assert {drawn(reference, number)[0] for number in range(40)} == set(ROLES)


def test_settings_of_a_killed_run_are_put_back(reference: Reference, clone: Clone) -> None:
    before = clone.read("params.yaml")
    environment = watched(clone, clone.folder.parent / "moments", "search 2 0.0")
    killed = clone.start(*TRAIN, **environment, SET="train.num_boost_round=25")
    killed.communicate(timeout=900)
    assert killed.returncode == -signal.SIGKILL
    assert "num_boost_round: 25" in clone.read("params.yaml")
    done = clone.run(*TRAIN)
    assert "train.num_boost_round=25" in done.stdout  # and that it is undone
    assert clone.read("params.yaml") == before
    assert clone.git("diff", "--cached", "--name-only") == ""
    shutil.rmtree(clone.folder / ".dvc/tmp/exps")  # DVC's diary of experiments
    check_that_it_is_whole(clone, reference)


def test_a_stage_ends_when_its_dvc_is_killed(reference: Reference, clone: Clone) -> None:
    running = clone.start("dvc", "repro")
    [stage] = stages_of(running.pid)
    os.kill(running.pid, signal.SIGKILL)
    psutil.wait_procs([stage], timeout=SECONDS + SPARE)
    assert not stage.is_running()
    said, _ = running.communicate(timeout=60)
    assert "ingest was interrupted: the months that are written are kept" in said
    clone.run(*TRAIN)
    check_that_it_is_whole(clone, reference)


def stages_of(pid: int, name: str = "") -> list[psutil.Process]:
    """The processes of the stage that runs below a process, once one does."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            below = psutil.Process(pid).children(recursive=True)
            found = [one for one in below if "src/stages" in one.cmdline()]
            found = [one for one in found if not name or name in one.cmdline()]
        except psutil.Error:
            found = []
        if found:
            time.sleep(1.0)  # it has begun to do something
            return found[-1:]
        time.sleep(0.05)
    raise AssertionError(f"no stage {name} was started")


@pytest.mark.parametrize(
    ("stage", "number", "to_all"),
    [
        ("ingest", signal.SIGINT, True),
        ("featurize", signal.SIGTERM, False),
        ("search", signal.SIGINT, True),
        ("search", signal.SIGTERM, False),
        ("train", signal.SIGINT, True),
        ("evaluate", signal.SIGTERM, False),
        ("evaluate", signal.SIGINT, True),
    ]
    if ALL
    else [("search", signal.SIGINT, True)],
)
def test_an_interrupt_ends_soon_and_says_what_is_kept(
    reference: Reference, clone: Clone, stage: str, number: signal.Signals, to_all: bool
) -> None:
    running = clone.start(*TRAIN)
    [interrupted] = stages_of(running.pid, stage)
    began = time.monotonic()
    # Ctrl-C goes to all processes of the terminal's group, SIGTERM to the one that is named.
    (os.killpg if to_all else os.kill)(running.pid, number)
    psutil.wait_procs([interrupted], timeout=SECONDS + SPARE)
    assert not interrupted.is_running()
    said, _ = running.communicate(timeout=60)
    assert time.monotonic() - began < WHOLE
    assert running.returncode == 130
    assert "Traceback" not in said
    assert said.count(" are kept") == 1
    assert said.splitlines()[-1].startswith("Interrupted: the stages, months and trials")
    clone.run(*TRAIN)
    check_that_it_is_whole(clone, reference)
