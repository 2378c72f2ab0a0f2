"""The model as MLflow runs it: raw trips in, minutes out.

MLflow stores this file beside the model and runs it to load the model, so nothing is pickled.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

__all__ = ["TripDuration"]


class TripDuration(PythonModel):
    """Predicts how many minutes trips will take."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the booster and the fitted features."""
        from trip_duration.prediction import load

        artifacts = {name: Path(path) for name, path in context.artifacts.items()}
        self._booster, self._builder = load(artifacts["booster"], artifacts["features"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """Minutes for each trip."""
        from trip_duration.prediction import predict_minutes

        return predict_minutes(model_input, self._booster, self._builder)


set_model(TripDuration())
