"""Batch scoring: what is predicted, what stays as it was, and what is refused."""

import csv
import gzip
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_explanations import made_up

import report
from trip_duration import scoring
from trip_duration.errors import TripDurationError
from trip_duration.features import FeatureBuilder
from trip_duration.files import write_json
from trip_duration.intervals import Calibration, train_quantiles
from trip_duration.prediction import load
from trip_duration.registry import Served
from trip_duration.scoring import ADDED, Scored
from trip_duration.sources import files
from trip_duration.splits import Rows
from trip_duration.training import save_booster
from trip_duration.trips import REASONS

Score = Callable[..., Scored]
NAMES = {
    "pickup": "lpep_pickup_datetime",
    "pickup_zone": "PULocationID",
    "dropoff_zone": "DOLocationID",
    "vendor": "VendorID",
    "rate_code": "RatecodeID",
    "store_and_forward": "store_and_fwd_flag",
}


def make_model(folder: Path, trips: pa.Table | None = None) -> Served:
    """A small model over all of the metered features."""
    import xgboost as xgb

    trips = made_up(3000) if trips is None else trips
    folder.mkdir(parents=True)
    builder = FeatureBuilder.fit([trips], preset="metered")
    features = builder.transform(trips)
    X, minutes = builder.matrix(features), features["duration"].to_numpy()
    columns = {"names": builder.columns, "types": builder.feature_types}
    data = xgb.DMatrix(
        X, minutes, feature_names=columns["names"], feature_types=columns["types"], nthread=1
    )
    save_booster(xgb.train({"max_depth": 6, "nthread": 1}, data, 20), folder / "model.ubj")
    write_json(builder.to_json(), folder / "features.json")
    quantiles = train_quantiles(Rows.of(X, minutes), level=0.9, rounds=5, nthread=1, **columns)
    save_booster(quantiles, folder / "intervals.ubj")
    shared = {"level": 0.9, "pad": 1.0, "constant": 4.0, "trips": 99}
    unmetered = Calibration(edges=(), below=(3.0,), above=(3.5,), **shared)
    calibration = Calibration(
        edges=(8.0,), below=(1.0, 2.0), above=(1.5, 2.5), unmetered=unmetered, **shared
    )
    write_json(calibration.to_json(), folder / "intervals.json")
    return Served("7", folder, "ab12", "green", "metered", ("2024-01",))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_model(tmp_path_factory.mktemp("model") / "models")


@pytest.fixture
def score(served: Served, tmp_path: Path) -> Iterator[Score]:
    """Scores, and sees to it that nothing else is left."""

    def run(source: object, target: object, **options: object) -> Scored:
        return scoring.score(served, str(source), str(target), cache=tmp_path / "cache", **options)

    yield run
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".partial")]
    assert not list((tmp_path / "cache").glob("*"))


def tlc(rows: int = 300, seed: int = 1) -> pa.Table:
    """Trips as TLC's files have them, with columns that scoring does not know; no drop-off."""
    trips = made_up(rows, seed).drop_columns("duration")
    trips = pa.table(trips.columns, [NAMES.get(name, name) for name in trips.column_names])
    fare = np.arange(rows) / 4
    key = [f"trip {number}, or so" for number in range(rows)]
    return trips.append_column("fare_amount", pa.array(fare)).add_column(0, "key", pa.array(key))


def without_time(trips: pa.Table) -> pa.Table:
    return trips.set_column(1, trips.column_names[1], pa.nulls(len(trips), pa.timestamp("s")))


def expected(served: Served, trips: pa.Table) -> dict[str, np.ndarray]:
    """What the model says of all trips at once."""
    back = {name: canonical for canonical, name in NAMES.items()}
    said = load(served.folder).predict(
        trips.rename_columns([back.get(name, name) for name in trips.column_names])
    )
    return dict(zip(ADDED, said.values(), strict=False))


