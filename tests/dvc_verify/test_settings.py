"""Settings that are changed for one run."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from dvc_verify.errors import VerifyError
from dvc_verify.settings import change, parse

TEXT = "seed: 1  # of chance\nmodel: {depth: 3, months: [2024-01]}\nnone: null\n"


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], {}),
        ([""], {}),
        (["a=1"], {"a": "1"}),
        (["a=1 b.c=[1, 2] d=x=y"], {"a": "1", "b.c": "[1, 2]", "d": "x=y"}),
        ([" a= ", "other.yaml:b=2"], {"a": "", "other.yaml:b": "2"}),
    ],
)
def test_pairs_are_read(texts: list[str], found: dict[str, str]) -> None:
    assert parse(texts) == found


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a"], "--set has 'a': expected key=value"),
        (["a b=1"], "--set has 'a': expected key=value"),
        (["=1"], "--set has '=1': expected key=value"),
        (["a=1", "a=2"], "--set has a twice"),
    ],
)
def test_what_is_no_pair_is_one_sentence(texts: list[str], words: str) -> None:
    with pytest.raises(VerifyError, match=words):
        parse(texts)


@pytest.mark.parametrize(
    ("key", "text", "found"),
    [
        ("seed", "7", {"seed": 7}),
        ("model.depth", "null", {"model": {"depth": None, "months": ["2024-01"]}}),
        ("model", "{depth: x}", {"model": {"depth": "x"}}),
        ("none", "[2024-02, 1e-3]", {"none": ["2024-02", 1e-3]}),
        ("params.yaml:seed", "", {"seed": None}),
    ],
)
def test_a_setting_is_changed_and_no_other(
    tmp_path: Path, key: str, text: str, found: dict[str, object]
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    change(tmp_path, key, text)
    read = YAML(typ="safe", pure=True).load
    assert read(path) == read(TEXT) | found


def test_json_stays_json(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"a": {"b": 1}}')
    change(tmp_path, "p.json:a.b", "2")
    assert (tmp_path / "p.json").read_text() == '{"a": {"b": 2}}'


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("sed", "1", r"--set sed: params\.yaml has no such key; did you mean seed\?"),
        ("model.dept", "1", r"did you mean model\.depth\?"),
        ("seed.x", "1", r"has no such key"),
        ("seed", "[", r"--set seed is '\[': that is no valid YAML"),
        ("other.yaml:a", "1", r"the commit has no other\.yaml in YAML or JSON to change"),
    ],
)
def test_what_cannot_be_set_is_one_sentence(
    tmp_path: Path, key: str, text: str, words: str
) -> None:
    (tmp_path / "params.yaml").write_text(TEXT)
    with pytest.raises(VerifyError, match=words):
        change(tmp_path, key, text)
    assert (tmp_path / "params.yaml").read_text() == TEXT
