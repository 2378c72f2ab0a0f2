"""The search for the booster's parameters: hyperopt's TPE, in batches that repeat exactly.

TPE's next suggestion depends on the trials that are finished when it is asked, so trials that run
side by side repeat only if they are asked for and awaited in whole batches. Each suggestion draws
its own seed from one generator; the suggested values are rounded to six significant digits, so
that the last bit of another processor's logarithm leaves no trace; each trial has one thread.

Hopeless trials are cut by successive halving in its stopping form (Li et al., A System for
Massively Parallel Hyperparameter Tuning, MLSys 2020): a trial goes on past a rung only if it is
among the best there. What it must reach comes from the batches before its own, so it is known when
the trial begins, and which of two trials is the quicker changes nothing. Two things differ from the
paper, because after equal rounds the trials with the highest learning rates are ahead, and they end
behind (rank correlation with the final RMSE of 22 trials on green 2021: -0.6 after 30 rounds):

- Rungs are counted in rounds times learning rate, the sum of the shrinkage so far.
- Trials are ranked by the RMSE that they head for (`forecast`), not by the one they have. The rank
  correlation with the final RMSE is 0.8 at 4, where a trial has done a sixth of its work; that of
  the RMSE itself is 0.1.
"""

import hashlib
import itertools
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trip_duration.errors import TripDurationError
from trip_duration.files import sha256
from trip_duration.training import ROWS_IN_MEMORY, binned, train_best_model

if TYPE_CHECKING:
    import xgboost as xgb

    from trip_duration.splits import Roles

__all__ = [
    "Attempt",
    "Journal",
    "SearchResult",
    "Trial",
    "forecast",
    "forget_finished",
    "hyperopt_space",
    "journal_path",
    "run_trial",
    "train_model_search",
    "trial_matrices",
]

DIGITS = 6  # significant digits of a suggested value
# What a fit may still gain, in units of what the last doubling of its rounds gained: 4 if each
# doubling gains 0.8 times as much as the one before it.
STILL_TO_GAIN = 4.0
XGBOOST_LEARNING_RATE = 0.3  # where the space and the fixed parameters name none


