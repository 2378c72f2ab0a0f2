"""Stage 3: search the booster's parameters on trips that are held out for it."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from trip_duration import tracking
from trip_duration.features import FeatureBuilder
from trip_duration.files import read_json, sha256, write_csv, write_json
from trip_duration.orchestration import on_cluster, stage_flow, table, task
from trip_duration.params import Params
from trip_duration.search import (
    Attempt,
    Journal,
    SearchResult,
    Trial,
    journal_path,
    run_trial,
    train_model_search,
    trial_matrices,
)
from trip_duration.splits import FEATURES, read_roles
from trip_duration.trips import month_paths

if TYPE_CHECKING:
    import xgboost as xgb

BUILDER = Path("models/features.json")
_building = threading.Lock()
_built: "dict[str, tuple[xgb.DMatrix, xgb.DMatrix]]" = {}  # on a worker: the last search's


def settings_of(params: Params) -> dict[str, Any]:
    """The arguments of `train_model_search` that params.yaml pins."""
    return {
        **params.search.model_dump(exclude={"sample_rows"}),
        "fixed": params.train.params,
        "seed": params.seed,
        "max_bin": params.search.max_bin or params.train.max_bin,
        "device": params.train.device,
    }


def matrices_of(params: Params) -> "tuple[xgb.DMatrix, xgb.DMatrix]":
    """What all trials share."""
    builder = FeatureBuilder.from_json(read_json(BUILDER))
    return trial_matrices(
        read_roles(params, builder),
        sample_rows=params.search.sample_rows,
        names=builder.columns,
        types=builder.feature_types,
        half_life=params.train.half_life,
        max_bin=params.search.max_bin or params.train.max_bin,
        rows_in_memory=params.train.rows_in_memory,
    )


def read_by(params: Params, *_: object) -> list[Path]:
    """The files that `matrices_of` reads."""
    splits = ("train", "validation")
    return [p for s in splits for p in month_paths(params.data, s, f"{FEATURES}/{s}")] + [BUILDER]


def built_here(params: Params, search: str) -> "tuple[xgb.DMatrix, xgb.DMatrix]":
    """`matrices_of`, made once in each of a worker's processes for all trials of a search."""
    with _building:
        if search not in _built:
            _built.clear()
            _built[search] = matrices_of(params)
        return _built[search]


@task
def try_elsewhere(params: Params, attempt: Attempt, search: str) -> Trial:
    """Run a trial on a worker; ``search`` tells the files and settings of searches apart."""
    settings = settings_of(params)
    taken = ("num_boost_round", "early_stopping_rounds", "seed", "max_bin", "device")
    how = {name: settings[name] for name in taken}
    return run_trial(*built_here(params, search), attempt, **how)


@task
def run_trials(params: Params, path: Path) -> SearchResult:
    """Run the trials, with a progress bar, each journalled at ``path`` and logged to MLflow."""
    journal = Journal(path)  # made here: what a task is given goes to the workers of a cluster
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

        cluster = on_cluster()
        elsewhere = None
        if cluster is not None:

            def elsewhere(attempts: Sequence[Attempt]) -> Iterator[Trial]:
                items = [(params, attempt, path.stem) for attempt in attempts]
                return (trial for _, trial in cluster.map(try_elsewhere, items, reads=read_by))

        found = train_model_search(
            *(matrices_of(params) if cluster is None else (None, None)),
            journal=journal,
            on_trial=finished,
            run=elsewhere,
            **settings_of(params),
        )
        if found.best and found.best.loss is not None:
            log.finish({"rmse": found.best.loss, "best_trial": found.best.number})
    return found


@stage_flow("search")
def search(params: Params) -> None:
    """search/best_params.json and search/trials.csv."""
    chosen = params.train
    divided = [chosen.stop_on, chosen.stop_days, chosen.half_life, chosen.sample_rows]
    digests = [
        *(sha256(path) for path in read_by(params)),
        repr([*divided, params.search.sample_rows, chosen.rows_in_memory, params.intervals]),
    ]
    journal = journal_path(Path(".cache/search"), settings_of(params), digests)
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
    Journal(journal).finish()
