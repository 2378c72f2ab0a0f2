"""How good the predictions are, beside what a naive person would say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = [
    "NAMES",
    "by_borough",
    "by_hour",
    "comparison",
    "comparison_markdown",
    "metrics",
    "slices",
]

# What the baselines are called where people read of them.
NAMES = {
    "model": "this model",
    "course": "the course's model",
    "pair_median": "the zone pair's median",
    "mean": "the mean",
}

DISTANCE_ENDS = (1.0, 2.0, 3.0, 5.0, 10.0)  # miles, where the bands end; their names sort alike
DISTANCE_NAMES = ("00-01", "01-02", "02-03", "03-05", "05-10", "10+", "unknown")


def metrics(actual: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Errors of predictions, in minutes.

    Parameters
    ----------
    actual, predicted : array of shape (trips,)
        Minutes.

    Returns
    -------
    dict
        ``rmse``; ``mae``; ``p50`` and ``p90``, the median and the 90th percentile of the absolute
        error; ``bias``, the mean of predicted less actual. Rounded to 6 decimals.
    """
    error = np.asarray(predicted, dtype=np.float64) - np.asarray(actual, dtype=np.float64)
    absolute = np.abs(error)
    p50, p90 = np.quantile(absolute, [0.5, 0.9])
    return {
        "rmse": _rounded(np.sqrt(np.mean(error**2))),
        "mae": _rounded(absolute.mean()),
        "p50": _rounded(p50),
        "p90": _rounded(p90),
        "bias": _rounded(error.mean()),
    }


def comparison(found: dict) -> list[dict[str, Any]]:
    """The evaluation as rows: the model first, then each baseline.

    Parameters
    ----------
    found : dict
        What ``metrics/evaluation.json`` holds: by split, ``model`` and ``baselines``.

    Returns
    -------
    list of dict
        ``split``, ``name`` and the errors that `metrics` gives, in minutes.
    """
    rows = []
    for split, part in found.items():
        all_of_them = {"model": part["model"], **part["baselines"]}
        for key, name in NAMES.items():
            if key in all_of_them:
                rows.append({"split": split, "name": name, **all_of_them[key]})
    return rows


def comparison_markdown(found: dict) -> str:
    """The evaluation as a Markdown table, errors in minutes."""
    rows = comparison(found)
    columns = ["split", "name", "rmse", "mae", "p50", "p90", "bias"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * 2}{'---:|' * 5}"]
    for row in rows:
        cells = [f"{row[c]:.3f}" if isinstance(row[c], float) else row[c] for c in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(["Errors in minutes.", "", *lines, ""])


def _rounded(value: Any) -> float:
    return round(float(value), 6) + 0.0  # + 0.0: no negative zero


def slices(
    trips: pa.Table,
    predicted: np.ndarray,
    months: np.ndarray | Sequence[str],
    boroughs: dict[int, str],
) -> dict[str, pa.Table]:
    """Errors by hour, borough of the pickup, distance and month.

    Parameters
    ----------
    trips : pyarrow.Table
        Canonical trips.
    predicted : array of shape (trips,)
        Minutes.
    months : sequence of str of length trips
        The month of the file that each trip came in.
    boroughs : dict of int to str
        Boroughs by zone, as far as they are known.

    Returns
    -------
    dict of str to pyarrow.Table
        A table for each of ``hour``, ``borough``, ``distance`` and ``month``, with the slice's
        name in its first column, then ``trips``, ``rmse``, ``mae`` and ``bias`` in minutes.
    """
    actual = trips["duration"].to_numpy()
    return {
        "hour": _slice("hour", by_hour(trips), actual, predicted),
        "borough": _slice("borough", by_borough(trips, boroughs), actual, predicted),
        "distance": _slice("distance", _bands(trips), actual, predicted),
        "month": _slice("month", months, actual, predicted),
    }


def by_hour(trips: pa.Table) -> np.ndarray:
    """The hour of each pickup as two digits, array of str of shape (trips,)."""
    hour = trips["pickup"].to_numpy().astype("datetime64[h]").astype(np.int64) % 24
    return np.array([f"{value:02d}" for value in range(24)], dtype=object)[hour]


def by_borough(trips: pa.Table, boroughs: Mapping[int, str]) -> np.ndarray:
    """The borough of each pickup or ``unknown``, array of str of shape (trips,)."""
    zone = trips["pickup_zone"].fill_null(-1).to_numpy()
    names = np.full(int(max(zone.max(initial=0), *boroughs, 0)) + 2, "unknown", dtype=object)
    for number, borough in boroughs.items():
        names[number] = borough
    return names[zone]


def _bands(trips: pa.Table) -> np.ndarray:
    miles = trips["trip_distance"].fill_null(float("nan")).to_numpy()
    known = np.isfinite(miles) & (miles > 0)
    band = np.digitize(np.where(known, miles, 0.0), DISTANCE_ENDS)
    return np.array(DISTANCE_NAMES, dtype=object)[np.where(known, band, -1)]


def _slice(name: str, keys: Any, actual: np.ndarray, predicted: np.ndarray) -> pa.Table:
    import pandas as pd

    error = predicted - actual
    frame = pd.DataFrame({"key": keys, "e": error, "absolute": np.abs(error), "square": error**2})
    grouped = frame.groupby("key", sort=True)
    means = grouped[["e", "absolute", "square"]].mean()
    return pa.table(
        {
            name: pa.array([str(key) for key in means.index]),
            "trips": pa.array(grouped.size().to_numpy(), pa.int64()),
            "rmse": np.sqrt(means["square"].to_numpy()).round(6),
            "mae": means["absolute"].to_numpy().round(6),
            "bias": means["e"].to_numpy().round(6) + 0.0,
        }
    )
