"""Fitting the booster: the same rows, parameters, seed and threads give the same bits."""

import math
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trip_duration.errors import TripDurationError
from trip_duration.files import write_bytes
from trip_duration.splits import Rows, weigher

if TYPE_CHECKING:
    import xgboost as xgb
    from scipy.sparse import csr_matrix

    from trip_duration.splits import Roles

__all__ = [
    "COURSE_EARLY_STOPPING_ROUNDS",
    "COURSE_PARAMS",
    "COURSE_ROUNDS",
    "Fit",
    "binned",
    "boost",
    "booster_params",
    "check_device",
    "level_of",
    "load_booster",
    "matrices",
    "matrix",
    "predict",
    "recent_level",
    "save_booster",
    "train_best_model",
    "train_for_rounds",
    "train_model",
]

# The parameters that the course's script fixed, with 1,000 rounds and an early stop after 50:
# DataTalksClub, MLOps Zoomcamp, module 3 (orchestration), the duration prediction notebook.
COURSE_PARAMS: dict[str, Any] = {
    "learning_rate": 0.09585355369315604,
    "max_depth": 30,
    "min_child_weight": 1.060597050922164,
    "objective": "reg:squarederror",
    "reg_alpha": 0.018060244040060163,
    "reg_lambda": 0.011658731377413597,
    "seed": 42,
}
COURSE_ROUNDS = 1000
COURSE_EARLY_STOPPING_ROUNDS = 50

CUT_ROWS = 1 << 20  # trips that the bins' edges are taken from
PAGE_ROWS = 1 << 20  # that are binned at once; a fit has 32 kB for each node of a tree in each page
PLAIN_ROWS = 2_000_000  # to judge on; more are binned, since plain, 31 columns take 0.5 GB
ROUNDS_AT_ONCE = 32  # of predictions for many rows: their trees fit a processor's cache
MANY_ROWS = 4_096  # of fewer, all rounds are predicted at once
ROWS_IN_MEMORY = 5_000_000  # of `metered`: a fit has some 250 bytes for each


@dataclass(frozen=True)
class Fit:
    """A fitted booster, cut to its best round.

    Attributes
    ----------
    booster : xgboost.Booster
        Holds the rounds up to the best one, and no more.
    rounds : int
        How many that are.
    rmse : float
        Root mean squared error on the rows that were held out, in minutes.
    curve : dict of list of float
        RMSE after each round, for ``train`` and ``held_out``, early-stopped rounds included.
    """

    booster: "xgb.Booster"
    rounds: int
    rmse: float
    curve: dict[str, list[float]] = field(repr=False)

    def table(self) -> pa.Table:
        """The curve as rows: ``round`` (from 1), then ``train`` and ``held_out`` in minutes."""
        rounds = len(self.curve["held_out"])
        errors = {name: np.round(values, 6) for name, values in self.curve.items()}
        return pa.table({"round": np.arange(1, rounds + 1), **errors})


def booster_params(
    params: dict[str, Any], *, seed: int, nthread: int, max_bin: int, device: str = "cpu"
) -> dict[str, Any]:
    """Searched or chosen parameters, completed with what makes a fit repeat."""
    return {
        "objective": "reg:squarederror",
        "seed": seed,
        **params,
        "eval_metric": "rmse",
        "tree_method": "hist",
        "device": device,
        "nthread": nthread,
        "max_bin": max_bin,
        "verbosity": 0,
    }


def matrices(
    X_train: "np.ndarray | csr_matrix",
    y_train: np.ndarray,
    X_val: "np.ndarray | csr_matrix",
    y_val: np.ndarray,
    **columns: Any,
) -> "tuple[xgb.DMatrix, xgb.DMatrix]":
    """`binned` for features that are in memory, as `add_features` gives them.

    Parameters
    ----------
    X_train, X_val : array of shape (rows, columns), dense or CSR
        Features. NaN, and what a sparse matrix does not hold, is missing.
    y_train, y_val : array of shape (rows,)
        Minutes.
    **columns
        As in `binned`.
    """
    return binned(Rows.of(X_train, y_train), Rows.of(X_val, y_val), **columns)


def binned(
    learned: Rows, held_out: Rows, *, half_life: float | None = None, **columns: Any
) -> "tuple[xgb.DMatrix, xgb.DMatrix]":
    """Bin the features once; every trial and the last fit read the same two matrices.

    Parameters
    ----------
    learned, held_out : Rows
        Trips to learn from, and those that stop the fit.
    half_life : float, optional
        As in `splits.weigher`, of the trips to learn from.
    **columns
        ``names``, ``types``, ``max_bin``, ``nthread``, ``rows_in_memory`` and ``cache``, as in
        `matrix`.

    Raises
    ------
    TripDurationError
        If there are no rows to learn from or none to stop on.
    """
    for rows, what in ((learned, "learn from"), (held_out, "stop on")):
        if not len(rows):
            raise TripDurationError(
                f"there are no trips to {what}: look at what was set aside in "
                "metrics/ingest.json, and widen the rules under clean or name other months."
            )
    train = matrix(learned, half_life=half_life, **columns)
    return train, matrix(held_out, ref=train, **columns)


