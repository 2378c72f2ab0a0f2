"""Settings: every wrong one ends in a sentence that names its key."""

import re
from pathlib import Path

import pytest

from trip_duration import params
from trip_duration.errors import SettingsError


@pytest.fixture(scope="session")
def text(root: Path) -> str:
    return (root / "params.yaml").read_text(encoding="utf-8")


def test_the_committed_settings_are_right(root: Path) -> None:
    chosen = params.load(root / "params.yaml")
    assert chosen.data.source == "simulated"
    assert chosen.data.months == sorted(chosen.data.months)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("serch.max_evals=3", "serch.max_evals is no setting: did you mean search?"),
        ("search.max_eval=3", "search.max_eval is no setting: did you mean max_evals?"),
        ("data.simulated.trips.x=3", "data.simulated.trips.x is no setting: expected one of"),
        ("seed.x=3", "seed.x is no setting"),
        ("search.max_evals=many", "search.max_evals is 'many': expected a whole number."),
        ("search.max_evals=1.5", "search.max_evals is 1.5: expected a whole number."),
        ("seed=true", "seed is True: expected a whole number."),
        ("seed=-1", "seed is -1: expected a number greater than or equal to 0."),
        ("data.train=[2021-13]", r"data.train[0]: 2021-13 is not a month"),
        ("data.train=[2024-01-05]", "data.train[0] is '2024-01-05': expected a month as text"),
        ("data.train=[2024-13-01]", "that is no valid YAML value"),
        ("data.train=2024-01", "data.train is '2024-01': expected a list, like [2021-01]."),
        ("data.train=[]", "data.train is []: expected at least one entry."),
        ("data.train=[2024-04]", "2024-04 is in data.train and data.test"),
        ("data.test=[2024-05, 2024-05]", "2024-05 is in data.test twice"),
        ("data.train=[2024-05]", "must follow those of data.train"),
        (
            "engine.dask_scheduler=10.0.0.5:8786",
            "engine.dask_scheduler is no address of a scheduler: expected one like tcp://",
        ),
        ("engine.dask_scheduler=tcp://me:word@host:8786", "is no address of a scheduler"),
        ("engine.dask_scheduler=tcp://host:99999", "is no address of a scheduler"),
        ("engine.storage=bucket/folder", "engine.storage is no URL: expected one like s3://"),
        ("engine.storage=s3://me:word@host/x", "credentials come from the environment"),
        ("engine.storage=memory://x", "which each process has for itself"),
        ("engine.distributed_training=true", "engine.runner is local: set engine.runner=dask"),
        ("engine.workers=0", "engine.workers is 0: expected a number greater than or equal to 1."),
        ("data.taxi=red", "data.taxi is 'red': expected 'yellow', 'green', 'fhv' or 'fhvhv'."),
        (
            "data.source=trips.parquet",
            "data.source is 'trips.parquet': expected simulated, tlc, or",
        ),
        ("data.source=x/{year}-{month}-{day}", "data.source names the unknown field {day}"),
        ("data.source=x/{taxi}", "data.source is 'x/{taxi}'"),
        ("data.source=", "data.source is None: expected text."),
        ("search.space={}", "search.space is empty"),
        ("search.space.max_dept={uniformint: [1, 2]}", "did you mean max_depth?"),
        ("search.space.nthread={uniformint: [1, 2]}", "search.space has 'nthread'"),
        ("search.space.max_depth={uniformin: [1, 2]}", "did you mean uniformint?"),
        ("search.space.max_depth={uniformint: [1.5, 2]}", "expected whole numbers"),
        ("search.space.max_depth={uniformint: [3, 2]}", "expected the lower bound first"),
        ("search.space.max_depth={uniform: [1]}", "expected 2 numbers"),
        ("search.space.max_depth={quniform: [1, 9, 0]}", "expected a step above 0"),
        ("search.space.reg_alpha={normal: [1, 0]}", "expected a spread above 0"),
        ("search.space.reg_alpha={loguniform: [1, 1000]}", "natural logarithms"),
        ("search.space.max_depth={choice: []}", "expected at least one value"),
        ("search.space.objective={choice: [reg:square]}", "expected count:poisson"),
        ("search.space.max_depth={}", "search.space.max_depth has 0 distributions"),
        ("search.space.max_depth=3", "search.space.max_depth is 3: expected a mapping"),
        ("search.reduction_factor=1", "is 1: expected a number greater than or equal to 2."),
        ("search.first_rung=0", "search.first_rung is 0: expected a number greater than 0."),
        ("search.max_bin=1", "search.max_bin is 1: expected a number greater than or equal to 2."),
        ("search.sample_rows=some", "search.sample_rows is 'some': expected a whole number."),
        ("search.points_to_evaluate=[{max_dept: 3}]", "did you mean max_depth?"),
        ("search.points_to_evaluate=[{max_depth: 99}]", "which search.space cannot draw"),
        ("search.points_to_evaluate=[{max_depth: deep}]", "[0].max_depth is 'deep': expected"),
        (
            "search.space.grow_policy={choice: [depthwise]} "
            "search.points_to_evaluate=[{grow_policy: lossguide}]",
            "grow_policy is 'lossguide': expected one of ['depthwise']",
        ),
        ("train.refit=true data.test=[]", "train.refit is true and data.test has no months"),
        ("train.stop_on=test", "train.stop_on is 'test': expected 'inside' or 'validation'."),
        ("train.half_life=0", "train.half_life is 0: expected a number greater than 0."),
        ("features.geometry=flat", "features.geometry is 'flat': expected 'map' or 'learned'."),
        ("intervals.level=90", "intervals.level is 90: expected a number less than or equal to"),
        ("serve.port=0", "serve.port is 0: expected a number greater than or equal to 1."),
        ("serve.host=http://127.0.0.1", "serve.host is 'http://127.0.0.1': expected an address"),
        ("serve.max_trips=0", "serve.max_trips is 0: expected a number greater than or equal to 1"),
        ("serve.max_bytes=1", "serve.max_bytes is 1: expected a number greater than or equal to"),
        ("serve.poll_seconds=0", "serve.poll_seconds is 0"),
        ("intervals.calibration_every=1", "expected a number greater than or equal to 2"),
        ("promotion.over_baselines=10", "promotion.over_baselines is 10: expected a number less"),
        ("promotion.over_champion=-0.1", "promotion.over_champion is -0.1: expected a number gr"),
        ("promotion.slice_bound=wide", "promotion.slice_bound is 'wide': expected a number."),
        ("promotion.slice_trips=0", "promotion.slice_trips is 0: expected a number greater than"),
        ("promotion.coverage_within=0", "promotion.coverage_within is 0: expected a number great"),
        ("promotion.margin=0.1", "promotion.margin is no setting: expected one of"),
        (
            "monitor.much_share=2",
            "monitor.much_share is 2: expected a number less than or equal to",
        ),
        ("monitor.sample_rows=1", "expected a number greater than or equal to 100"),
        ("monitor.much_error=0", "monitor.much_error is 0: expected a number greater than 0."),
        (
            "train.params.max_depth=deep",
            "train.params.max_depth is 'deep': expected a whole number from 0",
        ),
        ("train.params.depth=3", "train.params has 'depth'"),
        ("clean.min_minutes=70", "clean.min_minutes is 70 and clean.max_minutes 60"),
        ("clean.max_minutes=.inf", "clean.max_minutes: expected a finite number"),
        ("features.preset=custom", "features.categorical and features.numerical are both empty"),
        ("features.categorical=[PU_DO]", "set features.preset=custom to use PU_DO"),
        ("data=3", "data is 3: expected a group of settings."),
        ("max_evals", "SET has 'max_evals': expected key=value pairs"),
        ("seed=1 seed=2", "SET has seed twice"),
        ("data.train=[2024-01", "data.train is '[2024-01': that is no valid YAML value."),
    ],
)
def test_a_wrong_setting_is_one_sentence(text: str, overrides: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        params.override(text, params.parse_overrides(overrides))
    message = str(caught.value)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no settings"),
        ("- 1", "holds no settings"),
        ("seed: [", "no valid YAML at line"),
        ("seed: 42", "data is missing from params.yaml"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=said):
        params.load(path)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"params.yaml can't be read: No such file"):
        params.load(tmp_path / "params.yaml")


