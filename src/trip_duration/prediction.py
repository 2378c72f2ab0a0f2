"""Predictions: from trips to minutes and their intervals, the same way for all who need them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trip_duration.errors import TripDurationError
from trip_duration.files import read_json
from trip_duration.intervals import Calibration
from trip_duration.training import load_booster, predict

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import xgboost as xgb
    from scipy.sparse import csr_matrix

    from trip_duration.features import FeatureBuilder

__all__ = ["FILES", "Model", "fits", "load", "predict_features", "predict_minutes"]

FILES = ("model.ubj", "features.json", "intervals.ubj", "intervals.json")
"""The files of a model: the booster, the features, the quantiles and their calibration."""


T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """All that a prediction needs.

    Attributes
    ----------
    booster : xgboost.Booster
        Predicts the minutes.
    builder : FeatureBuilder
        Makes the features that both boosters were fitted on.
    quantiles : xgboost.Booster
        Predicts the lower and the upper quantile of the minutes.
    calibration : Calibration
        Turns the quantiles into intervals that hold as many trips as they should.
    """

    booster: "xgb.Booster"
    builder: "FeatureBuilder"
    quantiles: "xgb.Booster"
    calibration: Calibration

    def predict(self, trips: "pa.Table | pd.DataFrame") -> dict[str, np.ndarray]:
        """Predict how long trips take, and between which ends they will most likely lie.

        Parameters
        ----------
        trips : pyarrow.Table or pandas.DataFrame
            As in `predict_minutes`.

        Returns
        -------
        dict of str to ndarray of float64, shape (n_trips,)
            ``minutes``, and the ``lower`` and ``upper`` end of the interval, in minutes: 0 ≤ lower
            ≤ minutes ≤ upper.
        """
        return self.predict_features(self.builder.transform(trips))

    def predict_features(self, features: "pa.Table") -> dict[str, np.ndarray]:
        """`predict` from what ``builder.transform`` gave."""
        return self.predict_matrix(self.builder.matrix(features))

    def predict_matrix(self, X: "np.ndarray | csr_matrix") -> dict[str, np.ndarray]:
        """`predict` from what ``builder.matrix`` gave."""
        minutes = np.maximum(_said(X, self.booster, self.builder), 0.0)
        quantiles = _said(X, self.quantiles, self.builder).reshape(-1, 2).T
        metered = self.builder.metered(X)
        lower, upper = self.calibration.apply(quantiles[0], quantiles[1], minutes, metered)
        return {"minutes": minutes, "lower": lower, "upper": upper}


def load(folder: str | Path = "models") -> Model:
    """Read a model's four files (`FILES`), which hold data alone: a stranger's may be read too.

    Raises
    ------
    TripDurationError
        If one of them is not what its name says, or the trees are of other features.
    """
    from trip_duration.features import FeatureBuilder

    booster, features, quantiles, calibration = (Path(folder) / name for name in FILES)
    model = Model(
        booster=_data(load_booster, booster),
        builder=FeatureBuilder.from_json(_data(read_json, features)),
        quantiles=_data(load_booster, quantiles),
        calibration=Calibration.from_json(_data(read_json, calibration)),
    )
    columns = model.builder.columns
    for path, trees in ((booster, model.booster), (quantiles, model.quantiles)):
        if not fits(trees, columns):
            raise TripDurationError(
                f"The {trees.num_features()} features of {path} are not the {len(columns)} of "
                f"{features}: the files are of different models; run `make train` again."
            )
    return model


def fits(booster: "xgb.Booster", columns: list[str]) -> bool:
    """Whether a booster was fitted on these columns; on a matrix without names, on as many."""
    return booster.num_features() == len(columns) and booster.feature_names in (None, columns)


def _data(read: Callable[[Path], T], path: Path) -> T:
    try:
        return read(path)
    except ValueError as error:  # JSON's, UTF-8's and XGBoost's own are of this kind
        found = path.read_bytes()[:8] if path.is_file() else b""
        raise TripDurationError(
            f"{path} begins with {found!r} and is no whole file of a model: run `make train` again."
        ) from error


def predict_minutes(
    trips: "pa.Table | pd.DataFrame", booster: "xgb.Booster", builder: "FeatureBuilder"
) -> np.ndarray:
    """Predict how long trips take.

    Parameters
    ----------
    trips : pyarrow.Table or pandas.DataFrame
        Canonical trips, with or without a duration, which is not looked at. Optional columns may
        be missing, and whole numbers may come as floats with NaN for what is missing.
    booster : xgboost.Booster
        The model.
    builder : FeatureBuilder
        The features it was fitted on.

    Returns
    -------
    ndarray of float64, shape (n_trips,)
        Minutes, none below 0.

    Raises
    ------
    TripDurationError
        If a column that must be there is missing, or has values that cannot be used.
    """
    return predict_features(builder.transform(trips), booster, builder)


def predict_features(
    features: "pa.Table", booster: "xgb.Booster", builder: "FeatureBuilder"
) -> np.ndarray:
    """Predict from what ``builder.transform`` gave; otherwise as `predict_minutes`.

    What `training.predict` says, none below 0.
    """
    return np.maximum(_said(builder.matrix(features), booster, builder), 0.0)


def _said(
    X: "np.ndarray | csr_matrix", booster: "xgb.Booster", builder: "FeatureBuilder"
) -> np.ndarray:
    if not X.shape[0]:
        return np.empty(0)
    return predict(booster, X, builder.feature_types)
