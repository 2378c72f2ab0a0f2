"""What serving.py runs in processes of their own: the servers of one model, and what asks them.

``serve ROOT PORT`` is the service on the model in ROOT's ``models/``; ``save MODELS FOLDER`` writes
the same model as MLflow logs it, for ``mlflow models serve``; ``ask PORT PATH CONNECTIONS SECONDS
BODIES`` posts the bodies of a JSON file, one after another over each connection, and prints how
long each answer took.
"""

import asyncio
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "src"
sys.path.insert(0, str(SOURCE))
WARM = 0.2  # of the seconds, at whose end the answers begin to count
PATIENCE = 30.0  # seconds that the last answers may take


def serve(root: str, port: str) -> None:
    """Be the service, as `make serve` is."""
    from service.server import run
    from trip_duration import params

    settings = params.load(Path(root) / "params.yaml").serve
    run(Path(root), settings.model_copy(update={"port": int(port)}))


def save(models: str, folder: str) -> None:
    """Write a model as `tracking.log_model` logs it, but into a folder."""
    import warnings

    warnings.filterwarnings("ignore")
    import mlflow.pyfunc

    from trip_duration import tracking
    from trip_duration.prediction import FILES

    mlflow.pyfunc.save_model(
        folder,
        python_model=str(SOURCE / "trip_duration" / "pyfunc.py"),
        artifacts={name: str(Path(models) / name) for name in FILES},
        code_paths=[str(SOURCE / "trip_duration")],
        signature=tracking.signature(),
        pip_requirements=[],
    )


class _Connection(asyncio.Protocol):
    """Asks, and asks again when it is answered."""

    def __init__(self, requests: list[bytes], first: int, ends: float) -> None:
        self._requests, self._place, self._ends = requests, first, ends
        self._buffer = b""
        self.seconds: list[tuple[float, float]] = []
        self.failed = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:  # uvloop's own kind
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._place = (self._place + 1) % len(self._requests)
        self._asked = time.perf_counter()
        self._transport.write(self._requests[self._place])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._buffer = b""
        now = time.perf_counter()
        self.seconds.append((now, now - self._asked))
        self.failed += not head.startswith(b"HTTP/1.1 200 ")
        if now < self._ends:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed += exc is not None
        self.done.set_result(None)


async def _ask(port: str, path: str, connections: str, seconds: str, bodies: str) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        "content-length: {}\r\n\r\n"
    )
    texts = [json.dumps(body).encode() for body in json.loads(Path(bodies).read_text())]
    requests = [head.format(len(text)).encode() + text for text in texts]
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    ends = began + float(seconds)
    asking = []
    for number in range(int(connections)):
        first = number * len(requests) // int(connections)
        made = partial(_Connection, requests, first, ends)
        asking.append((await loop.create_connection(made, "127.0.0.1", int(port)))[1])
    async with asyncio.timeout(float(seconds) + PATIENCE):
        await asyncio.gather(*(one.done for one in asking))
    counted = began + WARM * float(seconds)
    taken = sorted(t for one in asking for at, t in one.seconds if counted < at <= ends)
    print(
        json.dumps(
            {
                "per_second": len(taken) / (ends - counted),
                "p50": 1000 * taken[len(taken) // 2],
                "p99": 1000 * taken[int(0.99 * len(taken))],
                "failed": sum(one.failed for one in asking),
            }
        )
    )


def ask(*words: str) -> None:
    """Ask for some seconds; print requests a second, and milliseconds of the median and the p99."""
    import uvloop

    uvloop.run(_ask(*words))


if __name__ == "__main__":
    {"serve": serve, "save": save, "ask": ask}[sys.argv[1]](*sys.argv[2:])
