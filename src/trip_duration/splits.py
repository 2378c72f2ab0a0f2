"""Which trips do what: learn, choose the number of rounds, calibrate the intervals.

Trips are divided by whole days, in the order of time: the traffic of one day is alike, so days that
are shared between two roles would tell one what the other should find out for itself.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.months import bounds
from trip_duration.trips import month_paths, read_parts

if TYPE_CHECKING:
    import pyarrow as pa
    from scipy.sparse import csr_matrix

    from trip_duration.features import FeatureBuilder
    from trip_duration.params import Params

__all__ = [
    "FEATURES",
    "Batch",
    "Roles",
    "Rows",
    "calibrates",
    "days",
    "divide",
    "divide_by",
    "read_roles",
    "thinning",
    "weigher",
]

FEATURES = "data/features"  # has a folder for each split, and in it a file for each month


class Batch(NamedTuple):
    """Features and answers of some trips, in memory.

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

    def where(self, chosen: np.ndarray) -> "Batch":
        """The rows that are chosen, by a mask of shape (trips,) or by number."""
        return Batch(self.X[chosen], self.minutes[chosen], self.day[chosen])


class Rows:
    """Features and answers of any number of trips, read batch by batch each time they are needed.

    Parameters
    ----------
    batches : callable
        Gives an iterator over them, from the first one on.
    days : array of int64, shape (days,)
        The days of their pickups since 1970-01-01, each once, in rising order.
    trips : array of int64, shape (days,)
        How many trips each of these days has, at least 1.
    """

    def __init__(
        self, batches: Callable[[], Iterator[Batch]], days: np.ndarray, trips: np.ndarray
    ) -> None:
        self._batches = batches
        self.days = days
        self.trips = trips

    @classmethod
    def of(
        cls, X: "np.ndarray | csr_matrix", minutes: np.ndarray, day: np.ndarray | None = None
    ) -> "Rows":
        """Rows that are in memory; without days, all are of the day 0."""
        day = np.zeros(len(minutes), np.int64) if day is None else day
        whole = Batch(X, minutes, day)
        return cls(lambda: iter([whole]), *np.unique(day, return_counts=True))

    @classmethod
    def read(
        cls,
        months: "Sequence[pa.Table | str | PathLike[str]]",
        builder: "FeatureBuilder",
        *,
        every: int = 1,
    ) -> "Rows":
        """Rows of features, month by month: files that featurize wrote, or tables of them.

        Of each month, the first row and then every so many.
        """
        columns = [*builder.features, "day", "duration"]

        def thinned(
            month: "pa.Table | str | PathLike[str]", columns: list[str]
        ) -> "Iterator[pa.Table]":
            first = 0
            for part in read_parts(month, columns):
                yield part if every == 1 else part.take(np.arange(-first % every, len(part), every))
                first += len(part)

        def batches() -> Iterator[Batch]:
            for month in months:
                for part in thinned(month, columns):
                    yield Batch(builder.matrix(part), part["duration"].to_numpy(), days(part))

        counted = [
            np.unique(days(part), return_counts=True)
            for month in months
            for part in thinned(month, ["day"])
        ]
        return cls(batches, *_joined(counted))

    def __iter__(self) -> Iterator[Batch]:
        return (part for part in self._batches() if len(part.minutes))

    def __len__(self) -> int:
        return int(self.trips.sum())

    def on(self, chosen: Callable[[np.ndarray], np.ndarray]) -> "Rows":
        """The rows of the days that are chosen: a function from days to a mask."""
        kept = chosen(self.days)

        def batches() -> Iterator[Batch]:
            for part in self:
                mask = chosen(part.day)
                yield part if mask.all() else part.where(mask)

        return Rows(batches, self.days[kept], self.trips[kept])

    def __add__(self, other: "Rows") -> "Rows":
        """These rows, then the others."""

        def batches() -> Iterator[Batch]:
            yield from self
            yield from other

        joined = _joined([(self.days, self.trips), (other.days, other.trips)])
        return Rows(batches, *joined)

    def sample(self, most: int) -> "Rows":
        """At most so many of the rows, evenly spaced, in memory; all of them where they are few."""
        step = -(-len(self) // most)
        if step <= 1:
            return self
        taken, first = [], 0
        for part in self:
            # By number: a slice would be a view that keeps the whole batch in memory.
            taken.append(part.where(np.arange(-first % step, len(part.minutes), step)))
            first += len(part.minutes)
        return Rows.of(*_together(taken))

    def together(self, rows: int) -> Iterator[Batch]:
        """The batches, joined until each has at least so many rows, but for the last."""
        waiting: list[Batch] = []
        for part in self:
            waiting.append(part)
            if sum(len(each.minutes) for each in waiting) >= rows:
                yield _together(waiting)
                waiting = []
        if waiting:
            yield _together(waiting)

    @cached_property
    def whole(self) -> Batch:
        """All of them at once, in memory."""
        return _together(list(self))


def _together(parts: Sequence[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    X, minutes, day = zip(*parts, strict=True)
    if all(isinstance(part, np.ndarray) for part in X):
        together: np.ndarray | csr_matrix = np.concatenate(X)
    else:
        from scipy.sparse import vstack

        together = vstack(X, format="csr")
    return Batch(together, np.concatenate(minutes), np.concatenate(day))


def _joined(counted: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Days, each once, and the trips of each, from several such counts."""
    if not counted:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    every, place = np.unique(np.concatenate([day for day, _ in counted]), return_inverse=True)
    trips = np.zeros(len(every), np.int64)
    np.add.at(trips, place, np.concatenate([count for _, count in counted]))
    return every, trips


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


def read_roles(params: "Params", builder: "FeatureBuilder", folder: str | Path = FEATURES) -> Roles:
    """The training and the validation months as featurize wrote them, by role (`divide`)."""
    learned, judged = (
        month_paths(params.data, split, Path(folder) / split) for split in ("train", "validation")
    )
    train = Rows.read(learned, builder)
    every = thinning(len(train), params.train.sample_rows)
    if every > 1:
        train = Rows.read(learned, builder, every=every)
    validation = Rows.read(judged, builder)
    return divide_by(params, train, validation)


def thinning(trips: int, sample_rows: int | None) -> int:
    """Of so many trips, every how many to read, so that about `sample_rows` are left."""
    return max(-(-trips // sample_rows), 1) if sample_rows else 1


def divide_by(params: "Params", train: Rows, validation: Rows) -> Roles:
    """`divide` by the settings."""
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

    def apart(day: np.ndarray) -> np.ndarray:
        return calibrates(day, validation_months, calibration_every)

    def late(day: np.ndarray) -> np.ndarray:
        return day > _last_day(train_months) - stop_days

    others = validation.on(lambda day: ~apart(day))
    if stop_on == "inside":
        stop = train.on(late)
        if len(stop) in (0, len(train)):
            which = "all" if len(stop) else "none"
            raise SettingsError(
                f"train.stop_days is {stop_days}, and {which} of the {len(train)} training trips "
                "lie in those last days: expected some to learn from and some to stop on; change "
                "it, name more months in data.train, or set train.stop_on=validation."
            )
        fit = train.on(lambda day: ~late(day))
    else:
        fit, stop = train, others
    final = train + others if refit else train
    return Roles(fit=fit, stop=stop, final=final, calibration=validation.on(apart))


def weigher(rows: Rows, half_life: float | None) -> Callable[[np.ndarray], np.ndarray] | None:
    """What a trip counts in a fit: half as much for each half-life before the last day.

    Parameters
    ----------
    rows : Rows
        All that the fit learns from.
    half_life : float or None
        Share of the days from the first to the last; None counts all trips alike.

    Returns
    -------
    callable or None
        From days of shape (trips,) to weights of float64 in (0, 1], of the same shape.
    """
    if half_life is None:
        return None
    # Clocks that are years off (TLC's files have some) must not make all else old or young.
    reached = np.cumsum(rows.trips)
    rank = np.floor((len(rows) - 1) * np.array([0.001, 0.999]))
    first, last = rows.days[np.searchsorted(reached, rank, side="right")]

    def weights(day: np.ndarray) -> np.ndarray:
        age = np.clip(last - day, 0, last - first)
        return np.exp2(-age / (half_life * (last - first + 1)))

    return weights
