"""The gate: whether a challenger becomes champion, number by number.

Both models predict the same trips, which neither should have learned from. A challenger is promoted
if its RMSE lies far enough below each naive baseline's and below the champion's, if on no slice of
the trips it is worse than the champion by more than a bound, and if its intervals hold about as
many trips as they should.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa

from trip_duration.baselines import Baselines
from trip_duration.errors import TripDurationError
from trip_duration.evaluation import NAMES, slices
from trip_duration.params import Promotion
from trip_duration.prediction import Model
from trip_duration.trips import read_parts

__all__ = [
    "ALL",
    "CHALLENGER",
    "CHAMPION",
    "COVERAGE",
    "KINDS",
    "Check",
    "Slice",
    "Verdict",
    "decide",
    "judge",
]

ALL = "all trips"
KINDS = ("hour", "borough", "distance")  # of slices, as evaluation has them
CHALLENGER, CHAMPION, COVERAGE = "challenger", "champion", "coverage"
WHOLE = ("", "")  # the slice that is none


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes
    ----------
    name : str
        With what: a baseline's key in `evaluation.NAMES`, ``champion``, or ``coverage``.
    slice : str
        Of which trips: ``all trips``, or a kind and a key like ``hour 08``.
    trips : int
        How many they are.
    challenger, rival : float
        RMSE in minutes; of ``coverage``, the share of trips in their interval and the level.
    difference : float
        Of the RMSE, relative to the rival's: -0.1 is 10 % better; of ``coverage``, its own.
    bound : float
        What the difference is held against.
    passed : bool
        Whether it is within.
    """

    name: str
    slice: str
    trips: int
    challenger: float
    rival: float
    difference: float
    bound: float
    passed: bool

    @property
    def words(self) -> str:
        """What was found and what was asked for, in a sentence without its full stop."""
        if self.name == COVERAGE:
            far = "" if self.passed else f", more than {100 * self.bound:g} points off"
            held = f"{self.challenger:.1%} of the trips lie in their intervals"
            return f"{held} of {self.rival:.0%}{far}"
        rival = "the champion" if self.name == CHAMPION else NAMES[self.name]
        where = "" if self.slice == ALL else f"{self.slice}: "
        asked = "" if self.passed else f", and it must be {self._asked}"
        return (
            f"{where}RMSE {self.challenger:.3f} is {_relative(self.difference)}that of {rival} "
            f"({self.rival:.3f}){asked}"
        )

    @property
    def _asked(self) -> str:
        if self.bound > 0:
            return f"at most {self.bound:.1%} above"
        return f"more than {-self.bound:.1%} below" if self.bound else "below"


@dataclass(frozen=True)
class Slice:
    """Some of the trips, and how far off both models are on them.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    key : str
        Like ``08``, ``Queens`` or ``02-03``.
    trips : int
        How many they are.
    rmse : float
        The challenger's, in minutes.
    champion_rmse : float or None
        The champion's, where there is one.
    """

    kind: str
    key: str
    trips: int
    rmse: float
    champion_rmse: float | None

    @property
    def name(self) -> str:
        """Like ``hour 08``."""
        return f"{self.kind} {self.key}"


