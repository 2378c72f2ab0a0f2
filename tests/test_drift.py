"""Drift: the samples, the decision, and months that are known to have drifted or not."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.test_explanations import made_up
from tests.test_scoring import make_model

from trip_duration import drift, ingest, params, registry
from trip_duration.drift import KINDS, IncomparableError, compare, decide, places, sample, view
from trip_duration.errors import SettingsError, SourceError, TripDurationError
from trip_duration.files import write_parquet
from trip_duration.prediction import load
from trip_duration.sources.simulated import SimulatedMonth
from trip_duration.trips import month_path, read_month

LIMITS = params.Monitor(
    sample_rows=1000, column_drift=0.1, much_drift=0.5, much_share=0.5, much_error=0.25
)
LEARNED = ["2019-02", "2019-05", "2019-08", "2019-10"]


@pytest.fixture
def environment(root: Path) -> Path:
    """Evidently's environment, where it has been made; else the test is skipped."""
    folder = root / ".venv-monitor"
    if not (folder / ".ready").exists():
        pytest.skip("needs Evidently's environment: `make monitor MONTH=2024-04` makes it")
    return folder


class _Links(HTMLParser):
    """What a page loads from elsewhere: all that it needs should be in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._style = tag == "style"
        for name, value in attrs:
            loads = name == "src" or (name == "href" and tag == "link")
            if loads and not (value or "").startswith("data:"):
                self.found.append(f"{tag} {value}")

    def handle_data(self, data: str) -> None:
        if self._style and ("@import" in data or re.search(r"url\([\"']?(?!data:)", data)):
            self.found.append(data)


def column(value: float, threshold: float = 0.1) -> dict:
    return {"value": value, "threshold": threshold, "drifted": value >= threshold}


# -- the decision --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moved", "rmse", "level", "reasons"),
    [
        ((0.0, 0.05), 4.0, "none", []),
        ((0.0, 0.05), 4.9, "none", []),
        ((0.0, 0.05), 5.2, "much", ["the RMSE is 5.20 minutes, +30% on the 4.00 of 2019-11"]),
        ((0.0, 0.0, 0.2), 4.0, "little", ["column 2 moved by 0.20, and 0.1 counts"]),
        ((0.0, 0.0, 0.7), 4.0, "much", ["column 2 moved by 0.70, and 0.5 is much"]),
        ((0.0, 0.2), 3.0, "much", ["50% of the columns drifted", "column 1 moved"]),
        ((0.3, 0.2), 9.0, "much", ["100% of", "the RMSE is", "column 0", "column 1"]),
    ],
)
def test_the_level_follows_from_columns_and_errors(
    moved: tuple[float, ...], rmse: float, level: str, reasons: list[str]
) -> None:
    columns = {f"column {i}": column(value) for i, value in enumerate(moved)}
    found = decide(columns, ("2019-11", 4.0), rmse, LIMITS)
    assert found["level"] == level
    assert len(found["reasons"]) == len(reasons)
    for said, reason in zip(found["reasons"], reasons, strict=True):
        assert said.startswith(reason)
    assert found["errors"]["change"] == pytest.approx(rmse / 4.0 - 1)
    assert found["share_drifted"] == pytest.approx(np.mean([v >= 0.1 for v in moved]), abs=1e-6)
    json.dumps(found, allow_nan=False)


def test_without_a_month_to_hold_it_against_the_rmse_decides_nothing() -> None:
    found = decide({"hour": column(0.0)}, None, 99.0, LIMITS)
    assert found["level"] == "none"
    nothing = {"reference_month": None, "reference_rmse": None, "change": None}
    assert found["errors"] == {"rmse": 99.0, **nothing}


# -- the samples ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 250, 300, 1000])
def test_a_sample_is_evenly_spaced_over_all_months(tmp_path: Path, rows: int) -> None:
    months = [made_up(count, seed) for seed, count in enumerate((100, 50, 150))]
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    for month, path in zip(months, paths, strict=True):
        write_parquet(month, path)
    every = pa.concat_tables(months)
    taken = sample(paths, rows)
    size = min(rows, 300)
    wanted = [number * 300 // size for number in range(size)]
    assert taken.equals(every.take(pa.array(wanted)))


def test_the_view_is_what_people_understand(tmp_path: Path) -> None:
    served = make_model(tmp_path / "models")
    trips = made_up(200, 3)
    model = load(served.folder)
    seen = view(trips, model, {1: "Bronx", 2: "Queens"})
    assert seen.column_names == list(KINDS)
    frame = trips.to_pandas()
    assert seen["weekday"].to_pylist() == frame["pickup"].dt.dayofweek.astype(str).to_list()
    assert seen["day_of_month"].to_pylist() == frame["pickup"].dt.day.to_list()
    hours = frame["pickup"].dt.hour + frame["pickup"].dt.minute / 60
    np.testing.assert_allclose(seen["hour"].to_numpy(), hours, atol=1 / 60)
    names = {1: "Bronx", 2: "Queens"}
    assert seen["pickup_place"].to_pylist() == [names.get(z, "other") for z in frame["pickup_zone"]]
    said = model.predict(trips)["minutes"]
    assert seen["prediction"].to_numpy().tobytes() == said.tobytes()
    np.testing.assert_array_equal(seen["error"].to_numpy(), said - frame["duration"].to_numpy())


def test_without_boroughs_the_busiest_zones_are_places() -> None:
    trips = made_up(500, zones=60)
    named = places(trips, {})
    both = [*trips["pickup_zone"].to_pylist(), *trips["dropoff_zone"].to_pylist()]
    assert len(named) == drift.PLACES
    least = min(both.count(zone) for zone in named)
    assert all(both.count(zone) <= least for zone in set(both) - set(named))
    assert places(trips, {3: "Bronx"}) == {3: "Bronx"}


# -- whole comparisons ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def yellow(tmp_path_factory: pytest.TempPathFactory, root: Path, tlc: Path) -> Path:
    """A repository whose model learned from months of 2019."""
    house = tmp_path_factory.mktemp("yellow")
    samples = tlc / "samples"
    text, settings = params.override(
        (root / "params.yaml").read_text(encoding="utf-8"),
        {
            "data.source": f"{samples}/{{taxi}}_tripdata_{{year}}-{{month}}.parquet",
            "data.taxi": "yellow",
            "data.train": LEARNED,
            "data.validation": ["2019-11"],
            "data.test": [],
            "data.zones": str(tlc / "taxi_zones.geojson"),
            "monitor.sample_rows": 10_000,
        },
    )
    (house / "params.yaml").write_text(text, encoding="utf-8")
    folder = house / "data" / "trips"
    months = []
    for month in LEARNED:
        raw = ingest.fetch(settings.data, month, folder)
        zones = ingest.fetch_zones(settings.data, folder)
        ingest.ingest_month(
            settings.data, settings.clean, settings.seed, month, raw=raw, zones=zones, folder=folder
        )
        months.append(read_month(month_path(folder, "yellow", month)))
    make_model(house / "models", pa.concat_tables(months))
    return house


@pytest.mark.parametrize(
    ("month", "much"), [("2019-12", False), ("2020-03", True), ("2020-04", True)]
)
def test_the_pandemic_is_drift_and_december_is_not(
    yellow: Path, environment: Path, month: str, much: bool
) -> None:
    linked = yellow / ".venv-monitor"
    if not linked.exists():
        linked.symlink_to(environment)
    found = compare(yellow, month)
    assert (found["level"] == "much") is much, found
    served = registry.local(yellow)
    assert served is not None
    assert found["model_version"] == served.version
    assert found["errors"]["reference_month"] == "2019-11"
    assert (found["month"], found["reference_months"]) == (month, LEARNED)
    assert set(found["columns"]) == set(KINDS)
    assert found["share_drifted"] == pytest.approx(
        np.mean([one["drifted"] for one in found["columns"].values()]), abs=1e-6
    )
    assert 9_000 < found["trips"] <= 10_000
    reports = yellow / "reports"
    assert json.loads((reports / f"drift-yellow-{month}.json").read_text()) == found
    page = (reports / f"drift-yellow-{month}.html").read_text(encoding="utf-8")
    assert "pickup_place" in page
    links = _Links()
    links.feed(page)
    assert links.found == []
    assert not list((yellow / ".cache" / "monitor").glob("tmp*"))


def test_the_month_that_validated_has_no_errors_to_be_held_against(
    yellow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidently is asked for all other columns, which its stand-in finds unmoved."""
    asked: dict[str, list[str]] = {}

    def stand_in(root: Path, seen: dict[str, pa.Table], limits: object) -> tuple[dict, bytes]:
        asked.update({side: columns.column_names for side, columns in seen.items()})
        return {name: column(0.0) for name in seen["current"].column_names}, b"<html>"

    monkeypatch.setattr(drift, "_report", stand_in)
    found = compare(yellow, "2019-11")
    assert found["errors"]["change"] is None
    assert asked == {side: list(KINDS)[:-1] for side in ("reference", "current")}
    found = compare(yellow, "2019-12")
    assert found["errors"]["reference_month"] == "2019-11"
    assert asked == {side: list(KINDS) for side in ("reference", "current")}


