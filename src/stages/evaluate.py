"""Stage 5: judge the model and the baselines on the months that come after all it learned from."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trip_duration import explanations, plots, tracking
from trip_duration.baselines import Baselines
from trip_duration.evaluation import comparison_markdown, metrics, slices
from trip_duration.files import read_json, write_csv, write_json
from trip_duration.intervals import Calibration, coverage, coverage_slices
from trip_duration.orchestration import markdown, stage_flow, task
from trip_duration.params import Params
from trip_duration.prediction import FILES, load, predict_features
from trip_duration.splits import calibrates, days
from trip_duration.training import load_booster
from trip_duration.trips import month_paths, read_parts, taken

FEATURES = Path("data/features")
UNMETERED = 100_000  # trips at most that are judged as if their distance were not known
JUDGED = ["pickup", "duration", "pickup_zone", "trip_distance"]


def predicted(params: Params, split: str) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """A split's trips, with the columns that it is judged by, and what was said of them.

    What was said comes month by month and part by part, so that no more of the features than a
    part is in memory: ``minutes``, ``lower``, ``upper``, and the minutes of each baseline.
    """
    model = load("models")
    baselines = Baselines.from_json(read_json("models/baselines.json"))
    compared = params.features.preset == "course"
    course = load_booster("models/course/model.ubj") if compared else None
    trips, said = [], []
    for month, features in zip(
        month_paths(params.data, split),
        month_paths(params.data, split, FEATURES / split),
        strict=True,
    ):
        for part, made in zip(read_parts(month), read_parts(features), strict=True):
            others = baselines.predict(part)
            if course is not None:
                others = {"course": predict_features(made, course, model.builder), **others}
            said.append({**model.predict_features(made), **others})
            trips.append(part.select(JUDGED))
    return pa.concat_tables(trips), {
        name: np.concatenate([part[name] for part in said]) for name in said[0]
    }


@task
def judge(params: Params, split: str, *, draw: bool) -> dict:
    """Errors of the model and the baselines on a split, and how many trips the intervals hold.

    With ``draw``, the plots of it.
    """
    calibration = Calibration.from_json(read_json("models/intervals.json"))
    trips, said = predicted(params, split)
    model, lower, upper = (said.pop(name) for name in ("minutes", "lower", "upper"))
    actual = trips["duration"].to_numpy()
    if draw:
        write_plots(params, split, trips, model)
    found = {
        "trips": trips.num_rows,
        "model": metrics(actual, model),
        "baselines": {name: metrics(actual, minutes) for name, minutes in said.items()},
    }
    if split == "validation":  # the days that set the width of the intervals cannot judge it
        day = trips["pickup"].to_numpy().astype("datetime64[D]").astype(np.int64)
        fresh = ~calibrates(day, params.data.validation, params.intervals.calibration_every)
        trips = trips.filter(fresh)
        actual, lower, upper, model = (part[fresh] for part in (actual, lower, upper, model))
    if draw:
        for name, table in coverage_slices(trips, lower, upper, known_boroughs()).items():
            write_csv(table, f"plots/coverage_by_{name}.csv")
    found["intervals"] = coverage(actual, lower, upper, model, calibration)
    return {**found, **without_distance(params, split)}


def without_distance(params: Params, split: str) -> dict[str, dict]:
    """The same of some of a split's trips, as if nobody knew how far they were driven.

    Under ``without_distance``; nothing where the model does not look at that.
    """
    model = load("models")
    calibration = model.calibration.unmetered
    if calibration is None:
        return {}
    paths = month_paths(params.data, split, FEATURES / split)
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    some = taken(paths, np.arange(0, rows, max(-(-rows // UNMETERED), 1)))
    actual = some["duration"].to_numpy()
    said = model.predict_matrix(model.builder.without_distance(model.builder.matrix(some)))
    judged = np.ones(len(actual), bool)
    if split == "validation":
        judged = ~calibrates(days(some), params.data.validation, params.intervals.calibration_every)
    lower, upper, minutes = (said[name][judged] for name in ("lower", "upper", "minutes"))
    return {
        "without_distance": {
            "trips": some.num_rows,
            "model": metrics(actual, said["minutes"]),
            "intervals": coverage(actual[judged], lower, upper, minutes, calibration),
        }
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
    paths = month_paths(params.data, split, FEATURES / split)
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    sample = taken(paths, explanations.sample(rows, seed=params.seed))
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