@dataclass(frozen=True)
class Verdict:
    """Whether a challenger becomes champion, and why.

    Attributes
    ----------
    promoted : bool
        Whether it does: all checks passed.
    checks : tuple of Check
        Against each baseline and the champion, slice by slice, then the coverage.
    reasons : tuple of str
        Sentences: what failed, or else by how much it is better.
    notes : tuple of str
        Sentences: what limits the comparison.
    months : tuple of str
        The months whose trips judge.
    trips : int
        How many they are.
    rmse : float
        The challenger's over all of them, in minutes.
    champion_rmse : float or None
        The champion's, where there is one that can be compared.
    baselines : dict of str to float
        Each baseline's RMSE.
    level, coverage, width : float
        Of the challenger's intervals: the share of trips that they should hold, the share that they
        do hold, and their mean width in minutes.
    slices : tuple of Slice
        All of them, those with few trips included.
    """

    promoted: bool
    checks: tuple[Check, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    months: tuple[str, ...]
    trips: int
    rmse: float
    champion_rmse: float | None
    baselines: dict[str, float]
    level: float
    coverage: float
    width: float
    slices: tuple[Slice, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Verdict":
        """Read what `to_json` gave."""
        read: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        read["checks"] = tuple(Check(**check) for check in read["checks"])
        read["slices"] = tuple(Slice(**part) for part in read["slices"])
        return cls(**read)


def judge(
    challenger: Model,
    champion: Model | None,
    baselines: Baselines,
    months: Mapping[str, pa.Table | str | PathLike[str]],
    rules: Promotion,
    *,
    boroughs: Mapping[int, str],
    calibrates: Callable[[np.ndarray], np.ndarray] | None = None,
    learned: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Verdict:
    """Compare two models and the baselines on the same trips, part by part.

    Parameters
    ----------
    challenger : Model
        The model to judge.
    champion : Model or None
        The one to beat; each model makes its own features. None: only the baselines are to beat.
    baselines : Baselines
        What one would say without a model.
    months : mapping of str to pyarrow.Table or path
        Canonical trips of the months that judge.
    rules : Promotion
        The margins and bounds.
    boroughs : mapping of int to str
        Boroughs by zone, as far as they are known.
    calibrates : callable, optional
        From days since 1970-01-01 of shape (trips,) to a mask of those that set the width of the
        challenger's intervals; they are left out of the coverage.
    learned : sequence of str
        Months that the champion learned from.
    notes : sequence of str
        Sentences that go before the verdict's own.

    Returns
    -------
    Verdict

    Raises
    ------
    TripDurationError
        If the months have no trips.
    """
    errors, intervals = _Errors(boroughs), _Intervals()
    for month, source in months.items():
        for trips in read_parts(source):
            said = challenger.predict(trips)
            errors.add(CHALLENGER, trips, said["minutes"], month)
            if champion is not None:
                errors.add(CHAMPION, trips, champion.predict(trips)["minutes"], month)
            for name, minutes in baselines.predict(trips).items():
                errors.add(name, trips, minutes, month)
            intervals.add(trips, said["lower"], said["upper"], calibrates)
    if not intervals.trips:
        raise TripDurationError(
            f"{', '.join(months) or 'No month'} has no trips that can judge a model: name other "
            "months in data.test, or widen the rules under clean."
        )
    whole = errors.of(*WHOLE)
    verdict = Verdict(
        promoted=False,
        checks=(),
        reasons=(),
        notes=tuple(notes),
        months=tuple(months),
        trips=errors.trips(*WHOLE),
        rmse=whole.pop(CHALLENGER),
        champion_rmse=whole.pop(CHAMPION, None),
        baselines=whole,
        level=challenger.calibration.level,
        coverage=round(intervals.held / intervals.trips, 6),
        width=round(intervals.minutes / intervals.trips, 6),
        slices=tuple(errors.slices()),
    )
    return decide(verdict, rules, learned)


def decide(found: Verdict, rules: Promotion, learned: Sequence[str] = ()) -> Verdict:
    """Hold what was found against the rules.

    Parameters
    ----------
    found : Verdict
        Its numbers; its checks and reasons are made here, and notes are added.
    rules : Promotion
        The margins and bounds.
    learned : sequence of str
        Months that the champion learned from.
    """
    checks = [
        _beats(name, found, rmse, rules.over_baselines) for name, rmse in found.baselines.items()
    ]
    few = []
    if found.champion_rmse is not None:
        checks.append(_beats(CHAMPION, found, found.champion_rmse, rules.over_champion))
    for part in found.slices:
        if part.trips < rules.slice_trips:
            few.append(part.name)
        elif part.champion_rmse is not None:
            difference = _difference(part.rmse, part.champion_rmse)
            checks.append(
                Check(
                    CHAMPION,
                    part.name,
                    part.trips,
                    part.rmse,
                    part.champion_rmse,
                    difference,
                    rules.slice_bound,
                    difference <= rules.slice_bound,
                )
            )
    off = round(found.coverage - found.level, 6)
    within = rules.coverage_within
    checks.append(
        Check(
            COVERAGE, ALL, found.trips, found.coverage, found.level, off, within, abs(off) <= within
        )
    )
    failed = [check.words for check in checks if not check.passed]
    whole = [check.words for check in checks if check.slice == ALL]
    known = sorted({*found.months} & {*learned})
    notes = [*found.notes]
    if known and found.champion_rmse is not None:
        notes.append(
            f"The champion learned from {', '.join(known)}, whose trips judge here: that favours "
            "it over the challenger."
        )
    if few and found.champion_rmse is not None:
        notes.append(f"Too few trips to compare (below {rules.slice_trips:,}): {', '.join(few)}.")
    return replace(
        found,
        promoted=not failed,
        checks=tuple(checks),
        reasons=tuple(failed or whole),
        notes=tuple(notes),
    )


def _beats(name: str, found: Verdict, rival: float, margin: float) -> Check:
    """Over all trips; a margin of 0 asks for better, not for as good."""
    difference = _difference(found.rmse, rival)
    return Check(
        name, ALL, found.trips, found.rmse, rival, difference, -margin, difference < -margin
    )


def _difference(rmse: float, rival: float) -> float:
    """Relative to the rival's; of a rival without error, 0 or infinite."""
    if rival == 0:
        return 0.0 if rmse == 0 else math.inf
    return round(rmse / rival - 1, 6)


def _relative(difference: float) -> str:
    """In per cent, to a decimal, or to two digits where that would be 0."""
    if difference == 0:
        return ""
    share = abs(difference)
    said = f"{share:.1%}" if share >= 0.001 else f"{100 * share:.2g}%"
    return f"{said} {'below' if difference < 0 else 'above'} "


class _Errors:
    """Sums of squared errors by who predicted, over all trips and slice by slice."""

    def __init__(self, boroughs: Mapping[int, str]) -> None:
        self._boroughs = dict(boroughs)
        self._sums: dict[tuple[str, str], dict[str, tuple[int, float]]] = {}

    def add(self, who: str, trips: pa.Table, minutes: np.ndarray, month: str) -> None:
        """Baselines are compared over all trips only."""
        if not trips.num_rows:
            return
        error = minutes - trips["duration"].to_numpy()
        self._sum(WHOLE, who, trips.num_rows, float(error @ error))
        if who not in (CHALLENGER, CHAMPION):
            return
        tables = slices(trips, minutes, [month] * trips.num_rows, self._boroughs)
        for kind in KINDS:
            for row in tables[kind].to_pylist():
                self._sum((kind, row[kind]), who, row["trips"], row["trips"] * row["rmse"] ** 2)

    def _sum(self, where: tuple[str, str], who: str, trips: int, squares: float) -> None:
        known = self._sums.setdefault(where, {})
        before = known.get(who, (0, 0.0))
        known[who] = (before[0] + trips, before[1] + squares)

    def of(self, kind: str, key: str) -> dict[str, float]:
        """Each one's RMSE in minutes, rounded to 6 decimals."""
        sums = self._sums[kind, key]
        return {who: round(math.sqrt(total / trips), 6) for who, (trips, total) in sums.items()}

    def trips(self, kind: str, key: str) -> int:
        """How many trips a slice has."""
        return self._sums[kind, key][CHALLENGER][0]

    def slices(self) -> Iterator[Slice]:
        """In the order of `KINDS`, then of their keys."""
        named = [where for where in self._sums if where != WHOLE]
        for where in sorted(named, key=lambda where: (KINDS.index(where[0]), where[1])):
            rmse = self.of(*where)
            yield Slice(*where, self.trips(*where), rmse[CHALLENGER], rmse.get(CHAMPION))


class _Intervals:
    """How many trips lie in their intervals, and how wide these are."""

    def __init__(self) -> None:
        self.trips = self.held = 0
        self.minutes = 0.0

    def add(
        self,
        trips: pa.Table,
        lower: np.ndarray,
        upper: np.ndarray,
        calibrates: Callable[[np.ndarray], np.ndarray] | None,
    ) -> None:
        day = trips["pickup"].to_numpy().astype("datetime64[D]").astype(np.int64)
        fresh = np.ones(len(day), bool) if calibrates is None else ~calibrates(day)
        actual = trips["duration"].to_numpy()
        self.trips += int(fresh.sum())
        self.held += int(((lower <= actual) & (actual <= upper))[fresh].sum())
        self.minutes += float((upper - lower)[fresh].sum())
