"""Batch, service and MLflow's pyfunc say the same of a trip, to the bit."""

import http.client
import json
from pathlib import Path

import numpy as np
import pytest
from tests.service.conftest import Server, bodies, drawn

from service import predictor
from trip_duration import prediction, tracking
from trip_duration.registry import Served

ROWS = 300
NAMES = ("minutes", "lower", "upper")


@pytest.fixture(scope="module")
def trips() -> dict[str, np.ndarray]:
    return drawn(ROWS, seed=9)


@pytest.fixture(scope="module")
def batch(first: Served, trips: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return prediction.load(first.folder).predict(predictor.table(trips))


def asked(connection: http.client.HTTPConnection, body: object) -> object:
    connection.request("POST", "/predict", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200
    return json.loads(answer.read())


def same(answers: list[dict[str, float]], batch: dict[str, np.ndarray]) -> None:
    for name in NAMES:
        np.testing.assert_array_equal([answer[name] for answer in answers], batch[name])


def test_the_service_says_of_each_trip_alone_what_a_batch_says(
    server: Server, trips: dict[str, np.ndarray], batch: dict[str, np.ndarray]
) -> None:
    connection = server.connection()
    same([asked(connection, body) for body in bodies(trips)], batch)
    connection.close()


def test_the_service_says_of_a_list_what_a_batch_says(
    server: Server, trips: dict[str, np.ndarray], batch: dict[str, np.ndarray]
) -> None:
    connection = server.connection()
    same(asked(connection, bodies(trips)), batch)  # type: ignore[arg-type]
    connection.close()


@pytest.mark.filterwarnings(
    "ignore:.*Any type hint:UserWarning",
    "ignore:.*input example:UserWarning",  # MLflow's own
)
def test_mlflows_pyfunc_says_what_a_batch_says(
    first: Served, trips: dict[str, np.ndarray], batch: dict[str, np.ndarray], tmp_path: Path
) -> None:
    import mlflow.pyfunc
    import pandas as pd

    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=str(Path(tracking.__file__).with_name("pyfunc.py")),
        artifacts={name: str(first.folder / name) for name in prediction.FILES},
        signature=tracking.signature(),
        pip_requirements=[],
    )
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    frame = pd.DataFrame(trips | {"pickup": pd.to_datetime(trips["pickup"], unit="s")})
    said = model.predict(frame)
    for name in NAMES:
        np.testing.assert_array_equal(said[name], batch[name])
