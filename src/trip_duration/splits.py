"""Which trips do what: learn, choose the number of rounds, calibrate the intervals.

Trips are divided by whole days, in the order of time: the traffic of one day is alike, so days that
are shared between two roles would tell one what the other should find out for itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.months import bounds

if TYPE_CHECKING:
    import pyarrow as pa
    from scipy.sparse import csr_matrix

    from trip_duration.features import FeatureBuilder
    from trip_duration.params import Params

__all__ = ["Roles", "Rows", "calibrates", "days", "divide", "read_roles", "rows", "weights"]


@dataclass(frozen=True)
class Rows:
    """Features and answers of some trips.

    Attributes
    ----------
    X : array of shape (trips, columns), dense or CSR
        What ``FeatureBuilder.matrix`` gives.
    minutes : array of float64, shape (trips,)
        Durations.
    day : array of int64, shape (trips,)
        Day of the pickup, counted from 1970-01-01.
    """

    X: "np.ndarray | csr_matrix"
    minutes: np.ndarray
    day: np.ndarray

    def __len__(self) -> int:
        return len(self.minutes)

    def where(self, chosen: np.ndarray) -> "Rows":
        """The rows that are chosen, by a mask of shape (trips,)."""
        return Rows(self.X[chosen], self.minutes[chosen], self.day[chosen])

    def __add__(self, other: "Rows") -> "Rows":
        """These rows, then the others."""
        if isinstance(self.X, np.ndarray):
            X: np.ndarray | csr_matrix = np.concatenate([self.X, other.X])
        else:
            from scipy.sparse import vstack

            X = vstack([self.X, other.X], format="csr")
        return Rows(
            X,
            np.concatenate([self.minutes, other.minutes]),
            np.concatenate([self.day, other.day]),
        )


@dataclass(frozen=True)
class Roles:
    """Trips by what they do; none of `calibration` is in another.

    Attributes
    ----------
    fit : Rows
        Trials, and the fit that finds the number of rounds, learn from these.
    stop : Rows
        They end those fits and rank the trials.
    final : Rows
        The model that is kept learns from these, for as many rounds as were found.
    calibration : Rows
        They set the width of the intervals.
    """

    fit: Rows
    stop: Rows
    final: Rows
    calibration: Rows


def read_roles(
    params: "Params", builder: "FeatureBuilder", folder: str | Path = "data/features"
) -> Roles:
    """Read the training and the validation months as featurize wrote them, and `divide` them."""
    import pyarrow.parquet as pq

    train, validation = (
        rows(pq.read_table(Path(folder) / f"{split}.parquet"), builder)
        for split in ("train", "validation")
    )
    return divide(
        train,
        validation,
        train_months=params.data.train,
        validation_months=params.data.validation,
        stop_on=params.train.stop_on,
        stop_days=params.train.stop_days,
        calibration_every=params.intervals.calibration_every,
        refit=params.train.refit,
    )


def rows(features: "pa.Table", builder: "FeatureBuilder") -> Rows:
    """Take what ``builder.transform`` or ``transform_training`` gave as `Rows`."""
    return Rows(builder.matrix(features), features["duration"].to_numpy(), days(features))


def days(features: "pa.Table") -> np.ndarray:
    """The days of features' pickups, int64 since 1970-01-01."""
    return features["day"].to_numpy().astype("datetime64[D]").astype(np.int64)


def calibrates(day: np.ndarray, months: Iterable[str], every: int) -> np.ndarray:
    """Whether a day of the validation months calibrates: every so many days, the last among them.

    Parameters
    ----------
    day : array of int, shape (trips,)
        Days since 1970-01-01.
    months : iterable of str
        The validation months.
    every : int
        2 takes every second day; 7 would take one day of the week only.
    """
    return (_last_day(months) - day) % every == 0


def _last_day(months: Iterable[str]) -> int:
    """The last calendar day of some months, since 1970-01-01."""
    after = bounds(max(months))[1]
    return int(np.datetime64(after, "D").astype(np.int64)) - 1


def divide(
    train: Rows,
    validation: Rows,
    *,
    train_months: Iterable[str],
    validation_months: Iterable[str],
    stop_on: Literal["inside", "validation"] = "inside",
    stop_days: int = 7,
    calibration_every: int = 3,
    refit: bool = False,
) -> Roles:
    """Give each trip of the training and validation months its role.

    Parameters
    ----------
    train, validation : Rows
        Trips of the training and of the validation months.
    train_months, validation_months : iterable of str
        Those months, YYYY-MM.
    stop_on : {"inside", "validation"}
        Which trips choose the number of rounds: those of the last `stop_days` days of the training
        months, or those of the validation months that do not calibrate.
    stop_days : int
        Days.
    calibration_every : int
        As in `calibrates`.
    refit : bool
        Whether the last fit learns from the validation months too, less the days that calibrate.

    Returns
    -------
    Roles

    Raises
    ------
    TripDurationError
        If a role is left without trips.
    """
    for part, key in ((train, "data.train"), (validation, "data.validation")):
        if not len(part):
            raise TripDurationError(
                f"no trips are left in the months of {key}: look at what was set aside in "
                "metrics/ingest.json, and widen the rules under clean or name other months."
            )
    apart = calibrates(validation.day, validation_months, calibration_every)
    others = validation.where(~apart)
    if stop_on == "inside":
        late = train.day > _last_day(train_months) - stop_days
        if late.all() or not late.any():
            which = "all" if late.all() else "none"
            raise SettingsError(
                f"train.stop_days is {stop_days}, and {which} of the {len(train)} training trips "
                "lie in those last days: expected some to learn from and some to stop on; change "
                "it, name more months in data.train, or set train.stop_on=validation."
            )
        fit, stop = train.where(~late), train.where(late)
    else:
        fit, stop = train, others
    final = train + others if refit else train
    return Roles(fit=fit, stop=stop, final=final, calibration=validation.where(apart))


def weights(day: np.ndarray, half_life: float | None) -> np.ndarray | None:
    """What a trip counts in the fit: half as much for each half-life before the last day.

    Parameters
    ----------
    day : array of int, shape (trips,)
        Days since 1970-01-01.
    half_life : float or None
        Share of the days from the first to the last; None counts all trips alike.

    Returns
    -------
    array of float64, shape (trips,), or None
        In (0, 1].
    """
    if half_life is None:
        return None
    # Clocks that are years off (TLC's files have some) must not make all else old or young.
    first, last = np.quantile(day, [0.001, 0.999], method="lower")
    age = np.clip(last - day, 0, last - first)
    return np.exp2(-age / (half_life * (last - first + 1)))
