"""MLflow, against SQLite stores in temporary folders: one is migrated, the tests copy it."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from trip_duration import tracking
from trip_duration.errors import TripDurationError
from trip_duration.intervals import Calibration, train_quantiles
from trip_duration.orchestration import OURS, environment
from trip_duration.prediction import FILES
from trip_duration.splits import Rows
from trip_duration.trips import SCHEMA

SOURCE = Path(tracking.__file__).parents[1]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Any type hint:UserWarning"  # MLflow's own, of a type hint of its own
)


def uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that two processes made at once."""
    folder = tmp_path_factory.mktemp("store") / ".mlflow"
    variables = {**os.environ, "MLFLOW_TRACKING_URI": uri(folder), "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "trip_duration.tracking", "prepare"]
    both = [subprocess.Popen(command, env=variables, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said == [b"", b""]
    return folder


@pytest.fixture
def store(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the test's own, with MLflow's settings as a stage has them."""
    folder = tmp_path / ".mlflow"
    shutil.copytree(migrated, folder)
    for name in ("MLFLOW_TRACKING_URI", OURS):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment(tmp_path).items():
        if name.startswith("MLFLOW_"):
            monkeypatch.setenv(name, value)
    assert os.environ["MLFLOW_TRACKING_URI"] == uri(folder)
    return folder


@pytest.fixture(autouse=True)
def _root_logger_is_left_alone() -> Iterator[None]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield
    assert (list(root.handlers), root.level) == before


def runs(store: Path) -> list:
    from mlflow import MlflowClient

    client = MlflowClient(uri(store))
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


# -- the store -----------------------------------------------------------------------------------


def test_two_processes_make_one_store(migrated: Path) -> None:
    names = {path.name for path in migrated.iterdir()}
    assert names == {"mlflow.db", "mlflow.db.version", "lock"}


def test_a_store_that_is_there_costs_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (store / "mlflow.db").stat().st_mtime_ns
    monkeypatch.setattr(tracking, "_migrate_apart", lambda *_: pytest.fail("it is migrated"))
    tracking.prepare()
    assert (store / "mlflow.db").stat().st_mtime_ns == before


def test_a_store_of_another_version_keeps_its_runs(store: Path) -> None:
    """An older MLflow's stamp: the store goes through the migrations, on a copy."""
    with tracking.search_run("search") as log:
        log.finish({"rmse": 5.0})
    inode = (store / "mlflow.db").stat().st_ino
    (store / "mlflow.db.version").write_text("2.0.0")
    tracking.prepare()
    assert (store / "mlflow.db").stat().st_ino != inode
    assert [run.data.metrics for run in runs(store)] == [{"rmse": 5.0}]


def test_a_broken_store_is_one_sentence(store: Path) -> None:
    (store / "mlflow.db").write_bytes(b"not a database" * 1000)
    (store / "mlflow.db.version").write_text("2.0.0")
    with pytest.raises(TripDurationError, match=r"could not make its store .*mlflow\.db"):
        tracking.prepare()


def test_a_store_that_we_did_not_make_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(tmp_path))
    (tmp_path / "mlflow.db").write_text("somebody's")
    tracking.prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_server_of_the_users_own_needs_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example")
    monkeypatch.chdir(tmp_path)
    tracking.prepare()
    assert not list(tmp_path.iterdir())


# -- a search ------------------------------------------------------------------------------------


def test_a_search_is_a_parent_with_a_child_for_each_trial(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, connect = threading.Event(), tracking.connect

    def connect_once_all_are_tried() -> tuple:
        assert tried.wait(60), "a trial waits for MLflow"
        return connect()

    monkeypatch.setattr(tracking, "connect", connect_once_all_are_tried)
    with tracking.search_run("search green", {"max_evals": 3}, {"stage": "search"}) as log:
        for number, rmse in enumerate([6.0, 5.0, float("nan")]):
            status = "FINISHED" if np.isfinite(rmse) else "FAILED"
            log.trial(number, {"max_depth": number}, {"rmse": rmse}, status, seconds=2.5)
        tried.set()
        log.finish({"best_rmse": 5.0})

    parent, *children = sorted(runs(store), key=lambda run: run.data.tags["mlflow.runName"])
    assert parent.info.run_id == log.run_id
    assert parent.data.params == {"max_evals": "3"}
    assert parent.data.metrics == {"best_rmse": 5.0}
    assert parent.data.tags["stage"] == "search"
    assert parent.info.status == "FINISHED"
    assert [child.data.tags["mlflow.parentRunId"] for child in children] == [log.run_id] * 3
    assert [child.data.params for child in children] == [{"max_depth": str(i)} for i in range(3)]
    assert [child.data.metrics for child in children] == [{"rmse": 6.0}, {"rmse": 5.0}, {}]
    assert [child.info.status for child in children] == ["FINISHED", "FINISHED", "FAILED"]
    assert {child.info.end_time - child.info.start_time for child in children} == {2500}


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError(), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_search_that_breaks_off_says_so(store: Path, error: BaseException, status: str) -> None:
    def search() -> None:
        with tracking.search_run("search") as log:
            log.trial(0, {}, {"rmse": 6.0})
            raise error

    with pytest.raises(type(error)):
        search()
    parent, child = sorted(runs(store), key=lambda run: run.data.tags["mlflow.runName"])
    assert (parent.info.status, child.info.status) == (status, "FINISHED")


def test_a_search_survives_mlflow(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the store gone in its midst: one line, and the search has its result."""
    shutil.rmtree(store)
    store.write_text("a file where the folder was")
    with tracking.search_run("search") as log:
        log.trial(0, {}, {"rmse": 6.0})
        log.trial(1, {}, {"rmse": 5.0})
        result = "found"
    assert result == "found"
    (warning,) = caplog.messages
    assert warning.startswith("MLflow does not record the rest of this search: ")
    assert "\n" not in warning


# -- models and evaluations ----------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> list[Path]:
    """A tiny model that says three minutes a mile, but for what it never saw."""
    import xgboost as xgb

    from trip_duration.features import FeatureBuilder
    from trip_duration.files import write_json

    rng = np.random.default_rng(0)
    miles = rng.uniform(0, 10, 500)
    trips = pa.table(
        {
            "pickup": np.datetime64("2021-01-01", "s") + rng.integers(0, 86400 * 28, 500),
            "duration": 3 * miles - 4,  # below 0 for the shortest
            "pickup_zone": rng.integers(1, 266, 500).astype(np.int16),
            "dropoff_zone": rng.integers(1, 266, 500).astype(np.int16),
            "trip_distance": miles,
        }
    )
    builder = FeatureBuilder.fit([trips], preset="metered")
    matrix = xgb.DMatrix(
        builder.matrix(builder.transform(trips)),
        label=trips["duration"].to_numpy(),
        feature_types=builder.feature_types,
        enable_categorical=True,
    )
    booster = xgb.train({"max_depth": 3, "nthread": 1}, matrix, 20)
    write_json(builder.to_json(), tmp_path / "features.json")
    booster.save_model(tmp_path / "model.ubj")
    quantiles = train_quantiles(
        Rows.read([builder.transform(trips)], builder),
        level=0.9,
        rounds=5,
        nthread=1,
        names=builder.columns,
        types=builder.feature_types,
    )
    quantiles.save_model(tmp_path / "intervals.ubj")
    calibration = Calibration(
        level=0.9, edges=(), below=(1.0,), above=(1.5,), pad=1.0, constant=4.0, trips=99
    )
    write_json(calibration.to_json(), tmp_path / "intervals.json")
    return [tmp_path / file for file in FILES]


def test_a_model_takes_raw_trips_and_gives_minutes(
    store: Path, model: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    import pandas as pd

    from trip_duration.prediction import load

    address = tracking.log_model(model, name="train green", metrics={"rmse": 5.0})
    assert address is not None
    assert capfd.readouterr() == ("", "")  # no advice, no progress bar

    import mlflow

    loaded = mlflow.pyfunc.load_model(address)
    trips = pd.DataFrame(
        {
            "pickup": pd.to_datetime(["2021-02-01 08:30:00", "2021-02-01 09:00:00"]),
            "pickup_zone": [74, 75],  # int64
            "dropoff_zone": [41.0, np.nan],  # float64, for one is missing
            "trip_distance": [8.0, 0.1],
            "store_and_forward": [True, False],
        }
    )
    said = loaded.predict(trips)
    assert said["minutes"].to_numpy() == pytest.approx([20, 0], abs=2.5)
    assert said["minutes"][1] == 0  # the booster alone says less
    for name, values in load(model[0].parent).predict(trips).items():
        np.testing.assert_array_equal(said[name], values)
    assert (said["lower"] <= said["minutes"]).all()
    assert (said["minutes"] < said["upper"]).all()

    signature = loaded.metadata.signature
    needed = [column.name for column in signature.inputs if column.required]
    assert needed == ["pickup", "pickup_zone", "dropoff_zone"]
    everything = {column.name for column in signature.inputs}
    assert everything == set(SCHEMA.names) - {"duration"}
    assert signature.outputs is not None

    with pytest.raises(mlflow.exceptions.MlflowException, match="dropoff_zone"):
        loaded.predict(trips.drop(columns="dropoff_zone"))


def test_a_models_folder_has_no_pickle_and_pinned_requirements(store: Path, model: Path) -> None:
    tracking.log_model(model, name="train green")
    (folder,) = (store / "artifacts" / "models").glob("*/artifacts")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"model.ubj", "features.json", "pyfunc.py", "MLmodel"} <= {path.name for path in files}
    for path in files:
        assert path.suffix in {".py", ".json", ".ubj", ".txt", ".yaml", ""}, path
        assert path.read_bytes()[:1] != b"\x80", path  # how every pickle since protocol 2 begins
    requirements = (folder / "requirements.txt").read_text().split()
    assert all("==" in line for line in requirements)
    assert {line.partition("==")[0] for line in requirements} >= {"mlflow", "pyarrow", "numpy"}
    assert any(line.startswith("xgboost") for line in requirements)


def test_a_failure_is_one_line(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = tmp_path / "nowhere"
    assert tracking.log_model([nowhere], name="evaluate") is None
    assert len(caplog.messages) == 1
    assert all("\n" not in message and "nowhere" in message for message in caplog.messages)
    assert [run.info.status for run in runs(store)] == ["FAILED"]


# -- what a run came from ------------------------------------------------------------------------

LOCK = """
schema: '2.0'
stages:
  evaluate:
    cmd: python src/stages evaluate
    outs:
    - {path: metrics/evaluation.json, hash: md5, md5: ee, size: 1}
  ingest:
    cmd: python src/stages ingest
    outs:
    - {path: data/trips, hash: md5, md5: aa.dir, size: 9, nfiles: 2}
  train:
    cmd: python src/stages train
    outs:
    - {path: models/model.ubj, hash: md5, md5: dd, size: 1}
"""


def git(root: Path, *words: str) -> None:
    command = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(root), *words]
    subprocess.run(command, check=True, capture_output=True)


def test_tags_say_what_a_run_came_from(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "dvc.lock").write_text(LOCK)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    found = tracking.tags("train", months="2021-01 … 2021-02", root=tmp_path)
    commit = found.pop("git.commit")
    assert len(commit) == 40
    # The stages before it, as they have just been written; not itself, nor those that follow.
    assert found == {"stage": "train", "months": "2021-01 … 2021-02", "dvc.data/trips": "aa.dir"}
    (tmp_path / "dvc.lock").write_text(LOCK.replace("aa", "ab"))
    found = tracking.tags("evaluate", root=tmp_path)
    assert found["git.commit"] == f"{commit}-dirty"
    assert found["dvc.data/trips"] == "ab.dir"
    assert found["dvc.models/model.ubj"] == "dd"


def test_tags_do_without_git_and_lock(tmp_path: Path) -> None:
    assert tracking.tags("ingest", root=tmp_path) == {"stage": "ingest"}


def test_the_example_is_what_the_signature_takes() -> None:
    names = {column.name for column in tracking.signature().inputs}
    assert set(tracking.example().columns) <= names
    assert json.loads(tracking.example().to_json())  # what a server would be sent
