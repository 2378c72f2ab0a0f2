"""Stage 4: fit the model with the best parameters, and the course's own beside it."""

from pathlib import Path

from trip_duration.files import read_json, write_csv, write_json
from trip_duration.orchestration import stage_flow, task
from trip_duration.params import Params
from trip_duration.training import (
    COURSE_EARLY_STOPPING_ROUNDS,
    COURSE_PARAMS,
    COURSE_ROUNDS,
    Fit,
    read_matrices,
    save_booster,
    train_best_model,
)

COURSE = Path("models/course")


@task
def fit_model(params: Params, found: dict) -> Fit:
    """The model: what the search found, and what train.params sets over it."""
    chosen = params.train
    train, validation = read_matrices(max_bin=chosen.max_bin, nthread=chosen.nthread)
    return train_best_model(
        train,
        validation,
        {**found, **chosen.params},
        num_boost_round=chosen.num_boost_round,
        early_stopping_rounds=chosen.early_stopping_rounds,
        seed=params.seed,
        nthread=chosen.nthread,
        max_bin=chosen.max_bin,
        device=chosen.device,
    )


@task
def fit_course(params: Params) -> None:
    """The course's own model, where the features are the course's."""
    said: dict[str, float | bool] = {"fitted": params.features.preset == "course"}
    if said["fitted"]:
        chosen = params.train
        train, validation = read_matrices(max_bin=chosen.max_bin, nthread=chosen.nthread)
        fit = train_best_model(
            train,
            validation,
            COURSE_PARAMS,
            num_boost_round=COURSE_ROUNDS,
            early_stopping_rounds=COURSE_EARLY_STOPPING_ROUNDS,
            nthread=chosen.nthread,
            max_bin=chosen.max_bin,
            curve=False,
        )
        save_booster(fit.booster, COURSE / "model.ubj")
        said |= {"rmse": round(fit.rmse, 6), "rounds": fit.rounds}
    write_json(said, COURSE / "fit.json")


@stage_flow("train")
def train(params: Params) -> None:
    """models/model.ubj, models/course, metrics/train.json and the learning curve."""
    found = read_json("search/best_params.json")["params"]
    fit = fit_model(params, found)
    fit_course(params)
    save_booster(fit.booster, "models/model.ubj")
    write_csv(fit.table(), "plots/learning_curve.csv")
    last = {name: round(values[fit.rounds - 1], 6) for name, values in fit.curve.items()}
    write_json({"rmse": last, "rounds": fit.rounds}, "metrics/train.json")
