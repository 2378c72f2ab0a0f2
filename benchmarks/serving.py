"""Requests for one trip a second, and how long they take, beside ``mlflow models serve``.

Both servers answer for the model in models/ on this machine, in turns, and are asked for one trip
at a time over 1, 8 and 32 connections that stay open, by a client on the same cores. MLflow's
server runs with the number of workers and of threads that answers most.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from report import ROOT, Claim, in_turns, report

CHILD = Path(__file__).resolve().parent / "serving_child.py"
CONNECTIONS = (1, 8, 32)
FASTER = 10.0  # times as many requests a second, at least
TRIPS = 500
PATIENCE = 120.0  # seconds until a server answers
WAYS = {  # of MLflow's server: workers, and threads of OpenMP
    "1 worker": ("1", "2"),
    "1 worker of 1 thread": ("1", "1"),
    "2 workers": ("2", "2"),
    "2 workers of 1 thread": ("2", "1"),
}

Body = Mapping[str, Any]


def main() -> int:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as servers:
        folder = Path(scratch)
        trips = _trips()
        asked: dict[str, list[Body]] = {"ours": trips}
        asked["mlflow"] = [{"dataframe_records": [trip]} for trip in trips]
        for name, bodies in asked.items():
            (folder / f"{name}.json").write_text(json.dumps(bodies))
        logged = folder / "logged"
        subprocess.run(
            [sys.executable, str(CHILD), "save", str(ROOT / "models"), logged], check=True
        )
        way = _best_way(logged, folder)
        ports = {
            "ours": servers.enter_context(_ours(folder)),
            "mlflow": servers.enter_context(_mlflow(logged, *WAYS[way])),
        }
        paths = {"ours": "/predict", "mlflow": "/invocations"}
        pairs = zip(asked["ours"][:50], asked["mlflow"][:50], strict=True)
        different = sum(
            _minutes(ports["ours"], paths["ours"], ours)
            != _minutes(ports["mlflow"], paths["mlflow"], theirs)
            for ours, theirs in pairs
        )
        claims = [Claim("answers that differ, of 50", different, "trips", 0.0)]
        for connections in CONNECTIONS:
            sides = {
                name: partial(
                    _asked, port, paths[name], connections, chosen.seconds, folder / f"{name}.json"
                )
                for name, port in ports.items()
            }
            claims += _claims(connections, in_turns(sides, chosen.rounds))
    conditions = (
        f"The model of models/, asked for single trips over connections that stay open; median of "
        f"{chosen.rounds} turns of {chosen.seconds:g} s each. MLflow's server with {way}."
    )
    return report("serving", claims, conditions)


def _claims(connections: int, found: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Claim]:
    def middle(side: str, figure: str) -> float:
        return statistics.median(turn[figure] for turn in found[side])

    of = f"{connections} connection{'s' if connections > 1 else ''}"
    ours, theirs = (
        {figure: middle(side, figure) for figure in ("per_second", "p50", "p99")}
        for side in ("ours", "mlflow")
    )
    failed = sum(turn["failed"] for turns in found.values() for turn in turns)
    return [
        Claim(
            f"{of}: requests a second",
            ours["per_second"] / theirs["per_second"],
            "times MLflow's",
            FASTER,
            at_least=True,
            detail=f"{ours['per_second']:.0f} and {theirs['per_second']:.0f} a second",
        ),
        Claim(
            f"{of}: p99",
            ours["p99"] / theirs["p99"],
            "times MLflow's",
            1.0,
            detail=f"{ours['p99']:.1f} ms and {theirs['p99']:.1f} ms",
        ),
        Claim(
            f"{of}: median",
            ours["p50"] / theirs["p50"],
            "times MLflow's",
            detail=f"{ours['p50']:.2f} ms and {theirs['p50']:.1f} ms",
        ),
        Claim(f"{of}: requests that failed", failed, "requests", 0.0),
    ]


def _trips() -> list[Body]:
    """Trips of the test month, or of the last there is, as one asks for them."""
    import pyarrow.parquet as pq

    months = sorted((ROOT / "data" / "trips").glob("*.parquet"))
    if not months:
        sys.exit("data/trips holds no month: run `make train` first.")
    columns = ["pickup", "pickup_zone", "dropoff_zone", "trip_distance"]
    rows = pq.read_table(months[-1], columns=columns).slice(0, TRIPS).to_pylist()
    return [row | {"pickup": row["pickup"].isoformat()} for row in rows]


def _best_way(logged: Path, folder: Path) -> str:
    """Which of `WAYS` answers most over 8 connections."""
    found = {}
    for way, (workers, threads) in WAYS.items():
        with _mlflow(logged, workers, threads) as port:
            turn = _asked(port, "/invocations", 8, 3.0, folder / "mlflow.json")
            found[way] = turn["per_second"]
            print(f"mlflow models serve, {way}: {turn['per_second']:.0f} a second", flush=True)
    return max(found, key=lambda way: found[way])


def _asked(
    port: int, path: str, connections: int, seconds: float, bodies: Path
) -> dict[str, float]:
    words = [str(port), path, str(connections), f"{seconds:g}", str(bodies)]
    done = subprocess.run(
        [sys.executable, str(CHILD), "ask", *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=seconds + PATIENCE,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _minutes(port: int, path: str, body: Body) -> float:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        said = json.loads(answer.read())
    return float(said["predictions"][0]["minutes"] if "predictions" in said else said["minutes"])


@contextmanager
def _ours(folder: Path) -> Iterator[int]:
    root = folder / "root"
    shutil.copytree(ROOT / "models", root / "models")
    shutil.copy(ROOT / "params.yaml", root)
    port = _free_port()
    command = [sys.executable, str(CHILD), "serve", str(root), str(port)]
    with _server(command, port, "/ready", {"OMP_NUM_THREADS": "1"}):
        yield port


@contextmanager
def _mlflow(logged: Path, workers: str, threads: str) -> Iterator[int]:
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(logged)]
    command += ["--env-manager", "local", "--port", str(port), "--workers", workers]
    bins = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with _server(command, port, "/ping", {"OMP_NUM_THREADS": threads, "PATH": bins}):
        yield port


@contextmanager
def _server(
    command: Sequence[str], port: int, path: str, environment: Mapping[str, str]
) -> Iterator[None]:
    """Run a server, and wait until it answers; its processes end with the block."""
    import psutil

    with tempfile.TemporaryFile() as words:
        process = psutil.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while not _answers(port, path):
                if process.poll() is not None or time.monotonic() > deadline:
                    words.seek(0)
                    sys.exit(f"{command} does not answer:\n{words.read().decode()}")
                time.sleep(0.1)
            yield
        finally:
            family = [*process.children(recursive=True), process]
            for one in family:
                with suppress(psutil.NoSuchProcess):
                    one.terminate()
            for one in psutil.wait_procs(family, timeout=10)[1]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
