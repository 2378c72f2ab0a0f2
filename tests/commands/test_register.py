"""``make register`` and ``make rollback``: what they print, and what Prefect's pages show."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests import candidates
from tests.candidates import BETTER, GOOD
from tests.test_gate import RULES, found

from commands.register import shown
from trip_duration import registry
from trip_duration.gate import Slice, decide
from trip_duration.orchestration import OURS

SOURCE = Path(registry.__file__).parents[1]
# Prefect's server ends with the process that it was begun for, so the pages are read in there.
RUN = """
import json, sys
from pathlib import Path
from commands.register import register
assert register(Path(sys.argv[1])) == 0
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    runs = [(run.name, run.state_name) for run in client.read_flow_runs()]
    artifacts = {artifact.key: artifact.data for artifact in client.read_artifacts()}
print(json.dumps([runs, artifacts]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A repository's folder with an evaluated model."""
    text = (root / "params.yaml").read_text(encoding="utf-8")
    return candidates.write(tmp_path_factory.mktemp("house") / "house", text, GOOD)


def run(code: str, house: Path) -> subprocess.CompletedProcess[str]:
    own = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", OURS)
    environment = {name: value for name, value in os.environ.items() if name not in own}
    return subprocess.run(
        [sys.executable, "-c", code, str(house)],
        env={**environment, "PYTHONPATH": str(SOURCE), "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_model_is_registered_shown_and_taken_back(house: Path, root: Path) -> None:
    done = run(RUN, house)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].rstrip().endswith(f"trips of {candidates.TEST} judge")
    assert any(line.startswith(" RMSE, the zone pair's median") for line in lines)
    assert any(line.startswith(" intervals hold") for line in lines)
    assert lines[-1].startswith("Version 1 is promoted to champion: RMSE ")
    runs, artifacts = json.loads(done.stderr.splitlines()[-1])
    months = f"{candidates.TRAIN} … {candidates.TEST}"
    assert runs == [[f"register green {months}", "Completed"]]
    assert artifacts["model-card"].startswith("# Trip duration, green taxis, metered")
    assert [row["against"] for row in json.loads(artifacts["verdict"])] == [
        "the mean",
        "the zone pair's median",
        "its level",
    ]

    better = candidates.write(house.with_name("better"), (root / "params.yaml").read_text(), BETTER)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert registry.register(house, better, say=print).promoted
    back = "import sys\nfrom commands.rollback import rollback\nsys.exit(rollback(sys.argv[1]))"
    done = run(back, house)
    assert done.stdout == "Version 1 is champion again; version 2 no longer is.\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_what_failed_is_shown_and_of_the_rest_the_worst() -> None:
    slices: Any = [Slice("hour", f"{hour:02}", 200, 4.0 + hour / 100, 4.2) for hour in range(24)]
    slices += [Slice("borough", "Queens", 200, 9.0, 4.2)]
    checks = shown(decide(found(slices=tuple(slices)), RULES).checks)
    assert [check.slice for check in checks] == [
        "all trips",
        "all trips",
        "all trips",
        "hour 19",
        "hour 20",
        "hour 21",
        "hour 22",
        "hour 23",
        "borough Queens",
        "all trips",
    ]
    assert [check.slice for check in checks if not check.passed] == ["borough Queens"]