@dataclass(frozen=True)
class Attempt:
    """A trial that is still to be run: plain data, so that it may run anywhere.

    Attributes
    ----------
    number : int
        Counted from 0 in the order of suggestion.
    params : dict
        The parameters to try.
    limits : tuple of (int, float)
        The rungs, as (rounds, limit): a trial whose `forecast` after so many rounds is above the
        limit ends there. Infinity lets all pass.
    """

    number: int
    params: dict[str, Any]
    limits: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Trial:
    """One trial of the search.

    Attributes
    ----------
    number : int
        Counted from 0 in the order of suggestion.
    params : dict
        The parameters that were tried.
    loss : float or None
        Held-out RMSE in minutes at the best round; None if XGBoost refused the parameters.
    rounds : int
        The best round, counted from 1; 0 if it failed.
    stopped : bool
        Whether it was cut at a rung. Its loss is that of the best round until then.
    forecasts : tuple of float
        The `forecast` at each rung that it came to.
    error : str
        Why it failed.
    """

    number: int
    params: dict[str, Any]
    loss: float | None
    rounds: int
    stopped: bool = False
    forecasts: tuple[float, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    best : Trial or None
        The first of the trials with the lowest loss among those that were not cut; None if no
        trial was asked for.
    trials : list of Trial
        All of them, in the order of their numbers.
    timed_out : bool
        Whether the time was over before the last trial: such a search does not repeat.
    """

    best: Trial | None
    trials: list[Trial]
    timed_out: bool = False

    def table(self) -> pa.Table:
        """A row a trial: ``trial``, ``rmse`` and ``best_so_far`` in minutes, ``rounds``, params.

        A trial that failed has no ``rmse``; one that was cut is ``stopped``, and never the best.
        """
        losses = [
            math.inf if trial.loss is None or trial.stopped else trial.loss for trial in self.trials
        ]
        so_far = [round(best, 6) for best in itertools.accumulate(losses, min)]
        names = sorted({name for trial in self.trials for name in trial.params})
        return pa.table(
            {
                "trial": [trial.number for trial in self.trials],
                "rmse": [None if t.loss is None else round(t.loss, 6) for t in self.trials],
                "best_so_far": [None if math.isinf(best) else best for best in so_far],
                "rounds": [trial.rounds for trial in self.trials],
                "stopped": [trial.stopped for trial in self.trials],
                **{name: [trial.params.get(name) for trial in self.trials] for name in names},
            }
        )

    def leaderboard(self, size: int = 10) -> list[dict[str, Any]]:
        """The best of the trials that were not cut as rows, the best first."""
        rows = [
            row
            for row in self.table().to_pylist()
            if row["rmse"] is not None and not row["stopped"]
        ]
        return sorted(rows, key=lambda row: (row["rmse"], row["trial"]))[:size]


def journal_path(folder: Path, settings: dict[str, Any], inputs: Sequence[str]) -> Path:
    """Where the journal of one search is kept: another search has another name.

    Parameters
    ----------
    folder : Path
        The folder of journals.
    settings : dict
        The arguments of `train_model_search`. How many trials there are and when to stop does not
        matter: trials that were made for a shorter search serve a longer one.
    inputs : sequence of str
        Digests of the files that the search reads.
    """
    same = {k: v for k, v in settings.items() if k not in ("max_evals", "timeout_minutes")}
    names = ("search.py", "training.py", "features.py")
    code = [Path(__file__).with_name(name) for name in names]
    parts = [json.dumps(same, sort_keys=True), *inputs, *(sha256(path) for path in code)]
    parts += [_version(name) for name in ("hyperopt", "numpy", "xgboost", "xgboost-cpu")]
    return folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.jsonl"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


_KINDS = {"number": int, "params": dict, "loss": int | float | None, "rounds": int, "error": str}


class Journal:
    """Trials that succeeded, one JSON line each, on the disk before the next is begun.

    A search that was killed reads them back in place of running them again. A last line that was
    cut in the middle of its write counts as not there.

    Parameters
    ----------
    path : Path
        The file. Its name must tell searches apart: over other rows, spaces or seeds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def read(self) -> dict[int, Trial]:
        """The finished trials by number."""
        if not self.path.exists():
            return {}
        trials = {}
        for line in self.path.read_bytes().splitlines():
            try:
                trial = Trial(**json.loads(line))
                trial = replace(trial, forecasts=tuple(trial.forecasts))
            except (ValueError, TypeError):
                continue
            if all(isinstance(getattr(trial, name), kind) for name, kind in _KINDS.items()):
                trials[trial.number] = trial
        return trials

    def add(self, trial: Trial) -> None:
        """Write a trial, flushed to the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The leading newline keeps a line apart from one that a kill cut short.
        line = f"\n{json.dumps(asdict(trial), sort_keys=True)}\n".encode()
        with self._lock, self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Say that the search is over; the trials stay until `forget_finished`.

        A kill may come before DVC has noted the result: the search is then run again, and finds
        its trials here.
        """
        if self.path.exists():
            self.path.with_suffix(".finished").touch()


def forget_finished(folder: str | Path) -> None:
    """Remove the journals of searches that are over: their results are safe elsewhere."""
    for mark in Path(folder).glob("*.finished"):
        mark.with_suffix(".jsonl").unlink(missing_ok=True)
        mark.unlink(missing_ok=True)


def hyperopt_space(space: dict[str, dict[str, list[Any]]]) -> dict[str, Any]:
    """Turn ``{"max_depth": {"uniformint": [4, 10]}}`` into hyperopt's expressions."""
    from hyperopt import hp

    def expression(name: str, distribution: str, arguments: list[Any]) -> Any:
        make = getattr(hp, distribution)
        return make(name, arguments) if distribution == "choice" else make(name, *arguments)

    return {
        name: expression(name, *next(iter(distribution.items())))
        for name, distribution in sorted(space.items())
    }


class _Suggestions:
    """hyperopt's history and generator; asks for a trial's parameters, tells its loss."""

    def __init__(
        self,
        space: dict[str, dict[str, list[Any]]],
        algorithm: str,
        startup_trials: int,
        seed: int,
        points: Sequence[dict[str, Any]] = (),
    ) -> None:
        from functools import partial

        import hyperopt
        from hyperopt import rand, tpe

        self._hyperopt = hyperopt
        self._space = hyperopt_space(space)
        self._domain = hyperopt.base.Domain(lambda params: None, self._space)
        self._trials = hyperopt.Trials()
        self._generator = np.random.default_rng(seed)
        self._choices = {name: kind["choice"] for name, kind in space.items() if "choice" in kind}
        self._points = points
        self._suggest = (
            partial(tpe.suggest, n_startup_jobs=startup_trials, verbose=False)
            if algorithm == "tpe"
            else rand.suggest
        )

    def ask(self, number: int) -> tuple[dict, dict[str, Any]]:
        """hyperopt's document of the next trial, and its parameters."""
        seed = int(self._generator.integers(2**31 - 1))
        [document] = self._suggest([number], self._domain, self._trials, seed)
        values = document["misc"]["vals"]
        for name, value in (self._points[number] if number < len(self._points) else {}).items():
            values[name] = [self._choices[name].index(value) if name in self._choices else value]
        for name, drawn in values.items():
            if name not in self._choices:
                values[name] = [_rounded(value) for value in drawn]
        point = {name: drawn[0] for name, drawn in values.items() if drawn}
        params = self._hyperopt.space_eval(self._space, point)
        return document, {name: _plain(value) for name, value in sorted(params.items())}

    def tell(self, document: dict, loss: float | None) -> None:
        """Record the loss of a trial that was asked for."""
        document["state"] = self._hyperopt.JOB_STATE_DONE
        ok = loss is not None
        status = self._hyperopt.STATUS_OK if ok else self._hyperopt.STATUS_FAIL
        document["result"] = {"status": status} | ({"loss": loss} if ok else {})
        self._trials.insert_trial_docs([document])
        self._trials.refresh()


def _rounded(value: Any) -> float | int:
    number = float(f"{float(value):.{DIGITS}g}")
    return int(number) if isinstance(value, int | np.integer) else number


def _plain(value: Any) -> Any:
    """A whole number as int, so that XGBoost takes ``quniform``'s 7.0 as a depth."""
    if isinstance(value, str | bool):
        return value
    number = float(value)
    return int(number) if number.is_integer() else number


def trial_matrices(
    roles: "Roles", *, sample_rows: int | None = None, **columns: Any
) -> "tuple[xgb.DMatrix, xgb.DMatrix]":
    """The two matrices that all trials share: rows to learn from, and rows to judge on.

    Both are in memory, since fits that run side by side can't read one set of files; therefore no
    more than ``rows_in_memory`` rows are learned from.

    Parameters
    ----------
    roles : Roles
        ``fit`` is learned from, ``stop`` judges.
    sample_rows : int, optional
        Learn from at most so many of the rows, evenly spaced; all rows judge nevertheless.
    **columns
        As in `training.binned`; `train_model_search` must be given the same ``max_bin``.

    Raises
    ------
    TripDurationError
        If there are no rows to learn from or none to judge on.
    """
    most = columns.pop("rows_in_memory", ROWS_IN_MEMORY)
    most = min(most, sample_rows) if sample_rows else most
    learned = roles.fit.sample(most)
    held = max(len(learned), len(roles.stop))
    return binned(learned, roles.stop, rows_in_memory=held, **columns)


def forecast(best: Sequence[float]) -> float:
    """The RMSE that a fit heads for, from the lowest RMSE up to each of its rounds.

    It is what the fit has, less `STILL_TO_GAIN` times what it gained since half as many rounds. It
    only ranks fits that have come as far: early on it lies far too low.
    """
    half = best[max(0, len(best) // 2 - 1)]
    return best[-1] - STILL_TO_GAIN * (half - best[-1])


def run_trial(
    train: "xgb.DMatrix",
    held_out: "xgb.DMatrix",
    attempt: Attempt,
    *,
    num_boost_round: int = 1000,
    early_stopping_rounds: int = 50,
    seed: int = 42,
    max_bin: int = 256,
    device: str = "cpu",
    should_stop: Callable[[], bool] | None = None,
) -> Trial:
    """Run one trial, in one thread: the same attempt on the same rows gives the same trial.

    Parameters
    ----------
    train, held_out : xgboost.DMatrix
        As `trial_matrices` or `training.matrices` gives them.
    attempt : Attempt
        What to try.
    num_boost_round, early_stopping_rounds, seed, max_bin, device
        As in `train_model_search`.
    should_stop : callable, optional
        Asked after each round; true ends the trial, whose result then means nothing.

    Returns
    -------
    Trial
        With no loss, and an ``error``, if XGBoost refused the parameters.
    """
    best: list[float] = []
    forecasts: list[float] = []
    stopped = False

    def after_round(rounds: int, rmse: float) -> bool:
        nonlocal stopped
        best.append(min(rmse, best[-1]) if best else rmse)
        for at, limit in attempt.limits[len(forecasts) :]:
            if stopped or at > rounds:
                break
            forecasts.append(forecast(best))
            stopped = forecasts[-1] > limit
        return stopped or bool(should_stop and should_stop())

    try:
        fit = train_best_model(
            train,
            held_out,
            attempt.params,
            num_boost_round=num_boost_round,
            early_stopping_rounds=early_stopping_rounds,
            seed=seed,
            nthread=1,
            max_bin=max_bin,
            device=device,
            curve=False,
            after_round=after_round,
        )
    except TripDurationError as error:
        return Trial(attempt.number, attempt.params, None, 0, error=str(error))
    return Trial(attempt.number, attempt.params, fit.rmse, fit.rounds, stopped, tuple(forecasts))


def train_model_search(
    train: "xgb.DMatrix | None",
    held_out: "xgb.DMatrix | None",
    space: dict[str, dict[str, list[Any]]],
    *,
    max_evals: int = 50,
    algorithm: str = "tpe",
    startup_trials: int = 20,
    parallel_trials: int = 2,
    num_boost_round: int = 1000,
    early_stopping_rounds: int = 50,
    reduction_factor: int | None = None,
    first_rung: float = 3.0,
    timeout_minutes: float | None = None,
    points_to_evaluate: Sequence[dict[str, Any]] = (),
    fixed: dict[str, Any] | None = None,
    seed: int = 42,
    max_bin: int = 256,
    device: str = "cpu",
    journal: Journal | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    run: Callable[[Sequence[Attempt]], Iterable[Trial]] | None = None,
) -> SearchResult:
    """Search the booster's parameters for the lowest RMSE on the rows that are held out.

    Parameters
    ----------
    train, held_out : xgboost.DMatrix or None
        Shared by all trials, as `trial_matrices` gives them; None where `run` has its own.
    space : dict
        hyperopt's distributions by parameter, like ``{"max_depth": {"uniformint": [4, 10]}}``.
    max_evals : int
        Trials.
    algorithm : {"tpe", "random"}
        Tree-structured Parzen estimators (Bergstra et al., Algorithms for Hyper-Parameter
        Optimization, NeurIPS 2011), or random search.
    startup_trials : int
        Random trials before TPE learns.
    parallel_trials : int
        Trials in a batch. They run side by side, one thread each and as many at a time as there are
        cores, and are awaited together. More than there are cores keep them busy while the longest
        trial runs.
    num_boost_round, early_stopping_rounds : int
        Rounds of a trial at most, and rounds without a better RMSE that end it.
    reduction_factor : int, optional
        One trial in so many goes on past the first rung, one in its square past the second, and so
        forth; each rung is so many times as far as the one before. None cuts no trial.
    first_rung : float
        Where the first rung is, in rounds times learning rate.
    timeout_minutes : float, optional
        Begin no batch but the first after so many minutes.
    points_to_evaluate : sequence of dict
        What the first trials try, by name of the space; what a point does not name is drawn.
    fixed : dict, optional
        Parameters that win over the space's.
    seed, max_bin : int
        Of the suggestions and the fits; bins a column, as in `training.matrices`.
    device : {"cpu", "cuda"}
        Where to fit.
    journal : Journal, optional
        Where finished trials are kept and read back from.
    on_trial : callable, optional
        Called with each finished trial, as they finish.
    run : callable, optional
        Runs a batch elsewhere: called with attempts, it gives their trials in any order, as
        `run_trial` would. The result is the same as without it.

    Returns
    -------
    SearchResult
        With no ``best`` where `max_evals` is 0.

    Raises
    ------
    TripDurationError
        If every trial failed.
    """
    if not max_evals:
        return SearchResult(best=None, trials=[])
    fixed = fixed or {}
    finished = journal.read() if journal else {}
    suggestions = _Suggestions(space, algorithm, startup_trials, seed, points_to_evaluate)
    stop = threading.Event()
    threads = min(parallel_trials, _cores())

    began, timed_out = time.monotonic(), False
    trials: list[Trial] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="trial") as pool:

        def side_by_side(attempts: Sequence[Attempt]) -> Iterator[Trial]:
            assert train is not None
            assert held_out is not None
            # Low learning rates take long: those that begin last should be short.
            order = sorted(attempts, key=lambda attempt: _learning_rate(attempt.params))
            waiting = [
                pool.submit(
                    run_trial,
                    train,
                    held_out,
                    attempt,
                    num_boost_round=num_boost_round,
                    early_stopping_rounds=early_stopping_rounds,
                    seed=seed,
                    max_bin=max_bin,
                    device=device,
                    should_stop=stop.is_set,
                )
                for attempt in order
            ]
            for future in as_completed(waiting):
                yield future.result()

        def batch_of(attempts: Sequence[Attempt]) -> Iterator[Trial]:
            """The trials of a batch: those of the journal, then the others as they finish."""
            known = [finished.get(attempt.number) for attempt in attempts]
            kept = [t for t, a in zip(known, attempts, strict=True) if t and t.params == a.params]
            yield from kept
            there = {trial.number for trial in kept}
            missing = [attempt for attempt in attempts if attempt.number not in there]
            for trial in (run or side_by_side)(missing) if missing else ():
                if journal and trial.loss is not None:
                    journal.add(trial)
                yield trial

        try:
            for batch in _batches(max_evals, parallel_trials):
                late = timeout_minutes and time.monotonic() - began > 60 * timeout_minutes
                if late and trials:
                    timed_out = True
                    break
                asked = [suggestions.ask(number) for number in batch]
                attempts = []
                for number, (_, drawn) in zip(batch, asked, strict=True):
                    params = {**drawn, **fixed}
                    limits = _limits(trials, params, reduction_factor, first_rung, num_boost_round)
                    attempts.append(Attempt(number, params, limits))
                done = {}
                for trial in batch_of(attempts):
                    done[trial.number] = trial
                    if on_trial:
                        on_trial(trial)
                for (document, _), attempt in zip(asked, attempts, strict=True):
                    # A trial that was cut tells what it had. TPE only asks whether a trial is among
                    # the best few, a quarter of the root of their number, and there it is not.
                    suggestions.tell(document, done[attempt.number].loss)
                    trials.append(done[attempt.number])
        except BaseException:
            stop.set()  # the trials that still run end after their round
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    whole = [trial for trial in trials if trial.loss is not None and not trial.stopped]
    if not whole:
        reason = trials[-1].error
        raise TripDurationError(f"all {len(trials)} trials failed, the last because {reason}")
    best = min(whole, key=lambda trial: (trial.loss, trial.number))
    return SearchResult(best=best, trials=trials, timed_out=timed_out)


def _limits(
    trials: Sequence[Trial],
    params: dict[str, Any],
    factor: int | None,
    first_rung: float,
    num_boost_round: int,
) -> tuple[tuple[int, float], ...]:
    """The rungs of a trial with these parameters, as the trials before its batch set them.

    The share that may pass is of all trials, and not only of those that came to the rung: TPE's
    later trials are better than its first ones, and most of them would pass.
    """
    if factor is None:
        return ()
    limits: list[tuple[int, float]] = []
    succeeded = sum(trial.loss is not None for trial in trials)
    progress, share = first_rung, factor
    while (rounds := max(1, round(progress / _learning_rate(params)))) < num_boost_round:
        there = sorted(t.forecasts[len(limits)] for t in trials if len(t.forecasts) > len(limits))
        passing = max(1, succeeded // share)
        known = succeeded >= factor and len(there) >= passing
        limits.append((rounds, there[passing - 1] if known else math.inf))
        progress, share = progress * factor, share * factor
    return tuple(limits)


def _learning_rate(params: dict[str, Any]) -> float:
    rate = params.get("learning_rate", params.get("eta", XGBOOST_LEARNING_RATE))
    return max(float(rate), 1e-6)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _batches(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
