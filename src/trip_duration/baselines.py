"""What one would say without a model: what a model must beat to be worth its trouble."""

import math
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa

from trip_duration.trips import read_parts

__all__ = ["Baselines"]

_LEARNED = ("pickup_zone", "dropoff_zone", "duration")
ZONES = 267  # -1, a missing zone, to 265; counted from 0 here


class Baselines:
    """What one would say without a model: the mean, and the zone pair's median.

    A pair without training trips takes its pickup zone's median, and a pickup zone without any the
    median of all. A missing zone is a zone of its own.

    Parameters
    ----------
    mean : float
        Mean duration of the training trips, in minutes.
    median : float
        Their median.
    by_pickup : dict of int to float
        Median by pickup zone, -1 for a missing one.
    by_pair : dict of (int, int) to float
        Median by pickup and drop-off zone.
    """

    def __init__(
        self,
        mean: float,
        median: float,
        by_pickup: dict[int, float],
        by_pair: dict[tuple[int, int], float],
    ) -> None:
        self.mean = mean
        self.median = median
        self.by_pickup = by_pickup
        self.by_pair = by_pair

    @classmethod
    def fit(cls, months: Sequence[pa.Table | str | PathLike[str]]) -> "Baselines":
        """Learn from the training months, read three times in memory that they do not fill.

        Medians are those of whole seconds. Each pair's is found in two steps: which stretch of
        seconds it lies in, then where in the stretch.

        Parameters
        ----------
        months : sequence of pyarrow.Table or path
            Canonical trips, at least one in all.
        """
        trips, total, longest = 0, 0, 0
        for seconds, *_ in _parts(months, ["duration"]):
            trips += len(seconds)
            total += int(seconds.sum())
            longest = max(longest, int(seconds.max(initial=0)))
        step = math.isqrt(longest) + 1
        pickups = np.zeros((ZONES, longest + 1), np.int64)
        stretches = np.zeros((ZONES * ZONES, step), np.int32)
        for seconds, pickup, pair in _parts(months):
            np.add.at(pickups.ravel(), pickup * (longest + 1) + seconds, 1)
            np.add.at(stretches.ravel(), pair * step + seconds // step, np.int32(1))
        seen = np.flatnonzero(stretches.any(axis=1))
        below, inside = _middles(stretches[seen])
        row = np.full(ZONES * ZONES, -1)
        row[seen] = np.arange(len(seen))
        fine = [np.zeros((len(seen), step), np.int32) for _ in below]
        for seconds, _, pair in _parts(months):
            place, stretch = row[pair], seconds // step
            cell = place * step + seconds - stretch * step
            for counts, of_pair in zip(fine, below, strict=True):
                np.add.at(counts.ravel(), cell[of_pair[place] == stretch], np.int32(1))
        by_pair = sum(
            of_pair * step + _at(counts, rank)
            for of_pair, counts, rank in zip(below, fine, inside, strict=True)
        )
        zones = np.flatnonzero(pickups.any(axis=1))
        by_pickup, median = (
            sum(_middles(counts)[0]) for counts in (pickups[zones], pickups.sum(axis=0)[None])
        )
        ends = (part.tolist() for part in np.divmod(seen, ZONES))
        return cls(
            mean=round(total / trips / 60, 6),
            median=_minutes(median)[0],
            by_pickup=dict(zip((zones - 1).tolist(), _minutes(by_pickup), strict=True)),
            by_pair={
                (pickup - 1, dropoff - 1): minutes
                for pickup, dropoff, minutes in zip(*ends, _minutes(by_pair), strict=True)
            },
        )

    def predict(self, trips: pa.Table) -> dict[str, np.ndarray]:
        """Minutes by baseline's name, each of shape (trips,)."""
        import pandas as pd

        frame = _zones(trips)
        pairs = pd.MultiIndex.from_frame(frame)
        values = pd.Series(self.by_pair, dtype="float64").reindex(pairs).to_numpy()
        fallback = frame["pickup"].map(self.by_pickup).fillna(self.median).to_numpy()
        return {
            "mean": np.full(trips.num_rows, self.mean),
            "pair_median": np.where(np.isnan(values), fallback, values),
        }

    def to_json(self) -> dict:
        """Plain data, for `write_json`."""
        return {
            "mean": self.mean,
            "median": self.median,
            "by_pickup": {str(zone): value for zone, value in self.by_pickup.items()},
            "by_pair": {f"{a}_{b}": value for (a, b), value in self.by_pair.items()},
        }

    @classmethod
    def from_json(cls, data: dict) -> "Baselines":
        """Read what `to_json` gave."""
        by_pair = {tuple(map(int, key.split("_"))): value for key, value in data["by_pair"].items()}
        return cls(
            mean=data["mean"],
            median=data["median"],
            by_pickup={int(zone): value for zone, value in data["by_pickup"].items()},
            by_pair=by_pair,  # type: ignore[arg-type]
        )


def _zones(trips: pa.Table) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            "pickup": trips["pickup_zone"].fill_null(-1).to_numpy(),
            "dropoff": trips["dropoff_zone"].fill_null(-1).to_numpy(),
        }
    )


def _parts(
    months: Sequence[pa.Table | str | PathLike[str]], columns: Sequence[str] = _LEARNED
) -> Iterator[tuple[np.ndarray, ...]]:
    """Seconds of trips, their pickup zone and their pair, batch by batch."""
    for month in months:
        for trips in read_parts(month, columns):
            seconds = np.rint(trips["duration"].to_numpy() * 60).astype(np.int64)
            if len(columns) == 1:
                yield (seconds,)
                continue
            zones = _zones(trips).to_numpy(np.int64).T + 1
            yield seconds, zones[0], zones[0] * ZONES + zones[1]


def _middles(counts: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The bins of each row's two middle values (one value twice where their number is odd).

    Second, the rank that each has among the values of its bin, from 0.
    """
    reached = counts.cumsum(axis=1, dtype=np.int64)
    total = reached[:, -1]
    bins, ranks = [], []
    for rank in ((total - 1) // 2, total // 2):
        place = (reached <= rank[:, None]).sum(axis=1)
        before = np.where(place > 0, reached[np.arange(len(place)), place - 1], 0)
        bins.append(place)
        ranks.append(rank - before)
    return bins, ranks


def _at(counts: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """The bin of each row's value of this rank, from 0."""
    return (counts.cumsum(axis=1, dtype=np.int64) <= rank[:, None]).sum(axis=1)


def _minutes(twice: Any) -> list[float]:
    """From the sum of two middle values in seconds."""
    return np.round(np.asarray(twice) / 120, 6).tolist()
