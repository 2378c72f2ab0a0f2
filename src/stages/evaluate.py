"""Stage 5: judge the model and the baselines on the months that come after all it learned from."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trip_duration import explanations, plots, tracking
from trip_duration.baselines import Baselines
from trip_duration.evaluation import comparison_markdown, metrics, slices
from trip_duration.files import read_json, write_csv, write_json
from trip_duration.intervals import coverage, coverage_slices
from trip_duration.orchestration import markdown, stage_flow, task
from trip_duration.params import Params
from trip_duration.prediction import FILES, load, predict_features
from trip_duration.splits import calibrates, days
from trip_duration.training import load_booster
from trip_duration.trips import month_paths, read_month


@task
def judge(params: Params, split: str, *, draw: bool) -> dict:
    """Errors of the model and the baselines on a split, and how many trips the intervals hold.

    With ``draw``, the plots of it.
    """
    model = load("models")
    trips = pa.concat_tables(read_month(path) for path in month_paths(params.data, split))
    features = pq.read_table(f"data/features/{split}.parquet")
    said = model.predict_features(features)
    others = Baselines.from_json(read_json("models/baselines.json")).predict(trips)
    if params.features.preset == "course":
        course = load_booster("models/course/model.ubj")
        others = {"course": predict_features(features, course, model.builder), **others}
    actual = trips["duration"].to_numpy()
    # The days that set the width of the intervals cannot judge it.
    fresh = np.ones(len(actual), bool)
    if split == "validation":
        every = params.intervals.calibration_every
        fresh = ~calibrates(days(features), params.data.validation, every)
    lower, upper, minutes = (said[name][fresh] for name in ("lower", "upper", "minutes"))
    if draw:
        write_plots(params, split, trips, said["minutes"])
        boroughs = known_boroughs()
        for name, table in coverage_slices(trips.filter(fresh), lower, upper, boroughs).items():
            write_csv(table, f"plots/coverage_by_{name}.csv")
    return {
        "trips": trips.num_rows,
        "model": metrics(actual, said["minutes"]),
        "baselines": {name: metrics(actual, minutes) for name, minutes in others.items()},
        "intervals": coverage(actual[fresh], lower, upper, minutes, model.calibration),
    }


def known_boroughs() -> dict[int, str]:
    """The boroughs of the zones, as far as they are known."""
    known = pq.read_table("data/zones.parquet", columns=["zone", "borough"]).to_pylist()
    return {row["zone"]: row["borough"] for row in known if row["borough"]}


def write_plots(params: Params, split: str, trips: pa.Table, predicted: np.ndarray) -> None:
    """The tables behind the plots: errors by slice, predicted against actual."""
    rows = [pq.read_metadata(path).num_rows for path in month_paths(params.data, split)]
    months = np.repeat(np.array(sorted(getattr(params.data, split)), dtype=object), rows)
    for name, table in slices(trips, predicted, months, known_boroughs()).items():
        write_csv(table, f"plots/error_by_{name}.csv")
    drawn = plots.predicted_against_actual(trips["duration"].to_numpy(), predicted)
    write_csv(drawn, "plots/predicted_against_actual.csv")


@task
def weigh(params: Params, split: str) -> dict[str, float]:
    """How many minutes each feature adds or takes, in the mean over a sample of trips."""
    model = load("models")
    features = pq.read_table(f"data/features/{split}.parquet")
    sample = features.take(explanations.sample(features.num_rows, seed=params.seed))
    parts = explanations.contributions(sample, model.booster, model.builder)
    table = explanations.importance(parts, model.builder.features)
    write_csv(table, "plots/importance.csv")
    return dict(zip(table["feature"].to_pylist(), table["minutes"].to_pylist(), strict=True))


@stage_flow("evaluate")
def evaluate(params: Params) -> None:
    """metrics/evaluation.json and the plots; the model in MLflow."""
    last = params.judged[-1]
    found = {split: judge(params, split, draw=split == last) for split in params.judged}
    weights = weigh(params, last)
    write_json(found, "metrics/evaluation.json")
    markdown("evaluation", comparison_markdown(found))
    errors = {f"{last}_{name}": value for name, value in found[last]["model"].items()}
    held = {f"{last}_{name}": found[last]["intervals"][name] for name in ("coverage", "width")}
    tracking.log_model(
        [f"models/{file}" for file in FILES],
        name=f"evaluate {params.data.span}",
        params={**read_json("search/best_params.json")["params"], **params.train.params},
        metrics=errors | held | {f"importance_{name}": value for name, value in weights.items()},
        tags=tracking.tags("evaluate", months=params.data.span),
    )
