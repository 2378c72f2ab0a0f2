"""Trees side by side say what XGBoost says, to the bit, or are not used."""

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from service.trees import Trees

OBJECTIVES = ["reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror"]


def data(seed: int, rows: int = 400, columns: int = 5) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    X = draw.normal(size=(rows, columns)).astype(np.float32).round(2)
    X[draw.random(X.shape) < 0.15] = np.nan
    y = 10 + 3 * np.nan_to_num(X[:, 0]) + np.nan_to_num(X[:, 1]) ** 2
    return X, y


def trained(X: np.ndarray, y: np.ndarray, rounds: int = 30, **params: object) -> xgb.Booster:
    return xgb.train({"nthread": 1, **params}, xgb.DMatrix(X, label=y), rounds)


@given(
    seed=st.integers(0, 2**16),
    depth=st.integers(1, 9),
    parallel=st.integers(1, 3),
    objective=st.sampled_from(OBJECTIVES),
    gamma=st.sampled_from([0.0, 5.0, 1e6]),  # prunes: nodes that are reused, trees of one leaf
    rows=st.integers(0, 40),
)
@settings(max_examples=25, deadline=None)
def test_they_say_what_xgboost_says(
    seed: int, depth: int, parallel: int, objective: str, gamma: float, rows: int
) -> None:
    X, y = data(seed)
    how = {"max_depth": depth, "num_parallel_tree": parallel, "subsample": 0.8, "gamma": gamma}
    one = trained(X, y, objective=objective, **how)
    levels = {"objective": "reg:quantileerror", "quantile_alpha": [0.05, 0.95]}
    other = trained(X, y, rounds=7, **levels)
    trees = Trees.of([one, other])
    assert trees is not None
    asked = data(seed + 1)[0][:rows]
    if rows:
        asked[0] = np.nan
    expected = [
        b.predict(xgb.DMatrix(asked)).reshape(rows, outputs)
        for b, outputs in ((one, 1), (other, 2))
    ]
    np.testing.assert_array_equal(trees.predict(asked), np.concatenate(expected, axis=1))


def test_values_on_a_threshold_go_where_xgboost_sends_them() -> None:
    X, y = data(3)
    booster = trained(X, y, max_depth=5)
    splits = booster.trees_to_dataframe().dropna(subset="Split")
    asked = np.zeros((len(splits), X.shape[1]), np.float32)
    column = splits["Feature"].str[1:].astype(int).to_numpy()
    asked[np.arange(len(splits)), column] = splits["Split"].astype(np.float32)
    trees = Trees.of([booster])
    assert trees is not None
    expected = booster.predict(xgb.DMatrix(asked))
    np.testing.assert_array_equal(trees.predict(asked)[:, 0], expected)


def test_a_booster_that_was_stopped_early_ends_there() -> None:
    X, y = data(4)
    booster = trained(X, y, rounds=50)
    booster.set_attr(best_iteration="24")
    trees = Trees.of([booster])
    assert trees is not None
    expected = booster.predict(xgb.DMatrix(X), iteration_range=(0, 25))
    np.testing.assert_array_equal(trees.predict(X)[:, 0], expected)


@pytest.mark.parametrize(
    "params",
    [
        {"objective": "count:poisson"},
        {"objective": "reg:gamma"},
        {"objective": "reg:tweedie"},
        {"booster": "dart", "rate_drop": 0.3},
        {"booster": "gblinear"},
        {"multi_strategy": "multi_output_tree", "num_target": 2},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_boosters_of_other_kinds_are_not_walked(params: dict[str, object]) -> None:
    X, y = data(5)
    label = np.stack([y, y], axis=1) if "num_target" in params else np.abs(y)
    how = {name: value for name, value in params.items() if name != "num_target"}
    assert Trees.of([trained(X, label, rounds=3, **how)]) is None


def test_splits_by_category_are_not_walked() -> None:
    X, y = data(6)
    X[:, 0] = np.abs(np.nan_to_num(X[:, 0])).round()
    made = xgb.DMatrix(X, label=y + 9 * (X[:, 0] == 1), feature_types=[*"cqqqq"])
    booster = xgb.train({"nthread": 1}, made, 10)
    assert Trees.of([booster]) is None