def matrix(
    rows: Rows,
    *,
    names: Sequence[str] | None = None,
    types: Sequence[str] | None = None,
    half_life: float | None = None,
    ref: "xgb.DMatrix | None" = None,
    max_bin: int = 256,
    nthread: int = 2,
    rows_in_memory: int = ROWS_IN_MEMORY,
    cache: str | Path | None = None,
) -> "xgb.DMatrix":
    """Bin the features of trips, so that fits read bins alone.

    Dense features are binned batch by batch as they are read (`xgboost.QuantileDMatrix`); of more
    than `rows_in_memory` trips the bins lie in files (`xgboost.ExtMemQuantileDMatrix`), and the
    fits have the same bits. The bins' edges are the quantiles of up to 2**20 trips, evenly spaced:
    those of all would take three times as long.

    One-hot columns are kept sparse and in memory: XGBoost 3.2 grows the course's 13,221 columns 7
    times as fast from a plain `DMatrix`, to the same bits. Its bins are made by a first round of
    boosting, here, because XGBoost would make them at the first use, and trials that run side by
    side must find them made.

    Rows to judge on are plain too: XGBoost predicts those four times as fast as binned ones, to the
    same bits, and does so after each round.

    Parameters
    ----------
    rows : Rows
        Trips. NaN, and what a sparse matrix does not hold, is missing.
    names, types : sequence of str, optional
        Columns' names and their XGBoost types: ``"q"`` (quantity) or ``"c"`` (category code).
    half_life : float, optional
        As in `splits.weigher`.
    ref : xgboost.DMatrix, optional
        The matrix that is learned from, whose bins are taken: these rows are to judge on.
    max_bin : int
        Bins a column; `train_best_model` must be given the same.
    nthread : int
        Threads for the binning.
    rows_in_memory : int
        Of more trips the bins lie in files.
    cache : str or Path, optional
        The folder for these files, which vanish with the matrix; by default the system's temporary
        one.
    """
    import xgboost as xgb

    weigh = weigher(rows, half_life)
    common = {
        "feature_names": list(names) if names is not None else None,
        "feature_types": list(types) if types is not None else None,
    }
    sparse = not isinstance(next(iter(rows)).X, np.ndarray)
    if sparse or (ref is not None and len(rows) <= PLAIN_ROWS):
        X, minutes, day = rows.whole
        weight = None if weigh is None else weigh(day)
        plain = xgb.DMatrix(
            X, label=minutes, weight=weight, enable_categorical=True, nthread=nthread, **common
        )
        if ref is None:
            one_round = booster_params({"max_depth": 1}, seed=0, nthread=nthread, max_bin=max_bin)
            xgb.train(one_round, plain, num_boost_round=1)
        return plain

    class Batches(xgb.DataIter):
        """The rows as XGBoost asks for them: several times, from the first one on."""

        def __init__(self, rows: Rows, prefix: str | None = None) -> None:
            super().__init__(cache_prefix=prefix)
            self._rows = rows
            self._left = rows.together(PAGE_ROWS)

        def next(self, input_data: Callable[..., Any]) -> bool:
            part = next(self._left, None)
            if part is None:
                return False
            weight = None if weigh is None else weigh(part.day)
            input_data(data=part.X, label=part.minutes, weight=weight, **common)
            return True

        def reset(self) -> None:
            self._left = self._rows.together(PAGE_ROWS)

    how = {"max_bin": max_bin, "nthread": nthread, "enable_categorical": True}
    if ref is None and len(rows) > CUT_ROWS:
        ref = xgb.QuantileDMatrix(Batches(rows.sample(CUT_ROWS)), **how)
    if len(rows) <= rows_in_memory:
        return xgb.QuantileDMatrix(Batches(rows), ref=ref, **how)
    if cache is not None:
        Path(cache).mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(dir=cache, prefix="matrix-")
    paged = xgb.ExtMemQuantileDMatrix(Batches(rows, f"{folder.name}/part"), ref=ref, **how)
    weakref.finalize(paged, folder.cleanup)
    return paged


def save_booster(booster: "xgb.Booster", path: str | Path) -> None:
    """Write a booster as UBJSON, which holds data alone and loads from a stranger safely."""
    write_bytes(bytes(booster.save_raw("ubj")), path)


def load_booster(path: str | Path) -> "xgb.Booster":
    """Read what `save_booster` wrote."""
    import xgboost as xgb

    return xgb.Booster(model_file=str(path))


