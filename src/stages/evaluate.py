"""Stage 5: judge the model and the baselines on the months that come after all it learned from."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trip_duration import plots, tracking
from trip_duration.baselines import Baselines
from trip_duration.evaluation import comparison_markdown, metrics, slices
from trip_duration.features import FeatureBuilder
from trip_duration.files import read_json, write_csv, write_json
from trip_duration.orchestration import markdown, stage_flow, task
from trip_duration.params import Params
from trip_duration.prediction import predict_features
from trip_duration.training import load_booster
from trip_duration.trips import month_paths, read_month


def predict(params: Params, split: str, trips: pa.Table) -> dict[str, np.ndarray]:
    """What the model and each baseline say of a split's trips, in minutes."""
    builder = FeatureBuilder.from_json(read_json("models/features.json"))
    features = pq.read_table(f"data/features/{split}.parquet")
    boosters = {"model": "models/model.ubj"}
    if params.features.preset == "course":
        boosters["course"] = "models/course/model.ubj"
    said = {
        name: predict_features(features, load_booster(path), builder)
        for name, path in boosters.items()
    }
    return said | Baselines.from_json(read_json("models/baselines.json")).predict(trips)


@task
def judge(params: Params, split: str, *, draw: bool) -> dict:
    """Errors of the model and of each baseline on a split; with ``draw``, the plots of it."""
    trips = pa.concat_tables(read_month(path) for path in month_paths(params.data, split))
    said = predict(params, split, trips)
    if draw:
        write_plots(params, split, trips, said["model"])
    actual = trips["duration"].to_numpy()
    found = {name: metrics(actual, minutes) for name, minutes in said.items()}
    return {"trips": trips.num_rows, "model": found.pop("model"), "baselines": found}


def write_plots(params: Params, split: str, trips: pa.Table, predicted: np.ndarray) -> None:
    """The tables behind the plots: errors by slice, predicted against actual."""
    rows = [pq.read_metadata(path).num_rows for path in month_paths(params.data, split)]
    months = np.repeat(np.array(sorted(getattr(params.data, split)), dtype=object), rows)
    known = pq.read_table("data/zones.parquet", columns=["zone", "borough"]).to_pylist()
    boroughs = {row["zone"]: row["borough"] for row in known if row["borough"]}
    for name, table in slices(trips, predicted, months, boroughs).items():
        write_csv(table, f"plots/error_by_{name}.csv")
    drawn = plots.predicted_against_actual(trips["duration"].to_numpy(), predicted)
    write_csv(drawn, "plots/predicted_against_actual.csv")


@stage_flow("evaluate")
def evaluate(params: Params) -> None:
    """metrics/evaluation.json and the plots; the model in MLflow."""
    last = params.data.judged[-1]
    found = {split: judge(params, split, draw=split == last) for split in params.data.judged}
    write_json(found, "metrics/evaluation.json")
    markdown("evaluation", comparison_markdown(found))
    tracking.log_model(
        "models/model.ubj",
        "models/features.json",
        name=f"evaluate {params.data.span}",
        params={**read_json("search/best_params.json")["params"], **params.train.params},
        metrics={f"{last}_{name}": value for name, value in found[last]["model"].items()},
        tags=tracking.tags("evaluate", months=params.data.span),
    )
