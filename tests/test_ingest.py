"""A month from its source to canonical Parquet, and the ledger of what was set aside."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trip_duration import ingest, params
from trip_duration.errors import SourceError, TripDurationError
from trip_duration.files import read_json, sha256
from trip_duration.sources import files
from trip_duration.trips import SCHEMA, month_path, read_month

HEADER = "lpep_pickup_datetime,lpep_dropoff_datetime,PULocationID,DOLocationID,trip_distance\n"
LINES = [
    "2021-01-05 08:00:00,2021-01-05 08:10:00,74,75,1.5",
    "2021-01-04 09:00:00,2021-01-04 09:00:30,74,75,0.1",  # half a minute
    "2021-01-03 10:00:00,2021-01-03 12:00:00,74,75,9.9",  # two hours
    "2021-01-02 11:00:00,,74,75,1.0",  # never ended
    "2009-01-01 00:00:00,2009-01-01 00:20:00,264,265,-3.0",  # dated back, but kept
]


def settings(root: Path, **overrides: Any) -> params.Params:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    return params.override(text, given)[1]


@pytest.fixture
def csv(tmp_path: Path, root: Path) -> params.Params:
    """Settings that read January 2021 from a CSV file of five trips."""
    (tmp_path / "green_2021-01.csv").write_text(HEADER + "\n".join(LINES) + "\n")
    return settings(
        root, data__source=f"{tmp_path}/{{taxi}}_{{year}}-{{month}}.csv", data__train=["2021-01"]
    )


def run(chosen: params.Params, folder: Path, month: str = "2021-01") -> dict:
    raw = ingest.fetch(chosen.data, month, folder / "cache")
    return ingest.ingest_month(
        chosen.data, chosen.clean, chosen.seed, month, raw=raw, zones=None, folder=folder / "trips"
    )


def known(chosen: params.Params, folder: Path, month: str = "2021-01") -> dict | None:
    return ingest.current(chosen.data, chosen.clean, chosen.seed, month, folder / "trips")


def test_a_month_is_canonical_sorted_and_counted(csv: params.Params, tmp_path: Path) -> None:
    ledger = run(csv, tmp_path)
    assert (ledger["read"], ledger["kept"]) == (5, 2)
    assert ledger["set_aside"] == {
        "no_dropoff_time": 1,
        "over_max_minutes": 1,
        "under_min_minutes": 1,
    }
    path = month_path(tmp_path / "trips", "green", "2021-01")
    table = read_month(path)
    assert table.schema == SCHEMA
    assert table["duration"].to_pylist() == [20.0, 10.0]
    assert ledger["sha256"] == sha256(path)
    assert read_json(path.with_suffix(".json")) == ledger
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "green-2021-01.json",
        "green-2021-01.parquet",
    ]


def test_the_order_of_the_source_leaves_no_trace(csv: params.Params, tmp_path: Path) -> None:
    first = run(csv, tmp_path)
    (tmp_path / "green_2021-01.csv").write_text(HEADER + "\n".join(reversed(LINES)) + "\n")
    assert run(csv, tmp_path)["sha256"] == first["sha256"]


def test_the_size_of_the_batches_leaves_no_trace(
    root: Path, tmp_path: Path, tlc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(
        root,
        data__source=f"{tlc}/{{taxi}}_tripdata_{{year}}-{{month}}.parquet",
        data__train=["2024-01"],
    )
    whole = run(chosen, tmp_path / "a", "2024-01")
    monkeypatch.setattr(files, "BATCH_ROWS", 1_000)
    assert run(chosen, tmp_path / "b", "2024-01") == whole


def test_the_file_of_a_local_month_is_hashed_once(
    csv: params.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    monkeypatch.setattr(ingest, "sha256", lambda path: hashed.append(path) or sha256(path))
    ledger = run(csv, tmp_path)
    source = tmp_path / "green_2021-01.csv"
    assert hashed.count(source) == 1
    assert ledger["raw"] == sha256(source)


def test_of_several_errors_the_first_batch_s_is_told() -> None:
    first_failed = Event()

    def call(number: int) -> int:
        if number == 3:  # waits until a later one has failed
            assert first_failed.wait(10)
            raise ValueError("3")
        if number == 4:
            first_failed.set()
            raise ValueError("4")
        return number

    with pytest.raises(ValueError, match=r"^3$"):
        ingest._in_threads(call, range(9))


def test_threads_give_results_in_order_and_errors_of_the_items() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    assert ingest._in_threads(lambda number: -number, range(50)) == [-n for n in range(50)]
    with pytest.raises(ValueError, match="broken"):
        ingest._in_threads(str, broken())


def test_a_month_that_is_there_and_unchanged_is_known(csv: params.Params, tmp_path: Path) -> None:
    assert known(csv, tmp_path) is None
    ledger = run(csv, tmp_path)
    assert known(csv, tmp_path) == ledger


def test_a_changed_file_rule_or_result_is_not_known(
    csv: params.Params, tmp_path: Path, root: Path
) -> None:
    run(csv, tmp_path)
    source = csv.data.source
    longer = settings(root, data__source=source, data__train=["2021-01"], clean__max_minutes=90)
    assert known(longer, tmp_path) is None
    path = month_path(tmp_path / "trips", "green", "2021-01")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert known(csv, tmp_path) is None
    path.write_bytes(whole)
    assert known(csv, tmp_path)
    with (tmp_path / "green_2021-01.csv").open("a") as file:
        file.write(LINES[0] + "\n")
    assert known(csv, tmp_path) is None


def test_a_changed_file_is_noticed_before_dvc_is_asked(
    csv: params.Params, tmp_path: Path, root: Path
) -> None:
    def changed(chosen: params.Params) -> bool:
        return ingest.any_changed(chosen.data, tmp_path / "trips")

    assert not changed(csv)  # nothing is there yet
    run(csv, tmp_path)
    assert not changed(csv)
    with (tmp_path / "green_2021-01.csv").open("a") as file:
        file.write(LINES[0] + "\n")
    assert changed(csv)
    assert not changed(settings(root))
    (tmp_path / "green_2021-01.csv").unlink()
    assert not changed(csv)  # the stage says that it is missing


def test_a_line_that_was_cut_is_in_the_ledger(csv: params.Params, tmp_path: Path) -> None:
    with (tmp_path / "green_2021-01.csv").open("a") as file:
        file.write("2021-01-05 08:00:00,2021-01-05")
    ledger = run(csv, tmp_path)
    assert (ledger["read"], ledger["kept"], ledger["set_aside"]["cut_record"]) == (6, 2, 1)


def test_months_no_longer_asked_for_are_removed(csv: params.Params, tmp_path: Path) -> None:
    run(csv, tmp_path)
    folder = tmp_path / "trips"
    (folder / "green-2020-12.parquet").write_bytes(b"old")
    (folder / "yellow-2021-01.json").write_bytes(b"old")
    (folder / ".green-2021-02.parquet.partial").write_bytes(b"half")
    assert ingest.remove_others(folder, "green", ["2021-01"]) == [
        "green-2020-12.parquet",
        "yellow-2021-01.json",
    ]
    assert sorted(p.name for p in folder.iterdir()) == [
        "green-2021-01.json",
        "green-2021-01.parquet",
    ]


def test_a_file_that_is_not_there_says_where_it_was_looked_for(
    csv: params.Params, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"green_2021-02\.csv.*data\.source") as caught:
        run(csv, tmp_path, "2021-02")
    assert not caught.value.transient
    assert not (tmp_path / "trips").exists()


def test_the_trips_of_another_month_are_refused(csv: params.Params, tmp_path: Path) -> None:
    (tmp_path / "green_2021-01.csv").rename(tmp_path / "green_2021-02.csv")
    with pytest.raises(
        TripDurationError, match=r"2 of its 2 trips lie outside 2021-02, most around"
    ):
        run(csv, tmp_path, "2021-02")
    assert not (tmp_path / "trips").exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (LINES[1:4], "all of its 3 trips were set aside"),
        ([], "has no rows"),
    ],
)
def test_a_month_without_a_kept_trip_is_refused(
    csv: params.Params, tmp_path: Path, lines: list[str], said: str
) -> None:
    (tmp_path / "green_2021-01.csv").write_text(HEADER + "".join(f"{x}\n" for x in lines))
    with pytest.raises(TripDurationError, match=f"green_2021-01.csv.*{said}"):
        run(csv, tmp_path)


def test_an_error_in_a_column_names_the_file(csv: params.Params, tmp_path: Path) -> None:
    text = (tmp_path / "green_2021-01.csv").read_text().replace("PULocationID", "Start")
    (tmp_path / "green_2021-01.csv").write_text(text)
    with pytest.raises(TripDurationError, match=r"green_2021-01\.csv: .*pickup") as caught:
        run(csv, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_broken_copy_names_its_url(root: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/ingest/2021-01.parquet", b"PAR1")
    chosen = settings(
        root, data__source="memory://ingest/{year}-{month}.parquet", data__train=["2021-01"]
    )
    with pytest.raises(TripDurationError) as caught:
        run(chosen, tmp_path)
    store.rm("/ingest", recursive=True)
    copy = next((tmp_path / "cache").iterdir())
    assert str(caught.value).startswith(f"memory://ingest/2021-01.parquet: {copy} is a broken")


def test_the_simulated_city_needs_no_file_and_states_its_noise(root: Path, tmp_path: Path) -> None:
    chosen = settings(root, data__simulated__trips_per_month=2_000)
    ledgers = {month: run(chosen, tmp_path, month) for month in ("2024-03", "2024-04")}
    assert all(ledger["read"] == 2_000 for ledger in ledgers.values())
    found = ingest.summary(ledgers, ["2024-04"])
    assert 1 < found["noise_floor"]["metered"] < found["noise_floor"]["booking"] < 10
    assert found["noise_floor"] != ingest.summary(ledgers, ["2024-03"])["noise_floor"]
    assert found["read"] == 4_000 == found["kept"] + sum(found["set_aside"].values())
    assert set(found["months"]["2024-03"]) == {"source", "read", "kept", "set_aside", "sha256"}


def test_real_months_have_no_noise_floor(csv: params.Params, tmp_path: Path) -> None:
    assert "noise_floor" not in ingest.summary({"2021-01": run(csv, tmp_path)}, ["2021-01"])


def test_ledger_rows_add_up(csv: params.Params, tmp_path: Path) -> None:
    ledger = run(csv, tmp_path)
    rows = ingest.ledger_rows(ingest.summary({"2021-01": ledger, "2021-02": ledger}, []))
    assert [row["month"] for row in rows] == ["2021-01", "2021-02", "all"]
    assert rows[2]["read"] == 10
    assert rows[0]["no dropoff time"] == 1
    for row in rows:
        assert row["read"] == sum(v for k, v in row.items() if k not in ("month", "read"))


def test_zones_are_what_is_known(root: Path) -> None:
    chosen = settings(root)
    city = ingest.zones_table(chosen.data, chosen.seed, None)
    assert city.num_rows > 200
    real = settings(root, data__source="x/{year}-{month}.parquet")
    nothing = ingest.zones_table(real.data, real.seed, None)
    assert nothing.num_rows == 0
    assert nothing.schema == city.schema


def test_coordinates_become_zones(root: Path, tmp_path: Path, tlc: Path) -> None:
    head = (tlc / "legacy_heads" / "yellow_tripdata_2011-05.csv").read_bytes()
    (tmp_path / "yellow_2011-05.csv").write_bytes(head)
    chosen = settings(
        root,
        data__source=f"{tmp_path}/{{taxi}}_{{year}}-{{month}}.csv",
        data__taxi="yellow",
        data__train=["2011-05"],
        data__zones=str(tlc / "taxi_zones.geojson"),
    )
    shapes = ingest.fetch_zones(chosen.data, tmp_path)
    raw = ingest.fetch(chosen.data, "2011-05", tmp_path)
    ledger = ingest.ingest_month(
        chosen.data, chosen.clean, 0, "2011-05", raw=raw, zones=shapes, folder=tmp_path / "trips"
    )
    table = pq.read_table(month_path(tmp_path / "trips", "yellow", "2011-05"))
    assert ledger["kept"] == table.num_rows > 0
    assert pa.compute.all(pa.compute.is_in(table["pickup_zone"], pa.array(range(1, 266)))).as_py()
    with pytest.raises(TripDurationError, match=r"data\.zones"):
        ingest.ingest_month(
            chosen.data, chosen.clean, 0, "2011-05", raw=raw, zones=None, folder=tmp_path / "none"
        )
