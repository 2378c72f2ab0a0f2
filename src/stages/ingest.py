"""Stage 1: fetch the months and write them as canonical trips, counting what is set aside."""

from pathlib import Path

from trip_duration import ingest as months
from trip_duration.files import write_json
from trip_duration.orchestration import fetching, stage_flow, table, task
from trip_duration.params import Params

CACHE = Path(".cache/source")
TRIPS = Path("data/trips")


@task(**fetching())
def fetch_month(params: Params, month: str) -> Path | None:
    """Bring a month's raw file here."""
    return months.fetch(params.data, month, CACHE)


@task(**fetching())
def fetch_zones(params: Params) -> Path | None:
    """Bring the zones' shapes here."""
    return months.fetch_zones(params.data, CACHE)


@task
def write_month(params: Params, month: str, raw: Path | None, zones: Path | None) -> dict:
    """Map, clean, sort and write a month."""
    return months.ingest_month(
        params.data, params.clean, params.seed, month, raw=raw, zones=zones, folder=TRIPS
    )


@stage_flow("ingest")
def ingest(params: Params) -> None:
    """Every month of the settings, and metrics/ingest.json."""
    TRIPS.mkdir(parents=True, exist_ok=True)
    months.remove_others(TRIPS, params.data.taxi, params.data.months)
    zones = fetch_zones(params)
    ledgers = {}
    for month in params.data.months:
        known = months.current(params.data, params.clean, params.seed, month, TRIPS, zones)
        ledgers[month] = known or write_month(params, month, fetch_month(params, month), zones)
    months.write_zones(params.data, params.seed, zones, Path("data/zones.parquet"))
    found = months.summary(ledgers, params.data.test or params.data.validation)
    write_json(found, "metrics/ingest.json")
    table("set-aside", months.ledger_rows(found), "Trips read, kept and set aside, by month.")
