"""Fitting the booster: the same rows, parameters, seed and threads give the same bits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trip_duration.errors import TripDurationError
from trip_duration.files import read_json, write_bytes

if TYPE_CHECKING:
    import xgboost as xgb
    from scipy.sparse import csr_matrix

__all__ = [
    "COURSE_EARLY_STOPPING_ROUNDS",
    "COURSE_PARAMS",
    "COURSE_ROUNDS",
    "Fit",
    "booster_params",
    "load_booster",
    "matrices",
    "read_matrices",
    "save_booster",
    "train_best_model",
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
        Root mean squared error on the validation rows, in minutes.
    curve : dict of list of float
        RMSE after each round, for ``train`` and ``validation``, early-stopped rounds included.
    """

    booster: "xgb.Booster"
    rounds: int
    rmse: float
    curve: dict[str, list[float]] = field(repr=False)

    def table(self) -> pa.Table:
        """The curve as rows: ``round`` (from 1), then ``train`` and ``validation`` in minutes."""
        rounds = len(self.curve["validation"])
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
    *,
    names: Sequence[str] | None = None,
    types: Sequence[str] | None = None,
    max_bin: int = 256,
    nthread: int = 2,
) -> "tuple[xgb.DMatrix, xgb.DMatrix]":
    """Bin the features once; every trial and the last fit read the same two matrices.

    A dense matrix is binned as it is read (`xgboost.QuantileDMatrix`). One-hot columns are kept
    sparse: XGBoost 3.2 grows the course's 13,221 columns 7 times as fast from a plain `DMatrix`,
    to the same bits. Its bins are made by a first round of boosting, here, because XGBoost would
    make them at the first use, and trials that run side by side must find them made.

    Parameters
    ----------
    X_train, X_val : array of shape (rows, columns), dense or CSR
        Features. NaN, and what a sparse matrix does not hold, is missing.
    y_train, y_val : array of shape (rows,)
        Minutes.
    names, types : sequence of str, optional
        Columns' names and their XGBoost types: ``"q"`` (quantity) or ``"c"`` (category code).
    max_bin : int
        Bins a column; `train_best_model` must be given the same.
    nthread : int
        Threads for the binning.

    Raises
    ------
    TripDurationError
        If there are no rows to learn from or none to validate on.
    """
    import xgboost as xgb

    for rows, where in ((y_train, "data.train"), (y_val, "data.validation")):
        if not len(rows):
            raise TripDurationError(
                f"no trips are left in the months of {where}: look at what was set aside in "
                "metrics/ingest.json, and widen the rules under clean or name other months."
            )
    common = {
        "feature_names": list(names) if names is not None else None,
        "feature_types": list(types) if types is not None else None,
        "enable_categorical": True,
        "nthread": nthread,
    }
    if isinstance(X_train, np.ndarray):
        binned = xgb.QuantileDMatrix(X_train, label=y_train, max_bin=max_bin, **common)
        return binned, xgb.QuantileDMatrix(
            X_val, label=y_val, max_bin=max_bin, ref=binned, **common
        )
    train = xgb.DMatrix(X_train, label=y_train, **common)
    one_round = booster_params({"max_depth": 1}, seed=0, nthread=nthread, max_bin=max_bin)
    xgb.train(one_round, train, num_boost_round=1)
    return train, xgb.DMatrix(X_val, label=y_val, **common)


def read_matrices(
    features: str | Path = "data/features",
    builder: str | Path = "models/features.json",
    *,
    max_bin: int = 256,
    nthread: int = 2,
) -> "tuple[xgb.DMatrix, xgb.DMatrix]":
    """Read what featurize wrote as the two matrices of `matrices`.

    Parameters
    ----------
    features : str or Path
        The folder of ``train.parquet`` and ``validation.parquet``.
    builder : str or Path
        The fitted `FeatureBuilder`.
    max_bin, nthread : int
        As in `matrices`.
    """
    import pyarrow.parquet as pq

    from trip_duration.features import FeatureBuilder

    fitted = FeatureBuilder.from_json(read_json(builder))
    tables = [pq.read_table(Path(features) / f"{name}.parquet") for name in ("train", "validation")]
    parts = [part for t in tables for part in (fitted.matrix(t), t["duration"].to_numpy())]
    return matrices(
        *parts,
        names=fitted.columns,
        types=fitted.feature_types,
        max_bin=max_bin,
        nthread=nthread,
    )


def save_booster(booster: "xgb.Booster", path: str | Path) -> None:
    """Write a booster as UBJSON, which holds data alone and loads from a stranger safely."""
    write_bytes(bytes(booster.save_raw("ubj")), path)


def load_booster(path: str | Path) -> "xgb.Booster":
    """Read what `save_booster` wrote."""
    import xgboost as xgb

    return xgb.Booster(model_file=str(path))


def train_best_model(
    train: "xgb.DMatrix",
    validation: "xgb.DMatrix",
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
    """Fit with early stopping on the validation rows, and keep the best round.

    Parameters
    ----------
    train, validation : xgboost.DMatrix
        As `matrices` gives them.
    params : dict
        Parameters of XGBoost's tree booster, like those that `train_model_search` found.
    num_boost_round : int
        Rounds at most.
    early_stopping_rounds : int
        Rounds without a better validation RMSE after which to stop.
    seed, nthread, max_bin : int
        Pinned: another value of any may give other bits. A ``seed`` in `params` wins.
    device : {"cpu", "cuda"}
        Where to fit; ``cuda`` needs XGBoost's GPU build.
    curve : bool
        Whether to follow the training RMSE too, which costs a prediction each round.
    after_round : callable, optional
        Called as ``after_round(rounds done, validation RMSE)``; true ends the fit there.

    Returns
    -------
    Fit

    Raises
    ------
    TripDurationError
        If XGBoost refuses the parameters.
    """
    import xgboost as xgb

    class AfterRound(xgb.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            return bool(after_round and after_round(epoch + 1, evals_log["validation"]["rmse"][-1]))

    if device == "cuda" and not xgb.build_info().get("USE_CUDA"):
        raise TripDurationError(
            "train.device is 'cuda', but this build of XGBoost has no GPU code: set it to cpu, or "
            "install xgboost in place of xgboost-cpu, as the README says."
        )
    history: dict[str, dict[str, list[float]]] = {}
    watched = [(train, "train")] if curve else []
    try:
        booster = xgb.train(
            booster_params(params, seed=seed, nthread=nthread, max_bin=max_bin, device=device),
            train,
            num_boost_round=num_boost_round,
            evals=[*watched, (validation, "validation")],
            evals_result=history,
            verbose_eval=False,
            callbacks=[xgb.callback.EarlyStopping(rounds=early_stopping_rounds), AfterRound()],
        )
    except xgb.core.XGBoostError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if "rror" in line), lines[0]).split("] ")[-1]
        raise TripDurationError(
            f"XGBoost refused the parameters {params}: {reason.rstrip('.')}; "
            "change them under search.space or train.params."
        ) from error
    rounds = booster.best_iteration + 1
    return Fit(
        booster=booster[:rounds],
        rounds=rounds,
        rmse=float(booster.best_score),
        curve={name: list(values["rmse"]) for name, values in history.items()},
    )
