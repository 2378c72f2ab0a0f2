"""One side of the benchmark `search`, in a process of its own: ours, the course's, or Optuna's.

Prints a line of JSON for each trial that ended with a model: the seconds since the clock began and
the RMSE. The clock begins when the libraries are imported and the arrays are in memory, so that
binning them counts.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb

NAMES = ("X", "y", "V", "v")


class Side:
    """What a side is given, and how it tells what it reached."""

    def __init__(self, folder: Path, budget: float, trials: int, seed: int) -> None:
        self.X, self.y, self.V, self.v = (np.load(folder / f"{name}.npy") for name in NAMES)
        self.given = json.loads((folder / "given.json").read_text())
        self.columns = {
            "feature_names": self.given["names"],
            "feature_types": self.given["types"],
            "enable_categorical": True,
        }
        self.budget, self.trials, self.seed = budget, trials, seed
        self.began = math.nan

    def start(self) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def tell(self, rmse: float) -> None:
        """A trial has ended."""
        line = {"seconds": time.perf_counter() - self.began, "rmse": rmse}
        print(json.dumps(line), flush=True)


def ours(side: Side, _: Any) -> None:
    """The search of the stage, with its settings and no point to begin with."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    import hyperopt  # noqa: F401

    from trip_duration.search import Trial, train_model_search, trial_matrices
    from trip_duration.splits import Roles, Rows

    def on_trial(trial: Trial) -> None:
        if trial.loss is not None and not trial.stopped:
            side.tell(trial.loss)

    side.start()
    fit, stop = Rows.of(side.X, side.y), Rows.of(side.V, side.v)
    pair = trial_matrices(
        Roles(fit=fit, stop=stop, final=fit, calibration=stop),
        names=side.given["names"],
        types=side.given["types"],
        max_bin=side.given["settings"]["max_bin"],
    )
    settings = side.given["settings"] | {
        "max_evals": side.trials,
        "timeout_minutes": side.budget / 60,
        "points_to_evaluate": [],
        "seed": side.seed,
    }
    train_model_search(*pair, on_trial=on_trial, **settings)


def course(side: Side, _: Any) -> None:
    """The course's loop: hyperopt's TPE, a matrix and a whole fit for each trial, two threads."""
    from hyperopt import STATUS_OK, Trials, fmin, hp, tpe

    def objective(params: dict[str, Any]) -> dict[str, Any]:
        params["max_depth"] = int(params["max_depth"])
        train = xgb.DMatrix(side.X, label=side.y, **side.columns)
        valid = xgb.DMatrix(side.V, label=side.v, **side.columns)
        how = {"objective": "reg:squarederror", "seed": side.seed, "nthread": side.given["cores"]}
        booster = xgb.train(
            params | how,
            train,
            num_boost_round=side.given["settings"]["num_boost_round"],
            evals=[(valid, "validation")],
            verbose_eval=False,
        )
        rmse = float(np.sqrt(np.mean((side.v - booster.predict(valid)) ** 2)))
        side.tell(rmse)
        return {"loss": rmse, "status": STATUS_OK}

    space = {
        name: getattr(hp, kind)(name, *arguments)
        for name, distribution in side.given["settings"]["space"].items()
        for kind, arguments in distribution.items()
    }
    side.start()
    fmin(
        objective,
        space,
        algo=tpe.suggest,
        max_evals=side.trials,
        timeout=side.budget,
        trials=Trials(),
        rstate=np.random.default_rng(side.seed),
        show_progressbar=False,
        verbose=False,
    )


def optuna(side: Side, arguments: argparse.Namespace) -> None:
    """Optuna's TPE with a pruner, early stops and shared matrices, each core one trial."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = side.given["settings"]
    rounds, every = settings["num_boost_round"], 5
    pruner = {
        "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(
            min_resource=30, reduction_factor=3
        ),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(
            min_resource=30, max_resource=rounds, reduction_factor=3
        ),
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=50),
        "none": optuna.pruners.NopPruner,
    }[arguments.pruner]()

    def drawn(trial: Any) -> dict[str, Any]:
        params: dict[str, Any] = {}
        for name, distribution in settings["space"].items():
            [(kind, (low, high))] = distribution.items()
            if kind == "uniformint":
                params[name] = trial.suggest_int(name, low, high)
            elif kind == "loguniform":
                params[name] = trial.suggest_float(name, math.exp(low), math.exp(high), log=True)
            else:
                params[name] = trial.suggest_float(name, low, high)
        return params

    side.start()
    bins = arguments.bins or settings["max_bin"]
    train = xgb.QuantileDMatrix(side.X, label=side.y, max_bin=bins, **side.columns)
    valid = xgb.DMatrix(side.V, label=side.v, **side.columns)  # quicker to predict than binned

    def objective(trial: Any) -> float:
        class Report(xgb.callback.TrainingCallback):
            def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
                if (epoch + 1) % every == 0:
                    trial.report(evals_log["validation"]["rmse"][-1], epoch + 1)
                    if trial.should_prune():
                        raise optuna.TrialPruned
                return False

        booster = xgb.train(
            drawn(trial)
            | {"objective": "reg:squarederror", "seed": side.seed, "max_bin": bins}
            | {"tree_method": "hist", "nthread": max(1, side.given["cores"] // arguments.jobs)},
            train,
            num_boost_round=rounds,
            evals=[(valid, "validation")],
            callbacks=[
                xgb.callback.EarlyStopping(rounds=settings["early_stopping_rounds"]),
                Report(),
            ],
            verbose_eval=False,
        )
        side.tell(float(booster.best_score))
        return float(booster.best_score)

    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=side.seed), pruner=pruner, direction="minimize"
    )
    study.optimize(objective, n_trials=side.trials, timeout=side.budget, n_jobs=arguments.jobs)


def main() -> None:
    """Run the side that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=["ours", "course", "optuna"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget", type=float, required=True)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--pruner", default="median")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--bins", type=int)
    arguments = parser.parse_args()
    side = Side(arguments.folder, arguments.budget, arguments.trials, arguments.seed)
    {"ours": ours, "course": course, "optuna": optuna}[arguments.side](side, arguments)


if __name__ == "__main__":
    main()
