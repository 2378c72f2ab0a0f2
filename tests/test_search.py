"""A search that repeats exactly, side by side, and goes on where it was killed."""

import itertools
import json
import pickle
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_training import rows

from trip_duration import search, training
from trip_duration.errors import TripDurationError
from trip_duration.search import (
    Attempt,
    Journal,
    Trial,
    forget_finished,
    hyperopt_space,
    journal_path,
    run_trial,
    train_model_search,
    trial_matrices,
)
from trip_duration.splits import Roles, Rows
from trip_duration.training import binned, matrices, train_best_model

SPACE = {
    "learning_rate": {"loguniform": [-3.0, 0.0]},
    "max_depth": {"uniformint": [1, 6]},
    "min_child_weight": {"quniform": [1, 9, 2]},
    "grow_policy": {"choice": ["depthwise", "lossguide"]},
}
SETTINGS = {
    "max_evals": 8,
    "startup_trials": 3,
    "num_boost_round": 15,
    "early_stopping_rounds": 3,
    "parallel_trials": 2,
}
HALVING = {"reduction_factor": 3, "first_rung": 0.5}
LONGER = SETTINGS | {"max_evals": 16, "num_boost_round": 40}


@pytest.fixture(scope="module")
def pair() -> tuple:
    return matrices(*rows(1), *rows(2))


@pytest.fixture(scope="module")
def result(pair: tuple) -> search.SearchResult:
    return train_model_search(*pair, SPACE, **SETTINGS)


def test_it_finds_the_best_and_keeps_all(result: search.SearchResult) -> None:
    assert [trial.number for trial in result.trials] == list(range(8))
    assert result.best.loss == min(trial.loss for trial in result.trials)
    assert len({json.dumps(trial.params) for trial in result.trials}) == 8


def test_it_repeats_exactly(pair: tuple, result: search.SearchResult) -> None:
    assert train_model_search(*pair, SPACE, **SETTINGS) == result
    assert train_model_search(*pair, SPACE, **SETTINGS, seed=7) != result


@pytest.mark.parametrize("halving", [{}, HALVING])
def test_a_batch_that_runs_elsewhere_gives_the_same(pair: tuple, halving: dict) -> None:
    asked = []

    def elsewhere(attempts: Sequence[Attempt]) -> list[Trial]:
        """One after another, the last first, each attempt through bytes."""
        sent = [pickle.loads(pickle.dumps(attempt)) for attempt in reversed(attempts)]
        asked.append([attempt.number for attempt in attempts])
        return [run_trial(*pair, attempt, num_boost_round=15, early_stopping_rounds=3, seed=42)
                for attempt in sent]  # fmt: skip

    found = train_model_search(None, None, SPACE, **SETTINGS, **halving, run=elsewhere)
    assert found == train_model_search(*pair, SPACE, **SETTINGS, **halving)
    assert asked == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_what_the_journal_has_is_not_run_elsewhere(
    pair: tuple, tmp_path: Path, result: search.SearchResult
) -> None:
    journal, asked = Journal(tmp_path / "search.jsonl"), []
    journal.add(result.trials[1])

    def elsewhere(attempts: Sequence[Attempt]) -> Iterator[Trial]:
        for attempt in attempts:
            asked.append(attempt.number)
            yield result.trials[attempt.number]

    assert train_model_search(None, None, SPACE, **SETTINGS, journal=journal, run=elsewhere)
    assert asked == [0, 2, 3, 4, 5, 6, 7]
    assert journal.read() == dict(enumerate(result.trials))


def by_hand(curve: Sequence[float], rounds: int) -> float:
    """`forecast` from the RMSE after each round, the slow way."""
    now, before = min(curve[:rounds]), min(curve[: max(1, rounds // 2)])
    return now - 4 * (before - now)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1, 100), min_size=1, max_size=40))
def test_a_forecast_is_what_is_there_less_what_is_still_to_gain(curve: list[float]) -> None:
    best = list(itertools.accumulate(curve, min))
    assert search.forecast(best) == by_hand(curve, len(curve))
    assert search.forecast(best) <= best[-1]