def read_text(path: Path) -> list[list[str]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(score: Score, source: object, target: object, **options: object) -> str:
    with pytest.raises(TripDurationError) as caught:
        score(source, target, **options)
    assert "\n" not in str(caught.value)
    assert "data.source" not in str(caught.value)
    return str(caught.value)


# -- what is predicted ---------------------------------------------------------------------------


def test_predictions_are_added_and_all_else_stays(
    score: Score, served: Served, tmp_path: Path
) -> None:
    trips = tlc()
    pq.write_table(trips, tmp_path / "trips.parquet")
    done = score(tmp_path / "trips.parquet", tmp_path / "new" / "scored.parquet")
    scored = pq.read_table(tmp_path / "new" / "scored.parquet")
    assert scored.column_names == [*trips.column_names, *ADDED]
    assert scored.select(trips.column_names).equals(pq.read_table(tmp_path / "trips.parquet"))
    for name, values in expected(served, trips).items():
        assert scored.column(name).to_numpy().tobytes() == values.tobytes()
    assert set(scored.column("model_version").to_pylist()) == {"7"}
    assert (done.rows, done.rejected, done.foreign) == (300, {}, [])
    assert done.files == [str(tmp_path / "new" / "scored.parquet")]
    assert names(tmp_path / "new") == ["scored.parquet"]


@settings(deadline=None, max_examples=15)
@given(rows=st.integers(0, 200), batch=st.integers(1, 90), seed=st.integers(0, 9))
def test_the_batches_leave_no_trace(
    served: Served,
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    batch: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("batches")
    trips = tlc(rows, seed)
    pq.write_table(trips, folder / "in.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BATCH_ROWS", batch)
        scoring.score(served, f"{folder}/in.parquet", f"{folder}/out.parquet", cache=folder)
    scored = pq.read_table(folder / "out.parquet")
    assert scored.column("key").to_pylist() == trips.column("key").to_pylist()
    for name, values in expected(served, trips).items():
        assert scored.column(name).to_numpy().tobytes() == values.tobytes()


@pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")  # MLflow's own
def test_mlflow_says_the_same(score: Score, served: Served, tmp_path: Path) -> None:
    from mlflow.pyfunc import PythonModelContext

    from trip_duration import pyfunc

    frame = made_up(100, 5).drop_columns("duration").to_pandas()
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    model = pyfunc.TripDuration()
    artifacts = {path.name: str(path) for path in served.folder.iterdir()}
    context = PythonModelContext(artifacts=artifacts, model_config=None)
    model.load_context(context)
    said = model.predict(context, frame)
    scored = pd.read_parquet(tmp_path / "out.parquet")
    for name, key in zip(ADDED, said.columns, strict=False):
        assert scored[name].to_numpy().tobytes() == said[key].to_numpy().tobytes()


def test_a_finished_month_is_scored_without_its_answers(score: Score, tmp_path: Path) -> None:
    trips = tlc(50)
    pq.write_table(trips, tmp_path / "open.parquet")
    score(tmp_path / "open.parquet", tmp_path / "open-scored.parquet")
    pickup = trips.column("lpep_pickup_datetime")
    unreadable = pa.array(["tomorrow"] * 50)
    for name, dropoff in (("times", pickup), ("unreadable", unreadable)):
        whole = trips.append_column("lpep_dropoff_datetime", dropoff)
        whole = whole.append_column("duration", pa.array([1.0] * 50))
        pq.write_table(whole, tmp_path / f"{name}.parquet")
        score(tmp_path / f"{name}.parquet", tmp_path / f"{name}-scored.parquet")
        scored = pq.read_table(tmp_path / f"{name}-scored.parquet")
        assert scored.column("lpep_dropoff_datetime").equals(
            pq.read_table(tmp_path / f"{name}.parquet").column("lpep_dropoff_datetime")
        )
        assert scored.select(ADDED).equals(
            pq.read_table(tmp_path / "open-scored.parquet").select(ADDED)
        )


def test_times_with_a_time_zone_are_new_yorks(score: Score, tmp_path: Path) -> None:
    trips = tlc(50)
    pq.write_table(trips, tmp_path / "wall.parquet")
    wall = trips.column("lpep_pickup_datetime").to_pylist()
    there = [time.replace(tzinfo=ZoneInfo("America/New_York")) for time in wall]
    column = pa.array(there, pa.timestamp("us", "UTC"))
    zoned = trips.set_column(1, "lpep_pickup_datetime", column)
    pq.write_table(zoned, tmp_path / "zoned.parquet")
    for name in ("wall", "zoned"):
        score(tmp_path / f"{name}.parquet", tmp_path / f"{name}-scored.parquet")
    made = [pq.read_table(tmp_path / f"{n}-scored.parquet") for n in ("wall", "zoned")]
    assert made[0].select(ADDED).equals(made[1].select(ADDED))
    assert made[1].column("lpep_pickup_datetime").type == pa.timestamp("us", "UTC")


def test_a_zone_that_nobody_knows_is_no_reason_to_refuse(score: Score, tmp_path: Path) -> None:
    trips = tlc(4).set_column(2, "PULocationID", pa.array([None, 999, 264, 5], pa.int64()))
    pq.write_table(trips, tmp_path / "in.parquet")
    done = score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (done.rows, done.rejected) == (4, {})
    scored = pq.read_table(tmp_path / "out.parquet")
    assert scored.column("PULocationID").to_pylist() == [None, 999, 264, 5]
    assert np.isfinite(scored.column("predicted_minutes").to_numpy()).all()


def test_every_real_layout_is_scored(
    score: Score, served: Served, tlc: Path, tmp_path: Path
) -> None:
    from trip_duration.zones import load_zones

    zones = load_zones(tlc / "taxi_zones.geojson")
    placed = 0
    for path in sorted((tlc / "legacy_heads").glob("*.csv")):
        if path.name == "fhv_tripdata_2016-04.csv":
            assert "the pickup zone" in refusal(score, path, tmp_path / path.name)
            continue
        done = score(path, tmp_path / path.name, locate=zones.locate)
        rows = read_text(path)
        scored = read_text(tmp_path / path.name)
        cut = done.rejected["cut_record"]  # the last line of each is cut short
        assert cut <= 1
        width = len(rows[0])
        assert [row[:width] for row in scored[1:]] == [
            row[:width] for row in rows[1 : len(rows) - cut] if row
        ]
        assert all(float(row[width]) > 0 for row in scored[1:])
        placed += "ongitude" in ",".join(rows[0]) or "Start_Lon" in rows[0]
    assert placed >= 6


def test_coordinates_need_zones(score: Score, tmp_path: Path) -> None:
    line = "2014-01-01 08:00:00,-73.98,40.75,-73.97,40.76,1.2\n"
    names = "pickup_datetime,pickup_longitude,pickup_latitude,dropoff_longitude,dropoff_latitude"
    (tmp_path / "in.csv").write_text(f"{names},trip_distance\n{line}")
    assert "set data.zones to TLC's zone shapes" in refusal(
        score, tmp_path / "in.csv", tmp_path / "out.csv"
    )
    said = refusal(
        score,
        tmp_path / "in.csv",
        tmp_path / "out.csv",
        locate=lambda longitude, latitude: np.zeros(len(longitude), np.int16),
    )
    assert "None of its places lies in a zone" in said
    assert not (tmp_path / "out.csv").exists()


# -- what cannot be scored -----------------------------------------------------------------------


def test_rows_that_cannot_be_scored_are_written_beside(
    score: Score, served: Served, tmp_path: Path
) -> None:
    trips = tlc(6)
    missing = pa.array([False, True, False, False, True, False])
    pickup = pc.if_else(missing, None, trips.column("lpep_pickup_datetime"))
    trips = trips.set_column(1, "lpep_pickup_datetime", pickup)
    pq.write_table(trips, tmp_path / "in.parquet")
    done = score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (done.rows, done.rejected) == (6, {"no_pickup_time": 2})
    assert done.files == [str(tmp_path / name) for name in ("out.parquet", "out.rejected.parquet")]
    given = pq.read_table(tmp_path / "in.parquet")
    rejected = pq.read_table(tmp_path / "out.rejected.parquet")
    assert rejected.drop_columns("reason").equals(given.filter(missing))
    assert set(rejected.column("reason").to_pylist()) == {REASONS["no_pickup_time"]}
    scored = pq.read_table(tmp_path / "out.parquet")
    kept = given.filter(pc.invert(missing))
    assert scored.drop_columns(list(ADDED)).equals(kept)
    for name, values in expected(served, kept).items():
        assert scored.column(name).to_numpy().tobytes() == values.tobytes()

    pq.write_table(kept, tmp_path / "in.parquet")  # mended: what was beside it is of the past
    assert score(tmp_path / "in.parquet", tmp_path / "out.parquet").rejected == {}
    assert not (tmp_path / "out.rejected.parquet").exists()


def test_csv_stays_the_text_it_was(score: Score, tmp_path: Path) -> None:
    text = (
        "key,note,lpep_pickup_datetime,PULocationID,DOLocationID,trip_distance\n"
        'b-001,"said ""no"", twice",2024-03-01 08:00:00,074,41,1.50\n'
        "b-002,,yesterday,75,41,2\n"
        "b-003,cut,2024-03-01\n"
        "b-004,plain,2024-03-01 08:10:00,,,\n"
        "b-005,long,2024-03-01 08:20:00,74,41,1.0,more,and more\n"
    )
    (tmp_path / "in.csv").write_text(text)
    done = score(tmp_path / "in.csv", tmp_path / "out.csv.gz")
    assert (done.rows, done.rejected) == (5, {"cut_record": 2, "no_pickup_time": 1})
    given = list(csv.reader(io.StringIO(text)))
    scored, rejected = (
        read_text(tmp_path / name) for name in ("out.csv.gz", "out.rejected.csv.gz")
    )
    assert scored[0] == [*given[0], *ADDED]
    assert [row[:6] for row in scored[1:]] == [given[1], given[4]]
    assert [row[9] for row in scored[1:]] == ["7", "7"]
    assert rejected[0] == [*given[0], "reason"]
    assert sorted(rejected[1:]) == [
        [*given[2], REASONS["no_pickup_time"]],
        ["b-003", "cut", "2024-03-01", "", "", "", REASONS["cut_record"]],
        [*given[5][:5], "1.0,more,and more", REASONS["cut_record"]],
    ]


HEADER = "key,pickup_datetime,PULocationID,DOLocationID"
LINE = "{},2024-01-01 08:00:00,1,2"


def packed(name: str, data: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(data)
    if name.endswith(".zip"):
        inside = io.BytesIO()
        with zipfile.ZipFile(inside, "w") as archive:
            archive.writestr(name.removesuffix(".zip"), data)
        return inside.getvalue()
    return data


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.csv.zip"])
@pytest.mark.parametrize(
    ("lines", "found", "number"),
    [
        ([HEADER, LINE.format("Jos?"), LINE.format("José"), LINE.format("Josè")], r"b'\xe9'", 3),
        ([HEADER.replace("key", "clé"), LINE.format(1)], r"b'\xe9'", 1),
        ([HEADER, "", "", LINE.format(1), LINE.format(2), "é,1"], r"b'\xe9'", 6),
        ([HEADER, LINE.format(1) + "é"], r"b'\xe9'", 2),
    ],
    ids=["a key", "a name", "a cut line", "the last byte"],
)
def test_csv_that_is_not_utf8_is_refused(
    score: Score,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    lines: list[str],
    found: str,
    number: int,
) -> None:
    (tmp_path / name).write_bytes(packed(name, "\r\n".join(lines).encode("latin-1")))
    for size in (1, 7, 1 << 20):
        monkeypatch.setattr(scoring, "TEXT_BYTES", size)
        said = refusal(score, tmp_path / name, tmp_path / "out" / "out.csv")
        assert f"{tmp_path / name} has {found} in line {number}, which is not UTF-8" in said
        assert said.endswith("save it as UTF-8.")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.csv.zip"])
def test_all_text_of_utf8_stays(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(scoring, "TEXT_BYTES", 3)
    keys = ["José", "東京", "🚕", "Jos?", "\ufffd", "plain"]
    text = "\n".join([HEADER.replace("key", "clé"), *map(LINE.format, keys)])
    (tmp_path / name).write_bytes(packed(name, b"\xef\xbb\xbf" + text.encode()))
    assert score(tmp_path / name, tmp_path / "out.csv").rows == 6
    assert [row[0] for row in read_text(tmp_path / "out.csv")] == ["clé", *keys]


def test_csv_and_parquet_turn_into_each_other(score: Score, served: Served, tmp_path: Path) -> None:
    trips = tlc(40)
    pq.write_table(trips, tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "there.csv")
    back = pyarrow.csv.read_csv(tmp_path / "there.csv")
    assert back.column("key").to_pylist() == trips.column("key").to_pylist()
    minutes = expected(served, trips)["predicted_minutes"]
    assert back.column("predicted_minutes").to_numpy().tobytes() == minutes.tobytes()
    pyarrow.csv.write_csv(trips, tmp_path / "in.csv")
    score(tmp_path / "in.csv", tmp_path / "back.parquet")
    made = pq.read_table(tmp_path / "back.parquet")
    assert made.column("predicted_minutes").to_numpy().tobytes() == minutes.tobytes()
    assert made.schema.field("PULocationID").type == pa.string()


# -- where files lie -----------------------------------------------------------------------------


def test_a_folder_becomes_a_folder(score: Score, served: Served, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    pq.write_table(tlc(30, 1), source / "b.parquet")
    pq.write_table(tlc(20, 2), source / "a.parquet")
    pyarrow.csv.write_csv(tlc(10, 3), source / "c.csv")
    (source / "notes.txt").write_text("no trips")
    (source / ".hidden.parquet").write_text("no trips")
    done = score(source, tmp_path / "out")
    assert done.rows == 60
    assert names(tmp_path / "out") == ["a.parquet", "b.parquet", "c.csv"]
    made = pq.read_table(tmp_path / "out" / "b.parquet")
    minutes = expected(served, tlc(30, 1))["predicted_minutes"]
    assert made.column("predicted_minutes").to_numpy().tobytes() == minutes.tobytes()


def test_links_to_files_are_scored_like_files(score: Score, tmp_path: Path) -> None:
    source, kept = tmp_path / "in", tmp_path / "kept"
    source.mkdir()
    (kept / "folder.parquet").mkdir(parents=True)
    pq.write_table(tlc(30), kept / "ab12")
    (source / "a.parquet").symlink_to(kept / "ab12")
    (source / "b.parquet").symlink_to("a.parquet")
    (source / "folder.parquet").symlink_to(kept / "folder.parquet")
    (source / "notes.txt").symlink_to("nowhere.txt")
    assert score(source, tmp_path / "out").rows == 60
    assert names(tmp_path / "out") == ["a.parquet", "b.parquet"]
    assert not (tmp_path / "out" / "a.parquet").is_symlink()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a.csv", "a.csv.zip", "whose results would have the same name"),
        ("a.csv", "a.rejected.csv", "the other's results, a.rejected.csv"),
        ("a.csv.zip", "a.rejected.csv", "the other's results, a.rejected.csv"),
        ("a.csv", "a.rejected.csv.zip", "the other's results, a.rejected.csv"),
        ("a.csv.gz", "a.rejected.csv.gz", "the other's results, a.rejected.csv.gz"),
        ("a.parquet", "a.rejected.parquet", "the other's results, a.rejected.parquet"),
    ],
)
def test_two_files_whose_results_would_be_one_are_refused(
    score: Score, tmp_path: Path, one: str, other: str, same: str
) -> None:
    (tmp_path / "in").mkdir()
    for name in (one, other):
        (tmp_path / "in" / name).write_text("never read")
    said = refusal(score, tmp_path / "in", tmp_path / "out")
    assert f"has {one} and {other}" in said
    assert same in said
    assert not (tmp_path / "out").exists()


def test_files_that_differ_in_their_ends_alone_have_results_of_their_own(
    score: Score, tmp_path: Path
) -> None:
    (tmp_path / "in" / "folder").mkdir(parents=True)
    trips = pa.concat_tables([tlc(3), without_time(tlc(1))])
    pq.write_table(trips, tmp_path / "in" / "a.parquet")
    pyarrow.csv.write_csv(trips, tmp_path / "in" / "a.csv")
    with gzip.open(tmp_path / "in" / "a.csv.gz", "wb") as file:
        pyarrow.csv.write_csv(trips, file)
    done = score(tmp_path / "in", tmp_path / "out")
    assert (done.rows, done.rejected) == (12, {"no_pickup_time": 3})
    written = [f"a{part}{end}" for end in scoring.SUFFIXES for part in ("", ".rejected")]
    assert names(tmp_path / "out") == sorted(written)


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("nowhere.csv", "in/b.csv is a link to nowhere.csv, which does not exist"),
        ("b.csv", "in/b.csv cannot be opened (Too many levels of symbolic links)"),
        ("../out/a.csv", "out/a.csv, which would be overwritten"),
        ("../out/b.rejected.csv", "out/b.rejected.csv, which would be overwritten"),
    ],
)
def test_a_link_that_cannot_be_scored_is_told_before_anything_is(
    score: Score, tmp_path: Path, to: str, said: str
) -> None:
    for name in ("in/a.csv", "out/a.csv", "out/b.rejected.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pyarrow.csv.write_csv(tlc(3), tmp_path / name)
    before = (tmp_path / "out" / "a.csv").read_bytes()
    (tmp_path / "in" / "b.csv").symlink_to(to)
    assert said in refusal(score, tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "a.csv").read_bytes() == before


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def test_urls_are_read_and_written(
    score: Score, served: Served, tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    trips = tlc(30)
    broken = pa.concat_tables([trips, without_time(trips.slice(0, 1))])
    for name, table in {"a": trips, "b": broken}.items():
        with memory.open(f"/in/{name}.parquet", "wb") as file:
            pq.write_table(table, file)
    done = score("memory://in", "memory://out")
    assert [name.rpartition("/")[2] for name in memory.ls("/out", detail=False)] == [
        "a.parquet",
        "b.parquet",
        "b.rejected.parquet",
    ]
    assert done.files == [f"memory://out/{name}.parquet" for name in ("a", "b", "b.rejected")]
    minutes = expected(served, trips)["predicted_minutes"].tobytes()
    with memory.open("/out/b.parquet") as file:
        assert pq.read_table(file).column("predicted_minutes").to_numpy().tobytes() == minutes
    score(f"file://{_kept(tmp_path, trips)}", f"file://{tmp_path}/scored.csv")
    assert len(read_text(tmp_path / "scored.csv")) == 31
    score("memory://in/a.parquet", "memory://out/b.parquet")  # without rejected trips
    assert not memory.exists("/out/b.rejected.parquet")


def test_a_store_s_links_are_scored_like_files(
    score: Score, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with memory.open("/in/a.parquet", "wb") as file:
        pq.write_table(tlc(3), file)
    memory.mkdir("/in/b.parquet")
    links = [one | {"type": "link"} for one in memory.ls("/in", detail=True)]
    monkeypatch.setattr(type(memory), "ls", lambda *_, **__: links)
    assert score("memory://in", "memory://out").files == ["memory://out/a.parquet"]


def test_a_name_may_hold_any_sign(
    score: Score, tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    source = tmp_path / "in #1?"
    source.mkdir()
    trips = pa.concat_tables([tlc(3), without_time(tlc(1))])
    for name in ("part#1.csv", "what?.csv"):
        pyarrow.csv.write_csv(trips, source / name)
    written = ["part#1.csv", "part#1.rejected.csv", "what?.csv", "what?.rejected.csv"]
    for target in (str(tmp_path / "out#?"), "memory://out#?"):
        done = score(source, target)
        assert (done.rows, done.rejected) == (8, {"no_pickup_time": 2})
        assert done.files == [f"{target}/{name}" for name in written]
    assert names(tmp_path / "out#?") == written
    assert [Path(name).name for name in memory.ls("/out#?", detail=False)] == written
    score(source / "what?.csv", tmp_path / "new" / "a#b.csv")
    assert names(tmp_path / "new") == ["a#b.csv", "a#b.rejected.csv"]


def _kept(folder: Path, trips: pa.Table) -> Path:
    pq.write_table(trips, folder / "kept.parquet")
    return folder / "kept.parquet"


def test_a_store_that_refuses_is_named(
    score: Score, tmp_path: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("the bucket is closed")

    path = _kept(tmp_path, tlc(3))
    monkeypatch.setattr(type(memory), "put_file", refuse)
    said = refusal(score, path, "memory://out/a.parquet")
    assert "memory://out/a.parquet could not be reached (the bucket is closed)" in said
    assert not memory.exists("/out/a.parquet")


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("nothing.parquet", "out.parquet", "nothing.parquet does not exist: correct INPUT"),
        ("trips.parquet", "out.txt", "expected a name that ends in .parquet, .csv or .csv.gz"),
        ("trips.parquet", "https://localhost/out.txt?of=a.csv", "expected a name that ends in"),
        ("trips.parquet", "folder", "is a folder and INPUT one file"),
        ("trips.parquet", "trips.parquet", "would be overwritten"),
        ("trips.parquet", "folder/../trips.parquet", "would be overwritten"),
        ("trips.parquet", "link.parquet", "would be overwritten"),
        ("folder/a.rejected.csv", "folder/a.csv", "would be overwritten"),
        ("folder", "folder", "lies in INPUT"),
        ("folder", "folder/below", "lies in INPUT"),
        ("folder", "out.csv", "names a file"),
        ("empty", "out", "is a folder without a file that ends in"),
        ("text.parquet", "out.parquet", "is no Parquet as its name says"),
        ("cut.parquet", "out.parquet", "broken or truncated Parquet"),
        ("unknown.csv", "out.csv", "no column for the pickup time"),
        ("nowhen.csv", "out.csv", "found 'soon', expected times like"),
        ("twice.csv", "out.csv", "has the column 'key' twice"),
        ("scored.csv", "out.csv", "has a column 'model_version' already"),
        ("trips.parquet", "nostore://out/a.csv", "correct OUTPUT"),
        ("nostore://in/a.csv", "out.csv", "correct INPUT"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    score: Score, tmp_path: Path, source: str, target: str, said: str
) -> None:
    for name in ("folder", "empty"):
        (tmp_path / name).mkdir()
    pq.write_table(tlc(3), tmp_path / "trips.parquet")
    (tmp_path / "link.parquet").symlink_to(tmp_path / "trips.parquet")
    whole = (tmp_path / "trips.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.parquet").write_text("a,b\n")
    (tmp_path / "unknown.csv").write_text("a,b\n1,2\n")
    known = "pickup_datetime,PULocationID,DOLocationID"
    (tmp_path / "nowhen.csv").write_text(f"{known}\nsoon,1,2\n")
    (tmp_path / "twice.csv").write_text(f"key,key,{known}\n1,2,2024-01-01 08:00:00,1,2\n")
    (tmp_path / "scored.csv").write_text(f"{known},model_version\n2024-01-01 08:00:00,1,2,6\n")
    (tmp_path / "folder" / "a.rejected.csv").write_text(f"{known}\n2024-01-01 08:00:00,1,2\n")
    before = sorted(tmp_path.rglob("*"))
    places = [at if "://" in at else str(tmp_path / at) for at in (source, target)]
    assert said in refusal(score, *places)
    (tmp_path / "cache").rmdir() if (tmp_path / "cache").exists() else None
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "trips.parquet").read_bytes() == whole


def test_what_csv_cannot_hold_is_refused(score: Score, tmp_path: Path) -> None:
    nested = tlc(3).append_column("tags", pa.array([["a"], [], None], pa.list_(pa.string())))
    pq.write_table(nested, tmp_path / "in.parquet")
    said = refusal(score, tmp_path / "in.parquet", tmp_path / "out.csv")
    assert "'tags'" in said
    assert ".parquet" in said
    assert not (tmp_path / "out.csv").exists()
    assert score(tmp_path / "in.parquet", tmp_path / "out.parquet").rows == 3


def test_categories_become_text_in_csv(score: Score, tmp_path: Path) -> None:
    trips = tlc(3).append_column("kind", pa.array(["a", None, "b"]).dictionary_encode())
    pq.write_table(trips, tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out.csv")
    rows = read_text(tmp_path / "out.csv")
    assert [row[rows[0].index("kind")] for row in rows[1:]] == ["a", "", "b"]


def test_the_trips_of_other_taxis_are_told(score: Score, tmp_path: Path) -> None:
    trips = tlc(3)
    names = [name.replace("lpep", "tpep") for name in trips.column_names]
    pq.write_table(trips.rename_columns(names), tmp_path / "in.parquet")
    done = score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert done.foreign == [str(tmp_path / "in.parquet")]


def test_a_trip_of_no_time_of_ours_is_scored(score: Score, tmp_path: Path) -> None:
    when = pa.array([datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59)], pa.timestamp("s"))
    trips = tlc(2).set_column(1, "lpep_pickup_datetime", when)
    pyarrow.csv.write_csv(trips, tmp_path / "in.csv")
    assert score(tmp_path / "in.csv", tmp_path / "out.csv").rejected == {}


def test_progress_counts_every_row(score: Score, tmp_path: Path) -> None:
    pq.write_table(tlc(300), tmp_path / "in.parquet")
    told: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BATCH_ROWS", 70)
        score(tmp_path / "in.parquet", tmp_path / "out.parquet", progress=told.append)
    assert told == [70, 70, 70, 70, 20]


# -- faults and memory ---------------------------------------------------------------------------


def test_an_interruption_leaves_what_was_there(score: Score, tmp_path: Path) -> None:
    pq.write_table(tlc(300), tmp_path / "in.parquet")
    (tmp_path / "out.parquet").write_text("an older one")

    def interrupt(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "in.parquet", tmp_path / "out.parquet", progress=interrupt)
    assert (tmp_path / "out.parquet").read_text() == "an older one"


CHILD = """
import sys
from pathlib import Path
from trip_duration import scoring
from trip_duration.registry import Served

scoring.WORKERS = 2  # what is held at a time must not depend on the machine's cores
folder, source = Path(sys.argv[1]), sys.argv[2]
served = Served("7", folder / "models", "ab12", "green", "metered", ("2024-01",))
print(scoring.score(served, source, f"{folder}/out.parquet", cache=folder / "cache").rows)
"""


KILLED = """
import sys, time
from pathlib import Path
from trip_duration import scoring
from trip_duration.registry import Served
from trip_duration.sources import files

def stop(rows):
    print(rows, flush=True)
    time.sleep(600)

files.BATCH_ROWS = 100
folder = Path(sys.argv[1])
served = Served("7", folder / "models", "ab12", "green", "metered", ("2024-01",))
where = [str(folder / name) for name in ("in.parquet", "out.parquet")]
scoring.score(served, *where, cache=folder / "cache", progress=stop)
"""


def test_a_kill_leaves_nothing_half_written_and_the_next_run_is_whole(tmp_path: Path) -> None:
    served = make_model(tmp_path / "models")
    pq.write_table(tlc(1000), tmp_path / "in.parquet")
    source = str(Path(scoring.__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": source},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"100\n"  # in the middle of the file
        child.kill()
        child.wait(timeout=60)
    assert not (tmp_path / "out.parquet").exists()
    where = [str(tmp_path / name) for name in ("in.parquet", "out.parquet")]
    assert scoring.score(served, *where, cache=tmp_path / "cache").rows == 1000
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == 1000
    assert names(tmp_path) == ["cache", "in.parquet", "models", "out.parquet"]


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    make_model(tmp_path / "models")
    one = tlc(100_000)
    few_rows, many_rows = 5 * len(one), 25 * len(one)
    peaks = {}
    for rows in (few_rows, many_rows):
        path = tmp_path / f"{rows}.parquet"
        with pq.ParquetWriter(path, one.schema) as writer:
            for _ in range(rows // len(one)):
                writer.write_table(one)
        source = str(Path(scoring.__file__).parents[1])
        run = report.child([sys.executable, "-c", CHILD, tmp_path, path], PYTHONPATH=source)
        assert int(run.output) == rows
        peaks[rows] = run.peak
    more = (many_rows - few_rows) * 200 / 2**20  # MB, as numbers and text
    assert peaks[many_rows] - peaks[few_rows] < more / 4
