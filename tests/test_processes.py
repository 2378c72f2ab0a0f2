"""Other processes: whether one lives, and whether it is DVC."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from trip_duration.processes import abandoned, asker, is_dvc, lives, living


def test_a_process_lives_until_it_ends_whether_or_not_somebody_waits_for_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = psutil.Process(process.pid)
    created = other.create_time()
    assert lives(other)
    assert living(process.pid, created) == other
    assert living(process.pid, created - 60) is None  # another that had the pid before
    process.kill()
    deadline = time.monotonic() + 10
    while lives(other) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert other.status() == psutil.STATUS_ZOMBIE  # nobody has waited for it yet
    assert not lives(other)
    assert living(process.pid, created) is None
    process.communicate()
    assert living(process.pid, created) is None


def test_without_a_dvc_above_it_a_process_is_its_own() -> None:
    assert asker() == psutil.Process().pid


CHILD = """
import os, sys, time
from trip_duration.processes import abandoned
while {waits} and os.getppid() == {parent}:
    time.sleep(0.01)
print(abandoned(), flush=True)
"""
PARENT = """
import os, subprocess, sys
code = {child!r}.format(waits={waits}, parent=os.getpid())
child = subprocess.Popen([sys.executable, "-c", code])
if not {waits}:
    child.wait()
"""


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("dies", [True, False])
def test_a_stage_whose_dvc_went_at_once_knows_that_it_is_abandoned(
    root: Path, named: bool, dies: bool
) -> None:
    assert not abandoned()
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(child=CHILD, waits=dies)],
        env={"PYTHONPATH": str(root / "src"), **({"DVC_STAGE": "ingest"} if named else {})},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said, _ = process.communicate(timeout=60)
    assert said == f"{named and dies}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/venv/bin/python", "/venv/bin/dvc", "repro"], True),
        (["/venv/bin/dvc", "exp", "run"], True),
        (["python", "-X", "utf8", "-m", "dvc", "repro"], True),
        (["python", "src/stages", "dvc"], False),
        (["bash", "-c", "dvc repro"], False),
        ([], False),
    ],
)
def test_dvc_is_known_by_its_command(words: list[str], expected: bool) -> None:
    assert is_dvc(SimpleNamespace(cmdline=lambda: words)) is expected
