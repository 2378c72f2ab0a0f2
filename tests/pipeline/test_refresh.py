"""A month that TLC republishes: shown, taken when told to, and then computed by DVC alone."""

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

from trip_duration.files import sha256
from trip_duration.sources.simulated import SimulatedMonth

MONTHS = ("2021-01", "2021-02")


class Tlc:
    """A server in TLC's place, on 127.0.0.1, that gives each version of a file its own ETag."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: Counter[str] = Counter()
        for name in ("trip-data", "misc"):
            (folder / name).mkdir(parents=True)
        for month in MONTHS:
            self.publish(month, trips=500)
        shapefile(folder / "misc" / "taxi_zones.zip")
        tlc = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                file = tlc.folder / self.path[1:]
                tlc.asked[f"{self.command} {file.name}"] += 1
                body = file.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", f'"{sha256(file)}"')
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def publish(self, month: str, trips: int) -> None:
        batches = SimulatedMonth(month, taxi="green", seed=1, trips=trips).batches()
        path = self.folder / "trip-data" / f"green_tripdata_{month}.parquet"
        pq.write_table(pa.Table.from_batches(batches), path)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def tlc(tmp_path: Path) -> Iterator[Tlc]:
    tlc = Tlc(tmp_path / "served")
    yield tlc
    if tlc.server.fileno() >= 0:
        tlc.close()


def test_a_republished_month_is_shown_then_taken_and_dvc_goes_on_from_it(
    make_clone: Callable[[Path], Clone], tmp_path: Path, tlc: Tlc
) -> None:
    clone = make_clone(tmp_path / "clone")
    clone.change(
        {
            "data.source": "tlc",
            "data.train": ["2021-01"],
            "data.validation": ["2021-02"],
            "data.test": [],
        }
    )
    server = {"TRIP_DURATION_TLC_BASE": tlc.address, "NO_PROXY": "127.0.0.1"}
    clone.command("ingest", **server)
    clone.git("commit", "--quiet", "--all", "--message=Ingested")
    tlc.asked.clear()

    said = clone.command("refresh", **server).stdout
    assert "As the source has it: 2021-01, 2021-02." in said
    assert tlc.asked == {f"HEAD green_tripdata_{month}.parquet": 1 for month in MONTHS}

    tlc.publish("2021-01", trips=600)
    said = clone.command("refresh", **server).stdout
    assert "2021-01 was republished" in said
    assert "TAKE=2021-01" in said
    assert "As the source has it: 2021-02." in said
    assert tlc.asked["GET green_tripdata_2021-01.parquet"] == 1
    assert "up to date" in clone.run("dvc", "status", "ingest").stdout
    assert rows_read(clone) == {"2021-01": 500, "2021-02": 500}

    assert "Taken: 2021-01." in clone.command("refresh", TAKE="all", **server).stdout
    tlc.close()
    assert rows_read(clone) == {"2021-01": 500, "2021-02": 500}  # until ingest has run
    said = clone.run("dvc", "repro", "ingest", **server).stdout
    assert "Running stage 'ingest'" in said
    assert rows_read(clone) == {"2021-01": 600, "2021-02": 500}
    assert tlc.asked["GET green_tripdata_2021-01.parquet"] == 1
    assert {path.name for path in (clone.folder / ".cache/source").iterdir()} == {
        "republished",
        "taxi_zones.zip",
        "taxi_zones.zip.json",
        *(f"green_tripdata_{month}.parquet{end}" for month in MONTHS for end in ("", ".json")),
    }
    assert not list((clone.folder / ".cache/source/republished").iterdir())

    done = clone.command("refresh", check=False, **server)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "check the network" in done.stderr


def rows_read(clone: Clone) -> dict[str, int]:
    months = json.loads(clone.read("metrics/ingest.json"))["months"]
    return {month: ledger["read"] for month, ledger in months.items()}
