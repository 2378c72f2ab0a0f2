"""Stage 1: fetch the months and write them as canonical trips, counting what is set aside."""

from pathlib import Path

from trip_duration import ingest as months
from trip_duration.errors import SourceError
from trip_duration.files import write_json, write_parquet
from trip_duration.orchestration import (
    fetching,
    mapped,
    stage_flow,
    table,
    task,
    waiting_as_asked,
)
from trip_duration.params import Params
from trip_duration.sources.tlc import not_published
from trip_duration.trips import month_path

FORBIDDEN = 403
CACHE = Path(".cache/source")
TRIPS = Path("data/trips")


@task(**fetching())
def fetch_zones(params: Params) -> Path | None:
    """Bring the zones' shapes here."""
    with waiting_as_asked():
        return months.fetch_zones(params.data, CACHE)


@task(**fetching())
def write_month(params: Params, month: str, raw: Path | None, zones: Path | None) -> dict:
    """Fetch a month, unless its file ``raw`` is here; map, clean, sort and write it."""
    try:
        with waiting_as_asked():
            raw = raw or months.fetch(params.data, month, CACHE)
    except SourceError as error:
        error.month = month
        raise
    return months.ingest_month(
        params.data, params.clean, params.seed, month, raw=raw, zones=zones, folder=TRIPS
    )


def read_by(params: Params, month: str, raw: Path | None, zones: Path | None) -> list[Path]:
    """The files that `write_month` reads."""
    return [path for path in (raw, zones) if path is not None]


def written_by(params: Params, month: str, raw: Path | None, zones: Path | None) -> list[Path]:
    """The files that `write_month` writes."""
    path = month_path(TRIPS, params.data.taxi, month)
    return [path, path.with_suffix(".json")]


def explained(params: Params, error: SourceError) -> SourceError:
    """The error; once all retries are used up, what TLC's 403 means is said."""
    if params.data.source == "tlc" and error.status == FORBIDDEN and error.month:
        return not_published(params.data.taxi, error.month)
    return error


@stage_flow("ingest")
def ingest(params: Params) -> None:
    """Every month of the settings, and metrics/ingest.json."""
    TRIPS.mkdir(parents=True, exist_ok=True)
    months.remove_others(TRIPS, params.data.taxi, params.data.months)
    zones = fetch_zones(params)
    # Shapes that cannot be read should stop nobody after an hour's work on the months.
    known_zones = months.zones_table(params.data, params.seed, zones)
    ledgers, missing = {}, []
    for month in params.data.months:
        known = months.current(params.data, params.clean, params.seed, month, TRIPS, zones)
        if known:
            ledgers[month] = known
        else:
            raw = months.fetch(params.data, month, CACHE) if months.is_local(params.data) else None
            missing.append((params, month, raw, zones))
    try:
        written = mapped(write_month, missing, reads=read_by, writes=written_by)
    except SourceError as error:
        raise explained(params, error) from error
    ledgers |= {month: ledger for (_, month, *_), ledger in zip(missing, written, strict=True)}
    write_parquet(known_zones, "data/zones.parquet")
    found = months.summary(ledgers, getattr(params.data, params.data.judged[-1]))
    write_json(found, "metrics/ingest.json")
    table("set-aside", months.ledger_rows(found), "Trips read, kept and set aside, by month.")
