"""The monthly run's decisions, against small facts."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.misbehaving import Server, free_port, serving, status

from trip_duration import params, retraining
from trip_duration.errors import SettingsError, SourceError
from trip_duration.params import Data, Retrain
from trip_duration.retraining import Way

COURSE = Retrain(
    train_months=1,
    validation_months=1,
    lag_months=0,
    wait_hours=24.0,
    patience_days=100,
    kept_share=0.7,
    fewest_trips=1000,
)
DAYS = st.dates(dt.date(2020, 1, 1), dt.date(2090, 12, 31))


def changed(**others: Any) -> Retrain:
    return COURSE.model_copy(update=others)


def data(root: Path, **others: object) -> Data:
    text = (root / "params.yaml").read_text()
    given = {f"data.{name}": value for name, value in others.items()}
    return params.override(text, given)[1].data


def test_the_course_trains_two_months_before_and_validates_one_before() -> None:
    plan = retraining.plan(dt.date(2021, 3, 15), COURSE)
    assert (plan.train, plan.validation, plan.test) == (("2021-01",), ("2021-02",), ())
    assert plan.aliases == ("model-2021-03-15", "dv-2021-03-15")


def test_months_reach_over_the_turn_of_the_year() -> None:
    plan = retraining.plan(dt.date(2021, 1, 31), changed(train_months=3, validation_months=2))
    assert plan.train == ("2020-08", "2020-09", "2020-10")
    assert plan.validation == ("2020-11", "2020-12")


def test_a_lag_moves_both_back() -> None:
    plan = retraining.plan(dt.date(2021, 3, 1), changed(lag_months=2))
    assert plan.months == ("2020-11", "2020-12")


@given(DAYS, st.integers(1, 30), st.integers(1, 6), st.integers(0, 6))
def test_a_plans_months_follow_each_other_and_precede_the_date(
    day: dt.date, train: int, validation: int, lag: int
) -> None:
    chosen = changed(train_months=train, validation_months=validation, lag_months=lag)
    plan = retraining.plan(day, chosen)
    assert (len(plan.train), len(plan.validation)) == (train, validation)
    counted = [int(month[:4]) * 12 + int(month[5:]) for month in plan.months]
    assert counted == list(range(counted[0], counted[0] + train + validation))
    assert counted[-1] == day.year * 12 + day.month - 1 - lag


def test_test_months_must_be_later() -> None:
    day = dt.date(2021, 3, 15)
    assert retraining.plan(day, COURSE, ["2021-04", "2021-03"]).test == ("2021-03", "2021-04")
    with pytest.raises(SettingsError, match="2021-02 cannot test the run for 2021-03-15"):
        retraining.plan(day, COURSE, ["2021-02"])
    with pytest.raises(SettingsError, match="2021-13"):
        retraining.plan(day, COURSE, ["2021-13"])


def test_a_month_before_tlcs_first_is_refused() -> None:
    with pytest.raises(SettingsError, match="2008-12 is too early"):
        retraining.plan(dt.date(2009, 2, 1), COURSE)


def test_dates_are_read_and_others_refused() -> None:
    assert retraining.parse_date(" 2021-03-15 ") == dt.date(2021, 3, 15)
    for wrong in ("2021-03", "15.3.2021", "2021-02-30", ""):
        with pytest.raises(SettingsError, match="YYYY-MM-DD"):
            retraining.parse_date(wrong)


def test_a_backfills_dates() -> None:
    found = retraining.dates("2021-11", "2022-02")
    assert [str(day) for day in found] == ["2021-11-15", "2021-12-15", "2022-01-15", "2022-02-15"]
    with pytest.raises(SettingsError, match="FROM is 2021-08 and TO is 2021-03"):
        retraining.dates("2021-08", "2021-03")
    with pytest.raises(SettingsError, match="'march' is not a month"):
        retraining.dates("march", "2021-03")


# -- whether a month is out ----------------------------------------------------------------------


def test_the_simulated_city_always_has_a_month(root: Path) -> None:
    assert retraining.is_out(data(root), "2077-01")


def test_a_file_is_out_when_it_is_there(root: Path, tmp_path: Path) -> None:
    source = data(root, source=f"{tmp_path}/{{taxi}}-{{year}}-{{month}}.parquet")
    assert not retraining.is_out(source, "2021-01")
    (tmp_path / "green-2021-01.parquet").touch()
    assert retraining.is_out(source, "2021-01")
    by_url = data(root, source=f"file://{tmp_path}/{{taxi}}-{{year}}-{{month}}.parquet")
    assert retraining.is_out(by_url, "2021-01")
    assert not retraining.is_out(by_url, "2021-02")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as server:
        monkeypatch.setenv("TRIP_DURATION_TLC_BASE", server.base)
        yield server


@pytest.mark.parametrize("code", [403, 404])
def test_tlc_says_that_a_month_is_not_out(root: Path, server: Server, code: int) -> None:
    server.script = [status(code)]
    assert not retraining.is_out(data(root, source="tlc"), "2021-01")


def test_a_server_that_cannot_say_is_no_answer(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = [status(503)]
    with pytest.raises(SourceError) as caught:
        retraining.is_out(data(root, source="tlc"), "2021-01")
    assert caught.value.transient
    monkeypatch.setenv("TRIP_DURATION_TLC_BASE", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(SourceError) as caught:
        retraining.is_out(data(root, source="tlc"), "2021-01")
    assert caught.value.transient


def test_a_store_that_is_not_known_is_a_sentence(root: Path) -> None:
    source = data(root, source="nowhere://bucket/{taxi}-{year}-{month}.parquet")
    with pytest.raises(SourceError, match=r"cannot be opened .*correct data.source"):
        retraining.is_out(source, "2021-01")


# -- whether the months are sound ----------------------------------------------------------------


def ledger(read: int, **set_aside: int) -> dict[str, Any]:
    month = {"read": read, "kept": read - sum(set_aside.values()), "set_aside": set_aside}
    return {"months": {"2021-01": month}}


def test_sound_months_pass() -> None:
    assert retraining.unsound(ledger(10_000, under_min_minutes=300), ["2021-01"], COURSE) == []


def test_a_month_that_keeps_too_little_says_why() -> None:
    found = ledger(10_000, under_min_minutes=100, no_pickup_time=3_000, negative_duration=200)
    [sentence] = retraining.unsound(found, ["2021-01"], COURSE)
    assert "2021-01 keeps 67% of 10,000 trips, less than retrain.kept_share (70%)" in sentence
    assert "no_pickup_time 3,000, negative_duration 200, under_min_minutes 100" in sentence


def test_a_month_of_too_few_trips_is_named() -> None:
    [sentence] = retraining.unsound(ledger(999), ["2021-01"], COURSE)
    assert "2021-01 keeps 999 trips of 999, fewer than retrain.fewest_trips (1,000)" in sentence


# -- which way it goes ---------------------------------------------------------------------------

DRIFT = {"month": "2021-02", "level": "little", "reasons": ["trip_distance 0.04"]}


def test_without_a_champion_it_searches() -> None:
    assert retraining.choose_way(None, None).kind == "search"
    assert retraining.choose_way({"max_depth": 3}, None).kind == "search"


def test_without_the_champions_months_it_searches_and_says_why() -> None:
    way = retraining.choose_way({"max_depth": 3}, None, "2024-01 is not there")
    assert (way.kind, way.reason, way.params) == ("search", "2024-01 is not there", {})


def test_what_a_version_learned_from_is_told_from_the_settings(root: Path) -> None:
    def other(**tags: str) -> list[str]:
        return retraining.other_data(tags, data(root), Path("/house"))

    assert other() == other(source="simulated", taxi="green") == other(taxi="") == []
    assert other(source="tlc") == ["data.source was tlc and is simulated"]
    assert other(taxi="yellow", digest="0") == ["data.taxi was yellow and is green"]


def test_one_path_is_the_same_source_however_it_is_written(root: Path) -> None:
    months = data(root, source="months/{taxi}-{year}-{month}.csv")
    tags = {"source": "/house/months/{taxi}-{year}-{month}.csv"}
    assert retraining.other_data(tags, months, Path("/house")) == []
    assert retraining.other_data(tags, months, Path("/other"))


@pytest.mark.parametrize(
    ("level", "kind"), [("none", "refit"), ("little", "refit"), ("much", "search")]
)
def test_drift_decides(level: str, kind: str) -> None:
    way = retraining.choose_way({"max_depth": 3}, DRIFT | {"level": level})
    assert way.kind == kind
    assert "2021-02" in way.reason
    assert "trip_distance 0.04" in way.reason
    assert way.params == ({"max_depth": 3} if kind == "refit" else {})


def test_a_refit_searches_nothing_and_takes_the_champions_parameters(root: Path) -> None:
    plan = retraining.plan(dt.date(2021, 3, 15), COURSE)
    way = Way("refit", "", {"max_depth": 3, "learning_rate": 0.1})
    text = (root / "params.yaml").read_text()
    chosen = params.override(text, retraining.settings(plan, way))[1]
    assert chosen.search.max_evals == 0
    assert chosen.train.params == {"max_depth": 3, "learning_rate": 0.1}
    assert (chosen.data.train, chosen.data.validation) == (["2021-01"], ["2021-02"])
    assert chosen.data.test == []


@pytest.mark.parametrize(("test", "expected"), [([], "inside"), (["2021-03"], "validation")])
def test_months_that_judge_do_not_choose_the_rounds(
    root: Path, test: list[str], expected: str
) -> None:
    plan = retraining.plan(dt.date(2021, 3, 15), COURSE, test)
    text = (root / "params.yaml").read_text()
    text, _ = params.override(text, {"train.stop_on": "validation"})
    chosen = params.override(text, retraining.settings(plan, None))[1]
    assert chosen.train.stop_on == expected


def test_a_search_is_the_settings_own(root: Path) -> None:
    plan = retraining.plan(dt.date(2021, 3, 15), COURSE, ["2021-03"])
    text = (root / "params.yaml").read_text()
    before = params.override(text, {})[1]
    chosen = params.override(text, retraining.settings(plan, Way("search", "", {})))[1]
    assert chosen.search == before.search
    assert chosen.train == before.train
    assert chosen.data.test == ["2021-03"]
