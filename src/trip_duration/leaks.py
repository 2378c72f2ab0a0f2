"""Looks for leaks in what featurize wrote: whether a column, or a row, tells more than it may.

Nothing here trusts how the features were made: the checks read the finished features and the trips
that they were made of. Three things are looked for.

- The answer in a column: the column alone tells nearly all of the duration (`check_answer`).
- A column that was learned from the very durations that it is to predict, as target encodings
  without folds are: it tells more of the training trips than of unseen ones (`check_encodings`).
- Trips to be judged on that the model learned from (`check_rows`).

All reckoning is on samples that are the same in every run, a few ten thousand rows of each split.
What two columns tell together (the pickup and the drop-off time, say) is not looked for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from trip_duration.errors import TripDurationError
from trip_duration.trips import read_parts, taken

__all__ = ["check", "check_answer", "check_encodings", "check_rows"]

Rows: TypeAlias = pa.Table | str | PathLike[str]

# `check_answer`. Real months (green of 2021 and 2024, thirty of yellow) and simulated ones, under
# the course's filter and without any: the distance, the best honest column, explains 0.60 to 0.76,
# and 0.81 in the empty streets of April 2020; all columns together reach 0.85. The answer itself
# explains 0.99, with noise of 2 minutes 0.94, of 3 minutes 0.88.
ANSWER = 0.88  # of the variance
_BINS = 256
_JUDGED = 20_000  # rows, of which a column's share is reckoned
_FEWEST = 200  # rows; of fewer, chance alone explains too much

# `check_encodings`. Correlations among scarce trips are compared, see there. In 109 pairs of months
# (the above, from 300 to a million trips, months years apart and the pandemic among them) honest
# columns gained 0.19 at most, encodings without folds 0.2 to 0.6.
GAINED = 0.2  # more correlation in training than in unseen rows, and
_CERTAIN = 4.0  # ... so many standard errors of it
# Rows of a split: of fewer, what is left once zones and hours are taken out is too little to judge.
# Of 120 honest pairs of simulated months of 300 and 500 trips 12 were refused, of 60 of 1,000 none.
_COMPARED = 1_000
_SCARCE = 3  # trips: what one knows of a cell of so few is mostly noise
_COMMON = (13, 64)  # trips of cells whose noise averages out, so that drift remains
_EVEN, _EXTRA = 30_000, 20_000  # rows of a split: evenly spaced, and of scarce pairs beyond those

# `check_rows`. Of real months at most 1 trip in 4,000 is in another month too (dated wrongly).
SHARED = 0.005  # of the trips to be judged on
_KEPT = 1 << 21  # fingerprints, 16 MB; beyond, every second is dropped, and again

_SPLITS = ("train", "validation", "test")  # in the order of time: none may hold trips of another
_NO_FEATURES = ("day", "duration")
_ZONES, _CLOCKS = 266, 48
_TRIP = ["pickup", "pickup_zone", "dropoff_zone", "trip_distance"]


def check(
    features: Mapping[str, Sequence[Rows]], trips: Mapping[str, Sequence[Rows]]
) -> dict[str, dict[str, Any]]:
    """Look for leaks of all three kinds.

    Parameters
    ----------
    features : mapping of str to sequence of pyarrow.Table or path
        What featurize wrote for the months of ``train``, ``validation`` and, where there are test
        months, ``test``: columns of features, and ``duration`` in minutes.
    trips : mapping of str to sequence of pyarrow.Table or path
        The same months of canonical trips, row by row.

    Returns
    -------
    dict
        ``answer``, ``encodings`` and ``rows``: what was measured, as plain JSON data, rounded to 4
        decimals.

    Raises
    ------
    TripDurationError
        Names the first leak found: the column or the months, the number and what was expected. Or
        if the features are not of these trips.

    Notes
    -----
    Takes 0.6 s for three splits of 58,000 to 116,000 trips, and reads months and features in parts:
    its memory does not grow with them.
    """
    rows = check_rows(trips)
    counts = {split: _counted(trips[split]) for split in features}
    samples = {
        split: _sampled(split, features[split], trips[split], counts["train"], counts[split])
        for split in features
    }
    answer = check_answer({split: sample.even for split, sample in samples.items()})
    encodings = _compared(samples["train"], samples["validation"])
    return {"answer": answer, "encodings": encodings, "rows": rows}


# The answer in a column


def check_answer(features: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Refuse a column that tells the duration alone.

    A column's share of the variance of the durations is what means by its values, or by bins of as
    many rows each, explain, judged on rows that the means do not know. So it does not matter
    whether the answer was shifted, scaled, bent, mirrored, rounded, blurred or cut into categories.
    Where a value stands in many rows it may stand for none, and the share is taken without those
    rows too. The longest hundredth of the durations counts as equally long.

    Parameters
    ----------
    features : mapping of str to pyarrow.Table
        Features of each split, with their ``duration``.

    Returns
    -------
    dict
        ``column``, ``split`` and ``share`` of the column that explains most (None where nothing
        could be judged), and the ``limit``.

    Raises
    ------
    TripDurationError
        If a column explains more than `ANSWER`.
    """
    best: tuple[float, str | None, str | None] = (0.0, None, None)
    for split, table in features.items():
        table = table.take(_evenly(table.num_rows, _JUDGED))
        minutes = _values(table, "duration")
        minutes = np.minimum(minutes, np.quantile(minutes, 0.99)) if len(minutes) else minutes
        for name in _columns(table):
            best = max(best, (_share(_values(table, name), minutes), name, split), key=_first)
    share, found, where = best
    if share > ANSWER:
        raise TripDurationError(
            f"The column {found!r} of the {where} features gives the answer away: alone it "
            f"explains {_percent(share)} % of the variance of the durations, and no honest column "
            f"explains more than {_percent(ANSWER)} %; find out what the column is made of and "
            "remove it from the features."
        )
    return {"column": found, "split": where, "share": round(share, 4), "limit": ANSWER}


