"""Prediction intervals: quantiles that a booster learned, and conformal calibration of them.

The distance between the two quantiles says how uncertain a trip is, and trips of days that nothing
has learned from say how far from the prediction, in such distances, the answers lie. So the
intervals are wide where trips differ, and hold as many of them as they should: split conformal
prediction with residuals scaled by their difficulty (Papadopoulos et al., Normalized Nonconformity
Measures for Regression Conformal Prediction, 2008), difficulty being what conformalized quantile
regression takes it for (Romano, Patterson and Candès, Conformalized Quantile Regression, 2019).
Short, middling and long trips are calibrated apart, so that each third of them is held as often as
it should be (Boström and Johansson, Mondrian Conformal Regressors, 2020). So are trips of which
nobody knows how far they were driven, where the model looks at that.
"""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trip_duration.errors import TripDurationError
from trip_duration.evaluation import by_borough, by_hour

if TYPE_CHECKING:
    import xgboost as xgb

    from trip_duration.features import FeatureBuilder
    from trip_duration.splits import Rows

__all__ = [
    "QUANTILE_ROUNDS",
    "QUANTILE_ROWS",
    "Calibration",
    "calibrate",
    "calibrate_model",
    "coverage",
    "coverage_slices",
    "quantile_params",
    "train_quantiles",
]

# Chosen by measuring, see docs/accuracy.md. Trips are delayed more than they are sped up, so an
# interval is narrowest where fewer of the trips that it misses lie below it than above.
BELOW = 0.3  # of the missed trips
PAD = 0.5  # of the mean distance between the quantiles, added to each: they are known roughly
QUANTILE_ROUNDS = 100
QUANTILE_ROWS = 2_000_000  # of more, so many: 100,000 lie beyond either quantile


