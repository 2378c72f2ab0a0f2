"""A year of the monthly run: a server, a worker, a service, and months that turn out differently.

The months are a simulated city's, written as files that are published one by one. From July on
every trip takes a third longer; September is damaged; November comes late; and in the run for
September the worker is killed.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.pipeline.conftest import Clone

from trip_duration import registry
from trip_duration.files import read_json
from trip_duration.sources.simulated import SimulatedMonth

pytestmark = pytest.mark.timeout(2400)

TRIPS = 4_000  # a month
SLOWER = 4 / 3  # from July on
PATIENCE = 240.0  # seconds that a run may take beside other tests
RESTS = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def month_of(number: int) -> str:
    return f"2024-{number:02d}"


def publish(folder: Path, number: int) -> None:
    """Write a month as TLC would, from July on with slower trips, September with lost times."""
    drift = SLOWER ** (1 / (48 + number - 1)) - 1 if number >= 7 else 0.0
    month = SimulatedMonth(month_of(number), taxi="green", seed=42, trips=TRIPS, drift=drift)
    table = pa.Table.from_batches(month.batches())
    if number == 9:
        place = table.column_names.index("lpep_dropoff_datetime")
        lost = pc.equal(pc.bit_wise_and(pa.array(range(TRIPS)), 1), 0)
        times = pc.if_else(lost, None, table.column(place))
        table = table.set_column(place, table.schema.field(place), times)
    partial = folder / "partial"
    pq.write_table(table, partial)
    partial.rename(folder / f"green-{month_of(number)}.parquet")


@dataclass
class Deployed:
    """``make deploy`` in a clone: a Prefect server and a worker."""

    clone: Clone
    output: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None
    port: int = 0

    def start(self) -> None:
        self.process = self.clone.start(
            sys.executable, "src/commands", "deploy", PREFECT_WORKER_QUERY_SECONDS="1"
        )
        self.output.clear()
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        self.wait(lambda: any("Worker " in line for line in self.output), "the worker", 300)
        self.port = int(re.search(r"127\.0\.0\.1:(\d+)", "".join(self.output))[1])  # type: ignore[index]

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        with process.stdout:
            for line in process.stdout:
                self.output.append(line)

    def wait(self, done: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            ended = self.process is None or self.process.poll() is not None
            assert not ended, f"{what}: make deploy ended\n{''.join(self.output)}"
            assert time.monotonic() < deadline, f"{what} took too long\n{''.join(self.output)}"
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill the worker and its run, as a machine that goes down does."""
        assert self.process
        found = [self.process.pid, *(one.pid for one in _below(self.process.pid))]
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"content-type": "application/json"}
        connection.request(method, f"/api/{path}", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status < 300, text
        return json.loads(text)

    def schedule(self, date: str) -> str:
        """Schedule a run of the deployment for now; its id."""
        deployment = self.api("GET", "deployments/name/retrain/monthly")["id"]
        state = {"type": "SCHEDULED"}
        asked = {"parameters": {"date": date}, "state": state}
        return str(self.api("POST", f"deployments/{deployment}/create_flow_run", asked)["id"])

    def state(self, run: str) -> dict[str, Any]:
        return dict(self.api("GET", f"flow_runs/{run}")["state"])

    def ended(self, run: str) -> tuple[str, str]:
        """Wait for a run's end: its state's name, and what it says."""
        self.wait(lambda: self.state(run)["type"] in RESTS, "the run")
        state = self.state(run)
        return state["name"], state["message"] or ""

    def runs(self, date: str) -> list[dict[str, Any]]:
        """The runs for a date, the last first."""
        asked = {"sort": "EXPECTED_START_TIME_DESC", "limit": 200}
        found = self.api("POST", "flow_runs/filter", asked)
        return [run for run in found if run["parameters"].get("date") == date]

    def way(self, date: str) -> str:
        """Which way the run for a date went, once it has decided: ``search`` or ``refit``."""
        ways = [line.partition(": ")[0] for line in self.said(date)]
        return next((way for way in ways if way in ("search", "refit")), "")

    def said(self, date: str) -> list[str]:
        """What the runs for a date have printed."""
        begin = f"retrain {date}: "
        return [line.strip().removeprefix(begin) for line in self.output if line.startswith(begin)]


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@dataclass
class Asked:
    """Asks the service for a prediction again and again, and keeps the answers' versions."""

    port: int
    versions: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        trip = {"pickup": "2024-08-05T08:30:00", "pickup_zone": 74, "dropoff_zone": 41}
        while not self.over.wait(0.1):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                headers = {"content-type": "application/json"}
                connection.request("POST", "/predict", json.dumps(trip), headers)
                answer = connection.getresponse()
                text = answer.read()
                connection.close()
            except OSError as error:
                self.failures.append(repr(error))
                continue
            if answer.status != 200:
                self.failures.append(f"{answer.status} {text[:200]!r}")
                continue
            version = json.loads(text)["model_version"]
            if not self.versions or self.versions[-1] != version:
                self.versions.append(version)


@pytest.fixture(scope="module")
def year(
    make_clone: Callable[[Path], Clone], root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    """A clone whose months come from files, with a server and a worker."""
    if not (root / ".venv-monitor/.ready").exists():
        pytest.skip("needs the environment of Evidently: make monitor makes it")
    folder = tmp_path_factory.mktemp("year")
    clone = make_clone(folder / "clone")
    published = folder / "published"
    published.mkdir()
    clone.change(
        {
            "data.source": f"{published}/{{taxi}}-{{year}}-{{month}}.parquet",
            "search.max_evals": 3,
            "train.num_boost_round": 60,
            "promotion.slice_trips": 2_000,  # the city's months are small here
            "retrain.wait_hours": 0.002,
            "retrain.patience_days": 3_660,  # the year is long past
            "serve.port": free_port(),
            "serve.poll_seconds": 0.5,
        }
    )
    clone.git("commit", "--all", "--quiet", "--message=Months from files")
    (clone.folder / ".venv-monitor").symlink_to(root / ".venv-monitor")
    (clone.folder / ".git/info/exclude").write_text(".venv-monitor\n")
    deployed = Deployed(clone)
    deployed.start()
    yield deployed
    deployed.stop()
    clone.check_that_nothing_runs()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def months(year: Deployed) -> Path:
    return year.clone.folder.parent / "published"


def champion(year: Deployed) -> registry.Served:
    found = registry.champion(year.clone.folder)
    assert found
    return found


def test_the_schedule_is_that_of_prefect_yaml(year: Deployed) -> None:
    deployment = year.api("GET", "deployments/name/retrain/monthly")
    [entry] = deployment["schedules"]
    assert entry["schedule"]["cron"] == "0 9 15 * *"
    assert entry["schedule"]["timezone"] == "America/New_York"
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert deployment["global_concurrency_limit"]["limit"] == 1
    year.wait(lambda: year.api("POST", "flow_runs/filter", {"limit": 5}), "a scheduled run", 90)
    found = year.api("POST", "flow_runs/filter", {"limit": 1, "sort": "EXPECTED_START_TIME_ASC"})
    assert re.search(r"-15T1[34]:00", found[0]["expected_start_time"])  # 9 in New York, in UTC


def test_a_year(year: Deployed, months: Path) -> None:
    for number in range(1, 11):
        publish(months, number)

    # March: no champion yet. The model beats the baselines, and is the first.
    assert year.ended(year.schedule("2024-03-15"))[0] == "Promoted"
    assert any(line.startswith("search: there is no champion") for line in year.said("2024-03-15"))
    first = champion(year)
    assert first.train_months == ("2024-01",)
    assert registry.tags_of(year.clone.folder, "model-2024-03-15")
    assert registry.tags_of(year.clone.folder, "dv-2024-03-15")

    with serving(year.clone) as asked:
        # April: little has changed, so the champion's parameters are fitted anew.
        name, said = year.ended(year.schedule("2024-04-15"))
        assert name in ("Promoted", "Kept"), said
        assert year.way("2024-04-15") == "refit"
        before = champion(year)

        # August: trips take a third longer in July, which neither model has seen.
        name, said = year.ended(year.schedule("2024-08-15"))
        assert any(
            line.startswith("search: 2024-07 has drifted much") for line in year.said("2024-08-15")
        )
        assert name in ("Promoted", "Kept"), said

        # September: the new model has seen July. The worker is killed in the midst of it.
        run = year.schedule("2024-09-15")
        log = year.clone.folder / ".cache/retrain/pipeline.log"
        year.wait(lambda: year.way("2024-09-15") and "src/stages train" in log.read_text(), "train")
        year.kill()
        year.start()
        assert any("Taken up" in line for line in year.output), year.output
        name, said = year.ended(run)
        assert name == "Promoted", said
        after = champion(year)
        assert int(after.version) > int(before.version)
        assert after.train_months == ("2024-07",)
        year.wait(lambda: asked.versions[-1] == after.version, "the service", 30)

        # October: every other trip of September has lost its drop-off time.
        name, said = year.ended(year.schedule("2024-10-15"))
        assert name == "Failed"
        assert "2024-09 keeps 4" in said
        assert "The champion stays." in said
        assert champion(year) == after

        # December: November is not out. It is asked for again, until it is.
        assert year.ended(year.schedule("2024-12-15"))[0] == "Waiting"
        publish(months, 11)
        year.wait(
            lambda: (
                [run for run in year.runs("2024-12-15") if run["state"]["name"] != "Waiting"]
                and all(run["state"]["type"] in RESTS for run in year.runs("2024-12-15"))
            ),
            "November's run",
        )
        names = {run["state"]["name"] for run in year.runs("2024-12-15")}
        assert "Waiting" in names
        assert names & {"Promoted", "Kept"}, names
        assert registry.tags_of(year.clone.folder, "model-2024-12-15")

        year.wait(lambda: asked.versions[-1] == champion(year).version, "the service", 30)

    assert asked.failures == []
    assert asked.versions[0] == first.version
    versions = [int(version) for version in asked.versions]
    assert versions == sorted(set(versions))  # no promotion was undone, and none was skipped back
    what = [entry["what"] for entry in registry.journal(year.clone.folder)]
    assert what[0] == "promoted"
    assert set(what) <= {"promoted", "kept"}
    assert not [line for line in year.output if "Traceback" in line]
    assert year.clone.git("status", "--porcelain") == ""  # the runs were in a clone of their own
    assert read_json(year.clone.folder / ".cache/retrain/clone/metrics/evaluation.json")


class serving:  # noqa: N801
    """``make serve`` in a clone, asked all the while."""

    def __init__(self, clone: Clone) -> None:
        self._clone = clone

    def __enter__(self) -> Asked:
        from trip_duration import params

        port = params.load(self._clone.folder / "params.yaml").serve.port
        self._process = self._clone.start(sys.executable, "src/commands", "serve")
        self._asked = Asked(port)
        deadline = time.monotonic() + 60
        while not self._ready(port):
            assert self._process.poll() is None, self._process.communicate()[0]
            assert time.monotonic() < deadline, "the service did not start"
            time.sleep(0.1)
        self._thread = threading.Thread(target=self._asked.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._asked.versions:
            assert time.monotonic() < deadline, self._asked.failures
            time.sleep(0.05)
        return self._asked

    @staticmethod
    def _ready(port: int) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def __exit__(self, *_: object) -> None:
        self._asked.over.set()
        self._thread.join(timeout=30)
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=30)