def test_hopeless_trials_are_cut_at_rungs_that_earlier_batches_set(pair: tuple) -> None:
    """Each trial again from its full curve: who should be cut, where, and with what."""
    found = train_model_search(*pair, SPACE, **LONGER, **HALVING)
    earlier: list[Trial] = []
    for batch in (found.trials[n : n + 2] for n in range(0, 16, 2)):
        for trial in batch:
            fit = train_best_model(
                *pair, trial.params, num_boost_round=40, early_stopping_rounds=3, nthread=1
            )
            curve = fit.curve["held_out"]
            forecasts, cut = [], None
            for rung, progress in enumerate((0.5, 1.5, 4.5, 13.5)):
                rounds = max(1, round(progress / trial.params["learning_rate"]))
                if rounds >= 40 or rounds > len(curve) or cut or ended(curve, rounds):
                    break
                forecasts.append(by_hand(curve, rounds))
                there = sorted(t.forecasts[rung] for t in earlier if len(t.forecasts) > rung)
                passing = max(1, int(len(earlier) / 3 ** (rung + 1)))
                if len(earlier) >= 3 and there[passing - 1 :]:
                    cut = rounds if forecasts[-1] > there[passing - 1] else None
            assert trial.forecasts == tuple(forecasts)
            assert trial.stopped == bool(cut)
            assert trial.loss == min(curve[:cut])
        earlier += batch
    assert {trial.stopped for trial in found.trials} == {True, False}


def ended(curve: Sequence[float], rounds: int) -> bool:
    """Whether the early stop of three rounds ends the fit right after this round."""
    return rounds - 1 - int(np.argmin(curve[:rounds])) >= 3


def test_the_best_trial_was_not_cut(pair: tuple) -> None:
    def elsewhere(attempts: Sequence[Attempt]) -> list[Trial]:
        return [Trial(a.number, a.params, 9.0 - a.number, 5, a.number > 3) for a in attempts]

    found = train_model_search(None, None, SPACE, **SETTINGS, run=elsewhere)
    assert found.best == found.trials[3]
    rows = found.table().to_pylist()
    assert [row["stopped"] for row in rows] == [False] * 4 + [True] * 4
    assert [row["rmse"] for row in rows] == [9, 8, 7, 6, 5, 4, 3, 2]
    assert [row["best_so_far"] for row in rows] == [9, 8, 7, 6, 6, 6, 6, 6]
    assert [row["trial"] for row in found.leaderboard()] == [3, 2, 1, 0]


