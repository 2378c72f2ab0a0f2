"""Runs in a small clone for test_dask.py: the stages on one machine, then on a cluster.

``python tests/pipeline/dask_steps.py tcp://… storage-folder`` prints what it found as JSON, last.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))
os.chdir(ROOT)

from trip_duration import cluster, files, orchestration, params  # noqa: E402

orchestration.begin(ROOT)

from stages import featurize, ingest, search, train  # noqa: E402
from trip_duration import distributed_training  # noqa: E402
from trip_duration.errors import TripDurationError  # noqa: E402
from trip_duration.ingest import summary  # noqa: E402
from trip_duration.trips import month_path  # noqa: E402

OUTS = ("data", "search", "models/features.json", "models/baselines.json", "metrics/ingest.json")


def written() -> dict[str, str]:
    """SHA-256 by path of what the first three stages wrote; hidden files too, but git's."""
    paths = [path for out in OUTS for path in [Path(out), *Path(out).rglob("*")]]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
        if path.is_file() and path.name != ".gitignore"
    }


def forget() -> None:
    for path in (Path(path) for path in written()):
        path.unlink()
    shutil.rmtree(".cache/search", ignore_errors=True)


def with_engine(**engine: Any) -> params.Params:
    named = {f"engine.{name}": value for name, value in engine.items()}
    return params.override(Path("params.yaml").read_text(), named)[1]


def refused(call: Any) -> str:
    try:
        call()
    except TripDurationError as error:
        return str(error)
    return ""


@orchestration.task(**orchestration.fetching())
def write_month_or_die(settings: params.Params, month: str, raw: None, zones: None) -> dict:
    """Kill the first worker that has half written the second month."""
    if month == settings.data.months[1] and not Path("killed").exists():
        with files.atomic(month_path("data/trips", settings.data.taxi, month)) as half:
            half.write_bytes(b"half")
            Path("killed").write_text(half.name)
            os.kill(os.getpid(), signal.SIGKILL)
    return ingest.write_month.fn(settings, month, raw, zones)


@orchestration.stage_flow("ingest")
def ingest_while_one_dies(settings: params.Params) -> None:
    items = [(settings, month, None, None) for month in settings.data.months]
    done = orchestration.mapped(
        write_month_or_die, items, reads=ingest.read_by, writes=ingest.written_by
    )
    ledgers = dict(zip(settings.data.months, done, strict=True))
    files.write_json(summary(ledgers, settings.data.test), "metrics/ingest.json")


def rmse() -> dict[str, float]:
    return json.loads(Path("metrics/train.json").read_text())["rmse"]


def kill_one(connected: cluster.Cluster, pids: dict[str, int]) -> None:
    """Kill a worker once both boost."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        busy = connected.client.processing()
        boosting = [worker for worker, keys in busy.items() if any("fn-" in k for k in keys)]
        if len(boosting) == len(pids):
            time.sleep(0.2)
            os.kill(pids[min(boosting)], signal.SIGKILL)
            return
        time.sleep(0.01)


def main(address: str, storage: str) -> None:
    found: dict[str, Any] = {}
    local = with_engine()
    dask = with_engine(runner="dask", dask_scheduler=address)
    stored = with_engine(runner="dask", dask_scheduler=address, storage=f"file://{storage}")
    orchestration.ready()
    # dask_steps.py is no part of the code that workers must share, which lies below src.
    steps = [ingest.ingest, featurize.featurize, search.search]
    for name, settings in (("local", local), ("dask", dask), ("storage", stored)):
        forget()
        for flow in steps:
            orchestration.run(flow, settings, ROOT)
        found[name] = written()
    found["stored"] = sorted(path.name for path in Path(storage).iterdir())

    orchestration.run(train.train, local, ROOT)
    found["rmse"] = {"local": rmse()}
    distributed = with_engine(runner="dask", dask_scheduler=address, distributed_training=True)
    for name in ("distributed", "again"):
        orchestration.run(train.train, distributed, ROOT)
        found["rmse"][name] = rmse()

    attempts: list[int] = []
    once = distributed_training._train

    def counted(*arguments: Any) -> Any:
        attempts.append(1)
        return once(*arguments)

    distributed_training._train = counted
    # Rounds enough to be at them yet when the worker is killed, on a fast machine too.
    longer = distributed.train.model_copy(update={"num_boost_round": 200})
    with cluster.opened(distributed.engine, ROOT) as connected:
        killer = threading.Thread(
            target=kill_one, args=(connected, dict(connected.client.run(os.getpid)))
        )
        killer.start()
        orchestration.run(train.train, distributed.model_copy(update={"train": longer}), ROOT)
        killer.join()
    found["rmse"]["killed"] = rmse()
    found["attempts"] = len(attempts)

    with cluster.opened(dask.engine, ROOT) as connected:
        connected.client.wait_for_workers(2, timeout=60)
        home, client = connected.home, connected.client
        look = cluster._check_workers
        found["refused"] = {
            "code": refused(lambda: look(client, replace(home, code="another"))),
            "folder": refused(lambda: look(client, replace(home, root="/not/there"))),
        }
        server = os.environ["PREFECT_API_URL"]
        os.environ["PREFECT_API_URL"] = "http://127.0.0.1:1/api"
        found["refused"]["prefect"] = refused(lambda: look(client, home))
        os.environ["PREFECT_API_URL"] = server

    shutil.rmtree("data/trips")
    orchestration.run(ingest_while_one_dies, dask, ROOT)
    found["died"] = Path("killed").read_text()
    found["survived"] = {name: sha for name, sha in written().items() if "trips" in name}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
