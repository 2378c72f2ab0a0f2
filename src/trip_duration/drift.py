"""Drift: how far a month is from those that the champion learned from, and whether it is too far.

Evidently compares the two samples, in an environment of its own (src/drift_report). What is
compared are columns that a person can picture; what follows from it is decided here.
"""

import json
import math
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trip_duration import ingest, trips
from trip_duration.environments import environment
from trip_duration.errors import SourceError, TripDurationError
from trip_duration.files import read_json, write_bytes, write_json, write_parquet
from trip_duration.months import bounds, parse_month
from trip_duration.params import Data, Monitor, Params, load
from trip_duration.prediction import Model
from trip_duration.prediction import load as load_model

if TYPE_CHECKING:
    from trip_duration.registry import Served

__all__ = ["REPORTS", "IncomparableError", "compare", "decide", "prepare", "sample", "view"]

REPORTS = Path("reports")
CACHE = Path(".cache/monitor")
SOURCES = Path(".cache/source")  # where the stage `ingest` keeps what it has fetched
PLACES = 20  # zones that are told apart where nobody knows their boroughs; the others are one
_SCRIPT = Path(__file__).resolve().parents[1] / "drift_report"
_LONGEST = 600.0  # seconds that the report may take
_NOT_OUT = 403  # what TLC answers of a month that is not there

KINDS = {
    "day_of_month": "numerical",
    "hour": "numerical",
    "weekday": "categorical",
    "pickup_place": "categorical",
    "dropoff_place": "categorical",
    "trip_distance": "numerical",
    "passenger_count": "categorical",
    "duration": "numerical",
    "prediction": "numerical",
    "error": "numerical",
}
"""The columns that are compared: places are boroughs, or the zones that most trips are of; the
error is that of the prediction, in minutes. Days of the month show that trips cease within one."""


class IncomparableError(TripDurationError):
    """A month that the model learned from, or was validated on, is not there to compare with."""


def compare(
    root: str | Path,
    month: str,
    workspace: str | Path | None = None,
    served: "Served | None" = None,
    data: Data | None = None,
) -> dict[str, Any]:
    """Compare a month with those that a model learned from; write what was found to `REPORTS`.

    Parameters
    ----------
    root : str or Path
        The repository's folder.
    month : str
        ``YYYY-MM``.
    workspace : str or Path, optional
        A folder whose ``data/trips`` may hold canonical months; by default ``root``. Months that
        are not there, or were made otherwise, are ingested into ``.cache/monitor``.
    served : Served, optional
        The model; by default the champion, or the one in ``models/``.
    data : Data, optional
        Where months come from; by default as ``params.yaml`` says.

    Returns
    -------
    dict
        ``month``, ``reference_months``, ``model_version``; ``trips``, compared of the month;
        ``share_drifted`` and ``columns``, by name ``method``, ``value``, ``threshold`` and
        ``drifted``; ``errors``: ``reference_month``, ``reference_rmse`` and ``rmse``, minutes, and
        ``change``, a share; ``level``: ``none``, ``little`` or ``much``; ``reasons``, sentences.

    Notes
    -----
    The model knows the trips that it learned from, and errs less on them than on any others. So
    errors are held against those of the month which follows, which the model was validated on. If
    the month is that one, or an earlier one, its errors have no reference and are no column.

    Raises
    ------
    SettingsError
        If the month is none.
    IncomparableError
        If a month that the model learned from, or was validated on, is not there.
    TripDurationError
        If there is no model, a month cannot be had, or the report cannot be made.
    """
    root = Path(root)
    parse_month(month)
    settings = load(root / "params.yaml")
    if served is None:
        from trip_duration.registry import chosen

        served = chosen(root)
    chosen_data = (data or settings.data).model_copy(update={"taxi": served.taxi})
    folder = Path(workspace or root) / "data" / "trips"
    zones = ingest.fetch_zones(chosen_data, root / SOURCES)

    def path_of(one: str) -> Path:
        return _month(settings, chosen_data, one, zones, folder, root)

    def known(one: str) -> Path:
        try:
            return path_of(one)
        except SourceError as error:
            if error.transient and error.status != _NOT_OUT:
                raise
            raise IncomparableError(
                f"{month} cannot be compared with what the model {served.version} knows, since "
                f"{one} is not there: {error}"
            ) from None

    paths = {month: path_of(month)}
    paths |= {one: known(one) for one in served.train_months if one != month}
    model = load_model(served.folder)
    rows = settings.monitor.sample_rows
    reference = sample([paths[one] for one in served.train_months], rows)
    current = sample([paths[month]], rows)
    named = places(reference, _boroughs(settings, chosen_data, zones))
    seen = {"reference": view(reference, model, named), "current": view(current, model, named)}
    before = None
    validated = f"{bounds(max(served.train_months))[1]:%Y-%m}"
    if validated < month:
        errors = view(sample([known(validated)], rows), model, named).column("error")
        before = validated, _rmse(errors)
        seen["reference"] = _with_errors(seen["reference"], errors)
    rmse = _rmse(seen["current"].column("error"))
    if before is None:
        seen = {side: columns.drop_columns("error") for side, columns in seen.items()}
    name = f"drift-{served.taxi}-{month}"
    moved, page = _report(root, seen, settings.monitor)
    found = {
        "month": month,
        "reference_months": list(served.train_months),
        "model_version": served.version,
        "trips": current.num_rows,
        **decide(moved, before, rmse, settings.monitor),
    }
    write_bytes(page, root / REPORTS / f"{name}.html")
    write_json(found, root / REPORTS / f"{name}.json")
    return found


