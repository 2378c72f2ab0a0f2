"""Stage 1: fetch the months and write them as canonical trips, counting what is set aside."""

from pathlib import Path

from trip_duration import ingest as months
from trip_duration.errors import SourceError
from trip_duration.files import write_json
from trip_duration.orchestration import fetching, stage_flow, table, task, waiting_as_asked
from trip_duration.params import Params
from trip_duration.sources.tlc import not_published

FORBIDDEN = 403
CACHE = Path(".cache/source")
TRIPS = Path("data/trips")


@task(**fetching())
def fetch_month(params: Params, month: str) -> Path | None:
    """Bring a month's raw file here."""
    with waiting_as_asked():
        return months.fetch(params.data, month, CACHE)


@task(**fetching())
def fetch_zones(params: Params) -> Path | None:
    """Bring the zones' shapes here."""
    with waiting_as_asked():
        return months.fetch_zones(params.data, CACHE)


@task
def write_month(params: Params, month: str, raw: Path | None, zones: Path | None) -> dict:
    """Map, clean, sort and write a month."""
    return months.ingest_month(
        params.data, params.clean, params.seed, month, raw=raw, zones=zones, folder=TRIPS
    )


def bring(params: Params, month: str) -> Path | None:
    """`fetch_month`; once its retries are used up, what TLC's 403 means is said."""
    try:
        return fetch_month(params, month)
    except SourceError as error:
        if params.data.source == "tlc" and error.status == FORBIDDEN:
            raise not_published(params.data.taxi, month) from error
        raise


@stage_flow("ingest")
def ingest(params: Params) -> None:
    """Every month of the settings, and metrics/ingest.json."""
    TRIPS.mkdir(parents=True, exist_ok=True)
    months.remove_others(TRIPS, params.data.taxi, params.data.months)
    zones = fetch_zones(params)
    ledgers = {}
    for month in params.data.months:
        known = months.current(params.data, params.clean, params.seed, month, TRIPS, zones)
        ledgers[month] = known or write_month(params, month, bring(params, month), zones)
    months.write_zones(params.data, params.seed, zones, Path("data/zones.parquet"))
    found = months.summary(ledgers, getattr(params.data, params.data.judged[-1]))
    write_json(found, "metrics/ingest.json")
    table("set-aside", months.ledger_rows(found), "Trips read, kept and set aside, by month.")
