"""The monthly run: train on newer months, and promote the model if it is better.

Which way it goes is decided while it runs. Months that are not out are waited for, and a source
that cannot be asked too; months that fail their checks stop it; little drift keeps the champion's
parameters and fits them anew, much drift searches again; a model that is not better leaves the
champion where it is.
"""

import datetime as dt
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from prefect import State
from prefect.runtime import deployment, flow_run
from prefect.states import Completed

from trip_duration import registry, retraining
from trip_duration.errors import SourceError, TripDurationError
from trip_duration.files import read_json
from trip_duration.orchestration import (
    environment,
    fetching,
    markdown,
    stage_flow,
    stay,
    task,
    waiting_as_asked,
)
from trip_duration.params import Params
from trip_duration.params import load as load_params
from trip_duration.retraining import DEPLOYMENT, NEW_YORK, Plan, Way
from trip_duration.runs import noted
from trip_duration.workspace import Workspace, opened

__all__ = ["retrain"]

ROOT = Path(__file__).resolve().parents[2]


@task(**fetching())
def ask_for(params: Params, month: str) -> bool:
    """Whether a month is out."""
    with waiting_as_asked():
        return retraining.is_out(params.data, month)


@task
def fetch_and_clean(workspace: Workspace, plan: Plan) -> list[str]:
    """Ingest the months, as the pipeline does; what speaks against learning from them."""
    params = workspace.choose(retraining.settings(plan, None))
    workspace.run("ingest")
    ledger = read_json(workspace.folder / "metrics/ingest.json")
    return retraining.unsound(ledger, plan.months, params.retrain)


@task(**fetching())
def compare(
    workspace: Workspace, plan: Plan, champion: registry.Served
) -> tuple[dict[str, Any] | None, str]:
    """How far the newest month has drifted from what the champion knows; else None, and why."""
    from trip_duration import drift

    month, data = plan.validation[-1], load_params(workspace.folder / "params.yaml").data
    tags = registry.tags_of(workspace.root, registry.CHAMPION) or {}
    if other := retraining.other_data(tags, data, workspace.root):
        without = f"{month} cannot be compared with what the model {champion.version} knows"
        return None, f"{without}: {', '.join(other)}"
    try:
        with waiting_as_asked():
            found = drift.compare(
                workspace.root, month, workspace=workspace.folder, served=champion, data=data
            )
        return found, ""
    except drift.IncomparableError as error:
        return None, str(error).rstrip(".")


@task
def fit_and_evaluate(workspace: Workspace, plan: Plan, way: Way) -> None:
    """The pipeline for these months, to an evaluated model; a run that was killed goes on here."""
    workspace.choose(retraining.settings(plan, way))
    workspace.run("train")


@task
def challenge(workspace: Workspace, plan: Plan) -> registry.Registered:
    """Register the model, and promote it if it beats the champion and the baselines."""
    return registry.register(workspace.root, workspace=workspace.folder, aliases=plan.aliases)


@stage_flow("retrain", lambda date, test: date or "")
def retrain(date: str | None = None, test: list[str] | None = None) -> State:
    """Train on the month two before a date, validate on the one before it, promote if better.

    Parameters
    ----------
    date : str, optional
        ``YYYY-MM-DD``; any day of a month gives the same months. Left out, the day for which the
        run was scheduled, in New York.
    test : list of str, optional
        Later months to test on, ``YYYY-MM``; the model is tested on the validation months without.

    Returns
    -------
    State
        Completed, and called Promoted, Kept (the champion stays) or Waiting (a month is not out, or
        the source cannot be asked).

    Raises
    ------
    TripDurationError
        If a month fails its checks, or the pipeline fails; the champion stays.
    """
    for name, value in environment(ROOT).items():  # where a worker was started by hand
        os.environ.setdefault(name, value)
    stay(ROOT)
    params = load_params(ROOT / "params.yaml")
    day = retraining.parse_date(date) if date else _scheduled_day()
    plan = retraining.plan(day, params.retrain, test or ())
    said = _Account(plan)
    busy = partial(said, "another run is at work: waiting for its end")
    with noted(ROOT, str(flow_run.id)):
        try:
            away = [month for month in plan.months if not ask_for(params, month)]
            if away:
                reason = f"{params.data.taxi} {', '.join(away)} is not out yet"
                return _come_back(plan, reason, params, said)
            with opened(ROOT, busy) as workspace:
                return _run(workspace, plan, said)
        except SourceError as error:
            if not (error.transient or error.retry_after):
                raise
            reason = f"the source could not be asked ({str(error).rstrip('.')})"
            return _come_back(plan, reason, params, said)


def _run(workspace: Workspace, plan: Plan, said: "_Account") -> State:
    """The run, all of whose months are out."""
    said(f"train on {' '.join(plan.train)}, validate on {' '.join(plan.validation)}")
    doubts = fetch_and_clean(workspace, plan)
    if doubts:
        said("the data fail their checks: stopped")
        raise TripDurationError(f"{' '.join(doubts)} The champion stays.")
    champion = registry.champion(ROOT)
    drift, without = compare(workspace, plan, champion) if champion else (None, "")
    way = retraining.choose_way(registry.params_of(ROOT, champion), drift, without)
    said(f"{way.kind}: {way.reason}")
    fit_and_evaluate(workspace, plan, way)
    found = challenge(workspace, plan)
    said(found.sentence)
    markdown("model-card", found.card)
    return Completed(name="Promoted" if found.promoted else "Kept", message=found.sentence)


class _Account:
    """What a run did, line by line: on the console at once, in Prefect's pages as an artifact."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lines: list[str] = []

    def __call__(self, sentence: str) -> None:
        self._lines.append(sentence)
        with suppress(OSError):  # the worker that read what is printed may be gone
            print(f"retrain {self._plan.date}: {sentence}", flush=True)
        listed = "\n".join(f"1. {line}" for line in self._lines)
        markdown("retrain", f"### {self._plan.aliases[0]}\n\n{listed}\n")


def _scheduled_day() -> dt.date:
    """The day for which this run was scheduled, in New York: a late run does its own month."""
    when = flow_run.scheduled_start_time or dt.datetime.now(dt.UTC)
    return when.astimezone(NEW_YORK).date()


def _come_back(plan: Plan, reason: str, params: Params, said: _Account) -> State:
    """Have the deployment run again later, if it is one that runs, as long as there is patience."""
    chosen = params.retrain
    today = dt.datetime.now(NEW_YORK).date()
    if today > plan.date + dt.timedelta(days=chosen.patience_days):
        raise SourceError(
            f"{reason}, {chosen.patience_days} days (retrain.patience_days) after {plan.date}: see "
            "whether data.source is right, and run it by hand once it is."
        )
    if deployment.id is None:
        said(reason)
    else:
        from prefect.deployments import run_deployment

        run_deployment(
            DEPLOYMENT,
            parameters={"date": str(plan.date), "test": list(plan.test)},
            scheduled_time=dt.datetime.now(dt.UTC) + dt.timedelta(hours=chosen.wait_hours),
            timeout=0,
            as_subflow=False,
        )
        said(f"{reason}; asking again in {chosen.wait_hours:g} hours")
    return Completed(name="Waiting", message=reason)
