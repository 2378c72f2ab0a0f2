"""Predictions: from trips to minutes, the same way for all who need them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trip_duration.files import read_json
from trip_duration.training import load_booster

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import xgboost as xgb

    from trip_duration.features import FeatureBuilder

__all__ = ["load", "predict_features", "predict_minutes"]


def load(booster: str | Path, features: str | Path) -> "tuple[xgb.Booster, FeatureBuilder]":
    """Read a model's two files: the booster (``.ubj``) and the fitted features (JSON)."""
    from trip_duration.features import FeatureBuilder

    return load_booster(booster), FeatureBuilder.from_json(read_json(features))


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

    A booster that was stopped early predicts with the rounds up to its best one.
    """
    import xgboost as xgb

    if not features.num_rows:
        return np.empty(0)
    matrix = xgb.DMatrix(
        builder.matrix(features), feature_types=builder.feature_types, enable_categorical=True
    )
    best = booster.attr("best_iteration")
    rounds = (0, int(best) + 1) if best is not None else (0, 0)
    minutes = booster.predict(matrix, iteration_range=rounds, validate_features=False)
    return np.maximum(minutes.astype(np.float64), 0.0)
