"""Stage 3: search the booster's parameters on trips that are held out for it."""

import shutil
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trip_duration import tracking
from trip_duration.features import FeatureBuilder
from trip_duration.files import read_json, sha256, write_csv, write_json
from trip_duration.orchestration import stage_flow, table, task
from trip_duration.params import Params
from trip_duration.search import (
    Journal,
    SearchResult,
    Trial,
    journal_path,
    train_model_search,
    trial_matrices,
)
from trip_duration.splits import FEATURES, read_roles
from trip_duration.trips import month_paths

CACHE = Path(".cache/matrices")


def settings_of(params: Params) -> dict[str, Any]:
    """The arguments of `train_model_search` that params.yaml pins."""
    return {
        **params.search.model_dump(exclude={"sample_rows"}),
        "fixed": params.train.params,
        "seed": params.seed,
        "max_bin": params.search.max_bin or params.train.max_bin,
        "device": params.train.device,
    }


@task
def run_trials(params: Params, journal: Journal) -> SearchResult:
    """Run the trials, with a progress bar, each logged to MLflow as it ends."""
    with (
        tracking.search_run(
            f"search {params.data.span}",
            params=params.search.model_dump(),
            tags=tracking.tags("search", months=params.data.span),
        ) as log,
        tqdm(total=params.search.max_evals, desc="search", unit="trial", disable=None) as bar,
    ):
        best = float("inf")

        def finished(trial: Trial) -> None:
            nonlocal best
            if trial.loss is None:
                log.trial(trial.number, trial.params, {}, "FAILED")
            else:
                best = best if trial.stopped else min(best, trial.loss)
                log.trial(
                    trial.number,
                    trial.params,
                    {"rmse": trial.loss, "rounds": trial.rounds},
                    "KILLED" if trial.stopped else "FINISHED",
                )
            bar.set_postfix_str(f"best RMSE {best:.4f} min", refresh=False)
            bar.update()

        builder = FeatureBuilder.from_json(read_json("models/features.json"))
        pair = trial_matrices(
            read_roles(params, builder),
            sample_rows=params.search.sample_rows,
            names=builder.columns,
            types=builder.feature_types,
            half_life=params.train.half_life,
            max_bin=params.search.max_bin or params.train.max_bin,
            rows_in_memory=params.train.rows_in_memory,
            cache=CACHE,
        )
        found = train_model_search(*pair, journal=journal, on_trial=finished, **settings_of(params))
        if found.best and found.best.loss is not None:
            log.finish({"rmse": found.best.loss, "best_trial": found.best.number})
    return found


@stage_flow("search")
def search(params: Params) -> None:
    """search/best_params.json and search/trials.csv."""
    shutil.rmtree(CACHE, ignore_errors=True)  # what a killed run left
    chosen = params.train
    divided = [chosen.stop_on, chosen.stop_days, chosen.half_life, chosen.sample_rows]
    splits = ("train", "validation")
    read = [p for s in splits for p in month_paths(params.data, s, f"{FEATURES}/{s}")]
    digests = [
        *(sha256(p) for p in [*read, Path("models/features.json")]),
        repr([*divided, params.search.sample_rows, params.intervals]),
    ]
    journal = Journal(journal_path(Path(".cache/search"), settings_of(params), digests))
    result = run_trials(params, journal)
    write_csv(result.table(), "search/trials.csv")
    best = result.best
    write_json(
        {
            "params": best.params if best else {},
            "rmse": round(best.loss, 6) if best and best.loss is not None else None,
            "trial": best.number if best else None,
        },
        "search/best_params.json",
    )
    table("trials", result.leaderboard(), "The ten best trials, the best first.")
    journal.remove()
