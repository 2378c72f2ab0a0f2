"""``make explain``: what the model looks at, or why it says of one trip what it says."""

import difflib
import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from commands.tables import plain_console, plain_table
from trip_duration import explanations
from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.features import CATALOGUE
from trip_duration.trips import SCHEMA, to_canonical

__all__ = ["explain"]

EXAMPLE = {
    "pickup": "2024-05-03 08:30",
    "pickup_zone": 74,
    "dropoff_zone": 42,
    "trip_distance": 1.9,
}
NEEDED = ("pickup", "pickup_zone", "dropoff_zone")
SHOWN = 12  # features of the whole model

COLUMNS = {
    "pickup": "a date and a time like '2024-05-03 08:30'",
    "pickup_zone": "TLC's zone id, a whole number from 1 to 265",
    "dropoff_zone": "TLC's zone id, a whole number from 1 to 265",
    "trip_distance": "a number of miles",
    "passenger_count": "a whole number",
    "vendor": "the number in TLC's id, like 2",
    "rate_code": "the number in TLC's id, like 1",
    "trip_type": "1 (hailed on the street) or 2 (dispatched)",
    "store_and_forward": "true or false",
}
TLC_NAMES = {
    "tpep_pickup_datetime": "pickup",
    "lpep_pickup_datetime": "pickup",
    "pickup_datetime": "pickup",
    "pulocationid": "pickup_zone",
    "dolocationid": "dropoff_zone",
    "vendorid": "vendor",
    "ratecodeid": "rate_code",
    "store_and_fwd_flag": "store_and_forward",
}
ANSWERS = ("duration", "dropoff", "dropoff_datetime")


def explain(root: Path, text: str) -> int:
    """Print why a trip is predicted to take as long as it is, or what matters for all trips.

    Parameters
    ----------
    root : Path
        The repository's folder.
    text : str
        The trip: a JSON object of canonical columns, or of TLC's own; empty for all trips.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    SettingsError
        If the trip cannot be read.
    TripDurationError
        If there is no model yet.
    """
    console = plain_console()
    if text.strip():
        _trip(console, root, _read(text))
    else:
        _all_trips(console, root)
    return 0


# What was asked


def _example() -> str:
    return f"make explain TRIP='{json.dumps(EXAMPLE)}'"


def _read(text: str) -> dict[str, Any]:
    """The trip's columns and values, as `SCHEMA` has them."""
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"TRIP is no JSON ({error.msg}, character {error.pos + 1}): found {text!r}; write it "
            f"in single quotes, like {_example()}"
        ) from None
    if not isinstance(given, dict):
        raise SettingsError(f"TRIP is {text}: expected a trip, like {_example()}")
    trip: dict[str, Any] = {}
    for key, value in given.items():
        name = _column(key)
        if name in trip:
            raise SettingsError(f"TRIP gives the {name} twice, the second time as {key!r}.")
        if value is not None:
            trip[name] = _value(key, name, value)
    missing = [name for name in NEEDED if name not in trip]
    if missing:
        raise SettingsError(
            f"TRIP has no {' and no '.join(missing)}: a trip needs {', '.join(NEEDED[:-1])} and "
            f"{NEEDED[-1]}, like {_example()}"
        )
    return trip


def _column(key: str) -> str:
    name = key.strip().lower()
    name = TLC_NAMES.get(name, name)
    if name in COLUMNS:
        return name
    if name.endswith(ANSWERS):
        raise SettingsError(f"TRIP has the key {key!r}, which the model is to predict: remove it.")
    near = difflib.get_close_matches(name, [*COLUMNS, *TLC_NAMES], n=1)
    hint = (
        f"did you mean {TLC_NAMES.get(near[0], near[0])!r}?"
        if near
        else f"expected some of {', '.join(COLUMNS)}."
    )
    raise SettingsError(f"TRIP has the key {key!r}, which is no column of a trip: {hint}")


def _value(key: str, name: str, given: Any) -> Any:
    """A value as `to_canonical` reads it from TLC's files, or a refusal where it reads nothing."""
    if not isinstance(given, str | int | float):
        _refuse(key, name, given)
    row = {"pickup": datetime(2024, 1, 1), "duration": 1.0, "pickup_zone": 1, "dropoff_zone": 1}
    try:
        row[name] = _time(given) if name == "pickup" else given
        column = to_canonical(pa.table({n: [v] for n, v in row.items()})).column(name)
    except (ValueError, OverflowError, pa.ArrowException, TripDurationError):
        _refuse(key, name, given)
    value = column[0].as_py()
    if value is None:
        _refuse(key, name, given)
    return value


def _time(given: Any) -> datetime:
    if not isinstance(given, str) or len(given.strip()) <= len("2024-05-03"):
        raise ValueError("a date alone is no time")
    return datetime.fromisoformat(given.strip())


def _refuse(key: str, name: str, given: Any) -> NoReturn:
    raise SettingsError(f"TRIP's {key} is {json.dumps(given)}: expected {COLUMNS[name]}.")


# What is printed


def _table(*columns: str, title: str = "") -> Table:
    """Text in all columns but the last ones, which are minutes."""
    table = plain_table(title)
    for column in columns:
        table.add_column(column, justify="right" if column.startswith("minutes") else "left")
    return table


def _trip(console: Console, root: Path, trip: dict[str, Any]) -> None:
    from trip_duration.prediction import FILES, load

    for name in FILES:
        _expect(root / "models" / name, root)
    model = load(root / "models")
    found = explanations.explain(trip, model.booster, model.builder, zones=_zone_names(root))
    row = pa.table({n: pa.array([v], SCHEMA.field(n).type) for n, v in trip.items()})
    said = model.predict(row)
    console.print(
        f"\nThis trip: {found.minutes:.1f} minutes, with a chance of {model.calibration.level:.0%} "
        f"between {said['lower'][0]:.1f} and {said['upper'][0]:.1f}\n(an average trip of the "
        f"training months takes {found.base:.1f})"
    )
    for title, parts in (("Why", found.groups), ("Feature by feature", found.columns)):
        table = _table(title, "of this trip", "minutes")
        for part in parts:
            table.add_row(part.name, part.value, f"{part.minutes:+.1f}")
        console.print(table)


def _all_trips(console: Console, root: Path) -> None:
    import pyarrow.csv

    path = root / "plots" / "importance.csv"
    _expect(path, root)
    rows = pyarrow.csv.read_csv(path).to_pylist()
    table = _table(
        "Feature", "what it says", "minutes", title="How much each feature moves a prediction"
    )
    for row in rows[:SHOWN]:
        name = row["feature"]
        table.add_row(name, CATALOGUE.get(name, ""), f"±{row['minutes']:.2f}")
    console.print()
    console.print(table)
    left = rows[SHOWN:]
    if left:
        most = max(row["minutes"] for row in left)
        console.print(
            f"{len(left)} others: {most:.2f} minutes or less; plots/{path.name} has them all"
        )
    console.print(f"One trip   {_example()}", soft_wrap=True)


def _expect(path: Path, root: Path) -> None:
    if not path.exists():
        raise TripDurationError(
            f"{path.relative_to(root).as_posix()} is not there, so there is no model to explain: "
            "run `make train` first."
        )


def _zone_names(root: Path) -> dict[int, str]:
    """The zones' names, as far as ingest found any."""
    import pyarrow.parquet as pq

    path = root / "data" / "zones.parquet"
    if not path.exists():
        return {}
    rows = pq.read_table(path, columns=["zone", "name"]).to_pylist()
    return {row["zone"]: row["name"] for row in rows if row["name"]}
