"""Whole runs through DVC: what they write, what reruns, how they end when something is wrong."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pipeline.conftest import Clone

STAGES = ["ingest", "featurize", "search", "train", "evaluate"]


def reruns(clone: Clone) -> list[str]:
    """The stages that DVC would run now; what follows them runs if what they write changes."""
    said = clone.run("dvc", "repro", "--dry").stdout
    return [stage for stage in STAGES if f"Running stage '{stage}'" in said]


def test_training_ends_with_a_table(trained: Clone) -> None:
    log = (trained.folder.parent / "train.log").read_text()
    assert [stage for stage in STAGES if f"Running stage '{stage}'" in log] == STAGES
    for words in ("6,000 read", "4 trials", "this model", "the zone pair's median", "the mean"):
        assert words in log
    assert "of the test trips lie in theirs (90% should)" in log
    for stage in STAGES:
        assert f"{stage} –" not in log  # each has its seconds
    assert "Traceback" not in log
    assert "WARN" not in log


def test_training_writes_what_the_design_says(trained: Clone) -> None:
    ingest = json.loads(trained.read("metrics/ingest.json"))
    evaluation = json.loads(trained.read("metrics/evaluation.json"))
    assert ingest["read"] == ingest["kept"] + sum(ingest["set_aside"].values()) == 6_000
    rmse = evaluation["test"]["model"]["rmse"]
    assert ingest["noise_floor"]["metered"] < rmse
    assert rmse < evaluation["test"]["baselines"]["pair_median"]["rmse"]
    assert rmse < evaluation["test"]["baselines"]["mean"]["rmse"]
    best = json.loads(trained.read("search/best_params.json"))
    lines = trained.read("search/trials.csv").splitlines()
    assert len(lines) == 5
    assert min(float(line.split(",")[1]) for line in lines[1:]) == best["rmse"]
    for name in (
        "models/model.ubj",
        "models/features.json",
        "data/features/test/green-2024-04.parquet",
    ):
        assert (trained.folder / name).stat().st_size > 0


def test_the_intervals_hold_about_as_many_trips_as_they_should(trained: Clone) -> None:
    evaluation = json.loads(trained.read("metrics/evaluation.json"))
    for split in ("validation", "test"):
        held = evaluation[split]["intervals"]
        assert held["level"] == 0.9
        assert held["coverage"] == pytest.approx(0.9, abs=0.05)  # some hundred trips calibrate
        assert 0 < held["width"] < 1.2 * held["constant_width"]  # of so few trips no narrower
        assert len(held["thirds"]) == 3
        without = evaluation[split]["without_distance"]
        assert without["trips"] == evaluation[split]["trips"]
        assert without["model"]["rmse"] > evaluation[split]["model"]["rmse"]
        assert without["intervals"]["coverage"] == pytest.approx(0.9, abs=0.05)
        assert without["intervals"]["width"] > held["width"]
    for name, slices in (("hour", 24), ("borough", 3)):
        header, *lines = trained.read(f"plots/coverage_by_{name}.csv").splitlines()
        assert header.replace('"', "") == f"{name},trips,coverage,width"
        assert len(lines) >= slices
        assert sum(int(line.split(",")[1]) for line in lines) == evaluation["test"]["trips"]


def test_the_model_says_why(trained: Clone) -> None:
    assert "distance" in trained.command("explain").stdout
    trip = {"pickup": "2024-05-03 08:30", "pickup_zone": 74, "dropoff_zone": 42}
    said = trained.command("explain", TRIP=json.dumps(trip | {"trip_distance": 1.9})).stdout
    assert "This trip: " in said
    assert "with a chance of 90% between " in said
    done = trained.command("explain", check=False, TRIP=json.dumps(trip | {"pickup_zon": 7}))
    assert done.returncode == 1
    assert "did you mean 'pickup_zone'?" in done.stderr


def test_nothing_reruns_when_nothing_changed(trained: Clone) -> None:
    assert reruns(trained) == []
    assert trained.git("status", "--porcelain") == ""
    said = trained.command("train").stdout
    assert "Running stage" not in said
    assert "ingest –, featurize –, search –, train –, evaluate –" in said


LOADED = """
import json, mlflow, pathlib
import numpy as np, pyarrow.parquet as pq
mlflow.set_tracking_uri("sqlite:///.mlflow/mlflow.db")
experiment = mlflow.get_experiment_by_name("trip-duration").experiment_id
[model] = mlflow.search_logged_models([experiment], max_results=1, output_format="list")
trips = pq.read_table("data/trips/green-2024-04.parquet").to_pandas()
said = mlflow.pyfunc.load_model(model.model_uri).predict(trips.drop(columns="duration"))
minutes, inside = said["minutes"], trips["duration"].between(said["lower"], said["upper"])
runs = mlflow.search_runs([experiment], output_format="list")
parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
print(json.dumps({
    "rmse": float(np.sqrt(np.mean((minutes - trips["duration"]) ** 2))),
    "coverage": float(inside.mean()),
    "names": sorted(run.info.run_name.split()[0] for run in parents),
    "trials": len(runs) - len(parents),
    "files": [path.suffix for path in pathlib.Path(".mlflow/artifacts").rglob("*.*")],
}))
"""


def test_mlflow_has_the_trials_and_a_model_that_takes_raw_trips(trained: Clone) -> None:
    said = trained.run(sys.executable, "-c", LOADED).stdout
    found = json.loads(said.splitlines()[-1])
    evaluation = json.loads(trained.read("metrics/evaluation.json"))
    assert found["rmse"] == pytest.approx(evaluation["test"]["model"]["rmse"], abs=1e-6)
    held = evaluation["test"]["intervals"]["coverage"]
    assert found["coverage"] == pytest.approx(held, abs=1e-6)
    assert (found["names"], found["trials"]) == (["evaluate", "search"], 4)
    assert not {".pkl", ".pickle", ".cloudpickle", ".joblib"} & set(found["files"])


@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        ({"search.max_evals": 5}, "search"),
        ({"train.early_stopping_rounds": 49}, "train"),
        ({"features.preset": "booking"}, "featurize"),
        ({"clean.max_minutes": 50}, "ingest"),
    ],
)
def test_a_changed_setting_reruns_what_reads_it_and_nothing_before(
    trained: Clone, overrides: dict[str, object], first: str
) -> None:
    trained.change(overrides)
    try:
        assert reruns(trained)[0] == first
    finally:
        trained.git("checkout", "params.yaml")


def test_changed_plots_rerun_evaluate_alone(trained: Clone) -> None:
    with (trained.folder / "src/trip_duration/plots.py").open("a") as file:
        file.write("# changed\n")
    try:
        assert reruns(trained) == ["evaluate"]
    finally:
        trained.git("checkout", "src")


def test_a_refit_learns_from_validation_and_is_judged_on_test_alone(trained: Clone) -> None:
    before = trained.read("metrics/train.json")
    said = trained.command("train", SET="train.refit=true").stdout
    assert [stage for stage in STAGES if f"Running stage '{stage}'" in said] == STAGES[3:]
    assert list(json.loads(trained.read("metrics/evaluation.json"))) == ["test"]
    assert trained.read("metrics/train.json") == before  # the rounds are those found before
    trained.git("checkout", ".")
    trained.run("dvc", "checkout")
    assert reruns(trained) == []


def test_an_experiment_takes_its_settings_and_can_be_undone(trained: Clone) -> None:
    said = trained.command("evaluate", SET="search.max_evals=2 search.parallel_trials=1").stdout
    assert [stage for stage in STAGES if f"Running stage '{stage}'" in said] == STAGES[2:]
    assert "2 trials" in said
    assert "the workspace holds it" in said
    assert "max_evals: 2 " in trained.read("params.yaml")
    assert len(trained.read("search/trials.csv").splitlines()) == 3
    assert trained.run("dvc", "exp", "list", "--name-only").stdout.strip()
    trained.git("checkout", ".")
    trained.run("dvc", "checkout")
    assert reruns(trained) == []


def test_the_courses_features_bring_its_own_model_and_test_months_may_be_missing(
    trained: Clone,
) -> None:
    said = trained.command(
        "train", SET="features.preset=course data.test=[] train.params={max_depth: 3}"
    ).stdout
    assert "Running stage 'ingest'" in said
    assert "the course's model" in said
    evaluation = json.loads(trained.read("metrics/evaluation.json"))
    assert list(evaluation) == ["validation"]
    assert set(evaluation["validation"]["baselines"]) == {"course", "mean", "pair_median"}
    course = json.loads(trained.read("models/course/fit.json"))
    assert course["fitted"]
    assert course["rmse"] == pytest.approx(
        evaluation["validation"]["baselines"]["course"]["rmse"], abs=1e-4
    )
    best = json.loads(trained.read("search/best_params.json"))
    assert best["params"]["max_depth"] == 3
    trained.git("checkout", ".")
    trained.run("dvc", "checkout")
    assert reruns(trained) == []


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ("search.max_eval=2", "search.max_eval"),
        ("search.max_evals=two", "search.max_evals"),
        ("data.train=[2021-13]", "data.train[0]"),
        ("data.test=[2024-01]", "2024-01"),
        ("search.space={}", "search.space"),
    ],
)
def test_a_wrong_setting_ends_before_anything_runs(
    trained: Clone, overrides: str, key: str
) -> None:
    done = trained.command("train", check=False, SET=overrides)
    assert done.returncode == 1
    assert done.stdout == ""
    assert key in done.stderr
    assert done.stderr.count("\n") == 1
    assert trained.git("status", "--porcelain") == ""


def test_a_source_that_fails_is_one_sentence_and_puts_the_settings_back(trained: Clone) -> None:
    done = trained.command(
        "ingest", check=False, SET="data.source=../none/{taxi}_{year}-{month}.parquet"
    )
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "../none/green_2024-01.parquet" in said
    assert "data.source" in said
    assert "Traceback" not in said
    assert trained.git("status", "--porcelain", "params.yaml") == ""
    trained.git("checkout", ".")
    trained.run("dvc", "checkout")


def test_a_python_without_the_packages_says_what_to_do(trained: Clone) -> None:
    done = trained.run(sys.executable, "-S", "src/stages", "ingest", check=False)
    assert done.returncode == 1
    assert "activate the environment" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_stage_names_those_there_are(trained: Clone) -> None:
    done = trained.run(sys.executable, "src/stages", "tain", check=False)
    assert done.returncode == 1
    assert "ingest, featurize, search, train, evaluate" in done.stderr


def test_bins_in_files_give_the_same_model(
    make_clone: Callable[[Path], Clone], tmp_path: Path
) -> None:
    clone = make_clone(tmp_path / "clone")
    clone.change({"search.max_evals": 0})
    made = []
    for limit in (1_000_000, 500):
        clone.change({"train.rows_in_memory": limit})
        clone.run("dvc", "repro", "train")
        files = [clone.folder / "models" / name for name in ("model.ubj", "intervals.ubj")]
        made.append([path.read_bytes() for path in files])
    assert made[0] == made[1]
    assert not list((clone.folder / ".cache/matrices").glob("*"))
