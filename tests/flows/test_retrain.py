"""Which way the monthly run goes, with what it asks and runs replaced; tests/pipeline runs it."""

import datetime as dt
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import backfill as backfilling
from flows import retrain as flow
from trip_duration import drift, params, registry, retraining
from trip_duration.errors import SettingsError, SourceError, TripDurationError

DATE = "2024-03-15"
CHAMPION = registry.Served("1", Path("models"), "0" * 12, "green", "metered", ("2023-12",))


class World:
    """What the flow finds, and what it did."""

    def __init__(self) -> None:
        self.out = {"2024-01", "2024-02"}
        self.doubts: list[str] = []
        self.champion: registry.Served | None = CHAMPION
        self.level = "little"
        self.without = ""
        self.unanswered: SourceError | None = None
        self.lost: SourceError | None = None
        self.promoted = True
        self.did: list[Any] = []

    def ask_for(self, params: Any, month: str) -> bool:
        if self.unanswered:
            raise self.unanswered
        return month in self.out

    @contextmanager
    def opened(self, root: Path, wait: Any) -> Iterator[Any]:
        yield SimpleNamespace(root=root, folder=root)

    def fetch_and_clean(self, workspace: Any, plan: Any) -> list[str]:
        self.did.append("ingest")
        return self.doubts

    def compare(self, workspace: Any, plan: Any, champion: Any) -> tuple[dict | None, str]:
        month = plan.validation[-1]
        self.did.append(("compare", month))
        if self.lost:
            raise self.lost
        if self.without:
            return None, self.without
        return {"month": month, "level": self.level, "reasons": ["because"]}, ""

    def fit_and_evaluate(self, workspace: Any, plan: Any, way: Any) -> None:
        self.did.append((way.kind, dict(way.params)))

    def challenge(self, workspace: Any, plan: Any) -> Any:
        self.did.append(plan.aliases)
        return SimpleNamespace(promoted=self.promoted, sentence="the verdict", card="# card")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path) -> World:
    found = World()
    (tmp_path / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    monkeypatch.setattr(flow, "ROOT", tmp_path)
    monkeypatch.setattr(flow, "environment", lambda root: {})  # it is for the whole process
    for name in (
        "ask_for",
        "opened",
        "fetch_and_clean",
        "compare",
        "fit_and_evaluate",
        "challenge",
    ):
        monkeypatch.setattr(flow, name, getattr(found, name))
    monkeypatch.setattr(flow, "markdown", lambda key, text: found.did.append((key, text)))
    monkeypatch.setattr(registry, "champion", lambda root: found.champion)
    monkeypatch.setattr(
        registry, "params_of", lambda root, served: {"max_depth": 3} if served else None
    )
    return found


def done(world: World) -> list[Any]:
    """What it did, without the pages of Prefect."""
    return [one for one in world.did if one[0] not in ("retrain", "model-card")]


def test_little_drift_fits_the_champions_parameters_anew(world: World) -> None:
    assert flow.retrain.fn(DATE).name == "Promoted"
    aliases = ("model-2024-03-15", "dv-2024-03-15")
    fitted = ("refit", {"max_depth": 3})
    assert done(world) == ["ingest", ("compare", "2024-02"), fitted, aliases]


def test_much_drift_searches_again(world: World) -> None:
    world.level = "much"
    flow.retrain.fn(DATE)
    assert ("search", {}) in world.did


def test_without_a_champion_nothing_is_compared(world: World) -> None:
    world.champion = None
    flow.retrain.fn(DATE)
    assert done(world)[:2] == ["ingest", ("search", {})]


def test_a_champion_that_cannot_be_compared_with_is_not_kept_to(world: World) -> None:
    world.without = "2024-02 cannot be compared"
    flow.retrain.fn(DATE)
    assert done(world)[2] == ("search", {})
    said = [one[1] for one in world.did if one[0] == "retrain"]
    assert "search: 2024-02 cannot be compared" in said[-1]


@pytest.fixture
def compare(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path
) -> Callable[..., tuple[dict | None, str]]:
    """The task itself, beside a champion with these tags and a comparison that finds or raises."""
    shutil.copy(root / "params.yaml", tmp_path)
    plan = retraining.plan(dt.date(2024, 3, 15), params.load(tmp_path / "params.yaml").retrain)
    workspace = SimpleNamespace(root=tmp_path, folder=tmp_path)

    def compared(
        tags: dict[str, str], error: Exception | None = None
    ) -> tuple[dict[str, Any] | None, str]:
        def found(root: Path, month: str, **others: Any) -> dict[str, Any]:
            if error:
                raise error
            return {"month": month}

        monkeypatch.setattr(drift, "compare", found)
        monkeypatch.setattr(registry, "tags_of", lambda root, alias: tags)
        return flow.compare.fn(workspace, plan, CHAMPION)

    return compared


@pytest.mark.parametrize("tags", [{}, {"taxi": "green", "source": "simulated"}])
def test_a_champion_of_the_same_data_is_compared_with(compare: Any, tags: dict[str, str]) -> None:
    assert compare(tags) == ({"month": "2024-02"}, "")


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"source": "tlc"}, "the model 1 knows: data.source was tlc and is simulated"),
        ({"taxi": "yellow"}, "the model 1 knows: data.taxi was yellow and is green"),
    ],
)
def test_a_champion_of_other_data_is_not_compared_with(
    compare: Any, tags: dict[str, str], why: str
) -> None:
    found, said = compare(tags, AssertionError("it was compared with"))
    assert found is None
    assert said == f"2024-02 cannot be compared with what {why}"


