"""Small models of all kinds, and a script that says which of them is the champion."""

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service import predictor
from service.models import Models
from trip_duration.params import Serve
from trip_duration.registry import Served, digest

TRIP = {
    "pickup": "2024-04-05T08:30:00",
    "pickup_zone": 74,
    "dropoff_zone": 41,
    "trip_distance": 1.1,
}

ROOT = Path(__file__).resolve().parents[2]

# `make serve` with another registry and limits of its own: arguments are JSON.
SERVE = """
import json, os, sys
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, "src")
from pathlib import Path
from service.models import Models
from service.server import run
from trip_duration.errors import TripDurationError
from trip_duration.params import Serve
command, limits = map(json.loads, sys.argv[1:])
try:
    run(Path.cwd(), Serve(**limits), Models(command))
except TripDurationError as error:
    sys.exit(str(error))
"""

# Prints the file's line at once and whenever it is another, until stdin closes.
FOLLOW = """
import os, sys, threading, time
def end():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=end, daemon=True).start()
said = ""
while True:
    line = open(sys.argv[1], encoding="utf-8").read()
    if line != said:
        said = line
        print(line, flush=True)
    time.sleep(0.02)
"""


def drawn(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Trips as arrays, some of unknown or odd distance."""
    draw = np.random.default_rng(seed)
    miles = draw.lognormal(0.7, 0.8, rows)
    miles[::7], miles[3::11], miles[5::13] = np.nan, 0.0, 70.0
    start = np.datetime64("2024-01-01", "s").astype(np.int64)
    return {
        "pickup": start + draw.integers(0, 366 * 86400, rows),
        "pickup_zone": draw.integers(1, 266, rows).astype(np.int32),
        "dropoff_zone": draw.integers(1, 266, rows).astype(np.int32),
        "trip_distance": miles,
    }


def bodies(trips: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The same trips as the service takes them."""
    times = trips["pickup"].astype("datetime64[s]").astype(str).tolist()
    rows = []
    for place, pickup in enumerate(times):
        row: dict[str, Any] = {"pickup": pickup}
        row |= {name: trips[name][place].item() for name in ("pickup_zone", "dropoff_zone")}
        miles = trips["trip_distance"][place].item()
        rows.append(row if np.isnan(miles) else row | {"trip_distance": miles})
    return rows


def make_model(
    folder: Path, preset: str = "metered", pace: float = 3.0, level: float | None = None
) -> Path:
    """Train a small model that says ``pace`` minutes a mile."""
    import xgboost as xgb

    from trip_duration.features import FeatureBuilder
    from trip_duration.files import write_json
    from trip_duration.intervals import calibrate_model, train_quantiles
    from trip_duration.splits import Rows

    columns = drawn(1500, seed=1)
    draw = np.random.default_rng(2)
    miles = np.nan_to_num(columns["trip_distance"], nan=2.0).clip(0.1, 20)
    minutes = pace * miles * draw.lognormal(0, 0.3, len(miles)) + 1
    trips = predictor.table(columns).append_column("duration", pa.array(minutes))
    builder = FeatureBuilder.fit([trips], preset=preset)
    made = builder.transform(trips)
    data = xgb.DMatrix(
        builder.matrix(made),
        label=minutes,
        feature_types=builder.feature_types,
        enable_categorical=True,
    )
    how = {"max_depth": 6, "nthread": 1, "num_parallel_tree": 2, "subsample": 0.8, "seed": 1}
    booster = xgb.train(how, data, 45)
    if level is not None:
        booster.set_attr(level=str(level), best_iteration="30")
    quantiles = train_quantiles(
        Rows.read([made], builder),
        level=0.9,
        rounds=25,
        nthread=1,
        names=builder.columns,
        types=builder.feature_types,
    )
    calibration = calibrate_model(booster, quantiles, builder, Rows.read([made], builder), 0.9)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(builder.to_json(), folder / "features.json")
    booster.save_model(folder / "model.ubj")
    quantiles.save_model(folder / "intervals.ubj")
    write_json(calibration.to_json(), folder / "intervals.json")
    return folder


def served(folder: Path, version: str, preset: str = "metered") -> Served:
    return Served(version, folder, digest(folder), "green", preset, ("2024-01",))


@pytest.fixture(scope="session")
def settings() -> Serve:
    return Serve(host="127.0.0.1", port=8000, max_trips=500, max_bytes=100_000, poll_seconds=1.0)


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Version 1: metered, three minutes a mile."""
    return served(make_model(tmp_path_factory.mktemp("first")), "1")


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Version 2: slower, stopped early, and scaled to the last days' level."""
    return served(make_model(tmp_path_factory.mktemp("second"), pace=5.0, level=1.037), "2")


@pytest.fixture(scope="session")
def booking(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return served(make_model(tmp_path_factory.mktemp("booking"), "booking"), "3", "booking")


@pytest.fixture(scope="session")
def course(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A one-hot model, whose trees are not walked side by side."""
    return served(make_model(tmp_path_factory.mktemp("course"), "course"), "4", "course")


class Registry:
    """Stands in for the registry: a file that names the champion, and the command that follows."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "champion.json"
        script = folder / "follow.py"
        script.write_text(FOLLOW, encoding="utf-8")
        self.command = [sys.executable, str(script), str(self.file)]

    def promote(self, champion: Served, **changed: Any) -> None:
        self.say(json.dumps(replace(champion, **changed).to_json()))

    def say(self, text: str) -> None:
        partial = self.file.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.file)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture
def following(registry: Registry) -> Iterator[Callable[[], Models]]:
    """Starts `Models` that follow the registry, and stops them."""
    started: list[Models] = []

    def start() -> Models:
        models = Models(registry.command)
        started.append(models)
        models.start()
        return models

    yield start
    for models in started:
        models.stop()


class Server:
    """The service in a process of its own, on the loopback; the port is free unless it is given."""

    def __init__(self, registry: Registry, settings: Serve, port: int | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = port or int(probe.getsockname()[1])
        limits = settings.model_copy(update={"port": self.port}).model_dump_json()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, json.dumps(registry.command), limits],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready_line(self) -> str:
        """Wait for the line that says that it answers."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ended(self, signum: int | None = None) -> tuple[int, str, str]:
        """Wait for its end, after a signal; its exit code, and what else it printed."""
        if signum is not None:
            self.process.send_signal(signum)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, settings: Serve, first: Served
) -> Iterator[Server]:
    """A server of version 1 for tests that leave it as it is."""
    registry = Registry(tmp_path_factory.mktemp("registry"))
    registry.promote(first)
    made = Server(registry, settings)
    made.ready_line()
    yield made
    assert made.ended(signal.SIGTERM)[0] == 0


@pytest.fixture
def serving(registry: Registry, settings: Serve) -> Iterator[Callable[..., Server]]:
    """Starts servers of the registry's champion, and ends them."""
    started: list[Server] = []

    def start(port: int | None = None) -> Server:
        server = Server(registry, settings, port)
        started.append(server)
        return server

    yield start
    for server in started:
        server.process.kill()
        server.process.communicate(timeout=60)  # closes its pipes too
