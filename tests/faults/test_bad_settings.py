"""Bad settings.

Every key of `params.yaml` is given values that it cannot have: of other types, at and beyond its
bounds, endless, not numbers, empty, very long, with characters that no terminal should see, nested
deep; and the file itself is broken. Each is refused in one line that names the key, before anything
runs, or it is taken. What is taken must run: settings drawn from all that each key accepts go
through every stage, on a small simulated city. An example is a fault here, and hypothesis draws
them, the same in every run.
"""

import contextlib
import copy
import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from tests.faults.accepted import ACCEPTED, COLUMNS, PARAMETERS, points

from trip_duration import params, readiness
from trip_duration.errors import SettingsError, TripDurationError

TEXT = (Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8")
SETTINGS = YAML(typ="safe", pure=True).load(TEXT)
OPEN = ("search.space", "train.params")  # groups whose keys are XGBoost's parameters
QUICK = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


def leaves(group: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in group.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and key not in OPEN:
            yield from leaves(value, f"{key}.")
        else:
            yield key


KEYS = list(leaves(SETTINGS))
GROUPS = sorted({key.rpartition(".")[0] for key in KEYS} - {""})


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The committed settings with some keys changed."""
    document = copy.deepcopy(SETTINGS)
    for key, value in changes.items():
        *groups, last = key.split(".")
        group = document
        for name in groups:
            group = group[name]
        group[last] = value
    return document


def said(call: Callable[[], Any]) -> str:
    """What a person gets: one short line that a terminal can show, or nothing."""
    try:
        call()
    except SettingsError as error:
        message = str(error)
        assert message.isprintable()
        assert 10 < len(message) < 520
        return message
    return ""


def names(message: str, key: str) -> bool:
    """Whether a sentence leads to a key: by its name, or by that of its group."""
    return not message or key in message or f"{key.split('.')[0]}." in message or "clean" in message


DEEP: list[Any] = []
for _ in range(200):
    DEEP = [DEEP]
ROUND: list[Any] = []
ROUND.append(ROUND)
BOMB: Any = "lol"
for _ in range(6):
    BOMB = [BOMB] * 9
NUMBERS = [
    *(0, 1, -1, 2, 2**31 - 1, 2**31, 2**63, -(2**63), 10**400, -(10**5000), 1e308, 5e-324, 0.5),
    *(0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1 + 1e-15, True, False),
]
WORDS = [
    *("", " ", "1", "1.0", "nan", "null", "true", "x" * 1_000_000, "\x00", "\x1b[2J", "a\nb"),
    *("\ud800", "\U0001f600", "\u202e", "../..", "/" * 5000, "~nobody-here/{year}{month}"),
    *("2021-13", "2021-1", "1899-01", "9999-12", "2100-01", "2024-01", "２０２４-01", "2024-01-05"),
    *("{year}{month", "{year!r}{month}", "{year:>9}{month}", "{{year}}{month}", "{}{year}{month}"),
    *("s3://{year}{month}", "tcp://h:１２", "s3://a\x00", "memory://x", "{year}" * 300 + "{month}"),
]
VALUES = [
    *(None, date(2024, 1, 1), b"1", {1}, (1, 2), [], {}, [None], [[]], [{}], {"": {}}),
    *({1: 2}, {None: 1}, {"a" * 100_000: 1}, DEEP, ROUND, BOMB, {"a": BOMB}, list(range(9999))),
    *NUMBERS,
    *WORDS,
]
ODD = st.integers(0, len(VALUES) - 1).map(lambda place: VALUES[place])  # it would print them all
ANY = st.recursive(
    ODD | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
PARAMETER = st.sampled_from([*PARAMETERS, "nthread", "max_dept", "", "\ud800", "eta\n"])
KIND = st.sampled_from([*params.DISTRIBUTIONS, "randint", "", "unifrom"])
ARGUMENTS = st.lists(st.sampled_from(NUMBERS) | st.floats(-5, 5) | ODD, max_size=4) | ANY
MONTH = st.sampled_from([w for w in WORDS if "20" in w]) | st.builds(
    "{:04d}-{:02d}".format, st.integers(2007, 2101), st.integers(0, 14)
)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "search.space": st.dictionaries(
        PARAMETER, st.dictionaries(KIND, ARGUMENTS, max_size=2) | ANY, max_size=3
    ),
    "search.points_to_evaluate": st.lists(
        st.dictionaries(PARAMETER | st.sampled_from(sorted(SETTINGS["search"]["space"])), ODD),
        max_size=3,
    ),
    "train.params": st.dictionaries(PARAMETER, ODD, max_size=3),
    **{f"data.{split}": st.lists(MONTH, max_size=300) for split in ("train", "validation", "test")},
}


def test_every_key_is_fuzzed() -> None:
    assert set(ACCEPTED) == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_any_value_is_taken_or_refused(
    key: str, all_faults: bool, record_property: Callable
) -> None:
    tried = 0

    @settings(max_examples=500 if all_faults else 25, **QUICK)
    @given(LIKELY.get(key, ODD) | ANY)
    def check(value: Any) -> None:
        nonlocal tried
        tried += 1
        assert names(said(lambda: params.check(changed({key: value}))), key)

    check()
    record_property("tried", tried)


@pytest.mark.parametrize("key", [*KEYS, *GROUPS])
def test_what_is_missing_misnamed_or_no_group_is_named(key: str) -> None:
    *groups, last = key.split(".")
    for kind in ("missing", "misnamed", "extra"):
        document = changed({})
        group = document
        for name in groups:
            group = group[name]
        if kind == "extra":
            group[f"{last}\x1b"] = group[last]
        else:
            value = group.pop(last)
        if kind == "misnamed":
            group[f"{last}s"] = value
        assert last in said(lambda document=document: params.check(document))
    for value in (None, 3, [], "x", BOMB) if key in GROUPS else ():
        sentence = said(lambda value=value: params.check(changed({key: value})))
        assert f"{key} is " in sentence
        assert "expected a group of settings" in sentence


@pytest.mark.parametrize("part", range(4))
def test_anything_may_stand_in_set(part: int, all_faults: bool, record_property: Callable) -> None:
    tried = 0
    key = st.sampled_from(KEYS[part::4])
    yaml = st.text("&*!{}[]:,-?|>%@`\"'#= \n\tab1.", max_size=30) | st.text(max_size=10)

    def written(value: Any) -> str:
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            return value if isinstance(value, str) else json.dumps(value)[:100_000]
        return "&a [*a]" if value is BOMB else "9" * 5000  # more digits than Python writes

    small = st.sampled_from([*NUMBERS, *(word for word in WORDS if len(word) < 99)])
    odd = small | st.lists(small, max_size=3) | st.dictionaries(st.text(max_size=3), small)

    @settings(max_examples=400 if all_faults else 12, **QUICK)
    @given(st.lists(st.tuples(key, odd.map(written) | yaml), min_size=1, max_size=3))
    def check(pairs: list[tuple[str, str]]) -> None:
        nonlocal tried
        tried += 1
        text = " ".join(f"{name}={value}" for name, value in pairs)
        said(lambda: params.override(TEXT, params.parse_overrides(text)))

    check()
    record_property("tried", tried)


def test_any_text_is_pairs_or_refused(all_faults: bool, record_property: Callable) -> None:
    tried = 0

    @settings(max_examples=3000 if all_faults else 150, **QUICK)
    @given(st.text() | st.text("ab=.{}[]*&: ", max_size=20))
    def check(text: str) -> None:
        nonlocal tried
        tried += 1
        said(lambda: params.parse_overrides(text))

    check()
    record_property("tried", tried)


LAUGHS = "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n"
    for a, b in zip("abcde", "bcdef", strict=True)
)
FILES: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "holds no settings"),
    "a list": (b"- 1\n", "holds no settings"),
    "two documents": (b"seed: 1\n---\nseed: 2\n", "no valid YAML at line 2"),
    "a bracket that stays open": (b"seed: [", "no valid YAML at line 1"),
    "tabs for spaces": (b"data:\n\tseed: 1\n", "no valid YAML at line 2"),
    "a key twice": (f"{TEXT}\nseed: 1\n".encode(), 'found duplicate key "seed"'),
    "an alias of nothing": (b"seed: *none\n", "no valid YAML at line 1"),
    "a billion laughs": (f"a: &a [1]\n{LAUGHS}".encode(), "more than 100,000 values"),
    "a billion merges": (f"a: &a {{b: 1}}\n{MERGES}".encode(), "more than 100,000 values"),
    "a list within itself": (b"seed: &a [*a]\n", "nested deeper than 20 levels"),
    "brackets, 200 deep": (b"[" * 200 + b"]" * 200, "nested deeper than 20 levels"),
    "brackets, 100,000 deep": (b"[" * 100_000, "nested too deep"),
    "a Python object": (b'seed: !!python/object/apply:os.system ["true"]\n', "no valid YAML"),
    "a set": (b"seed: !!set {a, b}\n", "sets and bytes are no settings"),
    "bytes": (b"seed: !!binary aGk=\n", "sets and bytes are no settings"),
    "a tag that its value does not fit": (b"seed: !!timestamp x\n", "no valid YAML"),
    "not UTF-8": (b"seed: 1\n# caf\xe9\n", "no UTF-8 text at line 2"),
    "UTF-16": (TEXT.encode("utf-16"), "no UTF-8 text at line 1"),
    "zero bytes in it": (TEXT.replace("seed", "se\0ed").encode(), "no valid YAML"),
    "10 MB": (b"# no setting\n" * 800_000, "more than 262,144 bytes"),
    "a date for a month": (
        TEXT.replace("[2024-03]", "[2024-03-01]").encode(),
        "data.validation[0] is '2024-03-01': expected a month as text",
    ),
    "a number of 10,000 digits": (
        TEXT.replace("seed: 42", f"seed: 0x{'f' * 9000}").encode(),
        "seed is a whole number of about",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_one_sentence(
    name: str, tmp_path: Path, record_property: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, expected = FILES[name]
    Path("params.yaml").write_bytes(content)
    sentence = said(params.load)
    assert expected in sentence
    record_property("fault", f"params.yaml: {name}")
    record_property("said", sentence)


@pytest.mark.parametrize(
    ("name", "expected"), [("missing", "No such file"), ("a folder", "Is a directory")]
)
def test_a_file_that_is_none_is_one_sentence(
    name: str, expected: str, tmp_path: Path, record_property: Callable
) -> None:
    if name == "a folder":
        (tmp_path / "params.yaml").mkdir()
    sentence = said(lambda: params.load(tmp_path / "params.yaml"))
    assert expected in sentence
    record_property("fault", f"params.yaml: {name}")
    record_property("said", sentence.replace(str(tmp_path), "…"))


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("[2024-03]", "&v [2024-03]").encode() + b"# & *v\n",
    ],
)
def test_what_editors_leave_is_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    assert params.load(tmp_path / "params.yaml") == params.check(SETTINGS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("seed=true", "seed is True: expected a whole number."),
        ("seed=1e3", "seed is 1000.0: expected a whole number."),
        ("seed=-1", "greater than or equal to 0"),
        ("data.taxi=red", "expected 'yellow', 'green', 'fhv' or 'fhvhv'"),
        ("data.train=[2021-13]", "the part after the dash must be 01 to 12"),
        ("data.test=[9999-12]", "too late"),
        ("data.train=[2024-04]", "2024-04 is in data.train and data.test"),
        ("data.source=trips.parquet", "with {year} and {month}"),
        ("data.source=tlc data.taxi=fhv data.train=[2015-01]", "from 2017-01 on"),
        ("data.simulated.trips_per_month=100", "intervals.level 0.9 needs 35 trips"),
        ("data.simulated.drift=0.4", "about 0 would be left"),
        ("clean.max_minutes=.nan", "expected a finite number"),
        ("clean.min_minutes=60", "expected the first to be the smaller"),
        ("features.preset=custom", "name at least one column"),
        ("search.max_evals=lots", "expected a whole number"),
        ("search.space.max_depth={uniform: [3, 9]}", "max_depth is a whole number"),
        ("search.space.subsample={uniform: [0.5, 1.5]}", "above 0 to 1"),
        ("search.space.learning_rate={lognormal: [-2, 3]}", "five spreads either way"),
        ("search.space.eta={uniform: [0.1, 0.2]}", "which are one parameter"),
        ("search.space.max_dept={uniformint: [1, 2]}", "did you mean max_depth?"),
        ("search.space={}", "search.space is empty"),
        ("search.points_to_evaluate=[{max_depth: 99}]", "which search.space cannot draw"),
        ("search.first_rung=1e308", "less than or equal to 1000000"),
        ("train.nthread=1000000", "less than or equal to 256"),
        ("train.params.max_depth=-1", "a whole number from 0"),
        ("train.params.max_depth=3.5", "a whole number from 0"),
        ("train.params.monotone_constraints=(1,x)", "expected text like"),
        ("train.params.objective=reg:gamma clean.min_minutes=0", "0 minutes"),
        ("train.stop_days=61", "data.train have 60 days"),
        ("train.sample_rows=50", "where fits stop"),
        ("train.refit=true data.test=[]", "name one in data.test"),
        ("intervals.level=90", "less than or equal to 0.99"),
        ("engine.storage=s3://me:word@bucket/x", "credentials come from the environment"),
        ("search.max_evals 3", "expected key=value pairs"),
    ],
)
def test_a_wrong_setting_names_its_key(
    change: str, expected: str, record_property: Callable
) -> None:
    sentence = said(lambda: params.override(TEXT, params.parse_overrides(change)))
    assert expected in sentence
    record_property("fault", f"`{change}`")
    record_property("said", sentence)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"features.categorical": ["PU_D0"]}, "which is no feature"),
        ({"features.numerical": ["fare_amount"]}, "leaks the answer"),
        ({"features.numerical": ["hour", "hour"]}, "more than once"),
        ({"train.device": "cuda"}, "no GPU code"),
    ],
)
def test_what_is_not_here_is_refused_before_anything_runs(
    change: dict[str, Any], expected: str, record_property: Callable
) -> None:
    import xgboost as xgb

    if "train.device" in change and xgb.build_info().get("USE_CUDA"):
        pytest.skip("this build of XGBoost has GPU code")
    preset = {} if "train.device" in change else {"features.preset": "custom"}
    chosen = params.check(changed(change | preset))
    with pytest.raises(TripDurationError) as caught:
        readiness.check(chosen)
    assert expected in str(caught.value)
    record_property("fault", f"`{', '.join(f'{key}={value}' for key, value in change.items())}`")
    record_property("said", str(caught.value))


@pytest.mark.parametrize(
    ("command", "change", "expected"),
    [
        (("src/commands", "train"), {"SET": "search.space=&a [*a]"}, "search.space is '&a [*a]'"),
        (("src/commands", "search"), {"SET": "seed=\udcff"}, "seed is "),
        (("src/stages", "ingest"), {}, "ingest: params.yaml is no UTF-8 text at line 1"),
        (("src/stages", "evaluate"), {}, "evaluate: params.yaml is no UTF-8 text at line 1"),
    ],
)
def test_a_command_ends_in_one_line(
    root: Path, tmp_path: Path, command: tuple[str, str], change: dict[str, str], expected: str
) -> None:
    shutil.copytree(root / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    content = TEXT.encode() if change else b"\xff" + TEXT.encode()
    (tmp_path / "params.yaml").write_bytes(content)
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=os.environ | {"DEBUG": "", "SET": ""} | change,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr
    assert (tmp_path / "params.yaml").read_bytes() == content
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"src", "params.yaml", ".cache"}


# What is taken runs


class _NoLog:
    def trial(self, *_: object) -> None: ...

    def finish(self, *_: object) -> None: ...


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[ModuleType]:
    """The stages without Prefect and MLflow, over months that are drawn in small parts."""
    from stages import evaluate, featurize, ingest, search, train
    from trip_duration import intervals
    from trip_duration.sources import simulated

    @contextlib.contextmanager
    def search_run(*_: object, **__: object) -> Iterator[_NoLog]:
        yield _NoLog()

    tracking = SimpleNamespace(
        search_run=search_run, tags=lambda *_, **__: {}, log_model=lambda *_, **__: None
    )
    monkeypatch.setattr(simulated, "CHUNK", 1 << 11)
    monkeypatch.setitem(intervals.train_quantiles.__kwdefaults__, "rounds", 5)
    modules = [ingest, featurize, search, train, evaluate]
    for module in modules:
        for name, value in list(vars(module).items()):
            if type(value).__name__ == "Task":
                monkeypatch.setattr(module, name, value.fn)
            elif name in ("table", "markdown"):
                monkeypatch.setattr(module, name, lambda key, content, *_: list(content))
            elif name == "tracking":
                monkeypatch.setattr(module, name, tracking)
    return modules


SMALL = {
    "data.train": ["2024-01"],
    "data.validation": ["2024-02"],
    "data.test": ["2024-03"],
    "data.simulated.trips_per_month": 300,
    "search.max_evals": 2,
    "search.num_boost_round": 3,
    "train.num_boost_round": 3,
}


@st.composite
def accepted(draw: st.DrawFn) -> dict[str, Any]:
    """Small settings, and up to ten keys of them changed to what they accept."""
    keys = st.lists(st.sampled_from(sorted(ACCEPTED)), min_size=1, max_size=10, unique=True)
    changes = {key: draw(ACCEPTED[key]) for key in draw(keys)}
    columns = {"features.categorical", "features.numerical"}
    if changes.get("features.preset") == "custom" or columns & set(changes):
        changes |= {key: draw(COLUMNS) for key in columns} | {"features.preset": "custom"}
    space = changes.get("search.space", SETTINGS["search"]["space"])
    changes["search.points_to_evaluate"] = draw(points(space))
    if not space:
        changes["search.max_evals"] = 0
    return changed(SMALL | changes)


@pytest.mark.timeout(3600)
def test_what_is_taken_runs(
    stages: list[ModuleType],
    all_faults: bool,
    tmp_path_factory: pytest.TempPathFactory,
    record_property: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = 0

    @settings(max_examples=120 if all_faults else 14, **QUICK)
    @given(accepted())
    def run(document: dict[str, Any]) -> None:
        nonlocal ran
        try:
            chosen = params.check(document)
            readiness.check(chosen)
        except SettingsError:
            return  # two settings that do not go together
        folder = tmp_path_factory.mktemp("run")
        monkeypatch.chdir(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, of numbers at the end of their range
            for stage in stages:
                getattr(stage, stage.__name__.rpartition(".")[2]).fn(chosen)
        assert Path("metrics/evaluation.json").exists()
        monkeypatch.chdir("/")
        shutil.rmtree(folder)
        ran += 1

    run()
    assert ran
    record_property("tried", ran)
