"""``make refresh``: ask whether months were republished, show what changed, take what is wanted."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from commands.tables import plain_console, plain_table
from trip_duration import ingest, params
from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.refresh import QUANTILES, Change, compare, differing, present, take
from trip_duration.trips import month_path

__all__ = ["refresh", "rows"]

TRIPS = Path("data/trips")
CACHE = Path(".cache/source")
SCRATCH = Path(".cache/refresh")  # republished months as ingest makes them; gone at the end


def refresh(root: Path, taking: str) -> int:
    """Compare each month of the settings with what its source has today.

    Parameters
    ----------
    root : Path
        The repository's folder.
    taking : str
        Months to take if they changed, with commas or spaces between, or ``all``; empty to look.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    SettingsError
        If a month to take is none of the settings'.
    TripDurationError
        If the source cannot be asked, or a month that could be compared is not there: none at all,
        or one to take.
    """
    chosen = params.load(root / "params.yaml")
    data, trips, cache = chosen.data, root / TRIPS, root / CACHE
    wanted = _wanted(taking, data.months)
    if data.source == "simulated":
        print("The months are drawn from the seed (data.source is simulated): nothing to ask.")
        return 0
    console = plain_console()
    ledgers = {month: present(data, month, trips) for month in data.months}
    if not any(ledgers.values()):
        raise TripDurationError(
            f"{TRIPS} has none of the months in params.yaml: `make ingest` (or `make pull`) first."
        )
    zones = ingest.fetch_zones(data, cache)
    same, left, taken = [], [], []
    later: dict[str, str] = {}
    scratch = root / SCRATCH
    with _emptied(scratch):
        for month, ledger in ledgers.items():
            if not ledger:
                later[month] = "not ingested yet"
                continue
            if not ingest.made_alike(ledger, data, chosen.clean, chosen.seed, month, zones):
                later[month] = "ingested with other settings, zones or code"
                continue
            raw = differing(data, month, ledger, cache, console.print)
            if raw is None:
                same.append(month)
                continue
            ingest.ingest_month(
                data, chosen.clean, chosen.seed, month, raw=raw, zones=zones, folder=scratch
            )
            made = month_path(scratch, data.taxi, month)
            _show(console, month, compare(month_path(trips, data.taxi, month), made))
            if month in wanted:
                take(made, raw, trips, cache)
                taken.append(month)
            else:
                left.append(month)
    _conclude(console, same, left, taken, later, local=ingest.is_local(data))
    for month in wanted if taking.strip() != "all" else ():
        if month in later:
            raise TripDurationError(f"TAKE names {month}, which is {later[month]}.")
    return 0


def _wanted(taking: str, months: list[str]) -> list[str]:
    """The months that TAKE names."""
    if taking.strip() == "all":
        return months
    named = [word for word in re.split(r"[\s,]+", taking) if word]
    for month in named:
        if month not in months:
            raise SettingsError(
                f"TAKE names {month}: expected all, or months of params.yaml ({', '.join(months)})."
            )
    return named


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """A folder without what a killed run left there, which is gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _show(console: Console, month: str, change: Change) -> None:
    table = plain_table(f"{month} was republished")
    table.add_column("")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    for cells in rows(change):
        table.add_row(*cells)
    console.print(table)
    kept = change.before["kept"]
    console.print(
        f"{change.same / kept:.1%} of the {kept:,} trips that were kept are there unchanged."
    )
    console.print()


def rows(change: Change) -> list[tuple[str, str, str, str]]:
    """What changed, as a person reads it: a name, before, after, and the difference."""
    before, after = change.before, change.after
    counts = [(f"rows {name}", before[name], after[name]) for name in ("read", "kept")]
    for reason in sorted({*before["set_aside"], *after["set_aside"]}):
        pair = (ledger["set_aside"].get(reason, 0) for ledger in (before, after))
        counts.append((f"set aside: {reason.replace('_', ' ')}", *pair))
    said = [(name, f"{old:,}", f"{new:,}", _signed(new - old, ",")) for name, old, new in counts]
    for name, what in (("duration", "minutes"), ("trip_distance", "miles")):
        for share, old, new in zip(QUANTILES, *change.quantiles[name], strict=True):
            moved = "–" if old is None or new is None else _signed(round(new - old, 2), ".2f")
            was, now = ("–" if value is None else f"{value:.2f}" for value in (old, new))
            said.append((f"{what}, {share:.0%} below", was, now, moved))
    return said


def _signed(difference: float, layout: str) -> str:
    return f"{difference:+{layout}}" if difference else "0"


def _conclude(
    console: Console,
    same: list[str],
    left: list[str],
    taken: list[str],
    later: dict[str, str],
    *,
    local: bool,
) -> None:
    for month, why in later.items():
        console.print(f"{month}: {why}: `make ingest` first.")
    if same:
        console.print(f"As the source has it: {', '.join(same)}.")
    if left:
        console.print(
            f"Not taken, and nothing is touched: `make refresh TAKE={','.join(left)}` takes "
            + ("it." if len(left) == 1 else "them.")
        )
        if local:
            console.print("`make train` takes a changed file of this machine's without being told.")
    if taken:
        console.print(
            f"Taken: {', '.join(taken)}. `make train` (or `dvc repro`) computes what follows."
        )
