"""Months that were republished: asked for, compared, and taken."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_ingest import HEADER, LINES, settings

from trip_duration import ingest, params, refresh
from trip_duration.errors import SourceError
from trip_duration.files import read_json, write_json, write_parquet
from trip_duration.sources import tlc
from trip_duration.trips import SCHEMA, month_path

MONTH = "2021-01"


def trips(**columns: list[Any]) -> pa.Table:
    rows = len(next(iter(columns.values())))
    given = {
        "pickup": pa.array(np.arange(rows).astype("datetime64[s]")),
        "duration": pa.array([10.0] * rows),
    }
    given |= {name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()}
    empty = {f.name: pa.nulls(rows, f.type) for f in SCHEMA if f.name not in given}
    return pa.table(given | empty).select(SCHEMA.names).cast(SCHEMA)


def write(folder: Path, table: pa.Table, **ledger: Any) -> Path:
    path = month_path(folder, "green", MONTH)
    write_parquet(table, path)
    write_json({"read": table.num_rows, "kept": table.num_rows} | ledger, path.with_suffix(".json"))
    return path


def test_the_same_month_twice_has_not_changed(tmp_path: Path) -> None:
    table = trips(trip_distance=[1.0, None, 3.0], vendor=[1, None, 2])
    found = refresh.compare(write(tmp_path / "a", table), write(tmp_path / "b", table))
    assert found.same == 3
    assert found.quantiles["duration"] == ([10.0] * 5, [10.0] * 5)
    assert found.quantiles["trip_distance"][0] == pytest.approx([1.1, 1.5, 2.0, 2.5, 2.9])


def test_rows_are_the_same_where_all_their_columns_are(tmp_path: Path) -> None:
    before = trips(trip_distance=[1.0, 2.0, 3.0, 3.0], store_and_forward=[True, False, None, None])
    after = trips(trip_distance=[1.0, 2.0, 3.0], store_and_forward=[True, None, None])
    found = refresh.compare(write(tmp_path / "a", before), write(tmp_path / "b", after))
    assert found.same == 2


def test_a_month_without_distances_has_no_quantiles_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, trips(vendor=[1, 2]))
    assert refresh.compare(path, path).quantiles["trip_distance"] == ([None] * 5, [None] * 5)


def test_a_value_is_the_same_beside_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, gappy = trips(vendor=[1, 2, 3]), trips(vendor=[1, 2, None])
    found = refresh.compare(write(tmp_path / "a", whole), write(tmp_path / "b", gappy))
    assert found.same == 2


VALUES = st.lists(st.integers(0, 5).map(lambda n: n << 61) | st.integers(0, 5))


@given(VALUES, VALUES)
def test_what_two_lists_share_is_counted_as_counters_do(
    first: list[int], second: list[int]
) -> None:
    first, second = ([value % 2**64 for value in values] for values in (first, second))
    both = (np.sort(np.array(values, np.uint64)) for values in (first, second))
    assert refresh._in_both(*both) == (Counter(first) & Counter(second)).total()


# A source on this machine


@pytest.fixture
def local(tmp_path: Path, root: Path) -> params.Params:
    """Settings that read January 2021 from a CSV file, which is ingested."""
    (tmp_path / "green_2021-01.csv").write_text(HEADER + "\n".join(LINES) + "\n")
    chosen = settings(
        root, data__source=f"{tmp_path}/{{taxi}}_{{year}}-{{month}}.csv", data__train=[MONTH]
    )
    made(chosen, ingest.fetch(chosen.data, MONTH, tmp_path), tmp_path / "trips")
    return chosen


def made(chosen: params.Params, raw: Path | None, folder: Path) -> dict:
    """A month, ingested into a folder."""
    return ingest.ingest_month(
        chosen.data, chosen.clean, chosen.seed, MONTH, raw=raw, zones=None, folder=folder
    )


def ask(chosen: params.Params, folder: Path, say: Callable[[str], Any] = print) -> Path | None:
    ledger = refresh.present(chosen.data, MONTH, folder / "trips")
    assert ledger
    return refresh.differing(chosen.data, MONTH, ledger, folder / "cache", say)


def test_a_changed_file_differs_and_is_taken_by_its_month_alone(
    local: params.Params, tmp_path: Path
) -> None:
    source = tmp_path / "green_2021-01.csv"
    assert ask(local, tmp_path) is None
    with source.open("a") as file:
        file.write("2021-01-06 08:00:00,2021-01-06 08:10:00,74,75,1.5\n")
    assert ask(local, tmp_path) == source
    before = month_path(tmp_path / "trips", "green", MONTH)
    after = month_path(tmp_path / "made", "green", MONTH)
    made(local, source, tmp_path / "made")
    found = refresh.compare(before, after)
    assert (found.before["kept"], found.after["kept"], found.same) == (2, 3, 2)
    refresh.take(after, source, tmp_path / "trips", tmp_path / "cache")
    assert before.read_bytes() == after.read_bytes()
    assert ask(local, tmp_path) is None
    assert ingest.current(local.data, local.clean, local.seed, MONTH, tmp_path / "trips")
    assert source.exists()


def test_a_take_that_was_killed_halfway_leaves_a_month_that_is_made_again(
    local: params.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "green_2021-01.csv"
    with source.open("a") as file:
        file.write("2021-01-06 08:00:00,2021-01-06 08:10:00,74,75,1.5\n")
    made(local, source, tmp_path / "made")
    after = month_path(tmp_path / "made", "green", MONTH)
    copied = []

    def copy(file: Path, goal: Path) -> None:
        if copied:
            raise KeyboardInterrupt
        copied.append(goal.write_bytes(file.read_bytes()))

    monkeypatch.setattr(refresh.shutil, "copyfile", copy)
    with pytest.raises(KeyboardInterrupt):
        refresh.take(after, source, tmp_path / "trips", tmp_path / "cache")
    assert refresh.present(local.data, MONTH, tmp_path / "trips") is None
    assert not ingest.current(local.data, local.clean, local.seed, MONTH, tmp_path / "trips")


def test_what_is_not_whole_or_not_there_is_not_present(
    local: params.Params, tmp_path: Path
) -> None:
    assert refresh.present(local.data, "2021-02", tmp_path / "trips") is None
    path = month_path(tmp_path / "trips", "green", MONTH)
    path.write_bytes(path.read_bytes() + b"x")
    assert refresh.present(local.data, MONTH, tmp_path / "trips") is None


def test_other_settings_are_told_from_a_changed_file(
    local: params.Params, tmp_path: Path, root: Path
) -> None:
    ledger = refresh.present(local.data, MONTH, tmp_path / "trips")
    assert ledger
    (tmp_path / "green_2021-01.csv").write_text("changed")
    assert ingest.made_alike(ledger, local.data, local.clean, local.seed, MONTH)
    other = local.clean.model_copy(update={"max_minutes": 30.0})
    assert not ingest.made_alike(ledger, local.data, other, local.seed, MONTH)


def test_a_store_is_asked_for_its_version(tmp_path: Path, root: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    text = HEADER + "\n".join(LINES) + "\n"
    store.pipe("/refresh/green_2021-01.csv", text.encode())
    chosen = settings(
        root, data__source="memory://refresh/{taxi}_{year}-{month}.csv", data__train=[MONTH]
    )
    first = ingest.fetch(chosen.data, MONTH, tmp_path / "cache")
    made(chosen, first, tmp_path / "trips")
    assert ask(chosen, tmp_path) is None
    store.pipe("/refresh/green_2021-01.csv", (text + LINES[0] + "\n").encode())
    found = ask(chosen, tmp_path)
    assert found
    assert found != first
    assert first.read_text() == text  # nothing is written over


# TLC


class Server:
    """What `tlc` asks, without a network: the version that it has, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.file = folder / "served.parquet"
        self.broken = 0

    def unchanged(self, url: str, path: Path) -> bool:
        self.asked.append("HEAD")
        note = path.with_name(f"{path.name}.json")
        return path.is_file() and note.is_file() and path.read_bytes() == self.file.read_bytes()

    def download(self, url: str, path: Path) -> None:
        self.asked.append("GET")
        if self.broken:
            self.broken -= 1
            raise SourceError("came short", transient=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.file, path)
        write_json({"etag": ""}, path.with_name(f"{path.name}.json"))

    def publish(self, minutes: float) -> None:
        start = np.datetime64("2021-01-05T08:00:00", "s") + np.arange(20)
        columns = {"pickup_datetime": start, "dropOff_datetime": start + int(60 * minutes)}
        columns |= {"PULocationID": np.full(20, 74), "DOLocationID": np.full(20, 75)}
        pq.write_table(pa.table(columns | {"trip_distance": np.ones(20)}), self.file)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server(tmp_path)
    monkeypatch.setattr(tlc, "unchanged", server.unchanged)
    monkeypatch.setattr(tlc, "download", server.download)
    monkeypatch.setattr(refresh.time, "sleep", lambda seconds: None)
    return server


