"""Fits that repeat."""

from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb
from scipy.sparse import csr_matrix

from trip_duration import training
from trip_duration.errors import TripDurationError
from trip_duration.splits import Roles, Rows, divide
from trip_duration.training import (
    COURSE_PARAMS,
    binned,
    booster_params,
    load_booster,
    matrices,
    predict,
    recent_level,
    save_booster,
    train_best_model,
    train_model,
)


def rows(seed: int, count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Minutes that follow three columns, the last of them a category."""
    rng = np.random.default_rng(seed)
    X = np.column_stack(
        [rng.uniform(0, 9, count), rng.normal(size=count), rng.integers(1, 6, count)]
    )
    y = (
        4
        + 3 * X[:, 0]
        + np.array([0, 5, -3, 8, 1, 0])[X[:, 2].astype(int)]
        + rng.normal(size=count)
    )
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def pair() -> tuple:
    return matrices(*rows(1), *rows(2), names=["miles", "noise", "zone"], types=["q", "q", "c"])


PARAMS = {"learning_rate": 0.3, "max_depth": 4}


def test_a_fit_learns_stops_early_and_keeps_its_best_round(pair: tuple) -> None:
    fit = train_best_model(*pair, PARAMS, num_boost_round=300, early_stopping_rounds=5)
    assert 5 < fit.rounds < 300
    assert fit.booster.num_boosted_rounds() == fit.rounds
    assert len(fit.curve["held_out"]) == len(fit.curve["train"]) == fit.rounds + 5
    assert fit.rmse == min(fit.curve["held_out"]) == fit.curve["held_out"][fit.rounds - 1]
    assert fit.rmse < 2  # the noise is 1, and the spread of y is 8


def test_the_kept_booster_reaches_the_stated_rmse(pair: tuple, tmp_path: Path) -> None:
    fit = train_best_model(*pair, PARAMS, num_boost_round=60, early_stopping_rounds=5)
    save_booster(fit.booster, tmp_path / "model.ubj")
    X, y = rows(2)
    data = xgb.DMatrix(
        X, feature_names=["miles", "noise", "zone"], feature_types=["q", "q", "c"],
        enable_categorical=True,
    )  # fmt: skip
    predicted = load_booster(tmp_path / "model.ubj").predict(data)
    assert np.sqrt(np.mean((predicted - y) ** 2)) == pytest.approx(fit.rmse, rel=1e-6)


def test_the_same_fit_gives_the_same_bytes(pair: tuple, tmp_path: Path) -> None:
    for name in ("a", "b"):
        fit = train_best_model(
            *pair, {**PARAMS, "subsample": 0.7}, num_boost_round=20, early_stopping_rounds=5
        )
        save_booster(fit.booster, tmp_path / name)
    other = train_best_model(
        *pair, {**PARAMS, "subsample": 0.7}, num_boost_round=20, early_stopping_rounds=5, seed=7
    )
    save_booster(other.booster, tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_what_a_sparse_matrix_does_not_hold_is_missing() -> None:
    X, y = rows(1)
    holes = np.where(X[:, :2] > 1, X[:, :2], np.nan)
    sparse = csr_matrix(np.nan_to_num(holes, nan=0.0))
    fits = [
        train_best_model(*matrices(x, y, x, y), PARAMS, num_boost_round=9, early_stopping_rounds=5)
        for x in (holes, sparse)
    ]
    assert fits[0].rmse == fits[1].rmse


def in_parts(X: np.ndarray, y: np.ndarray, size: int) -> Rows:
    """The rows in batches of some size, as months give them."""
    whole = Rows.of(X, y).whole
    parts = [whole.where(np.arange(i, min(i + size, len(y)))) for i in range(0, len(y), size)]
    return Rows(lambda: iter(parts), np.zeros(1, np.int64), np.array([len(y)]))


@pytest.mark.parametrize("cuts", [10_000, 500])
def test_bins_in_files_give_the_bits_of_bins_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: int
) -> None:
    monkeypatch.setattr(training, "CUT_ROWS", cuts)
    monkeypatch.setattr(training, "PAGE_ROWS", 1000)
    data = [in_parts(*rows(seed, 3000), size=700) for seed in (1, 2)]
    raw = []
    for limit in (10_000, 1_000):
        pair = binned(*data, rows_in_memory=limit, cache=tmp_path / "cache")
        paged = isinstance(pair[0], xgb.ExtMemQuantileDMatrix)
        assert paged == (limit == 1_000)
        assert any((tmp_path / "cache").glob("matrix-*")) == paged
        fit = train_best_model(*pair, PARAMS, num_boost_round=30, early_stopping_rounds=5)
        raw.append(bytes(fit.booster.save_raw("ubj")))
        assert fit.rmse < 2
        del pair, fit
    assert raw[0] == raw[1]
    assert not any((tmp_path / "cache").glob("matrix-*"))


def test_bins_from_a_sample_cost_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    learned, held_out = (Rows.of(*rows(seed, 6000)) for seed in (1, 2))
    errors = []
    for cuts in (10_000, 1_000):
        monkeypatch.setattr(training, "CUT_ROWS", cuts)
        pair = binned(learned, held_out)
        errors.append(train_best_model(*pair, PARAMS, num_boost_round=60).rmse)
    assert errors[0] != errors[1]
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


def test_after_round_ends_a_fit(pair: tuple) -> None:
    fit = train_best_model(*pair, PARAMS, after_round=lambda done, _: done == 3)
    assert fit.rounds == 3


def test_what_is_pinned_can_not_be_set() -> None:
    given = {"nthread": 9, "device": "cuda", "tree_method": "exact", "seed": 3}
    params = booster_params(given, seed=1, nthread=2, max_bin=64)
    assert (params["nthread"], params["device"], params["tree_method"]) == (2, "cpu", "hist")
    assert params["seed"] == 3
    assert booster_params(COURSE_PARAMS, seed=1, nthread=2, max_bin=64)["seed"] == 42


def test_refused_parameters_are_one_sentence(pair: tuple) -> None:
    with pytest.raises(TripDurationError, match=r"XGBoost refused .*train.params") as caught:
        train_best_model(*pair, {"subsample": 7.0})
    assert "\n" not in str(caught.value)
    assert "7" in str(caught.value)


def test_a_device_that_is_not_there_is_one_sentence(pair: tuple) -> None:
    if xgb.build_info().get("USE_CUDA"):
        pytest.skip("this build has GPU code")
    with pytest.raises(TripDurationError, match=r"train\.device is 'cuda'"):
        train_best_model(*pair, PARAMS, device="cuda")


def test_no_rows_are_one_sentence() -> None:
    X, y = rows(1)
    with pytest.raises(TripDurationError, match=r"no trips to stop on: .*clean"):
        matrices(X, y, X[:0], y[:0])


def roles_of(**how: object) -> Roles:
    """A month to learn from, whose last week takes half as long again, and one to judge on."""
    parts = []
    for seed, first in ((1, 0), (2, 31)):
        X, y = rows(seed, 1200)
        day = np.sort(np.random.default_rng(seed).integers(first, first + 28, 1200))
        y = np.where(day > first + 20, y * 1.5, y)
        parts.append(Rows.of(X, y, day + 18628))  # from 2021-01-01 on
    return divide(*parts, train_months=["2021-01"], validation_months=["2021-02"], **how)


def test_the_model_learns_from_all_for_the_rounds_that_were_found() -> None:
    roles = roles_of(stop_days=10)
    how = {"num_boost_round": 60, "early_stopping_rounds": 5}
    booster, fit = train_model(roles, PARAMS, **how)
    assert booster.num_boosted_rounds() == fit.rounds < 60
    last = roles.stop.on(lambda day: day > roles.stop.days[-1] - 7).whole
    errors = [
        np.abs(b.predict(xgb.DMatrix(last.X)) - last.minutes).mean() for b in (booster, fit.booster)
    ]
    assert errors[0] < errors[1]  # it has seen those days, the first fit has not


def test_where_the_validation_months_stop_the_first_fit_is_the_model() -> None:
    roles = roles_of(stop_on="validation")
    booster, fit = train_model(roles, PARAMS, num_boost_round=40, early_stopping_rounds=5)
    assert booster is fit.booster


def test_recent_trips_count_more() -> None:
    roles = roles_of(stop_on="validation")
    how = {"num_boost_round": 30, "early_stopping_rounds": 30}
    late = roles.fit.on(lambda day: day > roles.fit.days[-1] - 7).whole
    bias = [
        np.mean(train_model(roles, PARAMS, half_life=share, **how)[0].predict(
            xgb.DMatrix(late.X)) - late.minutes)
        for share in (None, 0.1)
    ]  # fmt: skip
    assert bias[0] < bias[1] < 0.5  # without, the late trips are said to be as short as the others


def test_the_level_is_that_of_the_last_days() -> None:
    assert recent_level(np.array([12.0, 11.0]), np.array([10.0, 10.0])) == 1.15
    booster, _ = train_model(
        roles_of(stop_days=10), PARAMS, level_days=4, num_boost_round=40, early_stopping_rounds=5
    )
    assert float(booster.attr("level")) > 1.1  # the week that took longer was not learned from


def test_predictions_that_run_away_are_one_sentence(pair: tuple) -> None:
    with pytest.raises(TripDurationError, match="predictions are not finite"):
        train_best_model(*pair, {"learning_rate": 1e30}, num_boost_round=3)


OBJECTIVES = {
    "reg:squarederror": {},
    "reg:absoluteerror": {},
    "reg:gamma": {},
    "count:poisson": {},
    "reg:tweedie": {},
    "reg:pseudohubererror": {},
    "reg:quantileerror": {"quantile_alpha": [0.05, 0.95]},
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("trees", [1, 3])
def test_many_rows_are_predicted_to_the_bits_of_all_rounds_at_once(
    objective: str, trees: int
) -> None:
    X, y = rows(3, training.MANY_ROWS + 7)
    types = ["q", "q", "c"]
    params = {"objective": objective, "num_parallel_tree": trees, "max_depth": 5, "nthread": 1}
    data = xgb.DMatrix(X, np.abs(y), feature_types=types, enable_categorical=True)
    rounds = 2 * training.ROUNDS_AT_ONCE + 5
    booster = xgb.train(params | OBJECTIVES[objective], data, rounds)
    expected = booster.predict(xgb.DMatrix(X, feature_types=types, enable_categorical=True))
    found = predict(booster, X, types)
    np.testing.assert_array_equal(found.astype(np.float32), expected)
    few = predict(booster, X[:5], types)
    np.testing.assert_array_equal(few, found[:5])


def test_many_rows_of_a_booster_that_was_stopped_early_and_carries_a_level() -> None:
    X, y = rows(3, training.MANY_ROWS)
    booster = xgb.train({"max_depth": 3}, xgb.DMatrix(X, y), 100)
    booster.set_attr(best_iteration=str(training.ROUNDS_AT_ONCE), level="1.25")
    expected = booster.predict(
        xgb.DMatrix(X), iteration_range=(0, training.ROUNDS_AT_ONCE + 1), validate_features=False
    )
    np.testing.assert_array_equal(predict(booster, X, None), expected.astype(np.float64) * 1.25)


def test_many_rows_of_sparse_columns_and_of_no_trees() -> None:
    X, y = rows(3, training.MANY_ROWS)
    sparse = csr_matrix(np.where(X > 1, X, 0.0))
    booster = xgb.train({"max_depth": 3}, xgb.DMatrix(sparse, y), training.ROUNDS_AT_ONCE * 2)
    expected = booster.predict(xgb.DMatrix(sparse))
    np.testing.assert_array_equal(predict(booster, sparse, None).astype(np.float32), expected)
    bare = xgb.train({}, xgb.DMatrix(X, y), 0)
    assert len(set(predict(bare, X, None).tolist())) == 1