def test_a_search_that_cuts_goes_on_where_it_was_killed(pair: tuple, tmp_path: Path) -> None:
    whole = train_model_search(*pair, SPACE, **LONGER, **HALVING)
    journal = Journal(tmp_path / "search.jsonl")
    for trial in whole.trials[:9]:
        journal.add(trial)
    ran = []
    found = train_model_search(
        *pair, SPACE, **LONGER, **HALVING, journal=journal, run=lambda attempts: [
            ran.append(a.number) or run_trial(*pair, a, num_boost_round=40, early_stopping_rounds=3)
            for a in attempts
        ],
    )  # fmt: skip
    assert found == whole
    assert ran == [9, 10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize(("sparse", "most"), [(False, 10**6), (False, 10), (True, 10**6)])
def test_trial_matrices_give_the_bits_of_binned_ones(
    sparse: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.sparse import csr_matrix

    make = csr_matrix if sparse else np.asarray
    (X, y), (V, y_val) = rows(1, 3_000), rows(2, 500)
    fit, stop = Rows.of(make(X), y, np.arange(3_000) // 100), Rows.of(make(V), y_val)
    roles = Roles(fit=fit, stop=stop, final=fit, calibration=stop)
    attempt = Attempt(0, {"learning_rate": 0.3})
    for sample_rows, learned in ((None, fit), (700, fit.sample(700))):
        monkeypatch.setattr(training, "PLAIN_ROWS", most)
        mine = trial_matrices(roles, sample_rows=sample_rows, half_life=0.5)
        monkeypatch.setattr(training, "PLAIN_ROWS", 0)
        all_binned = binned(learned, stop, half_life=0.5)
        assert (mine[0].num_row(), mine[1].num_row()) == (len(learned), 500)
        ended = [run_trial(*pair, attempt, num_boost_round=20) for pair in (mine, all_binned)]
        assert ended[0] == ended[1]


def test_trials_share_bins_in_memory_alone() -> None:
    import xgboost as xgb

    fit, stop = Rows.of(*rows(1, 3_000)), Rows.of(*rows(2, 500))
    roles = Roles(fit=fit, stop=stop, final=fit, calibration=stop)
    for sample_rows, learned in ((None, 100), (50, 50), (2_000, 100)):
        pair = trial_matrices(roles, sample_rows=sample_rows, rows_in_memory=100)
        assert not any(isinstance(each, xgb.ExtMemQuantileDMatrix) for each in pair)
        assert [each.num_row() for each in pair] == [learned, 500]


def test_no_rows_to_judge_on_are_refused() -> None:
    X, y = rows(1, 100)
    fit, none = Rows.of(X, y), Rows.of(X[:0], y[:0])
    roles = Roles(fit=fit, stop=none, final=fit, calibration=none)
    with pytest.raises(TripDurationError, match="there are no trips to stop on"):
        trial_matrices(roles)


def test_trials_side_by_side_share_a_sparse_matrix_too() -> None:
    from scipy.sparse import csr_matrix

    (X, y), (V, y_val) = rows(1, 4_000), rows(2, 400)
    onehot = [csr_matrix((M[:, 2:] == np.arange(1, 6)) * 1.0) for M in (X, V)]
    serial, parallel = (
        train_model_search(
            *matrices(onehot[0], y, onehot[1], y_val), SPACE, **SETTINGS | {"parallel_trials": n}
        )
        for n in (1, 4)
    )
    # Random search asks for the same trials, whatever the batch.
    assert [t.loss for t in serial.trials[:3]] == [t.loss for t in parallel.trials[:3]]


def test_trials_really_run_side_by_side(pair: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(2, timeout=20)

    def fit(*_: object, **__: object) -> object:
        meeting.wait()  # breaks unless two trials are here at once
        return type("Fit", (), {"rmse": 1.0, "rounds": 1})()

    monkeypatch.setattr(search, "train_best_model", fit)
    monkeypatch.setattr(search, "_cores", lambda: 2)
    assert len(train_model_search(*pair, SPACE, **SETTINGS).trials) == 8


def test_values_are_plain_and_within_their_bounds(result: search.SearchResult) -> None:
    for trial in result.trials:
        assert np.exp(-3) * 0.999 <= trial.params["learning_rate"] <= 1
        assert trial.params["max_depth"] in range(1, 7)
        assert isinstance(trial.params["max_depth"], int)
        assert trial.params["min_child_weight"] % 2 == 0
        assert isinstance(trial.params["min_child_weight"], int)
        assert trial.params["grow_policy"] in ("depthwise", "lossguide")
        assert float(f"{trial.params['learning_rate']:.6g}") == trial.params["learning_rate"]


def test_tpe_learns_from_what_was_found(pair: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a bowl, TPE's late trials lie nearer to the bottom than random ones."""

    def fit(_: object, __: object, params: dict, **___: object) -> object:
        return type("Fit", (), {"rmse": (params["gamma"] - 70) ** 2, "rounds": 1})()

    monkeypatch.setattr(search, "train_best_model", fit)

    def late(algorithm: str) -> float:
        found = train_model_search(
            *pair, {"gamma": {"uniform": [0, 100]}}, algorithm=algorithm, max_evals=100,
            startup_trials=10,
        )  # fmt: skip
        return float(np.median([trial.loss for trial in found.trials[50:]]))

    assert late("tpe") < late("random") / 2


def test_a_killed_search_goes_on_and_ends_the_same(
    pair: tuple, tmp_path: Path, result: search.SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "search.jsonl")

    class KilledError(BaseException):
        pass

    def kill(trial: Trial) -> None:
        if trial.number == 4:
            raise KilledError

    with pytest.raises(KilledError):
        train_model_search(*pair, SPACE, **SETTINGS, journal=journal, on_trial=kill)
    kept = journal.read()
    assert set(range(5)) <= set(kept) <= set(range(6))
    with journal.path.open("ab") as file:
        file.write(b'\n{"number": 5, "params"')  # cut in the middle of its write
    fitted = []
    original = search.train_best_model

    def counting(*args: object, **kwargs: object) -> object:
        fitted.append(args[2])
        return original(*args, **kwargs)

    monkeypatch.setattr(search, "train_best_model", counting)
    assert train_model_search(*pair, SPACE, **SETTINGS, journal=journal) == result
    assert len(fitted) == 8 - len(kept)
    assert len(journal.read()) == 8
    forget_finished(tmp_path)
    assert journal.path.exists()  # it may be run again until DVC has noted its result
    journal.finish()
    assert len(journal.read()) == 8
    forget_finished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_of_other_parameters_is_not_believed(
    pair: tuple, tmp_path: Path, result: search.SearchResult
) -> None:
    journal = Journal(tmp_path / "search.jsonl")
    journal.add(Trial(0, {"max_depth": 99}, 0.0, 1))
    assert train_model_search(*pair, SPACE, **SETTINGS, journal=journal) == result


def test_another_search_has_another_journal(tmp_path: Path) -> None:
    chosen = {**SETTINGS, "space": SPACE}
    path = journal_path(tmp_path, chosen, ["abc"])
    assert journal_path(tmp_path, {**chosen, "max_evals": 99}, ["abc"]) == path
    assert journal_path(tmp_path, chosen, ["abd"]) != path
    assert journal_path(tmp_path, {**chosen, "seed": 1}, ["abc"]) != path
    assert journal_path(tmp_path, {**chosen, "first_rung": 1.0}, ["abc"]) != path


def test_a_refused_trial_does_not_end_the_search(pair: tuple) -> None:
    space = {"subsample": {"choice": [0.5, 7.0]}}
    found = train_model_search(*pair, space, max_evals=8, num_boost_round=3)
    assert {trial.loss is None for trial in found.trials} == {True, False}
    assert found.best.params == {"subsample": 0.5}
    assert found.table().num_rows == 8
    assert all(row["rmse"] is not None for row in found.leaderboard())


def test_when_all_trials_fail_the_reason_is_said(pair: tuple, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "search.jsonl")
    for _ in range(2):  # the second time as the first: what failed is tried again
        with pytest.raises(TripDurationError, match=r"all 2 trials failed.*7"):
            train_model_search(
                *pair, {"subsample": {"choice": [7.0]}}, max_evals=2, journal=journal
            )


def test_fixed_parameters_win_over_the_space(pair: tuple) -> None:
    found = train_model_search(*pair, SPACE, **SETTINGS | {"max_evals": 2}, fixed={"max_depth": 2})
    assert [trial.params["max_depth"] for trial in found.trials] == [2, 2]


def test_no_trials_find_nothing(pair: tuple) -> None:
    found = train_model_search(*pair, {}, max_evals=0)
    assert (found.best, found.trials, found.table().num_rows) == (None, [], 0)


def test_the_time_limit_ends_it_after_a_whole_batch(
    pair: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(search.time, "monotonic", lambda: next(clock))
    found = train_model_search(*pair, SPACE, **SETTINGS, timeout_minutes=4)
    assert found.timed_out
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]


def test_the_table_says_the_best_so_far(result: search.SearchResult) -> None:
    rows = result.table().to_pylist()
    assert [row["trial"] for row in rows] == list(range(8))
    assert [row["best_so_far"] for row in rows] == [
        min(row["rmse"] for row in rows[: number + 1]) for number in range(8)
    ]
    assert result.leaderboard(3)[0]["trial"] == result.best.number


def test_every_distribution_becomes_hyperopts() -> None:
    from hyperopt.pyll.stochastic import sample

    from trip_duration.params import DISTRIBUTIONS

    arguments = {1: [1], 2: [1, 2], 3: [1, 2, 1], None: [1, 2]}
    space = {name: {name: arguments[count]} for name, count in DISTRIBUTIONS.items()}
    drawn = sample(hyperopt_space(space), rng=np.random.default_rng(1))
    assert set(drawn) == set(DISTRIBUTIONS)


def test_the_first_trials_are_those_that_are_named(pair: tuple) -> None:
    points = [
        {"learning_rate": 0.25, "max_depth": 3, "min_child_weight": 5, "grow_policy": "lossguide"},
        {"max_depth": 2},
    ]
    found = train_model_search(*pair, SPACE, **SETTINGS, points_to_evaluate=points)
    assert found.trials[0].params == points[0]
    assert found.trials[1].params["max_depth"] == 2
    assert set(found.trials[1].params) == set(SPACE)  # what is not named is drawn
    drawn = train_model_search(*pair, SPACE, **SETTINGS)
    assert found.trials[2].params == drawn.trials[2].params  # the random ones are as they were
    assert found.trials[7].params != drawn.trials[7].params  # TPE has learned from the points