def train_best_model(
    train: "xgb.DMatrix",
    held_out: "xgb.DMatrix",
    params: dict[str, Any],
    *,
    num_boost_round: int = 1000,
    early_stopping_rounds: int = 50,
    seed: int = 42,
    nthread: int = 2,
    max_bin: int = 256,
    device: str = "cpu",
    curve: bool = True,
    after_round: Callable[[int, float], bool] | None = None,
) -> Fit:
    """Fit with early stopping on the rows that are held out, and keep the best round.

    Parameters
    ----------
    train, held_out : xgboost.DMatrix
        As `binned` gives them.
    params : dict
        Parameters of XGBoost's tree booster, like those that `train_model_search` found.
    num_boost_round : int
        Rounds at most.
    early_stopping_rounds : int
        Rounds without a better RMSE on the held-out rows after which to stop.
    seed, nthread, max_bin : int
        Pinned: another value of any may give other bits. A ``seed`` in `params` wins.
    device : {"cpu", "cuda"}
        Where to fit; ``cuda`` needs XGBoost's GPU build.
    curve : bool
        Whether to follow the training RMSE too, which costs a prediction each round.
    after_round : callable, optional
        Called as ``after_round(rounds done, held-out RMSE)``; true ends the fit there.

    Returns
    -------
    Fit

    Raises
    ------
    TripDurationError
        If XGBoost refuses the parameters, or what it predicts with them is not finite.
    """
    import xgboost as xgb

    class AfterRound(xgb.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            return bool(after_round and after_round(epoch + 1, evals_log["held_out"]["rmse"][-1]))

    history: dict[str, dict[str, list[float]]] = {}
    watched = [(train, "train")] if curve else []
    booster = _boost(
        train,
        params,
        seed=seed,
        nthread=nthread,
        max_bin=max_bin,
        device=device,
        num_boost_round=num_boost_round,
        evals=[*watched, (held_out, "held_out")],
        evals_result=history,
        callbacks=[xgb.callback.EarlyStopping(rounds=early_stopping_rounds), AfterRound()],
    )
    if not math.isfinite(booster.best_score):  # logarithmic objectives can run away
        raise TripDurationError(
            f"XGBoost's predictions are not finite with the parameters {params}: lower the "
            "learning rate, or choose another objective, under search.space or train.params."
        )
    rounds = booster.best_iteration + 1
    return Fit(
        booster=booster[:rounds],
        rounds=rounds,
        rmse=float(booster.best_score),
        curve={name: list(values["rmse"]) for name, values in history.items()},
    )


def train_for_rounds(
    train: "xgb.DMatrix",
    params: dict[str, Any],
    rounds: int,
    *,
    seed: int = 42,
    nthread: int = 2,
    max_bin: int = 256,
    device: str = "cpu",
) -> "xgb.Booster":
    """Fit for as many rounds as another fit found to be best; else as `train_best_model`."""
    return _boost(
        train,
        params,
        seed=seed,
        nthread=nthread,
        max_bin=max_bin,
        device=device,
        num_boost_round=rounds,
    )


def check_device(device: str) -> None:
    """Refuse a device that this build of XGBoost cannot use.

    Raises
    ------
    TripDurationError
        If it is ``cuda`` and the build has no GPU code.
    """
    import xgboost as xgb

    if device == "cuda" and not xgb.build_info().get("USE_CUDA"):
        raise TripDurationError(
            "train.device is 'cuda', but this build of XGBoost has no GPU code: set it to cpu, or "
            "install xgboost in place of xgboost-cpu, as the README says."
        )


def _boost(
    train: "xgb.DMatrix",
    params: dict[str, Any],
    *,
    seed: int,
    nthread: int,
    max_bin: int,
    device: str,
    **how: Any,
) -> "xgb.Booster":
    import xgboost as xgb

    check_device(device)
    complete = booster_params(params, seed=seed, nthread=nthread, max_bin=max_bin, device=device)
    return boost(lambda given: xgb.train(given, train, verbose_eval=False, **how), params, complete)


def boost(
    train: Callable[[dict[str, Any]], Any], params: dict[str, Any], complete: dict[str, Any]
) -> Any:
    """Train; where XGBoost refuses the parameters, its reason becomes a sentence.

    Parameters
    ----------
    train : callable
        Takes the complete parameters; what it returns is given back.
    params : dict
        Those that were chosen, to name in the sentence.
    complete : dict
        As `booster_params` gives them.
    """
    import xgboost as xgb

    try:
        return train(complete)
    except xgb.core.XGBoostError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if "rror" in line), lines[0]).split("] ")[-1]
        raise TripDurationError(
            f"XGBoost refused the parameters {params}: {reason.rstrip('.')}; "
            "change them under search.space or train.params."
        ) from error


