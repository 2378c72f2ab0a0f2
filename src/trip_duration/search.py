"""The search for the booster's parameters: hyperopt's TPE, in batches that repeat exactly.

TPE's next suggestion depends on the trials that are finished when it is asked, so trials that run
side by side repeat only if they are asked for and awaited in whole batches. Each suggestion draws
its own seed from one generator; the suggested values are rounded to six significant digits, so
that the last bit of another processor's logarithm leaves no trace; each trial has one thread.
"""

import hashlib
import itertools
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trip_duration.errors import TripDurationError
from trip_duration.files import sha256
from trip_duration.training import train_best_model

if TYPE_CHECKING:
    import xgboost as xgb

__all__ = [
    "Journal",
    "SearchResult",
    "Trial",
    "hyperopt_space",
    "journal_path",
    "train_model_search",
]

DIGITS = 6  # significant digits of a suggested value


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
    """

    number: int
    params: dict[str, Any]
    loss: float | None
    rounds: int


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    best : Trial or None
        The first of the trials with the lowest loss; None if no trial was asked for.
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

        A trial that failed has no ``rmse``.
        """
        losses = [math.inf if trial.loss is None else trial.loss for trial in self.trials]
        so_far = [round(best, 6) for best in itertools.accumulate(losses, min)]
        names = sorted({name for trial in self.trials for name in trial.params})
        return pa.table(
            {
                "trial": [trial.number for trial in self.trials],
                "rmse": [None if t.loss is None else round(t.loss, 6) for t in self.trials],
                "best_so_far": [None if math.isinf(best) else best for best in so_far],
                "rounds": [trial.rounds for trial in self.trials],
                **{name: [trial.params.get(name) for trial in self.trials] for name in names},
            }
        )

    def leaderboard(self, size: int = 10) -> list[dict[str, Any]]:
        """The best trials as rows, the best first."""
        rows = [row for row in self.table().to_pylist() if row["rmse"] is not None]
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
            except (ValueError, TypeError):
                continue
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

    def remove(self) -> None:
        """Forget the search: its result is safe elsewhere."""
        self.path.unlink(missing_ok=True)


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


def train_model_search(
    train: "xgb.DMatrix",
    held_out: "xgb.DMatrix",
    space: dict[str, dict[str, list[Any]]],
    *,
    max_evals: int = 50,
    algorithm: str = "tpe",
    startup_trials: int = 20,
    parallel_trials: int = 2,
    num_boost_round: int = 1000,
    early_stopping_rounds: int = 50,
    timeout_minutes: float | None = None,
    points_to_evaluate: Sequence[dict[str, Any]] = (),
    fixed: dict[str, Any] | None = None,
    seed: int = 42,
    max_bin: int = 256,
    device: str = "cpu",
    journal: Journal | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Search the booster's parameters for the lowest RMSE on the rows that are held out.

    Parameters
    ----------
    train, held_out : xgboost.DMatrix
        Shared by all trials, as `training.matrices` gives them.
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
        Trials in a batch. They run side by side, one thread each, and are awaited together.
    num_boost_round, early_stopping_rounds : int
        Rounds of a trial at most, and rounds without a better RMSE that end it.
    timeout_minutes : float, optional
        Begin no batch after so many minutes.
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
        Called with each finished trial, from the trial's thread, one at a time.

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
    stop, report = threading.Event(), threading.Lock()
    refusals: list[TripDurationError] = []

    def run(number: int, params: dict[str, Any]) -> Trial:
        trial = finished.get(number)
        if trial is None or trial.params != params:
            try:
                fit = train_best_model(
                    train,
                    held_out,
                    params,
                    num_boost_round=num_boost_round,
                    early_stopping_rounds=early_stopping_rounds,
                    seed=seed,
                    nthread=1,
                    max_bin=max_bin,
                    device=device,
                    curve=False,
                    after_round=lambda *_: stop.is_set(),
                )
            except TripDurationError as error:
                refusals.append(error)
                trial = Trial(number, params, None, 0)
            else:
                trial = Trial(number, params, fit.rmse, fit.rounds)
                if journal and not stop.is_set():
                    journal.add(trial)
        if on_trial and not stop.is_set():
            with report:
                on_trial(trial)
        return trial

    began, timed_out = time.monotonic(), False
    trials: list[Trial] = []
    with ThreadPoolExecutor(parallel_trials, thread_name_prefix="trial") as pool:
        try:
            for batch in _batches(max_evals, parallel_trials):
                if timeout_minutes and time.monotonic() - began > 60 * timeout_minutes:
                    timed_out = True
                    break
                asked = [suggestions.ask(number) for number in batch]
                done = pool.map(run, batch, [{**params, **fixed} for _, params in asked])
                for (document, _), trial in zip(asked, done, strict=True):
                    suggestions.tell(document, trial.loss)
                    trials.append(trial)
        except BaseException:
            stop.set()  # the trials that still run end after their round
            raise
    succeeded = [trial for trial in trials if trial.loss is not None]
    if not succeeded:
        raise TripDurationError(f"all {len(trials)} trials failed, the last because {refusals[-1]}")
    best = min(succeeded, key=lambda trial: (trial.loss, trial.number))
    return SearchResult(best=best, trials=trials, timed_out=timed_out)


def _batches(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
