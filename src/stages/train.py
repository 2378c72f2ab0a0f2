"""Stage 4: fit the model with the best parameters, and the course's own beside it."""

import shutil
from pathlib import Path
from typing import Any

import xgboost as xgb

from trip_duration.features import FeatureBuilder
from trip_duration.files import read_json, write_csv, write_json
from trip_duration.intervals import Calibration, calibrate_model, train_quantiles
from trip_duration.orchestration import on_cluster, stage_flow, task
from trip_duration.params import Params
from trip_duration.splits import FEATURES, Rows, read_roles
from trip_duration.training import (
    COURSE_EARLY_STOPPING_ROUNDS,
    COURSE_PARAMS,
    COURSE_ROUNDS,
    Fit,
    binned,
    save_booster,
    train_best_model,
    train_model,
)
from trip_duration.trips import month_paths

CACHE = Path(".cache/matrices")
COURSE = Path("models/course")


@task
def fit_model(params: Params, found: dict[str, Any]) -> tuple[xgb.Booster, Fit]:
    """The model: what the search found, and what train.params sets over it."""
    chosen = params.train
    builder = FeatureBuilder.from_json(read_json("models/features.json"))
    cluster = on_cluster()
    if cluster is not None:
        from trip_duration import distributed_training

        return distributed_training.train_model(cluster, params, builder, found)
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
        rows_in_memory=chosen.rows_in_memory,
        cache=CACHE,
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
        roles.final,
        level=params.intervals.level,
        half_life=chosen.half_life,
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
    model = booster, quantiles, builder
    return quantiles, calibrate_model(*model, roles.calibration, params.intervals.level)


@task
def fit_course(params: Params) -> None:
    """The course's own model, stopped on the validation months, where the features are its own."""
    said: dict[str, float | bool] = {"fitted": params.features.preset == "course"}
    if said["fitted"]:
        builder = FeatureBuilder.from_json(read_json("models/features.json"))
        parts = [
            Rows.read(month_paths(params.data, split, f"{FEATURES}/{split}"), builder)
            for split in ("train", "validation")
        ]
        how: dict[str, Any] = {"nthread": params.train.nthread, "max_bin": params.train.max_bin}
        pair = binned(*parts, names=builder.columns, types=builder.feature_types, **how)
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
    shutil.rmtree(CACHE, ignore_errors=True)  # what a killed run left
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
