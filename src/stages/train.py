"""Stage 4: fit the model with the best parameters, and the course's own beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import xgboost as xgb

from trip_duration.features import FeatureBuilder
from trip_duration.files import read_json, write_csv, write_json
from trip_duration.intervals import Calibration, calibrate, train_quantiles
from trip_duration.orchestration import stage_flow, task
from trip_duration.params import Params
from trip_duration.splits import read_roles, rows, weights
from trip_duration.training import (
    COURSE_EARLY_STOPPING_ROUNDS,
    COURSE_PARAMS,
    COURSE_ROUNDS,
    Fit,
    matrices,
    predict,
    save_booster,
    train_best_model,
    train_model,
)

COURSE = Path("models/course")


@task
def fit_model(params: Params, found: dict[str, Any]) -> tuple[xgb.Booster, Fit]:
    """The model: what the search found, and what train.params sets over it."""
    chosen = params.train
    builder = FeatureBuilder.from_json(read_json("models/features.json"))
    return train_model(
        read_roles(params, builder),
        {**found, **chosen.params},
        names=builder.columns,
        types=builder.feature_types,
        half_life=chosen.half_life,
        level_days=chosen.level_days,
        num_parallel_tree=chosen.num_parallel_tree,
        num_boost_round=chosen.num_boost_round,
        early_stopping_rounds=chosen.early_stopping_rounds,
        seed=params.seed,
        nthread=chosen.nthread,
        max_bin=chosen.max_bin,
        device=chosen.device,
    )


@task
def fit_intervals(params: Params, booster: xgb.Booster) -> tuple[xgb.Booster, Calibration]:
    """The quantiles, and their calibration on days that neither booster has seen."""
    chosen = params.train
    builder = FeatureBuilder.from_json(read_json("models/features.json"))
    roles = read_roles(params, builder)
    quantiles = train_quantiles(
        roles.final.X,
        roles.final.minutes,
        level=params.intervals.level,
        weight=weights(roles.final.day, chosen.half_life),
        seed=params.seed,
        nthread=chosen.nthread,
        max_bin=chosen.max_bin,
        device=chosen.device,
        names=builder.columns,
        types=builder.feature_types,
    )
    level = booster.attr("level")
    if level is not None:
        quantiles.set_attr(level=level)
    X, actual = roles.calibration.X, roles.calibration.minutes
    predicted = np.maximum(predict(booster, X, builder.feature_types), 0.0)
    lower, upper = predict(quantiles, X, builder.feature_types).T
    return quantiles, calibrate(lower, upper, predicted, actual, params.intervals.level)


@task
def fit_course(params: Params) -> None:
    """The course's own model, stopped on the validation months, where the features are its own."""
    said: dict[str, float | bool] = {"fitted": params.features.preset == "course"}
    if said["fitted"]:
        builder = FeatureBuilder.from_json(read_json("models/features.json"))
        tables = [
            pq.read_table(f"data/features/{name}.parquet") for name in ("train", "validation")
        ]
        parts = [part for r in (rows(t, builder) for t in tables) for part in (r.X, r.minutes)]
        how: dict[str, Any] = {"nthread": params.train.nthread, "max_bin": params.train.max_bin}
        pair = matrices(*parts, names=builder.columns, types=builder.feature_types, **how)
        fit = train_best_model(
            *pair,
            COURSE_PARAMS,
            num_boost_round=COURSE_ROUNDS,
            early_stopping_rounds=COURSE_EARLY_STOPPING_ROUNDS,
            curve=False,
            **how,
        )
        save_booster(fit.booster, COURSE / "model.ubj")
        said |= {"rmse": round(fit.rmse, 6), "rounds": fit.rounds}
    write_json(said, COURSE / "fit.json")


@stage_flow("train")
def train(params: Params) -> None:
    """models/model.ubj, its intervals, models/course, metrics/train.json, the learning curve."""
    found = read_json("search/best_params.json")["params"]
    booster, fit = fit_model(params, found)
    quantiles, calibration = fit_intervals(params, booster)
    fit_course(params)
    save_booster(booster, "models/model.ubj")
    save_booster(quantiles, "models/intervals.ubj")
    write_json(calibration.to_json(), "models/intervals.json")
    write_csv(fit.table(), "plots/learning_curve.csv")
    last = {name: round(values[fit.rounds - 1], 6) for name, values in fit.curve.items()}
    write_json({"rmse": last, "rounds": fit.rounds}, "metrics/train.json")