@dataclass(frozen=True)
class Calibration:
    """Turns a prediction and its two quantiles into an interval.

    Attributes
    ----------
    level : float
        Share of the trips that should lie in their interval.
    edges : tuple of float
        Predictions, in minutes, where the next group of trips begins: two for thirds, or none where
        too few trips calibrate.
    below, above : tuple of float
        For each group, how far the ends are from the prediction, in padded distances between the
        quantiles.
    pad : float
        Minutes that pad each distance.
    constant : float
        Half the width, in minutes, of the interval that is equally wide for all trips and was
        calibrated on the same ones: what the others are measured against.
    trips : int
        How many calibrated.
    unmetered : Calibration, optional
        That of the trips of which it is not known how far they were driven; without it they are
        treated as the others.
    """

    level: float
    edges: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]
    pad: float
    constant: float
    trips: int
    unmetered: "Calibration | None" = None

    def apply(
        self,
        lower: np.ndarray,
        upper: np.ndarray,
        predicted: np.ndarray,
        metered: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Give the ends of the intervals.

        Parameters
        ----------
        lower, upper : array of shape (trips,)
            The quantiles, in minutes; where they cross they count as one.
        predicted : array of shape (trips,)
            Minutes, none below 0.
        metered : array of bool, shape (trips,), optional
            As `FeatureBuilder.metered` tells; by default all are.

        Returns
        -------
        lower, upper : ndarray of float64, shape (trips,)
            Minutes, with 0 ≤ lower ≤ predicted ≤ upper.
        """
        if self.unmetered is not None and metered is not None and not metered.all():
            both = (replace(self, unmetered=None), self.unmetered)
            ours, others = (part.apply(lower, upper, predicted) for part in both)
            start, end = (np.where(metered, *ends) for ends in zip(ours, others, strict=True))
            return start, end
        spread = _distance(lower, upper) + self.pad
        group = np.searchsorted(self.edges, predicted, side="right")
        start = np.maximum(predicted - np.asarray(self.below)[group] * spread, 0.0)
        return start, predicted + np.asarray(self.above)[group] * spread

    def to_json(self) -> dict[str, Any]:
        """Plain data, for `write_json`."""
        data = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        if self.unmetered is None:
            del data["unmetered"]
        else:
            data["unmetered"] = self.unmetered.to_json()
        return data

    @classmethod
    def from_json(cls, data: Any) -> "Calibration":
        """Read what `to_json` gave, trusting nothing of it.

        Raises
        ------
        TripDurationError
            If it is not what `to_json` gives.
        """
        names = {field.name for field in fields(cls)} - {"unmetered"}
        parts = [data]
        if isinstance(data, Mapping) and "unmetered" in data:
            parts = [{name: data[name] for name in data if name != "unmetered"}, data["unmetered"]]
        if not all(isinstance(part, Mapping) and set(part) == names for part in parts) or not all(
            map(_sound, parts)
        ):
            raise TripDurationError(
                "This is no calibration of intervals that this version wrote: expected "
                f"{', '.join(sorted(names))}, all numbers; run train again."
            )
        made = [cls(**{**part, **{name: tuple(part[name]) for name in _LISTS}}) for part in parts]
        return replace(made[0], unmetered=made[1]) if len(made) == 2 else made[0]


_LISTS = ("edges", "below", "above")


def _sound(data: Mapping[str, Any]) -> bool:
    if not all(isinstance(data[name], list) for name in _LISTS):
        return False
    numbers = [data[name] for name in ("level", "pad", "constant", "trips")]
    numbers += [value for name in _LISTS for value in data[name]]
    return (
        all(type(value) in (int, float) and 0 <= value < 1e9 for value in numbers)
        and type(data["trips"]) is int
        and data["level"] < 1
        and min(data["level"], data["pad"]) > 0
        and data["edges"] == sorted(data["edges"])
        and len(data["below"]) == len(data["above"]) == len(data["edges"]) + 1
    )


def _distance(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    return np.maximum(np.asarray(upper, np.float64) - lower, 0.0)


def quantile_params(level: float) -> dict[str, Any]:
    """XGBoost's parameters for one booster that gives both quantiles.

    Shallow trees with many trips in a leaf: the tails of a leaf's trips are what is learned.
    """
    miss = (1 - level) / 2
    return {
        "objective": "reg:quantileerror",
        "quantile_alpha": [round(miss, 6), round(1 - miss, 6)],
        "learning_rate": 0.1,
        "max_depth": 6,
        "min_child_weight": 100,
        "subsample": 0.9,
        "colsample_bynode": 0.4,
    }


def train_quantiles(
    rows: "Rows",
    *,
    level: float,
    half_life: float | None = None,
    rounds: int = QUANTILE_ROUNDS,
    seed: int = 42,
    nthread: int = 2,
    max_bin: int = 256,
    device: str = "cpu",
    **columns: Any,
) -> "xgb.Booster":
    """Fit the booster of the quantiles, on up to `QUANTILE_ROWS` trips, evenly spaced.

    Parameters
    ----------
    rows : Rows
        The trips that the model learns from.
    level : float
        Of the intervals: 0.9 learns the quantiles 0.05 and 0.95.
    half_life : float, optional
        As in `splits.weigher`.
    rounds : int
        Of boosting: enough that more no longer narrow the intervals.
    seed, nthread, max_bin, device
        As in `training.train_best_model`.
    **columns
        ``names`` and ``types``, as in `training.matrix`.

    Returns
    -------
    xgboost.Booster
        Predicts two columns: the lower and the upper quantile, in minutes.
    """
    from trip_duration.training import matrix, train_for_rounds

    how: dict[str, Any] = {"nthread": nthread, "max_bin": max_bin}
    data = matrix(rows.sample(QUANTILE_ROWS), half_life=half_life, **columns, **how)
    return train_for_rounds(data, quantile_params(level), rounds, seed=seed, device=device, **how)


def calibrate_model(
    booster: "xgb.Booster",
    quantiles: "xgb.Booster",
    builder: "FeatureBuilder",
    rows: "Rows",
    level: float,
) -> Calibration:
    """`calibrate` a model, where it looks at the distance also for trips without one.

    Parameters
    ----------
    booster, quantiles : xgboost.Booster
        What predicts the minutes and their quantiles.
    builder : FeatureBuilder
        The features that both were fitted on.
    rows : Rows
        Trips that neither has learned from.
    level : float
        Share of the trips that should lie in their interval.

    Returns
    -------
    Calibration
        With one for trips of unknown distance, learned from all of these trips as if theirs were
        not known; the others go by those of known distance, if these are enough.

    Raises
    ------
    TripDurationError
        If there are too few trips, as in `calibrate`.
    """
    from trip_duration.training import predict

    def said(X: Any) -> np.ndarray:
        types = builder.feature_types
        minutes = np.maximum(predict(booster, X, types), 0.0)
        return np.vstack([predict(quantiles, X, types).reshape(-1, 2).T, minutes])

    known, unknown, minutes, metered = [], [], [], []
    for part in rows:
        known.append(said(part.X))
        if builder.uses_distance:
            unknown.append(said(builder.without_distance(part.X)))
        minutes.append(part.minutes)
        metered.append(builder.metered(part.X))
    actual, own = np.concatenate(minutes), np.concatenate(metered)
    if own.sum() < _fewest(level):
        own[:] = True
    lower, upper, predicted = np.hstack(known)[:, own]
    calibration = calibrate(lower, upper, predicted, actual[own], level)
    if not unknown:
        return calibration
    lower, upper, predicted = np.hstack(unknown)
    return replace(calibration, unmetered=calibrate(lower, upper, predicted, actual, level))


def calibrate(
    lower: np.ndarray,
    upper: np.ndarray,
    predicted: np.ndarray,
    actual: np.ndarray,
    level: float,
) -> Calibration:
    """Find how wide intervals must be, from trips that nothing has learned from.

    Parameters
    ----------
    lower, upper : array of shape (trips,)
        The quantiles, in minutes.
    predicted, actual : array of shape (trips,)
        Minutes.
    level : float
        Share of the trips that should lie in their interval.

    Returns
    -------
    Calibration

    Raises
    ------
    TripDurationError
        If there are too few trips to say where so few of them lie beyond an end.

    Notes
    -----
    The ends are percentiles of a conformal predictive system (Vovk et al., Nonparametric
    Predictive Distributions Based on Conformal Prediction, 2019) as the package crepes makes it.
    """
    with warnings.catch_warnings():  # crepes changes the filters of the whole process
        from crepes import ConformalPredictiveSystem, ConformalRegressor

    fewest = _fewest(level)
    if len(actual) < fewest:
        raise TripDurationError(
            f"{len(actual)} trips of the validation months calibrate the intervals, and a level of "
            f"{level:g} needs {fewest}: name more months in data.validation, or lower "
            "intervals.level or intervals.calibration_every."
        )
    residuals = np.asarray(actual, np.float64) - predicted
    distance = _distance(lower, upper)
    pad = max(round(PAD * float(distance.mean()), 6), 0.001)
    # A group needs trips enough beyond either end; too few make one group of all.
    groups = 3 if len(actual) >= 30 / (1 - level) else 1
    edges = np.round(np.quantile(predicted, np.arange(1, groups) / groups), 6)
    group = np.searchsorted(edges, predicted, side="right")
    if (np.bincount(group, minlength=groups) < fewest).any():  # the same prediction for very many
        groups, edges, group = 1, edges[:0], np.zeros(len(actual), dtype=np.int64)
    system = ConformalPredictiveSystem().fit(residuals, sigmas=distance + pad, bins=group)
    ends = system.predict_percentiles(
        y_hat=np.zeros(groups),
        sigmas=np.ones(groups),
        bins=np.arange(groups),
        lower_percentiles=100 * BELOW * (1 - level),
        higher_percentiles=100 * (1 - (1 - BELOW) * (1 - level)),
    )
    constant = ConformalRegressor().fit(residuals).predict_int(y_hat=np.zeros(1), confidence=level)
    # An end on the wrong side of the prediction is moved to it.
    below, above = np.maximum(ends * [-1, 1], 0.0).T.round(6).tolist()
    return Calibration(
        level=level,
        edges=tuple(edges.tolist()),
        below=tuple(below),
        above=tuple(above),
        pad=pad,
        constant=round(float(constant[0, 1]), 6),
        trips=len(actual),
    )


def _fewest(level: float) -> int:
    """How many trips it takes to calibrate: so many that one lies beyond the rarer end."""
    return int(np.ceil(1 / (BELOW * (1 - level)))) + 1


def coverage(
    actual: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    predicted: np.ndarray,
    calibration: Calibration,
) -> dict[str, Any]:
    """How many trips lie in their interval, and how wide the intervals are.

    Parameters
    ----------
    actual, lower, upper, predicted : array of shape (trips,)
        Minutes.
    calibration : Calibration
        What made the intervals.

    Returns
    -------
    dict
        ``level``; ``coverage``, a share; ``width`` and ``constant_width``, mean minutes, of these
        intervals and of those of constant width; ``thirds``: ``coverage``, ``width`` and
        ``constant_coverage`` for the third of the trips with the shortest predictions, the middle
        and the longest. Rounded to 6 decimals.
    """
    held = (actual >= lower) & (actual <= upper)
    width = upper - lower
    start = np.maximum(predicted - calibration.constant, 0.0)
    constant_width = predicted + calibration.constant - start
    constant_held = np.abs(actual - predicted) <= calibration.constant
    third = np.searchsorted(np.quantile(predicted, [1 / 3, 2 / 3]), predicted, side="left")

    def mean(values: np.ndarray) -> float | None:
        return round(float(values.mean()), 6) if len(values) else None

    return {
        "level": calibration.level,
        "coverage": mean(held),
        "width": mean(width),
        "constant_width": mean(constant_width),
        "thirds": [
            {
                "coverage": mean(held[third == part]),
                "width": mean(width[third == part]),
                "constant_coverage": mean(constant_held[third == part]),
            }
            for part in range(3)
        ],
    }


def coverage_slices(
    trips: pa.Table, lower: np.ndarray, upper: np.ndarray, boroughs: Mapping[int, str]
) -> dict[str, pa.Table]:
    """Coverage by hour and by borough of the pickup.

    Parameters
    ----------
    trips : pyarrow.Table
        Canonical trips.
    lower, upper : array of shape (trips,)
        The ends of their intervals, in minutes.
    boroughs : mapping of int to str
        Boroughs by zone, as far as they are known.

    Returns
    -------
    dict of str to pyarrow.Table
        A table for each of ``hour`` and ``borough``, with the slice's name in its first column,
        then ``trips``, ``coverage`` (a share) and ``width`` (mean minutes).
    """
    actual = trips["duration"].to_numpy()
    held, width = (actual >= lower) & (actual <= upper), upper - lower
    return {
        "hour": _slice("hour", by_hour(trips), held, width),
        "borough": _slice("borough", by_borough(trips, boroughs), held, width),
    }


def _slice(name: str, keys: np.ndarray, held: np.ndarray, width: np.ndarray) -> pa.Table:
    import pandas as pd

    grouped = pd.DataFrame({"key": keys, "held": held, "width": width}).groupby("key", sort=True)
    means = grouped[["held", "width"]].mean()
    return pa.table(
        {
            name: pa.array([str(key) for key in means.index]),
            "trips": pa.array(grouped.size().to_numpy(), pa.int64()),
            "coverage": means["held"].to_numpy().round(6),
            "width": means["width"].to_numpy().round(6),
        }
    )
