"""How files differ: the cell, key, line or byte that is named is the one that was changed."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvc_verify import differences
from dvc_verify.differences import Change, Difference, changes, compare, percent, shown

FIXED = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.none()
COLUMNS = {
    "whole": st.integers(-(2**40), 2**40) | st.none(),
    "real": NUMBERS,
    "word": st.text(max_size=3) | st.none(),
    "many": st.lists(st.integers(0, 9), max_size=2) | st.none(),
}
TYPES = {"whole": pa.int64(), "real": pa.float64(), "word": pa.string()}
SCHEMA = pa.schema([*TYPES.items(), ("many", pa.list_(pa.int64()))])


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, list[Any]], str, int, Any]:
    """A table, and another value for one of its cells."""
    rows = draw(st.integers(1, 12))
    columns = {n: draw(st.lists(v, min_size=rows, max_size=rows)) for n, v in COLUMNS.items()}
    name, row = draw(st.sampled_from(list(COLUMNS))), draw(st.integers(0, rows - 1))
    before = columns[name][row]
    value = draw(COLUMNS[name].filter(lambda new: not same(new, before)))
    return columns, name, row, value


def same(a: Any, b: Any) -> bool:
    return a == b or (isinstance(a, float) and isinstance(b, float) and a != a and b != b)


def write(path: Path, columns: dict[str, list[Any]], **options: Any) -> Path:
    pq.write_table(pa.table(columns, schema=SCHEMA), path, **options)
    return path


def said(tmp_path: Path, name: str, committed: bytes | str, rerun: bytes | str) -> Difference:
    paths = []
    for side, data in (("old", committed), ("new", rerun)):
        paths.append(tmp_path / f"{side}-{name}")
        paths[-1].write_bytes(data if isinstance(data, bytes) else data.encode())
    return compare(paths[0], paths[1], name)


# Parquet


@FIXED
@given(changed=tables(), groups=st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_the_one_cell_of_a_table_that_was_changed_is_named(
    tmp_path: Path, changed: tuple[dict[str, list[Any]], str, int, Any], groups: tuple[int, int]
) -> None:
    columns, name, row, value = changed
    old = write(tmp_path / "old", columns, row_group_size=groups[0])
    other = {n: list(cells) for n, cells in columns.items()}
    other[name][row] = value
    new = write(tmp_path / "new", other, row_group_size=groups[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(differences, "ROWS", 5)  # several stretches
        found = compare(old, new, "x.parquet")
    before = columns[name][row]
    assert found.text.startswith(f"column {name}, row {row}: {shown(before)} → {shown(value)} (")
    assert f"(1 of {len(columns[name])} rows, 1 of 4 columns; " in found.text
    numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in (before, value))
    if numbers:
        exact = abs(float(before) - float(value)) / max(abs(float(before)), abs(float(value)))
        assert found.relative == pytest.approx(exact)
    else:
        assert found.relative is None
        assert "not only numbers" in found.text


def test_the_first_column_in_order_is_named_and_the_largest_difference_is_of_all(
    tmp_path: Path,
) -> None:
    base = {"whole": [1, 2, 3], "real": [1.0, 2.0, 4.0], "word": ["a"] * 3, "many": [[1]] * 3}
    old = write(tmp_path / "old", base)
    new = write(tmp_path / "new", base | {"whole": [1, 2, 4], "real": [1.5, 2.0, 4.0]})
    found = compare(old, new, "x.parquet")
    assert found.text == (
        "column whole, row 2: 3 → 4 (2 of 3 rows, 2 of 4 columns; numbers by at most 1, 33 %)"
    )
    assert found.relative == pytest.approx(1 / 3)


def test_the_same_table_in_other_bytes_is_said_to_be_the_same(tmp_path: Path) -> None:
    base = {"whole": [None, 2], "real": [math.nan, 1.0], "word": ["a", None], "many": [[1], None]}
    old = write(tmp_path / "old", base, compression="zstd")
    new = write(tmp_path / "new", base, compression="none", row_group_size=1)
    found = compare(old, new, "x.parquet")
    assert found.text.startswith("the same values and other bytes")
    assert found.relative == 0.0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"a": [1]}, {"b": [1]}, "no column a; columns that the commit has not: b"),
        ({"a": [1], "b": [1]}, {"b": [1], "a": [1]}, "column 0 is b, and a in the commit"),
        ({"a": [1]}, {"a": [1.0]}, "column a is double, and int64 in the commit"),
        ({"a": [1, 2]}, {"a": [1]}, "2 → 1 rows"),
        (
            {"a": [1, 2]},
            {"a": [1, 3, 3]},
            "2 → 3 rows, the shared ones first column a, row 1: 2 → 3",
        ),
        ({"a": []}, {"a": [1]}, "column a is int64, and null in the commit"),
    ],
)
def test_another_shape_is_named(tmp_path: Path, old: dict, new: dict, words: str) -> None:
    for name, columns in (("old", old), ("new", new)):
        pq.write_table(pa.table(columns), tmp_path / name)
    found = compare(tmp_path / "old", tmp_path / "new", "x.parquet")
    assert words in found.text
    assert found.relative is None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (pa.array(["x", "y"]).dictionary_encode(), pa.array(["x", "z"]).dictionary_encode()),
        (pa.array([{"k": 1}, {"k": 2}]), pa.array([{"k": 1}, {"k": 3}])),
        (pa.array([1, 2], pa.timestamp("us")), pa.array([1, 3], pa.timestamp("us"))),
        (pa.array([True, True]), pa.array([True, False])),
        (pa.array([b"a", b"b"]), pa.array([b"a", b"c"])),
        (pa.array([1, 2], pa.decimal128(5, 2)), pa.array([1, 3], pa.decimal128(5, 2))),
        (pa.array([1.0, 2.0], pa.float16()), pa.array([1.0, 3.0], pa.float16())),
    ],
)
def test_columns_of_any_type_are_compared(tmp_path: Path, a: pa.Array, b: pa.Array) -> None:
    for name, column in (("old", a), ("new", b)):
        pq.write_table(pa.table({"c": column}), tmp_path / name)
    assert "column c, row 1: " in compare(tmp_path / "old", tmp_path / "new", "x.parquet").text


def test_what_is_no_parquet_and_what_pyarrow_is_not_there_for_are_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(tmp_path, "x.parquet", "abc", "abd").text == "from byte 2 on; both 3 bytes"
    for name, value in (("old", 1), ("new", 2)):
        pq.write_table(pa.table({"c": [value]}), tmp_path / name)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    found = compare(tmp_path / "old", tmp_path / "new", "x.parquet")
    assert found.text.startswith("from byte ")


# JSON, YAML and TOML

TREES = st.recursive(
    st.integers() | st.floats(allow_nan=False) | st.booleans() | st.text(max_size=3) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


@FIXED
@given(tree=TREES)
def test_a_tree_has_no_changes_to_itself(tree: Any) -> None:
    assert list(changes(tree, json.loads(json.dumps(tree)))) == []


def replaced(tree: Any, path: list[Any], value: Any) -> Any:
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = replaced(tree[path[0]], path[1:], value)
    return copy


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(tree, dict | list):
        keys = tree if isinstance(tree, dict) else range(len(tree))
        return [leaf for key in keys for leaf in leaves(tree[key], (*path, key))]
    return [path]


@FIXED
@given(tree=TREES.filter(lambda tree: leaves(tree) != []), data=st.data())
def test_the_one_leaf_of_a_tree_that_was_changed_is_named(tree: Any, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(leaves(tree)))
    new = replaced(tree, list(path), "something else")
    [found] = changes(tree, new)
    parts = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    assert found.key == parts.removeprefix(".")
    assert found.rerun == "something else"


def test_a_json_names_its_first_key_and_its_largest_difference(tmp_path: Path) -> None:
    old = '{"n": 7, "m": {"rmse": [1.0, 2.0]}, "words": "a"}'
    new = '{"words": "a", "m": {"rmse": [1.0, 2.002]}, "n": 7.0007}'
    found = said(tmp_path, "x.json", old, new)
    assert found.text == "n: 7 → 7.0007 (2 of 4 values; numbers by at most 0.1 %)"
    assert found.relative == pytest.approx(0.002 / 2.002)


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("x.json", '{"a": 1}', '{"a": 1, "b": 2}', "b: nothing → 2 (1 of 1 values; not only"),
        ("x.json", '{"a": [1, 2]}', '{"a": [1]}', "a[1]: 2 → nothing"),
        ("x.json", '{"a": true}', '{"a": 1}', "a: true → 1"),
        ("x.json", "[1]", '{"a": 1}', "[1] → {"),
        ("x.json", '{"a": 1}', '{ "a": 1.0}', "the same values, written in another way"),
        ("x.json", '{"a": 1', '{"a": 2', "from byte 6 on; both 7 bytes"),
        ("x.yaml", "a: {b: 1}", "a: {b: x}", 'a.b: 1 → "x"'),
        ("x.yaml", "a: [1", "a: [2", "from byte 4 on"),
        ("x.toml", "[a]\nb = 1", "[a]\nb = 2", "a.b: 1 → 2"),
        ("x.bin", b"\x00\x01", b"\x00\x01\x02", "from byte 2 on; 2 → 3 bytes"),
        ("x.bin", b"", b"a", "from byte 0 on; 0 → 1 bytes"),
    ],
)
def test_the_first_difference_is_named(
    tmp_path: Path, name: str, old: bytes | str, new: bytes | str, words: str
) -> None:
    assert words in said(tmp_path, name, old, new).text


# CSV


@FIXED
@given(
    rows=st.lists(st.lists(st.text("ab1,\n\"'", max_size=3), min_size=2, max_size=2), min_size=1),
    data=st.data(),
)
def test_the_one_cell_of_a_csv_that_was_changed_is_named(
    tmp_path: Path, rows: list[list[str]], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(0, 1))
    other = replaced(rows, [at, column], "else")
    texts = []
    for table in (rows, other):
        stream = io.StringIO()
        csv.writer(stream).writerows([["one", "two"], *table])
        texts.append(stream.getvalue())
    found = said(tmp_path, "x.csv", *texts)
    assert f", column {('one', 'two')[column]}: " in found.text
    assert f'→ "else" (1 of {len(rows) + 1} records; not only numbers)' in found.text
    before = io.StringIO(newline="")
    csv.writer(before).writerows([["one", "two"], *rows[: at + 1]])
    lines = sum(1 for _ in io.StringIO(before.getvalue(), newline=""))
    assert found.text.startswith(f"line {lines}, ")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("h,r\na,1\nb,2\n", "h,r\na,1\nb,2.02\n", "line 3, column r: 2 → 2.02 (1 of 3 records; "),
        ("h,r\na,1\n", "h,s\na,1\n", 'line 1, column r: "r" → "s"'),
        ("h\na\n", "h\na\nb\n", "line 3: more than the commit has"),
        ("h\na\nb\n", "h\na\n", "line 3: no longer there"),
        ("h,r\na,1\n", "h,r\r\na,1\r\n", "the same values, written in another way"),
        ("h\na\n", "h\na,b\n", 'line 2, column number 2: nothing → "b"'),
    ],
)
def test_a_csv_names_line_and_column(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert words in said(tmp_path, "x.csv", old, new).text


def test_the_relative_difference_of_a_csv_is_that_of_its_numbers(tmp_path: Path) -> None:
    found = said(tmp_path, "x.csv", "a,b\n1,x\n2,x\n", "a,b\n1.01,x\n2.2,x\n")
    assert found.relative == pytest.approx(0.2 / 2.2)
    assert found.text.endswith("(2 of 3 records; numbers by at most 9.1 %)")


def test_a_tsv_has_tabs(tmp_path: Path) -> None:
    assert "column b: 1 → 2" in said(tmp_path, "x.tsv", "a\tb\n0\t1\n", "a\tb\n0\t2\n").text


# Words


@pytest.mark.parametrize(
    ("relative", "text"), [(0.0002, "0.02 %"), (0.5, "50 %"), (2, "200 %"), (3e-9, "3e-07 %")]
)
def test_percents_are_short(relative: float, text: str) -> None:
    assert percent(relative) == text


def test_long_values_are_cut() -> None:
    assert shown("x" * 99) == '"' + 38 * "x" + "…"


def test_numbers_alone_have_a_relative_difference() -> None:
    assert Change("k", 2, 1).relative == 0.5
    assert Change("k", 0, 0.0).relative == 0.0
    for a, b in ((True, 1), ("1", 1), (math.inf, 1.0), (None, 1), (10**400, 1)):
        assert Change("k", a, b).relative is None
