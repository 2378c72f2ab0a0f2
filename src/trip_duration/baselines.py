"""What one would say without a model: what a model must beat to be worth its trouble."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["Baselines"]


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
    def fit(cls, months: Iterable[pa.Table]) -> "Baselines":
        """Learn from training months: tables of canonical trips, at least one row in all."""
        columns = ["pickup_zone", "dropoff_zone", "duration"]
        trips = pa.concat_tables(month.select(columns) for month in months)
        frame = _zones(trips).assign(duration=trips["duration"].to_numpy())
        pickup = frame.groupby("pickup")["duration"].median()
        pair = frame.groupby(["pickup", "dropoff"])["duration"].median()
        return cls(
            mean=round(float(frame["duration"].mean()), 6),
            median=round(float(frame["duration"].median()), 6),
            by_pickup={int(zone): round(float(value), 6) for zone, value in pickup.items()},
            by_pair={(int(a), int(b)): round(float(value), 6) for (a, b), value in pair.items()},
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
