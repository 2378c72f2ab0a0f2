"""A loaded model, as quick for one trip as for many, and the same to the bit for both.

Lists go through `prediction.Model.predict`, as batches do. A few trips take a shorter way: their
features from plain arrays, and all trees side by side (`service.trees`). Before a model answers
anybody, both ways are compared on a few hundred drawn trips; where a bit differs, as it might for a
kind of model that nobody thought of, all trips take the longer way.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from service.trees import Trees
from trip_duration.errors import TripDurationError
from trip_duration.prediction import Model
from trip_duration.prediction import load as load_model
from trip_duration.registry import Served, digest

__all__ = ["FEW", "Predictor", "load"]

FEW = 64  # trips; of more XGBoost is faster than the trees side by side
CHECKED = 256  # trips that a model must answer soundly before it answers anybody's
_EPOCH_2024 = 1_704_067_200


@dataclass(frozen=True)
class Predictor:
    """A model that answers.

    Attributes
    ----------
    served : Served
        What it is called, and what it learned from.
    model : trip_duration.prediction.Model
        The model.
    trees : Trees or None
        Its boosters for few trips; None where only the longer way is sound.
    since : float
        When it was loaded, in seconds since 1970.
    """

    served: Served
    model: Model
    trees: Trees | None = None
    since: float = field(default_factory=time.time)

    @property
    def uses_distance(self) -> bool:
        """Whether a trip's distance changes what the model says."""
        return self.model.builder.uses_distance

    def predict(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predict trips that came as arrays.

        Parameters
        ----------
        columns : mapping of str to array of shape (trips,)
            As `FeatureBuilder.rows` takes them.

        Returns
        -------
        dict of str to ndarray of float64, shape (trips,)
            As `prediction.Model.predict` gives it, to the bit.
        """
        rows = len(columns["pickup"])
        if self.trees is None or not 0 < rows <= FEW:
            return self.model.predict(table(columns))
        model = self.model
        X = model.builder.rows(columns)
        said = self.trees.predict(X).astype(np.float64)
        minutes = np.maximum(said[:, 0] * float(model.booster.attr("level") or 1.0), 0.0)
        scale = float(model.quantiles.attr("level") or 1.0)
        lower, upper = said[:, 1] * scale, said[:, 2] * scale
        lower, upper = model.calibration.apply(lower, upper, minutes, model.builder.metered(X))
        return {"minutes": minutes, "lower": lower, "upper": upper}


def table(columns: Mapping[str, np.ndarray]) -> pa.Table:
    """The canonical trips of some arrays."""
    made = {
        "pickup": pa.array(columns["pickup"], pa.timestamp("s")),
        "pickup_zone": pa.array(columns["pickup_zone"], pa.int16()),
        "dropoff_zone": pa.array(columns["dropoff_zone"], pa.int16()),
    }
    if "trip_distance" in columns:
        made["trip_distance"] = pa.array(columns["trip_distance"], from_pandas=True)
    return pa.table(made)


def load(served: Served) -> Predictor:
    """Load a model and check that it answers.

    Parameters
    ----------
    served : Served
        Its files, and what they are called.

    Returns
    -------
    Predictor

    Raises
    ------
    TripDurationError
        If its files are not there, not a model's or not those that the digest is of, or if what it
        says of some drawn trips are no minutes.
    """
    try:
        model = load_model(served.folder)
        found = digest(served.folder)
    except OSError as error:
        raise TripDurationError(
            f"The model {served.version} can't be read from {served.folder} "
            f"({error.strerror or error}): run `make train`, or `make register` again."
        ) from None
    if found != served.digest:
        raise TripDurationError(
            f"The files of the model {served.version} in {served.folder} have the digest {found}: "
            f"expected {served.digest}; they changed while they were read, or since."
        )
    for booster in (model.booster, model.quantiles):
        booster.set_param({"nthread": 1})  # the other cores answer other requests
    trees = None
    if model.builder.native and not model.builder.categorical:
        trees = Trees.of([model.booster, model.quantiles])
    quick = Predictor(served, model, trees)
    slow = Predictor(served, model)
    return quick if _check(quick, slow) else slow


def _check(quick: Predictor, slow: Predictor) -> bool:
    """Whether the short way gives the long way's bits, once the long way is sound."""
    trips = _drawn(CHECKED)
    expected = slow.predict(trips)
    ordered = (expected["lower"] >= 0) & (expected["lower"] <= expected["minutes"])
    ordered &= (expected["minutes"] <= expected["upper"]) & np.isfinite(expected["upper"])
    if not ordered.all():
        raise TripDurationError(
            f"The model {slow.served.version} gives no minutes for {int((~ordered).sum())} of "
            f"{CHECKED} trips that were drawn to check it: expected 0 ≤ lower ≤ minutes ≤ upper."
        )
    found: dict[str, list[np.ndarray]] = {name: [] for name in expected}
    for start in range(0, CHECKED, FEW):
        part = {name: values[start : start + FEW] for name, values in trips.items()}
        for name, values in quick.predict(part).items():
            found[name].append(values)
    return all(np.array_equal(np.concatenate(found[name]), expected[name]) for name in expected)


def _drawn(rows: int) -> dict[str, np.ndarray]:
    """Trips of all kinds: unknown zones, distances that are missing, 0 or beyond the meter's."""
    draw = np.random.default_rng(0)
    miles = draw.lognormal(0.65, 0.83, rows)
    miles[::5], miles[1::17], miles[2::17] = np.nan, 0.0, 1e5
    return {
        "pickup": draw.integers(_EPOCH_2024, _EPOCH_2024 + 366 * 86400, rows),
        "pickup_zone": draw.integers(1, 266, rows).astype(np.int32),
        "dropoff_zone": draw.integers(1, 266, rows).astype(np.int32),
        "trip_distance": miles,
    }