def test_overrides_change_their_keys_and_keep_every_other_line(text: str) -> None:
    overrides = (
        "data.source=../trips/{taxi}_tripdata_{year}-{month}.parquet data.train=[2021-01] "
        "data.validation=[2021-02]  data.test=[] search.space.gamma={uniform: [0, 1]} "
        "train.params={max_depth: 3}"
    )
    changed, chosen = params.override(text, params.parse_overrides(overrides))
    assert chosen.data.source == "../trips/{taxi}_tripdata_{year}-{month}.parquet"
    assert (chosen.data.train, chosen.data.validation, chosen.data.test) == (
        ["2021-01"],
        ["2021-02"],
        [],
    )
    assert chosen.search.space["gamma"] == {"uniform": [0, 1]}
    assert chosen.train.params == {"max_depth": 3}
    old, new = text.splitlines(), changed.splitlines()
    assert len(new) == len(old) + 1  # gamma is new
    assert sum(line not in old for line in new) == 6
    comments = re.compile(r"#.*")
    assert comments.findall(changed) == comments.findall(text)


def test_no_overrides_leave_the_file_as_it_is(text: str) -> None:
    assert params.parse_overrides("  ") == {}
    assert params.override(text, {})[0] == text


def test_a_model_that_learned_from_validation_is_judged_on_test_alone(text: str) -> None:
    _, chosen = params.override(text, {"train.refit": True})
    assert chosen.judged == ["test"]
    assert params.override(text, {})[1].judged == ["validation", "test"]


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.5:8786", "tls://scheduler.example.org:1", "tcp://[::1]:8786"]
)
def test_addresses_of_schedulers_are_taken(text: str, address: str) -> None:
    taken = {"engine.dask_scheduler": address, "engine.storage": "s3://bucket/folder"}
    assert params.override(text, taken)[1].engine.dask_scheduler == address


