"""Predictions: from canonical trips to minutes, the same way for all who need them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trip_duration.errors import TripDurationError
from trip_duration.files import read_json
from trip_duration.trips import SCHEMA

if TYPE_CHECKING:
    import pandas as pd
    import xgboost as xgb

    from trip_duration.features import FeatureBuilder

__all__ = ["load", "predict_features", "predict_minutes", "to_table"]

NEEDED = ("pickup", "pickup_zone", "dropoff_zone")  # the others may be left out


def load(booster: str | Path, features: str | Path) -> "tuple[xgb.Booster, FeatureBuilder]":
    """Read a model's two files: the booster (``.ubj``) and the fitted features (JSON)."""
    import xgboost as xgb

    from trip_duration.features import FeatureBuilder

    return xgb.Booster(model_file=str(booster)), FeatureBuilder.from_json(read_json(features))


def predict_minutes(
    trips: "pa.Table | pd.DataFrame", booster: "xgb.Booster", builder: "FeatureBuilder"
) -> np.ndarray:
    """Predict how long trips take.

    Parameters
    ----------
    trips : pyarrow.Table or pandas.DataFrame
        Canonical trips; a duration is neither needed nor looked at. See `to_table`.
    booster : xgboost.Booster
        The model.
    builder : FeatureBuilder
        The features it was fitted on.

    Returns
    -------
    ndarray of float64, shape (n_trips,)
        Minutes, none below 0.
    """
    table = trips if isinstance(trips, pa.Table) else to_table(trips)
    return predict_features(builder.transform(table), booster, builder)


def predict_features(
    features: pa.Table, booster: "xgb.Booster", builder: "FeatureBuilder"
) -> np.ndarray:
    """Predict from features that ``builder.transform`` made before: see `predict_minutes`."""
    import xgboost as xgb

    if not features.num_rows:
        return np.empty(0)
    matrix = xgb.DMatrix(
        builder.matrix(features), feature_types=builder.feature_types, enable_categorical=True
    )
    minutes = booster.predict(matrix, validate_features=False)
    return np.maximum(minutes.astype(np.float64), 0.0)


def to_table(frame: "pd.DataFrame") -> pa.Table:
    """Make a table of canonical trips out of a frame.

    Parameters
    ----------
    frame : pandas.DataFrame
        Canonical columns in any order and any fitting type: whole numbers may come as floats with
        NaN for missing. Of these, ``pickup``, ``pickup_zone`` and ``dropoff_zone`` must be there;
        others that are missing are filled with nulls, and strangers are left out.

    Returns
    -------
    pyarrow.Table
        The columns of `trip_duration.trips.SCHEMA` without ``duration``.

    Raises
    ------
    TripDurationError
        If a column is missing or its values do not fit.
    """
    for name in NEEDED:
        if name not in frame.columns:
            raise TripDurationError(
                f"Column {name} is missing: found {', '.join(map(str, frame.columns))}; "
                f"a prediction needs {', '.join(NEEDED)}."
            )
    fields = [field for field in SCHEMA if field.name != "duration"]
    columns = [_column(frame, field) for field in fields]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _column(frame: "pd.DataFrame", field: pa.Field) -> pa.Array:
    if field.name not in frame.columns:
        return pa.nulls(len(frame), field.type)
    try:
        found = pa.Array.from_pandas(frame[field.name])
        if isinstance(found, pa.ChunkedArray):
            found = found.combine_chunks()
        # A fraction of a second is dropped; a fraction of a zone is refused.
        found = found.cast(field.type, safe=not pa.types.is_timestamp(field.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise TripDurationError(
            f"Column {field.name} does not fit {field.type}: {str(error).splitlines()[0]}"
        ) from error
    if found.null_count and not field.nullable:
        raise TripDurationError(f"Column {field.name} has {found.null_count} missing values.")
    return found