def test_a_champion_whose_months_are_not_there_is_not_compared_with(compare: Any) -> None:
    found, said = compare({}, drift.IncomparableError("2023-12 is not there."))
    assert (found, said) == (None, "2023-12 is not there")
    with pytest.raises(SourceError, match="2024-02"):
        compare({}, SourceError("2024-02 does not exist."))


def test_a_model_that_is_not_better_is_kept_back(world: World) -> None:
    world.promoted = False
    state = flow.retrain.fn(DATE)
    assert (state.name, state.message, state.type.value) == ("Kept", "the verdict", "COMPLETED")


def test_data_that_fail_their_checks_stop_it(world: World) -> None:
    world.doubts = ["2024-02 keeps 40% of 10 trips."]
    with pytest.raises(TripDurationError, match=r"2024-02 keeps 40%.*The champion stays"):
        flow.retrain.fn(DATE)
    assert done(world) == ["ingest"]


def test_months_that_are_not_out_are_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.out = {"2024-01"}
    monkeypatch.setattr(flow, "dt", Clock)
    state = flow.retrain.fn(DATE)
    assert (state.name, state.message) == ("Waiting", "green 2024-02 is not out yet")
    assert not done(world)


@pytest.fixture
def scheduled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a run of the deployment schedules, in March 2024."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(flow, "dt", Clock)
    monkeypatch.setattr(flow, "deployment", SimpleNamespace(id="one"))
    monkeypatch.setattr(
        "prefect.deployments.run_deployment",
        lambda name, **how: found.append({"name": name, **how}),
    )
    return found


def test_a_deployment_comes_back_later(world: World, scheduled: list[dict[str, Any]]) -> None:
    world.out = set()
    assert flow.retrain.fn(DATE, ["2024-05"]).name == "Waiting"
    [again] = scheduled
    assert again["name"] == "retrain/monthly"
    assert again["parameters"] == {"date": DATE, "test": ["2024-05"]}
    assert again["timeout"] == 0
    assert again["scheduled_time"] == Clock.NOW.astimezone(dt.UTC) + dt.timedelta(hours=24)


NO_NETWORK = SourceError("https://tlc/ could not be fetched: try again.", transient=True)
NOT_TODAY = SourceError("https://tlc/ asks for 60 minutes.", retry_after=3600.0, status=503)


@pytest.mark.parametrize("error", [NO_NETWORK, NOT_TODAY])
def test_a_source_that_cannot_be_asked_is_asked_later(
    world: World, scheduled: list[dict[str, Any]], error: SourceError
) -> None:
    world.unanswered = error
    state = flow.retrain.fn(DATE)
    assert (state.name, state.type.value) == ("Waiting", "COMPLETED")
    assert state.message == f"the source could not be asked ({str(error)[:-1]})"
    assert len(scheduled) == 1
    said = [one[1] for one in world.did if one[0] == "retrain"]
    assert f"{state.message}; asking again in 24 hours" in said[-1]
    assert not done(world)


def test_a_source_that_is_lost_on_the_way_to_the_champions_months_is_asked_later(
    world: World, scheduled: list[dict[str, Any]]
) -> None:
    world.lost = NO_NETWORK
    assert flow.retrain.fn(DATE).name == "Waiting"
    assert len(scheduled) == 1
    assert done(world) == ["ingest", ("compare", "2024-02")]


def test_a_source_that_can_never_be_asked_is_an_error(
    world: World, scheduled: list[dict[str, Any]]
) -> None:
    world.unanswered = SourceError("nowhere:// cannot be opened: correct data.source.")
    with pytest.raises(SourceError, match=r"correct data\.source"):
        flow.retrain.fn(DATE)
    assert not scheduled


