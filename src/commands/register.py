"""``make register``: put the evaluated model into the registry, and promote it if it is better."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from commands.tables import plain_console, plain_table
from trip_duration import orchestration, params

if TYPE_CHECKING:
    from trip_duration.gate import Check
    from trip_duration.params import Params
    from trip_duration.registry import Registered

__all__ = ["register", "shown"]

SLICES = 5  # of those that passed, shown


def register(root: Path) -> int:
    """Register the model in ``models/``, print its verdict, and show both in Prefect's pages.

    Parameters
    ----------
    root : Path
        The repository's folder.

    Returns
    -------
    int
        The exit code, 0: a model that is not promoted is no failure.

    Raises
    ------
    TripDurationError
        If there is no evaluated model, or the registry fails.
    """
    settings = params.load(root / "params.yaml")
    console = plain_console()
    orchestration.begin(root)
    from trip_duration import cards, registry

    orchestration.ready()

    @orchestration.stage_flow("register")
    def flow(settings: "Params") -> "Registered":
        found = registry.register(root, say=console.print)
        orchestration.table("verdict", cards.rows(found.verdict), found.sentence)
        orchestration.markdown("model-card", found.card)
        return found

    found: Registered = flow(settings)
    _show(console, found)
    return 0


def _show(console: Console, found: "Registered") -> None:
    verdict = found.verdict
    table = plain_table(f"{verdict.trips:,} trips of {', '.join(verdict.months)} judge")
    for name in ("", "of", "challenger", "rival", "difference", "bound", ""):
        table.add_column(name, justify="left" if name in ("", "of") else "right")
    for check in shown(verdict.checks):
        table.add_row(*_cells(check))
    console.print(table)
    for note in verdict.notes:
        console.print(f"Note: {note}", soft_wrap=True)
    console.print(found.sentence, soft_wrap=True)


def shown(checks: "tuple[Check, ...]") -> "list[Check]":
    """All that failed or are over all trips, and of the other slices the worst."""
    from trip_duration.gate import ALL

    passed = [check for check in checks if check.slice != ALL and check.passed]
    worst = sorted(passed, key=lambda check: -check.difference)[:SLICES]
    return [check for check in checks if check not in passed or check in worst]


def _cells(check: "Check") -> tuple[str, ...]:
    from trip_duration.cards import rival
    from trip_duration.gate import COVERAGE

    said = "yes" if check.passed else "NO"
    if check.name == COVERAGE:
        numbers = (f"{check.challenger:.1%}", f"{check.rival:.1%}", f"{check.difference:+.1%}")
        return ("intervals hold", check.slice, *numbers, f"±{check.bound:.1%}", said)
    numbers = (f"{check.challenger:.3f}", f"{check.rival:.3f}", f"{check.difference:+.1%}")
    return (f"RMSE, {rival(check.name)}", check.slice, *numbers, f"{check.bound:+.1%}", said)
