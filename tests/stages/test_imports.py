"""What a stage imports before its flow begins, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

import startup

SHOW = """
print(*sorted({name.partition(".")[0] for name, module in sys.modules.items() if module}))
"""


def imported(root: Path, code: str) -> set[str]:
    """The packages that are imported once the code has run."""
    command = [sys.executable, "-c", code + SHOW]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("stage", startup.STAGES)
def test_a_stage_imports_what_it_may(root: Path, stage: str) -> None:
    found = imported(root, startup.BEFORE.format(stage=stage))
    assert startup.unused(found, startup.START[stage]) == []
    assert found & startup.WATCHED == startup.START[stage]  # the table promises no more than it is


def test_a_package_that_is_imported_lazily_is_seen(root: Path) -> None:
    code = startup.BEFORE.format(stage="ingest") + "def late():\n    import hyperopt\nlate()\n"
    found = imported(root, code)
    assert {"hyperopt", "scipy"} <= set(startup.unused(found, startup.START["ingest"]))


def test_scikit_learn_can_be_imported_after_xgboost_did_without(root: Path) -> None:
    code = startup.BEFORE.format(stage="search")
    assert "sklearn" not in imported(root, code)
    assert "sklearn" in imported(root, code + "import sklearn\n")


def test_importtimes_lines_are_added_up_by_package() -> None:
    found = startup.parsed(
        "import time: self [us] | cumulative | imported package\n"
        "import time:       500 |        500 |   a.b\n"
        "a warning\n"
        "import time:      1500 |       2000 | a\n"
        "import time:       100 |        100 | json.decoder\n"
    )
    assert found.seconds == {"a": 0.002, "python": 0.0001}
    assert found.modules == 3
    assert found.total == pytest.approx(0.0021)
    assert found.heaviest(1) == "a 0.00"


def waiting(root: Path, **environment: str) -> str:
    """How XGBoost's threads are told to wait when a stage begins, in place of which it is said."""
    code = (
        "import os, sys; sys.path.insert(0, 'src'); from stages import __main__ as entry; "
        "entry._run = lambda name: print(os.environ.get('GOMP_SPINCOUNT')) or sys.exit(0); "
        "entry.main(['train'])"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True
    ).stdout.strip()


def test_threads_that_wait_sleep_unless_the_user_says_otherwise(root: Path) -> None:
    assert waiting(root) == "1000"
    assert waiting(root, GOMP_SPINCOUNT="7") == "7"
    assert waiting(root, OMP_WAIT_POLICY="active") == "None"
