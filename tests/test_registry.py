"""The registry, on SQLite stores in temporary folders: one is migrated, the tests copy it."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import candidates
from tests.candidates import BETTER, GOOD, POOR
from tests.faults.conftest import ALL

from trip_duration import params, prediction, registry, tracking
from trip_duration.errors import TripDurationError
from trip_duration.files import read_json, write_json
from trip_duration.orchestration import OURS
from trip_duration.registry import MODEL, Registered, Served

SOURCE = Path(registry.__file__).parents[1]
KILLED = Path(__file__).with_name("killed.py")
SEED = 20240101
KILLS = 40 if ALL else 3  # of each action

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")  # MLflow's own


@pytest.fixture(scope="module", autouse=True)
def _own_store() -> Iterator[None]:
    """Whatever the environment names, the stores are those of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", OURS):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[int, Path]:
    """Evaluated models, by their rounds of boosting: the more, the better."""
    text = (root / "params.yaml").read_text(encoding="utf-8")
    folder = tmp_path_factory.mktemp("workspaces")
    return {
        rounds: candidates.write(folder / str(rounds), text, rounds)
        for rounds in (POOR, GOOD, BETTER)
    }


@pytest.fixture(scope="module")
def first(workspaces: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose registry has one version, the champion."""
    root = tmp_path_factory.mktemp("first") / "root"
    root.mkdir()
    assert registry.register(root, workspaces[GOOD], say=print).promoted
    return root


@pytest.fixture
def house(first: Path, tmp_path: Path) -> Path:
    """A copy of it; the files of what is logged are in the same place as the first one's."""
    return candidates.copied(first, tmp_path / "house")


def quietly(house: Path, workspace: Path, **how: Any) -> Registered:
    return registry.register(house, workspace, say=lambda _: None, **how)


def versions(house: Path) -> dict[str, dict[str, str]]:
    """The tags of each version."""
    with registry._registry(house) as client:
        assert client is not None
        found = client.search_model_versions(f"name='{MODEL}'")
    return {str(version.version): version.tags for version in found}


def aliases(house: Path) -> dict[str, str]:
    with registry._registry(house) as client:
        assert client is not None
        found = client.get_registered_model(MODEL).aliases
    return {name: str(version) for name, version in found.items()}


# -- which model is served -----------------------------------------------------------------------


def test_where_there_is_no_store_mlflow_is_not_imported(workspaces: dict[int, Path]) -> None:
    code = """
import sys
from trip_duration import registry
root = sys.argv[1]
assert registry.champion(root) is None
assert registry.tags_of(root, "champion") is None
assert registry.chosen(root) == registry.local(root)
assert registry.params_of(root, None) is None
assert registry.params_of(root, registry.local(root))["max_depth"] == 4
assert "mlflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspaces[GOOD])],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (workspaces[GOOD] / ".mlflow").exists()


def test_the_model_in_models_is_called_by_its_content(
    workspaces: dict[int, Path], tmp_path: Path
) -> None:
    workspace = candidates.copied(workspaces[GOOD], tmp_path / "workspace")
    found = registry.local(workspace)
    assert found is not None
    assert found == Served(
        version=f"local-{found.digest}",
        folder=workspace / "models",
        digest=registry.digest(workspace / "models"),
        taxi="green",
        preset="metered",
        train_months=(candidates.TRAIN,),
    )
    (workspace / "models/intervals.json").write_text("{}")
    assert registry.digest(workspace / "models") != found.digest
    (workspace / "models/intervals.json").unlink()
    assert registry.local(workspace) is None
    with pytest.raises(
        TripDurationError, match=r"There is no model to serve in .*run `make train`"
    ):
        registry.chosen(workspace)


def test_the_champion_is_fetched_once_and_again_where_it_was_changed(
    house: Path, workspaces: dict[int, Path]
) -> None:
    found = registry.champion(house)
    assert found is not None
    assert found.folder == house / ".cache/registry/1"
    assert {path.name for path in found.folder.iterdir()} == set(prediction.FILES)
    assert (found.version, found.taxi, found.preset) == ("1", "green", "metered")
    assert found.train_months == (candidates.TRAIN,)
    assert found.digest == registry.digest(workspaces[GOOD] / "models")
    booster = found.folder / "model.ubj"
    before = booster.stat().st_ino
    assert registry.champion(house) == found
    assert booster.stat().st_ino == before
    booster.write_bytes(b"cut short")
    assert registry.chosen(house) == found
    assert registry.digest(found.folder) == found.digest
    assert [path.name for path in found.folder.parent.iterdir() if path.is_dir()] == ["1"]


def test_files_that_were_changed_in_the_registry_are_refused(house: Path) -> None:
    with registry._registry(house) as client:
        assert client is not None
        client.set_model_version_tag(MODEL, "1", "digest", "0" * 12)
    with pytest.raises(TripDurationError, match="and 000000000000 was registered"):
        registry.champion(house)
    assert [path.name for path in (house / ".cache/registry").iterdir()] == ["lock"]


def test_the_files_of_the_versions_fetched_last_are_kept(
    house: Path, workspaces: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = house / ".cache/registry"
    assert registry.champion(house) is not None
    quietly(house, workspaces[BETTER])
    second = registry.champion(house)
    assert second is not None
    assert {path.name for path in kept.iterdir() if path.is_dir()} == {"1", "2"}
    monkeypatch.setattr(registry, "KEPT", 1)
    registry._remove([second.folder])
    assert registry.champion(house) == second
    assert {path.name for path in kept.iterdir() if path.is_dir()} == {"2"}
    registry.rollback(house)
    first = registry.champion(house)
    assert first is not None
    assert registry.digest(first.folder) == first.digest
    assert {path.name for path in kept.iterdir() if path.is_dir()} == {"1"}


# -- registering ---------------------------------------------------------------------------------


def test_a_version_says_all_of_itself(first: Path, workspaces: dict[int, Path]) -> None:
    assert aliases(first) == {"champion": "1", "challenger": "1"}
    [(number, tags)] = versions(first).items()
    assert number == "1"
    assert tags["digest"] == registry.digest(workspaces[GOOD] / "models")
    assert tags["promoted"] == "true"
    names = ("source", "taxi", "preset", "settings", "rival", "notes")
    assert {name: tags[name] for name in names} == {
        "source": "simulated",
        "taxi": "green",
        "preset": "metered",
        "settings": "",
        "rival": "",
        "notes": "",
    }
    months = [tags[f"{split}_months"] for split in ("train", "validation", "test")]
    assert months == [candidates.TRAIN, candidates.VALIDATION, candidates.TEST]
    assert registry.params_of(first, registry.champion(first)) == {"max_depth": 4, "rounds": GOOD}
    errors = read_json(workspaces[GOOD] / "metrics/evaluation.json")["test"]["model"]
    assert float(tags["rmse"]) == pytest.approx(errors["rmse"], abs=1e-6)
    assert float(tags["rmse"]) < 0.9 * float(tags["baseline_rmse"])
    assert tags["champion_rmse"] == ""
    [entry] = registry.journal(first)
    assert entry["what"] == "promoted"
    assert (entry["version"], entry["previous"], entry["digest"]) == ("1", None, tags["digest"])
    assert entry["time"].endswith("+00:00")


def test_a_better_model_is_promoted_and_a_worse_one_is_kept(
    house: Path, workspaces: dict[int, Path]
) -> None:
    better = quietly(house, workspaces[BETTER], aliases=["model-2024-05-01", "dv-2024-05-01"])
    assert (better.version, better.created, better.promoted, better.rival) == ("2", True, True, "1")
    numbers = f"RMSE {better.verdict.rmse:.3f} minutes to the {better.verdict.champion_rmse:.3f}"
    assert better.sentence == (
        f"Version 2 is promoted to champion in place of version 1: {numbers} of version 1."
    )
    assert better.card.startswith("# Trip duration, green taxis, metered")
    assert aliases(house) == {
        "champion": "2",
        "challenger": "2",
        "model-2024-05-01": "2",
        "dv-2024-05-01": "2",
    }
    assert registry.tags_of(house, "model-2024-05-01")
    assert registry.tags_of(house, "model-2024-06-01") is None
    tags = registry.tags_of(house, "model-2024-05-01")
    assert tags
    assert tags["taxi"] == "green"
    assert registry.tags_of(house, "model-2024-06-01") is None

    worse = quietly(house, workspaces[POOR])
    assert (worse.version, worse.promoted, worse.champion) == ("3", False, "2")
    assert worse.sentence.startswith("Version 3 is kept as challenger and version 2 stays champion")
    assert "that of the champion" in worse.sentence
    assert "\n" not in worse.sentence
    assert aliases(house) | {"champion": "2", "challenger": "3"} == aliases(house)
    assert [(entry["what"], entry["version"]) for entry in registry.journal(house)] == [
        ("promoted", "1"),
        ("promoted", "2"),
        ("kept", "3"),
    ]


def test_registering_again_changes_nothing(house: Path, workspaces: dict[int, Path]) -> None:
    before = versions(house), aliases(house), registry.journal(house)
    said: list[str] = []
    again = registry.register(house, workspaces[GOOD], say=said.append)
    assert (again.version, again.created, again.promoted) == ("1", False, True)
    assert said == [f"These files are version 1 already (digest {again.digest})."]
    assert (versions(house), aliases(house), registry.journal(house)) == before


def test_a_version_whose_months_are_elsewhere_now_says_so(
    house: Path, workspaces: dict[int, Path], tmp_path: Path
) -> None:
    workspace = candidates.copied(workspaces[GOOD], tmp_path / "workspace")
    text, _ = params.override((workspace / "params.yaml").read_text(), {"data.source": "tlc"})
    (workspace / "params.yaml").write_text(text)
    assert not quietly(house, workspace).created
    assert versions(house)["1"]["source"] == "tlc"


def test_other_rules_or_another_champion_judge_again(
    house: Path, workspaces: dict[int, Path], tmp_path: Path
) -> None:
    kept = quietly(house, workspaces[POOR])
    assert not kept.promoted
    loose = candidates.copied(workspaces[POOR], tmp_path / "loose")
    text = (loose / "params.yaml").read_text()
    assert quietly(house, loose).verdict == kept.verdict  # nothing was changed yet
    better = quietly(house, workspaces[BETTER])
    assert better.promoted
    again = quietly(house, workspaces[POOR])
    assert (again.version, again.created, again.rival) == ("2", False, "3")
    changed, _ = params.override(text, {"promotion.slice_bound": 10.0})
    (loose / "params.yaml").write_text(changed)
    wider = quietly(house, loose)
    assert {check.bound for check in wider.verdict.checks if check.slice != "all trips"} == {10.0}
    assert [entry["what"] for entry in registry.journal(house)] == [
        "promoted",
        "kept",
        "promoted",
        "kept",
        "kept",
    ]


def test_what_the_evaluate_stage_logged_is_the_version(
    house: Path, workspaces: dict[int, Path], tmp_path: Path
) -> None:
    workspace = candidates.copied(workspaces[BETTER], tmp_path / "workspace")
    files = [workspace / "models" / name for name in prediction.FILES]
    lock = {f"models/{path.name}": registry._md5(path) for path in files}
    with registry._environment(house):
        logged = tracking.log_model(
            files, name="evaluate", tags={f"dvc.{path}": md5 for path, md5 in lock.items()}
        )
    found = quietly(house, workspace)
    with registry._registry(house) as client:
        assert client is not None
        assert client.get_model_version(MODEL, found.version).source == logged


def test_a_month_that_calibrates_may_judge_where_there_is_no_other(
    house: Path, root: Path, tmp_path: Path
) -> None:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    months = {"data.test": []}
    found = quietly(house, candidates.write(tmp_path / "workspace", text, BETTER, **months))
    assert found.verdict.months == (candidates.VALIDATION,)
    assert found.verdict.notes[0].startswith("Judged on validation months; every 3 of their days")


def test_months_that_chose_the_rounds_do_not_judge(house: Path, root: Path, tmp_path: Path) -> None:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    how = {"data.test": [], "train.stop_on": "validation"}
    workspace = candidates.write(tmp_path / "workspace", text, BETTER, **how)
    with pytest.raises(TripDurationError, match="the number of rounds was found on the very trips"):
        quietly(house, workspace)
    assert list(versions(house)) == ["1"]


def test_a_champion_of_other_features_is_compared_and_said(
    house: Path, workspaces: dict[int, Path], tmp_path: Path
) -> None:
    workspace = candidates.copied(workspaces[BETTER], tmp_path / "workspace")
    with registry._registry(house) as client:
        assert client is not None
        client.set_model_version_tag(MODEL, "1", "preset", "booking")
        client.set_model_version_tag(MODEL, "1", "taxi", "yellow")
        client.set_model_version_tag(MODEL, "1", "train_months", candidates.TEST)
    notes = quietly(house, workspace).verdict.notes
    assert notes[0] == "The champion was made for yellow taxis."
    assert notes[1].startswith("The champion has the features booking, and this model metered")
    assert notes[2].startswith(f"The champion learned from {candidates.TEST}")


def test_a_champion_that_cannot_be_read_is_not_compared_with(
    house: Path, workspaces: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = prediction.load

    def fails(folder: str | Path) -> prediction.Model:
        if ".cache" in str(folder):
            raise TripDurationError("features.json has the format 1: expected 2.")
        return load(folder)

    monkeypatch.setattr(prediction, "load", fails)
    found = quietly(house, workspaces[BETTER])
    assert found.promoted
    assert found.verdict.champion_rmse is None
    assert found.verdict.notes[0] == (
        "The champion, version 1, is not compared with: features.json has the format 1: expected 2."
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "models/model.ubj").unlink(), "There is no evaluated model in"),
        (lambda folder: shutil.rmtree(folder / "metrics"), "There is no evaluated model in"),
        (
            lambda folder: write_json({"validation": {}}, folder / "metrics/evaluation.json"),
            "has no errors of the split test",
        ),
        (
            lambda folder: write_json(
                {"test": {"model": {"rmse": 1.0}}}, folder / "metrics/evaluation.json"
            ),
            r"says an RMSE of 1\.000 minutes and its model has .*it is of another model",
        ),
    ],
)
def test_what_was_not_evaluated_is_refused(
    house: Path, workspaces: dict[int, Path], tmp_path: Path, spoil: Any, said: str
) -> None:
    workspace = candidates.copied(workspaces[BETTER], tmp_path / "workspace")
    spoil(workspace)
    with pytest.raises(TripDurationError, match=said) as caught:
        quietly(house, workspace)
    assert "\n" not in str(caught.value)
    assert aliases(house)["champion"] == "1"


def test_a_registry_that_fails_is_one_sentence(
    house: Path, workspaces: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        TripDurationError, match=r"registry at http://127\.0\.0\.1:9 failed"
    ) as caught:
        registry.champion(house)
    assert "\n" not in str(caught.value)


# -- the way back --------------------------------------------------------------------------------


def test_a_rollback_goes_back_one_at_a_time_and_stays(
    house: Path, workspaces: dict[int, Path]
) -> None:
    quietly(house, workspaces[BETTER])
    done = registry.rollback(house)
    assert (done.version, done.previous) == ("1", "2")
    served = registry.champion(house)
    assert served is not None
    assert served.version == "1"
    entry = registry.journal(house)[-1]
    assert (entry["what"], entry["version"], entry["previous"]) == ("rolled back", "1", "2")
    assert entry["digest"] == served.digest

    again = quietly(house, workspaces[BETTER])  # what a person took back stays back
    assert (again.version, again.promoted, again.champion) == ("2", False, "1")
    assert again.sentence.endswith("is champion no longer: version 1 stays champion.")
    with pytest.raises(TripDurationError, match="Version 1 has no champion before it to go back"):
        registry.rollback(house)


def test_without_a_champion_there_is_no_way_back(tmp_path: Path) -> None:
    with pytest.raises(TripDurationError, match="There is no champion to roll back"):
        registry.rollback(tmp_path)


def test_one_that_was_rolled_back_is_passed_over(house: Path, workspaces: dict[int, Path]) -> None:
    quietly(house, workspaces[BETTER])
    with registry._registry(house) as client:
        assert client is not None
        client.set_model_version_tag(MODEL, "1", "rolled_back", "2024-05-01")
        client.set_model_version_tag(MODEL, "1", "previous", "2")  # and would go round for ever
    with pytest.raises(TripDurationError, match="Version 2 has no champion before it"):
        registry.rollback(house)


def test_a_champion_that_was_deleted_is_said(house: Path, workspaces: dict[int, Path]) -> None:
    quietly(house, workspaces[BETTER])
    with registry._registry(house) as client:
        assert client is not None
        client.delete_model_version(MODEL, "1")
    with pytest.raises(TripDurationError, match=r"Version 1, .*is no longer in the registry"):
        registry.rollback(house)
    assert aliases(house)["champion"] == "2"


def test_a_line_that_was_cut_short_spoils_no_other(
    house: Path, workspaces: dict[int, Path]
) -> None:
    with (house / registry.JOURNAL).open("ab") as file:
        file.write(b'{"what": "promo')
    quietly(house, workspaces[BETTER])
    assert [entry["version"] for entry in registry.journal(house)] == ["1", "2"]


def test_one_that_became_champion_again_is_gone_back_to(
    house: Path, workspaces: dict[int, Path], root: Path, tmp_path: Path
) -> None:
    with registry._registry(house) as client:
        assert client is not None
        client.set_model_version_tag(MODEL, "1", "rolled_back", "2024-05-01")  # and made champion
    assert quietly(house, workspaces[BETTER]).promoted
    assert "rolled_back" not in versions(house)["1"]
    assert registry.rollback(house).version == "1"


# -- kills ---------------------------------------------------------------------------------------


def killed(root: Path, action: str, workspace: Path) -> list[dict[str, Any]]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "ROOT": str(root),
        "ACTION": action,
        "WORKSPACE": str(workspace),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(KILLED), str(SEED), str(KILLS)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3500 if ALL else 1100,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(3600 if ALL else 1200)
@pytest.mark.parametrize("action", ["register", "rollback"])
def test_a_kill_at_any_moment_is_made_good(
    house: Path, workspaces: dict[int, Path], action: str
) -> None:
    registry.champion(house)
    if action == "rollback":
        quietly(house, workspaces[BETTER])
    shutil.rmtree(house / ".cache")
    whole, *found = killed(house, action, workspaces[BETTER])
    assert whole["signal"] == 0
    expected = whole["between"]
    assert expected["aliases"]["champion"] == ("2" if action == "register" else "1")
    assert expected["pending"] == 0
    assert len(expected["versions"]) == 2
    assert len(found) == KILLS
    for one in found:
        assert one["signal"] == 9, one
        # Whoever looks meanwhile finds a champion that is whole.
        assert one["between"]["served"] in ("1", "2"), one
        assert one["between"]["served"] == one["between"]["aliases"]["champion"], one
        assert one["after"] == expected, one


def test_a_version_has_its_aliases_once_all_else_is_done(
    house: Path, workspaces: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for moment in ("_judge", "_write_down"):
        with monkeypatch.context() as patch:
            patch.setattr(registry, moment, killed)
            with pytest.raises(KeyboardInterrupt):
                quietly(house, workspaces[BETTER], aliases=["model-2024-06"])
        assert registry.tags_of(house, "model-2024-06") is None
    assert quietly(house, workspaces[BETTER], aliases=["model-2024-06"]).promoted
    assert registry.tags_of(house, "model-2024-06")


# -- following -----------------------------------------------------------------------------------


def test_those_who_follow_see_each_change(
    house: Path, workspaces: dict[int, Path], tmp_path: Path
) -> None:
    stop = threading.Event()
    following = registry.follow(house, 0.01, str, stop)
    assert next(following).version == "1"
    quietly(house, workspaces[BETTER])
    assert next(following).version == "2"
    registry.rollback(house)
    found = next(following)
    assert (found.version, found.folder) == ("1", house / ".cache/registry/1")
    stop.set()
    assert list(following) == []


def test_a_registry_that_fails_keeps_what_is_served(
    house: Path,
    workspaces: dict[int, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    following = registry.follow(house, 0.01, said.append)
    assert next(following).version == "1"
    quietly(house, workspaces[BETTER])
    current, times = registry._current, iter(range(5))

    def fails(*given: Any) -> Served:
        if next(times, None) is not None:
            raise TripDurationError("MLflow's registry failed.")
        return current(*given)

    monkeypatch.setattr(registry, "_current", fails)
    assert next(following).version == "2"
    assert said == ["MLflow's registry failed. Until then it is 1 that is served."]
    monkeypatch.setattr(registry, "_current", current)
    quietly(house, workspaces[GOOD])
    registry.rollback(house)
    assert next(following).version == "1"
    assert said[1:] == [""]  # it works again


def test_a_registry_that_fails_at_first_leaves_the_champion_found_last(
    house: Path, workspaces: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(workspaces[POOR] / "models", house / "models")
    shutil.copy(workspaces[POOR] / "params.yaml", house / "params.yaml")
    known = registry.champion(house)
    store = house / ".mlflow/mlflow.db"
    whole = store.read_bytes()
    store.write_bytes(b"no database at all" * 100)
    said: list[str] = []
    stop = threading.Event()
    following = registry.follow(
        house, 0.01, lambda trouble: (said.append(trouble), stop.set()), stop
    )
    assert list(following) == [known]
    assert "Until then it is 1 that is served." in said[0]

    with monkeypatch.context() as patch:  # another registry never had it
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{house / 'another.db'}")
        assert registry._remembered(house) is None
    store.write_bytes(whole)
    with registry._registry(house) as client:
        assert client is not None
        client.delete_registered_model_alias(MODEL, "champion")
    assert registry.champion(house) is None
    assert registry._remembered(house) is None


def test_without_a_registry_the_model_in_models_is_followed_once_it_is_whole(
    workspaces: dict[int, Path], tmp_path: Path
) -> None:
    workspace = candidates.copied(workspaces[GOOD], tmp_path / "workspace")

    def lock() -> None:
        files = {
            f"models/{name}": registry._md5(workspace / "models" / name)
            for name in prediction.FILES
        }
        outs = [{"path": path, "md5": md5} for path, md5 in files.items()]
        write_json({"stages": {"train": {"deps": [], "outs": outs}}}, workspace / "dvc.lock")

    lock()
    following = registry.follow(workspace, 0.01, str)
    before = next(following)
    assert before == registry.local(workspace)
    shutil.copy(workspaces[BETTER] / "models/model.ubj", workspace / "models/model.ubj")
    assert registry._current(workspace, before) == before  # dvc.lock does not know it yet
    for use in (
        registry.chosen,
        registry.register,
        lambda root: next(registry.follow(root, 1, str)),
    ):
        with pytest.raises(TripDurationError, match="which goes on from there"):
            use(workspace)
    whole = (workspace / "dvc.lock").read_text()
    for text in ("<<<<<<< HEAD\n" + whole, "", "[]", "stages: {}"):
        (workspace / "dvc.lock").write_text(text)
        with pytest.raises(TripDurationError, match="which goes on from there"):
            registry.chosen(workspace)
    shutil.copy(workspaces[BETTER] / "models/intervals.json", workspace / "models/intervals.json")
    lock()
    after = next(following)
    assert after == registry.local(workspace) != before


def test_the_process_that_follows_says_it_in_lines_and_ends_with_its_input(
    house: Path, workspaces: dict[int, Path]
) -> None:
    command = [sys.executable, "-m", "trip_duration.registry", "follow", str(house), "0.05"]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["version"] == "1"
        assert said["folder"] == str(house / ".cache/registry/1")
        assert said["train_months"] == [candidates.TRAIN]
        quietly(house, workspaces[BETTER])
        assert json.loads(process.stdout.readline())["version"] == "2"
        process.stdin.close()
        assert process.wait(timeout=20) == 0
        assert process.stdout.read() == ""


def test_the_process_that_finds_no_model_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trip_duration.registry", "follow", str(tmp_path), "1"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("There is no model to serve in")
    assert "Traceback" not in done.stderr