def test_months_of_the_workspace_are_taken_as_they_are(
    yellow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "_report", lambda root, seen, limits: ({"hour": column(0)}, b""))
    workspace = tmp_path / "workspace"
    (workspace / "data").mkdir(parents=True)
    (workspace / "data" / "trips").symlink_to(yellow / "data" / "trips")
    made: list[str] = []
    write = ingest.ingest_month

    def noted(data: params.Data, *others: object, **options: object) -> dict:
        made.append(str(others[2]))
        return write(data, *others, **options)

    monkeypatch.setattr(ingest, "ingest_month", noted)
    shutil.rmtree(yellow / ".cache", ignore_errors=True)
    compare(yellow, "2019-10", workspace)
    assert made == []
    compare(yellow, "2019-12", workspace)
    compare(yellow, "2019-12", workspace)
    assert sorted(made) == ["2019-11", "2019-12"]


def test_a_month_that_is_none_is_refused(yellow: Path) -> None:
    with pytest.raises(SettingsError, match="not a month"):
        compare(yellow, "April")
    with pytest.raises(TripDurationError, match="2033-01"):
        compare(yellow, "2033-01")


def test_a_model_whose_months_are_not_there_is_not_comparable(root: Path, tmp_path: Path) -> None:
    """As after a change of data.source: the month is there, and what the model knows is not."""
    month = SimulatedMonth("2021-03", taxi="green", seed=42, trips=500)
    write_parquet(pa.Table.from_batches(month.batches()), tmp_path / "green-2021-03.parquet")
    text, _ = params.override(
        (root / "params.yaml").read_text(encoding="utf-8"),
        {"data.source": f"{tmp_path}/{{taxi}}-{{year}}-{{month}}.parquet"},
    )
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    served = registry.Served("1", tmp_path, "0" * 12, "green", "metered", ("2024-01",))
    with pytest.raises(IncomparableError, match=r"2024-01 is not there: .*green-2024-01"):
        compare(tmp_path, "2021-03", served=served)
    for known in ("2024-01", "2021-04"):  # who asks for a month that is not there hears of it alone
        served = registry.Served("1", tmp_path, "0" * 12, "green", "metered", (known,))
        with pytest.raises(SourceError, match=r"green-2021-04.parquet does not exist: correct"):
            compare(tmp_path, "2021-04", served=served)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (SourceError("TLC's answer", transient=True, status=403), IncomparableError),
        (SourceError("no network", transient=True), SourceError),
    ],
)
def test_a_month_is_missing_only_where_the_source_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: SourceError, raised: type
) -> None:
    def month_of(settings: object, data: object, month: str, *others: object) -> Path:
        if month == "2024-01":
            raise error
        return root

    monkeypatch.setattr(drift, "_month", month_of)
    served = registry.Served("1", root, "0" * 12, "green", "metered", ("2024-01",))
    with pytest.raises(raised, match=str(error)) as caught:
        compare(root, "2024-03", served=served)
    assert type(caught.value) is raised


def test_where_evidently_cannot_be_had_it_is_said(
    yellow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "environment", lambda *_: False)
    with pytest.raises(TripDurationError, match="environment that compares the months cannot"):
        compare(yellow, "2019-12")
    assert not (yellow / "reports" / "drift-yellow-2019-12.json.partial").exists()