def train_model(
    roles: "Roles",
    params: dict[str, Any],
    *,
    names: Sequence[str] | None = None,
    types: Sequence[str] | None = None,
    half_life: float | None = None,
    level_days: int | None = None,
    num_parallel_tree: int = 1,
    num_boost_round: int = 2000,
    early_stopping_rounds: int = 50,
    curve: bool = True,
    rows_in_memory: int = ROWS_IN_MEMORY,
    cache: str | Path | None = None,
    **pinned: Any,
) -> "tuple[xgb.Booster, Fit]":
    """Find the number of rounds on the rows that stop, then fit on all that may be learned from.

    Parameters
    ----------
    roles : Roles
        Who learns, who stops, and what the last fit learns from.
    params : dict
        Parameters of XGBoost's tree booster.
    names, types : sequence of str, optional
        As in `matrix`.
    half_life : float, optional
        As in `splits.weigher`.
    level_days : int, optional
        As in `recent_level`, of the rows that stop.
    num_parallel_tree : int
        Trees in each round of the last fit, averaged; the first has one, and finds the same rounds.
    num_boost_round, early_stopping_rounds, curve
        As in `train_best_model`, of the first fit.
    rows_in_memory, cache
        As in `matrix`.
    **pinned
        ``seed``, ``nthread``, ``max_bin`` and ``device``, as in `train_best_model`.

    Returns
    -------
    booster : xgboost.Booster
        The model; it carries its ``level`` where `level_days` is given.
    fit : Fit
        The fit that found the number of rounds.
    """
    columns: dict[str, Any] = {
        "names": names,
        "types": types,
        "half_life": half_life,
        "rows_in_memory": rows_in_memory,
        "cache": cache,
    }
    columns |= {name: pinned[name] for name in ("nthread", "max_bin") if name in pinned}
    learned, held_out = binned(roles.fit, roles.stop, **columns)
    fit = train_best_model(
        learned,
        held_out,
        params,
        num_boost_round=num_boost_round,
        early_stopping_rounds=early_stopping_rounds,
        curve=curve,
        **pinned,
    )
    booster = fit.booster
    level = level_of(booster, roles.stop, level_days, types)
    if roles.final is not roles.fit or num_parallel_tree > 1:
        del learned, held_out
        params = {"num_parallel_tree": num_parallel_tree, **params}
        booster = train_for_rounds(matrix(roles.final, **columns), params, fit.rounds, **pinned)
    if level is not None:
        booster.set_attr(level=repr(level))
    return booster, fit


def level_of(
    booster: "xgb.Booster", stop: Rows, level_days: int | None, types: Sequence[str] | None
) -> float | None:
    """The `recent_level` of so many last days of the rows that stop; None without a number."""
    if level_days is None:
        return None
    late = stop.on(lambda day: day > stop.days[-1] - level_days)
    said = np.concatenate([predict(booster, part.X, types) for part in late])
    return recent_level(late.whole.minutes, said)


def predict(
    booster: "xgb.Booster", X: "np.ndarray | csr_matrix", types: Sequence[str] | None
) -> np.ndarray:
    """What a booster says of features: float64 of shape (rows,), or (rows, outputs).

    XGBoost takes all trees for a few rows, then for the next few: more trees than a processor's
    cache holds. So many rows are predicted with some rounds at a time, to the same bits, in 0.4
    times the time with 930 trees of depth 10.

    A booster that was stopped early predicts with the rounds up to its best one, and one that
    carries a ``level`` (`recent_level`) has what it says multiplied by it.
    """
    import xgboost as xgb

    types = list(types) if types is not None else None
    data = xgb.DMatrix(X, feature_types=types, enable_categorical=True)
    best = booster.attr("best_iteration")
    rounds = int(best) + 1 if best is not None else booster.num_boosted_rounds()
    step = ROUNDS_AT_ONCE if X.shape[0] >= MANY_ROWS else rounds
    for first in range(0, max(rounds, 1), max(step, 1)):
        last = min(first + step, rounds)
        said = booster.predict(
            data,
            iteration_range=(first, last),
            output_margin=last < rounds,
            validate_features=False,
        )
        if last < rounds:
            data.set_base_margin(said)  # the next trees are added to it, in the same order
    return said.astype(np.float64) * float(booster.attr("level") or 1.0)


def recent_level(actual: np.ndarray, predicted: np.ndarray) -> float:
    """How much longer the trips of the last days took than was predicted for them.

    Parameters
    ----------
    actual, predicted : array of shape (trips,)
        Minutes; of trips that the prediction has not learned from.

    Returns
    -------
    float
        Sum of the actual minutes over sum of those predicted, rounded to 6 decimals.
    """
    return round(float(actual.sum() / predicted.sum()), 6)