def decide(
    columns: Mapping[str, Mapping[str, Any]],
    before: tuple[str, float] | None,
    rmse: float,
    limits: Monitor,
) -> dict[str, Any]:
    """Say whether a month has drifted, and why.

    Parameters
    ----------
    columns : mapping
        By name ``value``, ``threshold`` and ``drifted``.
    before : tuple of str and float, or None
        The month that the RMSE is held against, and its RMSE in minutes.
    rmse : float
        Of the month, in minutes.
    limits : Monitor
        From where on it is much.

    Returns
    -------
    dict
        ``share_drifted``, ``columns``, ``errors``, ``level`` and ``reasons``, as in `compare`.
    """
    drifted = sorted(name for name, column in columns.items() if column["drifted"])
    share = len(drifted) / len(columns)
    reference_month, reference_rmse = before or (None, None)
    change = None if reference_rmse is None else rmse / reference_rmse - 1
    much, little = [], []
    if share >= limits.much_share:
        much.append(f"{share:.0%} of the columns drifted, and {limits.much_share:.0%} is much")
    if change is not None and change > limits.much_error:
        much.append(
            f"the RMSE is {rmse:.2f} minutes, {change:+.0%} on the {reference_rmse:.2f} of "
            f"{reference_month}, and {limits.much_error:.0%} is much"
        )
    for name in drifted:
        column = columns[name]
        if column["value"] >= limits.much_drift:
            much.append(f"{name} moved by {column['value']:.2f}, and {limits.much_drift:g} is much")
        else:
            little.append(
                f"{name} moved by {column['value']:.2f}, and {column['threshold']:g} counts"
            )
    return {
        "share_drifted": round(share, 6),
        "columns": {
            name: {**column, "value": round(column["value"], 6)} for name, column in columns.items()
        },
        "errors": {
            "reference_month": reference_month,
            "reference_rmse": _rounded(reference_rmse),
            "rmse": _rounded(rmse),
            "change": _rounded(change),
        },
        "level": "much" if much else "little" if little else "none",
        "reasons": [*much, *little],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _rmse(errors: pa.ChunkedArray) -> float:
    return math.sqrt(float(np.square(errors.to_numpy()).mean()))


def _with_errors(seen: pa.Table, errors: pa.ChunkedArray) -> pa.Table:
    """The table with other trips' errors, evenly spaced, in place of its own."""
    rows = np.arange(seen.num_rows) * len(errors) // seen.num_rows
    place = seen.column_names.index("error")
    return seen.set_column(place, "error", errors.take(pa.array(rows)))


# The samples


def sample(months: list[Path], rows: int) -> pa.Table:
    """Trips of canonical months, evenly spaced over all of them, at most so many.

    Parameters
    ----------
    months : list of Path
        Files, in the order of time.
    rows : int
        How many.
    """
    count = sum(pq.read_metadata(path).num_rows for path in months)
    taken = np.arange(min(rows, count)) * count // max(min(rows, count), 1)
    return trips.taken(months, taken).cast(trips.SCHEMA)


def places(reference: pa.Table, boroughs: Mapping[int, str]) -> dict[int, str]:
    """What each zone is called: its borough; without boroughs, a zone that few trips are of, ''."""
    if boroughs:
        return dict(boroughs)
    both = [
        reference.column(f"{end}_zone").fill_null(0).to_numpy() for end in ("pickup", "dropoff")
    ]
    zones, count = np.unique(np.concatenate(both), return_counts=True)
    most = zones[np.argsort(-count, kind="stable")][:PLACES]
    return {int(zone): str(zone) for zone in most}


def view(sampled: pa.Table, model: Model, named: Mapping[int, str]) -> pa.Table:
    """The columns of `KINDS` for each trip.

    Parameters
    ----------
    sampled : pyarrow.Table
        Canonical trips.
    model : Model
        What predicts them.
    named : mapping of int to str
        As `places` gives it.
    """
    seconds = sampled.column("pickup").cast(pa.int64()).to_numpy()
    minutes = sampled.column("duration").to_numpy()
    predicted = model.predict(sampled.drop_columns("duration"))["minutes"]
    days = seconds // 86400
    dates = days.astype("datetime64[D]")
    columns: dict[str, Any] = {
        "day_of_month": (dates - dates.astype("datetime64[M]")).astype(float) + 1,
        "hour": seconds % 86400 / 3600,
        "weekday": pa.array(((days + 3) % 7).astype(str)),  # 0 Monday; 1970-01-01 was a Thursday
        "trip_distance": np.clip(sampled.column("trip_distance").to_numpy(), 0, 60),
        "passenger_count": sampled.column("passenger_count").cast(pa.string()).fill_null("none"),
        "duration": minutes,
        "prediction": predicted,
        "error": predicted - minutes,
    }
    for end in ("pickup", "dropoff"):
        zones = sampled.column(f"{end}_zone").fill_null(0).to_pylist()
        columns[f"{end}_place"] = pa.array([named.get(zone, "other") for zone in zones])
    return pa.table({name: columns[name] for name in KINDS})


def _boroughs(settings: Params, data: Data, zones: Path | None) -> dict[int, str]:
    table = ingest.zones_table(data, settings.seed, zones).to_pylist()
    return {row["zone"]: row["borough"] for row in table if row["borough"]}


def _month(
    settings: Params, data: Data, month: str, zones: Path | None, folder: Path, root: Path
) -> Path:
    """A canonical month as today's settings make it, from where one is, or made in the cache."""
    own = root / CACHE / "trips"
    for place in (folder, own):
        if ingest.current(data, settings.clean, settings.seed, month, place, zones):
            return trips.month_path(place, data.taxi, month)
    raw = ingest.fetch(data, month, root / SOURCES)
    ingest.ingest_month(
        data, settings.clean, settings.seed, month, raw=raw, zones=zones, folder=own
    )
    return trips.month_path(own, data.taxi, month)


# The report


def prepare(root: str | Path) -> Path:
    """Make Evidently's environment, once; its folder.

    Raises
    ------
    TripDurationError
        If it cannot be made.
    """
    venv = Path(root) / ".venv-monitor"
    if not environment(venv, _SCRIPT / "requirements.txt", "Evidently's"):
        raise TripDurationError(
            "The environment that compares the months cannot be made: see above, and run the same "
            "command again where PyPI or a mirror of it can be reached."
        )
    return venv


def _report(
    root: Path, sides: Mapping[str, pa.Table], limits: Monitor
) -> tuple[dict[str, dict[str, Any]], bytes]:
    """What Evidently says of each column, and its page."""
    venv = prepare(root)
    (root / CACHE).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root / CACHE) as scratch:
        at = {name: str(Path(scratch) / name) for name in (*sides, "html", "json", "spec")}
        for name, side in sides.items():
            write_parquet(side, at[name])
        columns = {
            name: {"kind": KINDS[name], "threshold": limits.column_drift}
            for name in sides["current"].column_names
        }
        spec = {**at, "columns": columns, "share": limits.much_share}
        Path(at["spec"]).write_text(json.dumps(spec), encoding="utf-8")
        python = venv / "bin" / "python"
        try:
            done = subprocess.run(
                [python, "-I", str(_SCRIPT), at["spec"]],
                capture_output=True,
                text=True,
                timeout=_LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TripDurationError(
                f"Evidently has not compared the months within {_LONGEST:.0f} s: run the same "
                "command again, or lower monitor.sample_rows."
            ) from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise TripDurationError(
                f"Evidently could not compare the months ({last}): remove .venv-monitor, and run "
                "the same command again."
            )
        return read_json(at["json"]), Path(at["html"]).read_bytes()
