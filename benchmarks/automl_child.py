"""The other side of the benchmark `automl`: fit one library within a time, and predict.

Runs under the libraries' own environment, and imports nothing of ours. Reads train.parquet and
validation.parquet of the working folder; writes predictions.parquet and seconds.json.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd

TARGET = "duration"


def main() -> None:
    """Read, fit, predict, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=["flaml", "autogluon"])
    parser.add_argument("--preset", default="medium_quality", help="of AutoGluon")
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--categories", nargs="*", default=[])
    chosen = parser.parse_args()

    train, validation = (pd.read_parquet(f"{name}.parquet") for name in ("train", "validation"))
    for name in chosen.categories:  # the same codes on both sides; -1 is missing
        parts = [part[name].fillna(-1).astype("int32") for part in (train, validation)]
        kind = pd.CategoricalDtype(sorted({*parts[0], *parts[1]}))
        train[name], validation[name] = (part.astype(kind) for part in parts)

    fit = {"flaml": flaml, "autogluon": autogluon}[chosen.library]
    model, seconds = fit(train, chosen)
    minutes = model.predict(validation)
    pd.DataFrame({"minutes": pd.Series(minutes, dtype="float64")}).to_parquet("predictions.parquet")
    Path("seconds.json").write_text(json.dumps(seconds))


def flaml(train: pd.DataFrame, chosen: argparse.Namespace) -> tuple[Any, float]:
    """FLAML's AutoML with its own choice of learners; the best is fitted again on all trips."""
    from flaml import AutoML

    model = AutoML()
    began = time.perf_counter()
    model.fit(
        X_train=train.drop(columns=TARGET),
        y_train=train[TARGET],
        task="regression",
        metric="rmse",
        time_budget=chosen.seconds,
        n_jobs=chosen.cores,
        seed=chosen.seed,
        verbose=0,
    )
    return model, time.perf_counter() - began


def autogluon(train: pd.DataFrame, chosen: argparse.Namespace) -> tuple[Any, float]:
    """AutoGluon's predictor; its neural networks, which need torch, are left out."""
    from autogluon.tabular import TabularPredictor

    model = TabularPredictor(
        label=TARGET,
        problem_type="regression",
        eval_metric="root_mean_squared_error",
        path="autogluon",
    )
    began = time.perf_counter()
    model.fit(
        train,
        time_limit=chosen.seconds,
        presets=chosen.preset,
        # All the time for the first layer, as AutoGluon's newer preset best_quality_v150 has it. To
        # find out whether a second layer helps takes a quarter of the time, and where that trains
        # no model, the fit that follows dies without ray: "Learner is already fit".
        dynamic_stacking=False,
        num_stack_levels=0,
        # A forest heeds the time limit only where memory is short (RFModel._fit), and overruns a
        # small one many times. Without forests the boosters have all the time.
        excluded_model_types=["RF", "XT"],
        num_cpus=chosen.cores,
        num_gpus=0,
    )
    return model, time.perf_counter() - began


if __name__ == "__main__":
    main()
