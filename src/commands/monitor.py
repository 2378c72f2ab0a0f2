"""``make monitor``: how far a month is from those that the champion learned from."""

from pathlib import Path

from commands.tables import plain_console, plain_table
from trip_duration import drift
from trip_duration.errors import SettingsError

__all__ = ["monitor"]


def monitor(root: Path, month: str) -> int:
    """Compare a month with the champion's training months, and print what was found.

    Parameters
    ----------
    root : Path
        The repository's folder.
    month : str
        ``YYYY-MM``.

    Returns
    -------
    int
        The exit code, 0: a month that drifted is no failure.

    Raises
    ------
    SettingsError
        If there is no month, or it is none.
    TripDurationError
        As in `drift.compare`.
    """
    if not month:
        raise SettingsError(
            "make monitor has no MONTH: expected the month to compare, like make monitor "
            "MONTH=2024-05"
        )
    from trip_duration.registry import chosen

    served = chosen(root)
    found = drift.compare(root, month, served=served)
    table = plain_table()
    for name in ("column", "measured as", "drift", "counts from"):
        table.add_column(name, justify="left" if name in ("column", "measured as") else "right")
    for name, column in found["columns"].items():
        value = f"{column['value']:.3f}{' *' if column['drifted'] else '  '}"
        table.add_row(name, column["method"], value, f"{column['threshold']:g}")
    errors, months = found["errors"], found["reference_months"]
    since = months[0] if len(months) == 1 else f"{months[0]} … {months[-1]}"
    console = plain_console()
    console.print(
        f"\n{month} against {since}, {served.taxi}, model {served.version}: drift is "
        f"{found['level']}"
    )
    console.print(table)
    beside = "; no month that the model has not seen comes before it"
    if errors["change"] is not None:
        beside = (
            f", {errors['change']:+.0%} on the {errors['reference_rmse']:.2f} of "
            f"{errors['reference_month']}"
        )
    console.print(f"RMSE {errors['rmse']:.2f} minutes{beside}")
    for reason in found["reasons"]:
        console.print(f"  {reason}")
    console.print(f"  {drift.REPORTS}/drift-{served.taxi}-{month}.html has the distributions")
    return 0
