"""The tables behind DVC's plots: CSV files that ``dvc.yaml`` says how to draw."""

import numpy as np
import pyarrow as pa

__all__ = ["predicted_against_actual"]

BIN_MINUTES = 2.0


def predicted_against_actual(actual: np.ndarray, predicted: np.ndarray) -> pa.Table:
    """What is predicted for trips of about the same actual duration, in bins of two minutes.

    Parameters
    ----------
    actual, predicted : array of shape (trips,)
        Minutes.

    Returns
    -------
    pyarrow.Table
        ``actual``, the middle of the bin; ``p10``, ``median`` and ``p90`` of the predictions in
        it, all in minutes; ``trips``, how many it holds. Empty bins are left out.
    """
    import pandas as pd

    middle = (np.floor(actual / BIN_MINUTES) + 0.5) * BIN_MINUTES
    grouped = pd.Series(predicted).groupby(middle)
    quantiles = grouped.quantile([0.1, 0.5, 0.9]).unstack()
    return pa.table(
        {
            "actual": quantiles.index.to_numpy(),
            "p10": quantiles[0.1].to_numpy().round(6),
            "median": quantiles[0.5].to_numpy().round(6),
            "p90": quantiles[0.9].to_numpy().round(6),
            "trips": pa.array(grouped.size().to_numpy(), pa.int64()),
        }
    )
