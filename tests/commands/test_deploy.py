"""What make deploy takes up and says, and make backfill; tests/pipeline/test_monthly.py runs it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.schedules import CronSchedule

from commands import deploy as command
from commands.backfill import backfill
from trip_duration import drift, orchestration, runs
from trip_duration.errors import SettingsError, TripDurationError


class Client:
    """Prefect's client, with three runs that have not ended."""

    def __init__(self) -> None:
        self.runs = [SimpleNamespace(id=name, name=name) for name in ("lives", "died", "silent")]
        self.states: dict[str, str] = {}
        self.asked: Any = None

    def read_flow_runs(self, flow_run_filter: Any) -> list[Any]:
        self.asked = flow_run_filter
        return self.runs

    def set_flow_run_state(self, run: str, state: Any, force: bool) -> None:
        assert force
        self.states[run] = state.name


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    known = {"lives": True, "died": False, "silent": None}
    monkeypatch.setattr(command, "lives_on", lambda root, run: known[run])
    return Client()


DEPLOYMENT = SimpleNamespace(id="6f0a3a10-64c1-4f3f-8d4a-0c7a2f8a2f11")


def take_up(client: Client, root: Path, *, alone: bool) -> list[str]:
    found = command.take_up(client, DEPLOYMENT, root, alone=alone)  # type: ignore[arg-type]
    assert {run.name for run in found} == client.states.keys()
    return [run.name for run in found]


def test_runs_whose_process_is_gone_are_scheduled_again(client: Client, tmp_path: Path) -> None:
    assert take_up(client, tmp_path, alone=True) == ["died", "silent"]
    assert set(client.states.values()) == {"AwaitingRetry"}
    assert [str(found) for found in client.asked.deployment_id.any_] == [DEPLOYMENT.id]
    assert {kind.value for kind in client.asked.state.type.any_} == {"RUNNING", "PENDING"}


def test_where_others_work_too_only_those_known_to_be_dead(client: Client, tmp_path: Path) -> None:
    assert take_up(client, tmp_path, alone=False) == ["died"]


def test_the_note_of_a_run_that_is_taken_up_is_gone(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / runs.FOLDER / "died.json"
    note.parent.mkdir(parents=True)
    note.touch()
    take_up(client, tmp_path, alone=True)
    assert not note.exists()


def test_the_schedule_in_words() -> None:
    cron = CronSchedule(cron="0 9 15 * *", timezone="America/New_York")
    entry = SimpleNamespace(schedule=cron, active=True)
    said = command.schedule(SimpleNamespace(schedules=[entry]))  # type: ignore[arg-type]
    assert said.startswith("0 9 15 * * in America/New_York, next on 20")
    assert said.endswith("-15 at 09:00")
    entry.active = False
    off = command.schedule(SimpleNamespace(schedules=[entry]))  # type: ignore[arg-type]
    assert off == "its schedule is off; run it from Prefect's pages"


def test_a_server_without_a_scheduler_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = orchestration.Server("prefect", str(tmp_path), 4200, 1, 0.0)
    monkeypatch.setattr(command.interrupts, "listen", lambda: None)
    monkeypatch.setattr(drift, "prepare", lambda root: None)
    monkeypatch.setattr(orchestration, "begin", lambda *_, **__: server)
    monkeypatch.setattr(orchestration, "ready", lambda: None)
    with pytest.raises(TripDurationError, match=r"127\.0\.0\.1:4200 belongs to a pipeline.*no sch"):
        command.deploy(tmp_path)


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("", "2021-03", "FROM and TO are the months"),
        ("2021-03", "", "FROM and TO are the months"),
        ("2021-08", "2021-03", "expected FROM to come first"),
        ("2021-3", "2021-08", "is not a month"),
    ],
)
def test_a_backfill_without_its_months_is_a_sentence(
    root: Path, first: str, last: str, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        backfill(root, first, last)