@pytest.mark.parametrize(
    "setting",
    [
        "engine.dask_scheduler=tcp://me:canary@host:1/x",
        "engine.storage=s3://me:canary@host:1/x",
        "engine.storage=s3://host/x?token=canary",
        "data.zones=https://host/zones.zip?X-Amz-Signature=canary",
        "data.zones=https://canary@host/zones.zip",
        "data.zones=[https://me:canary@host/zones.zip]",
        "data.source=https://me:canary@host/{year}-{month}.parquet",
        "data.source=https://me:canary@host/{year}.parquet",
        "data.source=https://host/{year}-{month}.csv?sv=1&sig=canary",
        "data.source=simplecache::sftp://me:ca/canary@host/{year}-{month}.csv",
        "data.zones={https://me:canary@host/",
        "https://me:canary@host/zones.zip",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_said_again(text: str, setting: str) -> None:
    with pytest.raises(SettingsError) as caught:
        params.override(text, params.parse_overrides(setting))
    assert "canary" not in str(caught.value)


def test_the_presets_have_as_many_columns_as_constraints_are_held_against() -> None:
    from trip_duration.features import PRESETS

    assert {
        name: len([*categorical, *numerical])
        for name, (categorical, numerical) in PRESETS.items()
        if name in params._COLUMNS
    } == params._COLUMNS


@pytest.mark.parametrize(
    ("taxi", "change", "drift"),
    [
        ("green", {}, 0.0),
        ("yellow", {"clean.min_minutes": 5, "clean.max_minutes": 12}, 0.01),
        ("fhvhv", {"clean.max_miles": 1.0}, -0.01),
        ("green", {"clean.max_miles": 3.0, "clean.min_minutes": 15}, 0.0),
    ],
)
def test_about_as_many_simulated_trips_are_kept_as_is_reckoned(
    text: str, taxi: str, change: dict, drift: float
) -> None:
    from trip_duration.sources.simulated import SimulatedMonth

    chosen = params.override(text, change)[1].clean
    month = SimulatedMonth("2024-02", taxi=taxi, seed=42, trips=20_000, drift=drift)
    trips = next(month._chunks())
    minutes, miles = trips["seconds"] / 60, trips["miles"]
    kept = (minutes >= chosen.min_minutes) & (minutes <= chosen.max_minutes) & (miles > 0)
    kept &= miles <= (chosen.max_miles or 1e9)
    assert abs(kept.mean() - params._kept("2024-02", drift, chosen)) < 0.08


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_as_many_trips_are_asked_for_as_calibrate_needs(text: str, level: float) -> None:
    import numpy as np

    from trip_duration.errors import TripDurationError
    from trip_duration.intervals import calibrate

    change = {"intervals.level": level, "intervals.calibration_every": 28}
    with pytest.raises(SettingsError) as caught:
        params.override(text, change | {"data.simulated.trips_per_month": 100})
    [needed] = re.findall(r"needs (\d+) trips that calibrate", str(caught.value))
    few = np.arange(1.0, int(needed))
    with pytest.raises(TripDurationError, match=f"needs {needed}:"):
        calibrate(few, few + 1, few, few, level)
    enough = np.arange(1.0, int(needed) + 1)
    assert calibrate(enough, enough + 1, enough, enough, level).trips == int(needed)


@pytest.mark.parametrize(
    "source",
    [
        "https://host:8443/a@b/{year}-{month}.parquet",
        "https://host/export?year={year}&month={month}&author=tlc&keyword=taxi",
        "sftp://me@host/{taxi}/{year}-{month}.csv",
        "abfs://container@account.dfs.core.windows.net/{year}-{month}.parquet",
    ],
)
def test_a_url_without_a_password_is_taken(text: str, source: str) -> None:
    assert params.override(text, {"data.source": source})[1].data.source == source