def _first(item: tuple[Any, ...]) -> Any:
    return item[0]


def _share(values: np.ndarray, minutes: np.ndarray) -> float:
    """The share of the variance of minutes that values explain; 0 where there are too few."""
    known = np.isfinite(values)
    levels, level, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    minutes = minutes[known]
    share = _explained(level, counts, minutes)
    if len(levels) > 2 and counts.max() > 0.05 * len(minutes):
        other = level != counts.argmax()
        kept, level = np.unique(level[other], return_inverse=True)
        share = max(share, _explained(level, counts[kept], minutes[other]))
    return share


def _explained(level: np.ndarray, counts: np.ndarray, minutes: np.ndarray) -> float:
    """R² of means by level, or by bin of levels, each half of the rows judged by the other's."""
    rows = len(minutes)
    if rows < _FEWEST:
        return 0.0
    centred = minutes - minutes.mean()
    spread = centred @ centred
    bins = min(_BINS, rows // 16)
    bin_of = (np.cumsum(counts) - 1) * bins // rows
    half = np.arange(rows) % 2
    best = 0.0
    for group in (level, bin_of[level]):
        cell = 2 * group + half
        size = 2 * int(group.max()) + 2
        total = np.bincount(cell, centred, minlength=size)
        mean = total / (np.bincount(cell, minlength=size) + 1)  # shrunk by one average trip
        error = centred - mean[cell ^ 1]
        best = max(best, 1 - (error @ error) / spread if spread > 0 else 0.0)
    return best


# Columns that were learned from the answers of their own rows


@dataclass(frozen=True)
class _Sample:
    """Some rows of a split.

    Attributes
    ----------
    features : pyarrow.Table
        Their features and their ``duration``.
    trips : pyarrow.Table
        The canonical trips that they were made of.
    spaced : array of bool of shape (rows,)
        Whether a row is one of those that are evenly spaced.
    seen : dict of str to array of shape (rows,)
        For each kind of cell the trips of the row's own, in training or in the unseen months,
        whichever are more; 0 where either has none.
    """

    features: pa.Table
    trips: pa.Table
    spaced: np.ndarray
    seen: dict[str, np.ndarray]

    @property
    def even(self) -> pa.Table:
        """The features of the rows that are evenly spaced."""
        return self.features.filter(pa.array(self.spaced))

    @cached_property
    def effects(self) -> list[np.ndarray]:
        """For each row its pickup zone, drop-off zone, distance (in steps of 5 %) and hour."""
        cells = _cells(self.trips)
        miles = self.trips["trip_distance"].fill_null(float("nan")).to_numpy()
        known = np.isfinite(miles) & (miles > 0.04)
        step = np.rint(np.log(np.where(known, miles, 1.0)) / 0.05) + 66  # 0.04 miles is step 2
        distance = np.where(known, np.clip(step, 1, 200), 0).astype(np.int64)
        pickup, dropoff = np.divmod(cells["zone pair"], _ZONES)
        return [pickup, dropoff, distance, cells["pickup zone and hour"] % _CLOCKS]

    @cached_property
    def cells(self) -> dict[str, np.ndarray]:
        """The row's cell of each kind."""
        return _cells(self.trips)


def check_encodings(
    train: pa.Table, unseen: pa.Table, train_trips: pa.Table, unseen_trips: pa.Table
) -> dict[str, Any]:
    """Refuse a column that was learned from the durations of the very rows that it stands in.

    Such a column, a zone pair's mean duration say, knows of the noise of each training trip what
    the trip added to the mean: most where a pair has few trips. So trips of pairs that are scarce
    in both tables are looked at. Distance, hour and both zones are taken out of the durations and
    of the column, additively; what is left of the two is correlated in training and in unseen
    rows. An honest column is correlated as much, or less where folds were left out. A column
    without folds gains; so does one that holds the predictions of a model for its own training
    rows, there over all rows. What pairs with many trips gain too is drift, and does not count.

    Cells of a zone and an hour are looked at like pairs. A mean over cells of very many trips knows
    next to nothing of each, and is not found.

    Parameters
    ----------
    train, unseen : pyarrow.Table
        Features of training trips and of trips of other months, with their ``duration``.
    train_trips, unseen_trips : pyarrow.Table
        The canonical trips that they were made of, row by row.

    Returns
    -------
    dict
        ``column``, ``among`` (which rows) and ``gain`` of the column that gains most beyond chance
        (None where nothing could be judged), and the ``limit``.

    Raises
    ------
    TripDurationError
        If a column gains more than `GAINED`, and surely so.
    """
    counts = [_counted([trips]) for trips in (train_trips, unseen_trips)]
    seen = [_seen(_cells(trips), *counts) for trips in (train_trips, unseen_trips)]
    return _compared(
        _Sample(train, train_trips, np.ones(train.num_rows, bool), seen[0]),
        _Sample(unseen, unseen_trips, np.ones(unseen.num_rows, bool), seen[1]),
    )


def _compared(train: _Sample, unseen: _Sample) -> dict[str, Any]:
    """`check_encodings` of samples."""
    best: tuple[float, float, str | None, str | None] = (0.0, 0.0, None, None)
    if min(train.features.num_rows, unseen.features.num_rows) >= _COMPARED:
        judge = _Judge(train, unseen)
        for name in _columns(train.features):
            for among, gain, error in judge.gains(name):
                # What counts is the smaller of how large and how certain the gain is.
                rank = min(gain / GAINED, gain / error / _CERTAIN)
                best = max(best, (rank, gain, name, among), key=_first)
    rank, gain, column, where = best
    if rank > 1:
        raise TripDurationError(
            f"The column {column!r} was learned from the durations of the training trips that it "
            f"describes: among {where} its correlation with the durations is {gain:.2f} higher in "
            f"training than in the validation months, expected at most {GAINED:.2f}; make it of "
            "other trips than the row's own, as FeatureBuilder.transform_training does with folds."
        )
    return {"column": column, "among": where, "gain": round(gain, 4), "limit": GAINED}


class _Judge:
    """Compares what a column tells of training and of unseen rows."""

    def __init__(self, train: _Sample, unseen: _Sample) -> None:
        self._samples = (train, unseen)
        self._left = [
            _without(_ranks(_values(s.features, "duration")), s.effects) for s in self._samples
        ]
        # The durations less the distance and the hour alone: what zones tell is still in them.
        kept = _without(_ranks(_values(unseen.features, "duration")), unseen.effects[2:])
        self._unseen_slow = kept

    def gains(self, name: str) -> Iterator[tuple[str, float, float]]:
        """Among which rows, by how much, and with which standard error the column gains."""
        values = [_values(s.features, name) for s in self._samples]
        known = [np.flatnonzero(np.isfinite(v)) for v in values]
        if min(map(len, known)) < _FEWEST:
            return
        ranks = _ranks(np.concatenate([v[k] for v, k in zip(values, known, strict=True)]))
        sides = []
        for sample, left, rows, part in zip(
            self._samples, self._left, known, np.split(ranks, [len(known[0])]), strict=True
        ):
            rest = _without(part, [effect[rows] for effect in sample.effects])
            sides.append(_Side(sample, rows, part, rest, left[rows]))
        slow = _correlation(sides[1].ranks, self._unseen_slow[known[1]])
        falls = slow * np.sqrt(len(known[1])) < -3

        everywhere = [np.ones(len(side.rows), bool) for side in sides]
        yield from self._gain("all trips", sides, everywhere, falls)
        for kind in sides[0].sample.cells:
            if sides[1].spread_within(kind) < 0.3:  # else it tells of the trip, not of the cell
                yield from self._scarce(kind, sides, falls)

    def _scarce(
        self, kind: str, sides: "list[_Side]", falls: bool
    ) -> Iterator[tuple[str, float, float]]:
        among = f"trips whose {kind} has at most {_SCARCE}"
        scarce = [side.having(kind, 1, _SCARCE) for side in sides]
        common = [side.having(kind, *_COMMON) for side in sides]
        drift = 0.0
        for _, gain, _ in self._gain("", sides, common, falls):
            drift = max(0.0, gain)
        for _, gain, error in self._gain("", sides, scarce, falls):
            yield among, gain - drift, error

    def _gain(
        self, among: str, sides: "list[_Side]", rows: list[np.ndarray], falls: bool
    ) -> Iterator[tuple[str, float, float]]:
        """The gain among some rows, if they are enough and the column tells something there."""
        sizes = [int(r.sum()) for r in rows]
        if min(sizes) < _FEWEST // 2:
            return
        parts = [(s.rest[r], s.left[r], s.ranks.var()) for s, r in zip(sides, rows, strict=True)]
        if any(rest.var() < 0.05 * spread or spread == 0 for rest, _, spread in parts):
            return  # zones, distance and hour say it all
        trained, served = (_correlation(rest, left) for rest, left, _ in parts)
        sign = -1.0 if falls and served < 0 else 1.0
        yield among, sign * (trained - served), float(np.sqrt(sum(1 / size for size in sizes)))


@dataclass(frozen=True)
class _Side:
    """A column in the rows of a sample that have it."""

    sample: _Sample
    rows: np.ndarray
    ranks: np.ndarray  # of the column's values
    rest: np.ndarray  # of the ranks, less zones, distance and hour
    left: np.ndarray  # of the durations' ranks, less the same

    def having(self, kind: str, low: int, high: int) -> np.ndarray:
        """Whether each row's cell has ``low`` to ``high`` trips."""
        seen = self.sample.seen[kind][self.rows]
        return (seen >= low) & (seen <= high)

    def spread_within(self, kind: str) -> float:
        """The column's variance within cells, as a share of its variance."""
        cell = self.sample.cells[kind][self.rows]
        count = np.bincount(cell)
        mean = np.bincount(cell, self.ranks) / np.maximum(count, 1)
        error = self.ranks - mean[cell]
        free = len(cell) - np.count_nonzero(count)
        spread = self.ranks.var()
        return float(error @ error / free / spread) if free >= 20 and spread > 0 else np.inf


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 to 1, equal values at the middle of theirs."""
    _, level, counts = np.unique(values, return_inverse=True, return_counts=True)
    return ((np.cumsum(counts) - counts / 2) / len(values))[level]


def _without(values: np.ndarray, effects: Sequence[np.ndarray]) -> np.ndarray:
    """Values less a sum of one mean for each effect's levels, fitted in turns (backfitting).

    Means are shrunk by 3 average rows. Three turns leave less than the sampling noise.
    """
    rest = values - values.mean()
    counts = [np.bincount(effect) + 3.0 for effect in effects]
    for _ in range(3):
        for effect, count in zip(effects, counts, strict=True):
            rest -= (np.bincount(effect, rest) / count)[effect]
    return rest


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else 0.0


# Cells of trips


def _cells(trips: pa.Table) -> dict[str, np.ndarray]:
    """The number of each trip's cell, by kind of cell."""
    pickup, dropoff = (_zone(trips, f"{end}_zone") for end in ("pickup", "dropoff"))
    seconds = _seconds(trips)
    weekend = (seconds // 86400 + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    clock = seconds % 86400 // 3600 + 24 * weekend
    return {
        "zone pair": pickup * _ZONES + dropoff,
        "pickup zone and hour": pickup * _CLOCKS + clock,
        "drop-off zone and hour": dropoff * _CLOCKS + clock,
    }


_CELLS = {
    "zone pair": _ZONES * _ZONES,
    "pickup zone and hour": _ZONES * _CLOCKS,
    "drop-off zone and hour": _ZONES * _CLOCKS,
}


def _zone(trips: pa.Table, name: str) -> np.ndarray:
    zone = trips[name].cast(pa.int64()).fill_null(0).to_numpy()
    return np.where((zone > 0) & (zone < _ZONES), zone, 0)


def _seconds(trips: pa.Table) -> np.ndarray:
    return trips["pickup"].cast(pa.timestamp("s")).cast(pa.int64()).to_numpy()


def _counted(months: Iterable[Rows]) -> dict[str, np.ndarray]:
    """Trips by cell, for each kind."""
    counts = {kind: np.zeros(size, np.int64) for kind, size in _CELLS.items()}
    for month in months:
        for part in read_parts(month, _TRIP):
            for kind, cell in _cells(part).items():
                counts[kind] += np.bincount(cell, minlength=len(counts[kind]))
    return counts


def _seen(
    cells: Mapping[str, np.ndarray], one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`_Sample.seen` of rows, from the trips by cell of two splits."""
    more = {kind: np.where(one[kind] * two[kind] > 0, np.maximum(one[kind], two[kind]), 0)
            for kind in cells}  # fmt: skip
    return {kind: more[kind][cell] for kind, cell in cells.items()}


# Trips of one split in another


def check_rows(splits: Mapping[str, Iterable[Rows]]) -> dict[str, Any]:
    """Refuse months to be judged on that hold trips of the months that were learned from.

    Trips are the same where pickup, zones, distance and duration are, as 64-bit fingerprints say.
    The validation months are held against the training months, the test months against both.

    Parameters
    ----------
    splits : mapping of str to iterable of pyarrow.Table or path
        Months of canonical trips of ``train``, ``validation`` and ``test``.

    Returns
    -------
    dict
        For each split but the first the share of its trips that an earlier one holds too, and the
        ``limit``.

    Raises
    ------
    TripDurationError
        If the share exceeds `SHARED`.
    """
    earlier = _Fingerprints()
    found: dict[str, Any] = {}
    names: list[str] = []
    for split in sorted(splits, key=_SPLITS.index):
        own = _Fingerprints()
        for month in splits[split]:
            for part in read_parts(month, [*_TRIP, "duration"]):
                own.add(_fingerprints(part))
        if names:
            shared, share = own.shared(earlier)
            if share > SHARED:
                raise TripDurationError(
                    f"The {split} months hold {shared:,} trips that are in the "
                    f"{' or '.join(names)} months too, {_percent(share)} % of them: expected at "
                    f"most {_percent(SHARED)} %, since a model is to be judged on trips that it "
                    f"has not learned from; look at what data.source gives for data.{split}."
                )
            found[split] = round(share, 4)
        earlier.merge(own)
        names.append("training" if split == "train" else split)
    return {**found, "limit": SHARED}


def _fingerprints(trips: pa.Table) -> np.ndarray:
    """64 bits of each trip, by the finaliser of splitmix64 (S. Vigna, public domain)."""
    word = np.zeros(trips.num_rows, np.uint64)
    zones = _zone(trips, "pickup_zone") * _ZONES + _zone(trips, "dropoff_zone")
    numbers = [trips[name].fill_null(-1.0).to_numpy() for name in ("trip_distance", "duration")]
    # + 0.0: so that -0.0 is 0.0
    for column in (_seconds(trips), zones, *((n + 0.0).view(np.int64) for n in numbers)):
        word = (word ^ column.view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        word ^= word >> np.uint64(31)
    return word


class _Fingerprints:
    """Fingerprints of trips, or, of very many, those of the lowest 1 in 2**k."""

    def __init__(self) -> None:
        self.words = np.zeros(0, np.uint64)
        self.halvings = 0

    def add(self, words: np.ndarray) -> None:
        """Keep these too."""
        self.words = np.concatenate([self.words, _below(words, self.halvings)])
        while len(self.words) > _KEPT:
            self.halvings += 1
            self.words = _below(self.words, self.halvings)

    def merge(self, other: "_Fingerprints") -> None:
        """Keep another's too."""
        self.halvings = max(self.halvings, other.halvings)
        self.words = _below(self.words, self.halvings)
        self.add(other.words)

    def shared(self, earlier: "_Fingerprints") -> tuple[int, float]:
        """How many of these trips are among the earlier ones, about, and which share."""
        halvings = max(self.halvings, earlier.halvings)
        own, other = _below(self.words, halvings), np.sort(_below(earlier.words, halvings))
        if not len(own) or not len(other):
            return 0, 0.0
        place = np.minimum(np.searchsorted(other, own), len(other) - 1)
        same = int((other[place] == own).sum())
        return same << halvings, same / len(own)


def _below(words: np.ndarray, halvings: int) -> np.ndarray:
    return words[words >> np.uint64(64 - halvings) == 0] if halvings else words


# Reading


def _columns(features: pa.Table) -> list[str]:
    return [name for name in features.column_names if name not in _NO_FEATURES]


def _values(table: pa.Table, name: str) -> np.ndarray:
    """A column as float64, NaN where it is missing."""
    return table[name].cast(pa.float64()).fill_null(float("nan")).to_numpy()


def _evenly(rows: int, most: int) -> np.ndarray:
    """The places of at most ``most`` rows, evenly spaced."""
    kept = min(rows, most)
    return np.arange(kept, dtype=np.int64) * rows // max(kept, 1)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}"


def _sampled(
    split: str,
    features: Sequence[Rows],
    months: Sequence[Rows],
    train: Mapping[str, np.ndarray],
    own: Mapping[str, np.ndarray],
) -> _Sample:
    """Evenly spaced rows of a split and, beyond those, rows whose zone pair is scarce."""
    total = int(own["zone pair"].sum())
    spaced = _evenly(total, _EVEN)
    both = np.where(train["zone pair"] * own["zone pair"] > 0, own["zone pair"], 0)
    more = np.maximum(train["zone pair"], own["zone pair"])
    is_scarce = (both > 0) & (more <= _SCARCE)
    scarce = int(own["zone pair"][is_scarce].sum())
    chosen, trips = _chosen(months, spaced, is_scarce, scarce)
    rows = sum(part.num_rows for month in features for part in read_parts(month, ["duration"]))
    if rows != total:
        raise TripDurationError(
            f"The {split} features have {rows} rows and the {split} months {total} trips: expected "
            "as many; run ingest and featurize again."
        )
    return _Sample(
        taken(features, chosen), trips, np.isin(chosen, spaced), _seen(_cells(trips), train, own)
    )


def _chosen(
    months: Sequence[Rows], spaced: np.ndarray, is_scarce: np.ndarray, scarce: int
) -> tuple[np.ndarray, pa.Table]:
    """The places of a sample's rows in their split, and the trips there."""
    wanted = _evenly(scarce, _EXTRA)  # of the scarce ones, counted from the first
    places, taken, first, passed = [], [], 0, 0
    for month in months:
        for part in read_parts(month, _TRIP):
            here = np.flatnonzero(is_scarce[_cells(part)["zone pair"]])
            low, high = np.searchsorted(wanted, [passed, passed + len(here)])
            start, end = np.searchsorted(spaced, [first, first + part.num_rows])
            rows = np.union1d(here[wanted[low:high] - passed], spaced[start:end] - first)
            places.append(rows + first)
            taken.append(part.take(rows))
            first, passed = first + part.num_rows, passed + len(here)
    empty = pa.table({name: pa.array([], kind) for name, kind in _EMPTY.items()})
    return (
        np.concatenate([np.zeros(0, np.int64), *places]),
        pa.concat_tables(taken, promote_options="permissive") if taken else empty,
    )


_EMPTY = {
    "pickup": pa.timestamp("s"),
    "pickup_zone": pa.int16(),
    "dropoff_zone": pa.int16(),
    "trip_distance": pa.float64(),
}
