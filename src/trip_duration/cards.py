"""A model's card: what it learned from, how good it is and where not, and how to make it again."""

from collections.abc import Mapping, Sequence
from typing import Any

from trip_duration.evaluation import NAMES
from trip_duration.gate import CHAMPION, COVERAGE, Slice, Verdict
from trip_duration.origins import Origin, command
from trip_duration.params import Params

__all__ = ["LONGEST", "card", "rival", "rows"]

LONGEST = 5000  # characters, what MLflow's stores keep of a description

_SOURCES = {"simulated": "the simulated city", "tlc": "TLC's records"}
_PRESETS = {
    "course": "what the course used; the metered distance, known only after the trip, is among it",
    "metered": "the metered distance, known only after the trip, is among them",
    "booking": "only what is known when a ride is booked",
    "custom": "the columns that the settings name",
}


def card(
    params: Params,
    made: Origin,
    digest: str,
    verdict: Verdict,
    errors: Mapping[str, float],
    rival: str = "",
) -> str:
    """Write the card of a model that was judged.

    Parameters
    ----------
    params : Params
        The settings that it was made with.
    made : Origin
        What else it was made with.
    digest : str
        Names the content of its files.
    verdict : Verdict
        How it was judged.
    errors : mapping of str to float
        What `evaluation.metrics` gives of the trips that judged, in minutes.
    rival : str
        The version of the champion that it was compared with; empty without one.

    Returns
    -------
    str
        Markdown of at most `LONGEST` characters: the slices that it is best at are left out where
        there is no room for all.
    """
    before = [
        *_summary(params, digest, verdict, rival),
        *_data(params, verdict),
        *_errors(verdict, errors, rival),
    ]
    after = [*_intervals(verdict), *_limits(params, made, verdict), *_rebuild(made)]
    room = LONGEST - sum(len(line) + 1 for line in (*before, *after))
    return "\n".join([*before, *_slices(verdict, room), *after])[:LONGEST]


def _summary(params: Params, digest: str, verdict: Verdict, rival: str) -> list[str]:
    against = f"version {rival} and the baselines" if rival else "the baselines"
    said = "Promoted to champion" if verdict.promoted else "Kept as challenger"
    return [
        f"# Trip duration, {params.data.taxi} taxis, {params.features.preset}",
        "",
        f"**{said}**, judged against {against} (model `{digest}`):",
        "",
        *(f"- {reason}" for reason in _few(verdict.reasons, 6)),
        "",
    ]


def _data(params: Params, verdict: Verdict) -> list[str]:
    data = params.data
    source = _SOURCES.get(data.source, "files of the user's own")
    return [
        "## Data",
        "",
        f"Taxi trips in New York from {source}, {params.clean.min_minutes:g} to "
        f"{params.clean.max_minutes:g} minutes long.",
        "",
        "| months | |",
        "|---|---|",
        f"| train | {_months(data.train)} |",
        f"| validation | {_months(data.validation)} |",
        f"| test | {_months(data.test) or 'none'} |",
        f"| judged on | {_months(verdict.months)}: {verdict.trips:,} trips |",
        "",
        f"Features: preset `{params.features.preset}`, {_PRESETS[params.features.preset]}.",
        "",
    ]


def _errors(verdict: Verdict, errors: Mapping[str, float], rival: str) -> list[str]:
    rows = [("this model", verdict.rmse)]
    if verdict.champion_rmse is not None:
        rows.append((f"champion, version {rival}", verdict.champion_rmse))
    rows += [(NAMES[name], rmse) for name, rmse in verdict.baselines.items()]
    others = ", ".join(f"{name} {errors[name]:.3f}" for name in ("mae", "p50", "p90", "bias"))
    return [
        "## Errors, in minutes",
        "",
        "| | RMSE |",
        "|---|---:|",
        *(f"| {name} | {rmse:.3f} |" for name, rmse in rows),
        "",
        f"This model's other errors: {others}.",
        "",
    ]


def _slices(verdict: Verdict, room: int) -> list[str]:
    """The slices that it is worst at come first."""
    compared = verdict.champion_rmse is not None
    lines = [
        "## Slices, RMSE in minutes",
        "",
        f"| slice | trips | this model |{' champion |' if compared else ''}",
        f"|---|---:|---:|{'---:|' if compared else ''}",
    ]
    parts = sorted(verdict.slices, key=lambda part: (-_relative(part), -part.rmse, part.name))
    room -= sum(len(line) + 1 for line in lines) + 80
    for number, part in enumerate(parts):
        row = f"| {part.name} | {part.trips:,} | {part.rmse:.3f} |"
        if compared:
            row += f" {part.champion_rmse:.3f} |"
        if (room := room - len(row) - 1) < 0:
            lines += ["", f"and {len(parts) - number} others that it is better at."]
            break
        lines.append(row)
    return [*lines, ""]


def _relative(part: Slice) -> float:
    return part.rmse / part.champion_rmse if part.champion_rmse else 0.0


def _intervals(verdict: Verdict) -> list[str]:
    return [
        "## Intervals",
        "",
        f"{verdict.coverage:.1%} of the trips lie in theirs ({verdict.level:.0%} should); they are "
        f"{verdict.width:.1f} minutes wide on average.",
        "",
    ]


def _limits(params: Params, made: Origin, verdict: Verdict) -> list[str]:
    limits = [
        f"It knows {params.data.taxi} taxis, up to {max(params.data.train)}: traffic changes.",
        f"Trips of under {params.clean.min_minutes:g} or over {params.clean.max_minutes:g} minutes "
        "are none that it can foresee.",
        *verdict.notes,
    ]
    if params.data.source == "simulated":
        limits.append("Its trips are simulated: of real traffic it knows nothing.")
    if made.changed:
        limits.append("The code differed from the commit below, which may make another model.")
    return ["## Limits", "", *(f"- {limit}" for limit in limits), ""]


def _rebuild(made: Origin) -> list[str]:
    line = command(made)
    if not line:
        return []
    if len(line) > LONGEST / 4:
        line = f"git checkout {made.commit} && make train SET=…  # as the tag `settings` has it"
    how = ["## To make it again", "", "```", line, "```", ""]
    booster = ", ".join(f"{name} {value}" for name, value in sorted(made.booster.items()))
    return [*how, f"XGBoost: {booster}.", ""] if booster else how


def _few(sentences: Sequence[str], most: int) -> list[str]:
    shown = list(sentences[:most])
    return shown if len(sentences) <= most else [*shown, f"and {len(sentences) - most} more"]


def _months(months: Sequence[str]) -> str:
    """Many of them as the first and the last."""
    ordered = sorted(months)
    return (
        ", ".join(ordered) if len(ordered) <= 6 else f"{len(ordered)}, {ordered[0]} … {ordered[-1]}"
    )


def rows(verdict: Verdict) -> list[dict[str, Any]]:
    """The checks of a verdict as rows of a table, for Prefect's pages."""
    return [
        {
            "against": "its level" if check.name == COVERAGE else rival(check.name),
            "trips of": check.slice,
            "trips": check.trips,
            "challenger": check.challenger,
            "rival": check.rival,
            "difference": check.difference,
            "bound": check.bound,
            "passed": "yes" if check.passed else "no",
        }
        for check in verdict.checks
    ]


def rival(name: str) -> str:
    """Whom a check compares with, as people read it."""
    return "the champion" if name == CHAMPION else NAMES[name]