@pytest.fixture
def published(server: Server, tmp_path: Path, root: Path) -> params.Params:
    """Settings for a month of TLC's, which is ingested."""
    chosen = settings(root, data__source="tlc", data__train=[MONTH])
    server.publish(10)
    made(chosen, ingest.fetch(chosen.data, MONTH, tmp_path / "cache"), tmp_path / "trips")
    server.asked.clear()
    return chosen


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))


RAW = ["green_tripdata_2021-01.parquet", "green_tripdata_2021-01.parquet.json"]


def test_of_an_unchanged_month_nothing_is_fetched(
    published: params.Params, server: Server, tmp_path: Path
) -> None:
    assert ask(published, tmp_path) is None
    assert server.asked == ["HEAD"]


def test_a_republished_month_waits_beside_the_present_one_until_it_is_taken(
    published: params.Params, server: Server, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    old = (cache / RAW[0]).read_bytes()
    server.publish(20)
    found = ask(published, tmp_path)
    assert server.asked == ["HEAD", "HEAD", "GET"]
    assert found == cache / "republished" / RAW[0]
    assert (cache / RAW[0]).read_bytes() == old
    assert ask(published, tmp_path) == found  # and is not fetched twice
    assert server.asked.count("GET") == 1
    made(published, found, tmp_path / "made")
    after = month_path(tmp_path / "made", "green", MONTH)
    refresh.take(after, found, tmp_path / "trips", cache)
    assert files(cache) == RAW
    assert (cache / RAW[0]).read_bytes() == server.file.read_bytes()
    assert ask(published, tmp_path) is None
    assert server.asked.count("GET") == 1


def test_a_raw_file_that_was_taken_but_not_its_month_differs(
    published: params.Params, server: Server, tmp_path: Path
) -> None:
    server.publish(20)
    found = ask(published, tmp_path)
    assert found
    refresh._settle(found, tmp_path / "cache" / found.name)  # and killed then
    assert ask(published, tmp_path) == tmp_path / "cache" / RAW[0]


@pytest.mark.parametrize("changed", [False, True])
def test_without_the_raw_file_the_month_is_fetched_to_compare(
    published: params.Params, server: Server, tmp_path: Path, changed: bool
) -> None:
    cache = tmp_path / "cache"
    shutil.rmtree(cache)  # as after a pull
    cache.mkdir()
    if changed:
        server.publish(20)
    said: list[str] = []
    found = ask(published, tmp_path, said.append)
    assert "fetched" in said[0]
    assert MONTH in said[0]
    assert bool(found) == changed
    if not changed:
        assert files(cache) == RAW  # the next time TLC can be asked


def test_what_breaks_off_is_tried_again_and_given_up_in_the_end(
    published: params.Params, server: Server, tmp_path: Path
) -> None:
    server.publish(20)
    server.broken = 2
    assert ask(published, tmp_path)
    server.publish(30)
    server.broken = 99
    server.asked.clear()
    with pytest.raises(SourceError, match="came short"):
        ask(published, tmp_path)
    assert server.asked.count("GET") == 3


def test_the_ledger_says_what_bytes_a_month_was_made_from(
    published: params.Params, server: Server, tmp_path: Path
) -> None:
    ledger = read_json(month_path(tmp_path / "trips", "green", MONTH).with_suffix(".json"))
    assert ledger["raw"] == refresh.sha256(server.file)
    assert ingest.current(
        published.data, published.clean, published.seed, MONTH, tmp_path / "trips"
    )
