"""``data.source: tlc`` from end to end, against a server on 127.0.0.1 in TLC's place."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.pipeline.conftest import Clone
from tests.test_zones import shapefile

from trip_duration.sources.simulated import SimulatedMonth

MONTHS = ("2021-01", "2021-02", "2021-03")
SET = (
    "data.source=tlc data.train=[2021-01] data.validation=[2021-02] data.test=[2021-03] "
    "clean.unknown_zones=true"
)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, Counter[str]]]:
    """A server's address and a count of what was asked of it; one file fails at first."""
    folder = tmp_path / "served"
    (folder / "trip-data").mkdir(parents=True)
    (folder / "misc").mkdir()
    for month in MONTHS:
        batches = SimulatedMonth(month, taxi="green", seed=1, trips=1_000).batches()
        path = folder / "trip-data" / f"green_tripdata_{month}.parquet"
        pq.write_table(pa.Table.from_batches(batches), path)
    shapefile(folder / "misc" / "taxi_zones.zip")
    asked: Counter[str] = Counter()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[self.path] += 1
            body = (folder / self.path[1:]).read_bytes()
            busy = "2021-02" in self.path and asked[self.path] == 1
            self.send_response(503 if busy else 200)
            self.send_header("Content-Length", str(0 if busy else len(body)))
            self.end_headers()
            self.wfile.write(b"" if busy else body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def test_months_are_fetched_retried_and_not_fetched_again(
    make_clone: Callable[[Path], Clone], tmp_path: Path, address: tuple[str, Counter[str]]
) -> None:
    base, asked = address
    clone = make_clone(tmp_path / "clone")
    done = clone.command("ingest", SET=SET, TRIP_DURATION_TLC_BASE=base)
    assert "2021-03" in done.stdout
    assert "unknown zone" in done.stdout
    assert "503" in done.stdout + done.stderr  # the failed attempt is said, in a line
    assert "Traceback" not in done.stdout + done.stderr
    expected = {f"/trip-data/green_tripdata_{month}.parquet": 1 for month in MONTHS}
    expected |= {"/trip-data/green_tripdata_2021-02.parquet": 2, "/misc/taxi_zones.zip": 1}
    assert asked == expected
    ledger = json.loads(clone.read("metrics/ingest.json"))
    assert ledger["months"]["2021-01"]["read"] == 1_000
    assert ledger["set_aside"]["unknown_zone"] > 0
    assert pq.read_table(clone.folder / "data/zones.parquet")["borough"].to_pylist()[0]

    clone.command("ingest", SET="data.test=[]", TRIP_DURATION_TLC_BASE=base)
    assert asked == expected  # what is there was not fetched again
    assert not (clone.folder / "data/trips/green-2021-03.parquet").exists()