def test_patience_with_a_source_that_cannot_be_asked_ends(world: World) -> None:
    world.unanswered = NO_NETWORK  # and this is long after 2024
    with pytest.raises(SourceError, match=r"could not be asked .*, 100 days"):
        flow.retrain.fn(DATE)


class Clock:
    """`datetime` on one day of March 2024."""

    NOW = dt.datetime(2024, 3, 16, 12, tzinfo=dt.UTC)
    UTC = dt.UTC
    timedelta = dt.timedelta

    class datetime:  # noqa: N801
        @staticmethod
        def now(zone: dt.tzinfo) -> dt.datetime:
            return Clock.NOW.astimezone(zone)


def test_patience_ends(world: World) -> None:
    world.out = {"2024-01"}  # and this is long after 2024
    with pytest.raises(
        SourceError, match=r"2024-02 is not out yet, 100 days \(retrain.patience_days\)"
    ):
        flow.retrain.fn(DATE)


def test_without_a_date_it_is_the_scheduled_day_in_new_york(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = dt.datetime(2024, 3, 1, 3, tzinfo=dt.UTC)  # still February there
    monkeypatch.setattr(flow, "flow_run", SimpleNamespace(id="one", scheduled_start_time=late))
    world.out = {"2023-12", "2024-01"}
    flow.retrain.fn()
    assert ("model-2024-02-29", "dv-2024-02-29") in world.did


def test_a_wrong_date_is_a_sentence(world: World) -> None:
    with pytest.raises(SettingsError, match="YYYY-MM-DD"):
        flow.retrain.fn("March")


# -- the runs of past months ---------------------------------------------------------------------

JUDGED = {"taxi": "green", "promoted": "false"}


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(ran=[], there={}, waits=set(), fails=set())

    class State:
        def __init__(self, date: str) -> None:
            self.date, self.message = date, f"{date} is not out yet"
            self.name = "Waiting" if date in found.waits else "Kept"

        def result(self) -> None:
            if self.date in found.fails:
                raise TripDurationError("the reason")

    def run(date: str, return_state: bool) -> State:
        found.ran.append(date)
        return State(date)

    monkeypatch.setattr(backfilling, "retrain", run)
    monkeypatch.setattr(registry, "tags_of", lambda root, alias: found.there.get(alias))
    return found


def test_a_backfill_runs_the_months_in_order(past: SimpleNamespace) -> None:
    state = backfilling.backfill.fn("2021-03", "2021-05")
    assert past.ran == ["2021-03-15", "2021-04-15", "2021-05-15"]
    assert state.message == "2021-03-15 to 2021-05-15: 3 run, 0 there already"


def test_a_backfill_goes_on_where_it_was(
    past: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    past.there = {"model-2021-03-15": JUDGED | {"source": "simulated"}, "model-2021-04-15": JUDGED}
    state = backfilling.backfill.fn("2021-03", "2021-05")
    assert past.ran == ["2021-05-15"]
    assert capsys.readouterr().out.splitlines() == [
        "backfill 1 of 3: model-2021-03-15 is registered and judged, so it is not run again",
        "backfill 2 of 3: model-2021-04-15 is registered and judged, so it is not run again",
        "backfill 3 of 3: 2021-05-15",
    ]
    assert state.message == "2021-03-15 to 2021-05-15: 1 run, 2 there already"


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        (JUDGED | {"taxi": "yellow"}, "data.taxi was yellow and is green"),
        (JUDGED | {"source": "tlc"}, "data.source was tlc and is simulated"),
        ({"taxi": "green"}, "it was not judged"),
    ],
)
def test_a_backfill_runs_again_what_is_of_other_data_or_not_judged(
    past: SimpleNamespace, capsys: pytest.CaptureFixture[str], tags: dict[str, str], why: str
) -> None:
    past.there = {"model-2021-03-15": tags}
    state = backfilling.backfill.fn("2021-03", "2021-03")
    assert past.ran == ["2021-03-15"]
    assert capsys.readouterr().out == f"backfill 1 of 1: 2021-03-15, again: {why}\n"
    assert state.message == "2021-03-15 to 2021-03-15: 1 run, 0 there already"


def test_a_backfill_stops_at_a_month_that_fails_or_is_not_out(past: SimpleNamespace) -> None:
    past.fails = {"2021-04-15"}
    with pytest.raises(TripDurationError, match="the reason"):
        backfilling.backfill.fn("2021-03", "2021-06")
    assert past.ran == ["2021-03-15", "2021-04-15"]
    past.waits = {"2021-03-15"}
    with pytest.raises(TripDurationError, match="the same command goes on from there"):
        backfilling.backfill.fn("2021-03", "2021-06")
