"""The short tables at the end of a command."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from commands.tables import plain_table
from trip_duration.errors import GO_BACK
from trip_duration.evaluation import comparison
from trip_duration.files import read_json
from trip_duration.ingest import ledger_rows
from trip_duration.params import Params

__all__ = ["show"]

STAGES = ("ingest", "featurize", "search", "train", "evaluate")
UPSTREAM = {name: STAGES[: number + 1] for number, name in enumerate(STAGES)} | {"train": STAGES}


def show(name: str, params: Params, began: float, *, experiment: bool) -> None:
    """Print what a command of the pipeline made.

    Parameters
    ----------
    name : str
        The command.
    params : Params
        The settings that it ran with.
    began : float
        When it began, in seconds since the epoch: stages that ran before were up to date.
    experiment : bool
        Whether the workspace now holds a DVC experiment.
    """
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    console.print()
    if name == "ingest":
        _ledger(console)
    else:
        _rows(console)
    if name in ("search", "train", "evaluate"):
        _trials(console, params)
    if name in ("train", "evaluate"):
        _errors(console)
    _seconds(console, UPSTREAM[name], began)
    _next(console, name, experiment=experiment)


def _table(*columns: str, title: str = "") -> Table:
    table = plain_table(title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _ledger(console: Console) -> None:
    rows = ledger_rows(read_json("metrics/ingest.json"))
    table = _table(*rows[0], title="Trips by month")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, str) else f"{cell:,}" for cell in row.values()))
    console.print(table)


def _rows(console: Console) -> None:
    found = read_json("metrics/ingest.json")
    aside = found["read"] - found["kept"]
    console.print(
        f"Trips      {found['read']:,} read, {aside:,} set aside "
        f"({aside / found['read']:.1%}; by reason: make ingest), {found['kept']:,} kept"
    )


def _trials(console: Console, params: Params) -> None:
    best = read_json("search/best_params.json")
    if best["trial"] is None:
        console.print("Search     none (search.max_evals is 0): train.params alone")
        return
    done = len(Path("search/trials.csv").read_text().splitlines()) - 1
    asked = params.search.max_evals
    ended = f" of {asked}, ended by search.timeout_minutes" if done < asked else ""
    console.print(
        f"Search     {done} trials{ended}, the best of them number {best['trial']}: "
        f"RMSE {best['rmse']:.3f} minutes on the days held out for it"
    )


def _errors(console: Console) -> None:
    found = read_json("metrics/evaluation.json")
    table = _table("Errors in minutes", "months", "RMSE", "MAE", "half below", "9 of 10 below")
    for row in comparison(found):
        cells = (f"{row[key]:.3f}" for key in ("rmse", "mae", "p50", "p90"))
        table.add_row(row["name"], row["split"], *cells)
    console.print(table)
    split = "test" if "test" in found else "validation"
    held = found[split]["intervals"]
    console.print(
        f"Intervals  {held['coverage']:.1%} of the {split} trips lie in theirs "
        f"({held['level']:.0%} should), {held['width']:.1f} minutes wide on average "
        f"(equally wide: {held['constant_width']:.1f})"
    )
    without = found[split].get("without_distance")
    if without:
        held = without["intervals"]
        console.print(
            "Unmetered  where a trip's distance is not known: "
            f"RMSE {without['model']['rmse']:.3f}, "
            f"{held['coverage']:.1%} in their intervals, {held['width']:.1f} minutes wide"
        )
    floor = read_json("metrics/ingest.json").get("noise_floor")
    if floor:
        console.print(
            f"Noise      of the simulated city: no model can be expected below an RMSE of "
            f"{floor['metered']:.3f}, or {floor['booking']:.3f} without the metered distance"
        )


def _seconds(console: Console, stages: tuple[str, ...], began: float) -> None:
    said = []
    for stage in stages:
        path = Path(".cache/seconds") / f"{stage}.json"
        ran: dict[str, Any] = read_json(path) if path.exists() else {"at": 0.0}
        said.append(f"{stage} {ran['seconds']:.1f}" if ran["at"] >= began else f"{stage} –")
    console.print(f"Seconds    {', '.join(said)}   (–: up to date)")


def _next(console: Console, name: str, *, experiment: bool) -> None:
    if experiment:
        console.print(
            "Experiment the workspace holds it, as DVC does; keep it: `git commit -a`; go back:\n"
            f"           `{GO_BACK}`"
        )
    if name in ("train", "evaluate"):
        console.print(
            "Next       make ui: every run in Prefect and MLflow; make: all commands;\n"
            "           dvc metrics diff, dvc plots show: what changed"
        )
