"""The model as MLflow runs it: raw trips in, minutes and their intervals out.

MLflow stores this file beside the model and runs it to load the model, so nothing is pickled.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

__all__ = ["TripDuration"]


class TripDuration(PythonModel):
    """Predicts how many minutes trips will take."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model's files, which lie in one folder."""
        from trip_duration.prediction import load

        [folder] = {Path(path).parent for path in context.artifacts.values()}
        self._model = load(folder)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Minutes for each trip, and the lower and upper end of their interval."""
        return pd.DataFrame(self._model.predict(model_input))


set_model(TripDuration())
