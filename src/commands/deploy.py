"""``make deploy``: the monthly run on its schedule, with a server and a worker, until Ctrl-C."""

import datetime as dt
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trip_duration import drift, interrupts, orchestration
from trip_duration.errors import TripDurationError, redacted
from trip_duration.retraining import DEPLOYMENT, NEW_YORK
from trip_duration.runs import forget, lives_on

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

__all__ = ["deploy"]

POOL = "trip-duration"
PORT = 4200  # Prefect's usual one, if it is free
PATIENCE = 10.0  # seconds for processes that were killed to be gone
SHOWN = 5  # last lines of what Prefect said, where it fails


def deploy(root: Path) -> int:
    """Deploy prefect.yaml, take up what the last worker left, and work until Ctrl-C or SIGTERM.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    TripDurationError
        If Prefect refuses, a server without a scheduler runs here, or the worker ends by itself.
    """
    interrupts.listen()
    drift.prepare(root)
    server = orchestration.begin(root, watch=os.getpid(), port=PORT, schedules=True)
    orchestration.ready()
    if server and not server.schedules:
        raise TripDurationError(
            f"The Prefect server at {server.address} belongs to a pipeline that runs here, and has "
            "no scheduler: wait until that has ended, and run `make deploy` again."
        )
    where = server.address if server else redacted(os.environ.get("PREFECT_API_URL", "Prefect"))
    print(f"Prefect   {where}", flush=True)
    if _prefect("work-pool", "inspect", POOL, check=False).returncode:
        _prefect("work-pool", "create", POOL, "--type", "process")
    _prefect("deploy", "--name", DEPLOYMENT.split("/")[1])

    from prefect import get_client

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        for run in take_up(client, deployment, root, alone=server is not None):
            print(f"Taken up  {run.name}: its worker had ended; it goes on where it was")
        print(f"Deployed  {DEPLOYMENT}: {schedule(deployment)}")
    print(f"Worker    takes runs from the pool {POOL}; Ctrl-C ends it", flush=True)
    return _work()


def schedule(deployment: "DeploymentResponse") -> str:
    """When a deployment runs, and when next, in words."""
    from prefect.client.schemas.schedules import CronSchedule

    for entry in deployment.schedules:
        if isinstance(entry.schedule, CronSchedule) and entry.active:
            return f"{entry.schedule.cron} in {entry.schedule.timezone}, {_next(entry.schedule)}"
    return "its schedule is off; run it from Prefect's pages"


def _next(cron: object) -> str:
    import asyncio

    from prefect.server.schemas.schedules import CronSchedule

    made = CronSchedule.model_validate(cron, from_attributes=True)
    [moment] = asyncio.run(made.get_dates(n=1, start=dt.datetime.now(NEW_YORK)))
    return f"next on {moment:%Y-%m-%d at %H:%M}"


def take_up(
    client: "SyncPrefectClient", deployment: "DeploymentResponse", root: Path, *, alone: bool
) -> "list[FlowRun]":
    """Have the runs that a killed worker left behind scheduled again; they go on where they were.

    Parameters
    ----------
    client : SyncPrefectClient
        Of the server.
    deployment : DeploymentResponse
        The one that the runs belong to.
    root : Path
        The repository's folder, where each run notes its process.
    alone : bool
        Whether all workers of the server are here. Runs of others that left no note are theirs.

    Returns
    -------
    list of FlowRun
        Those that were scheduled again.
    """
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.states import AwaitingRetry

    unfinished = filters.FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    runs = client.read_flow_runs(
        flow_run_filter=filters.FlowRunFilter(
            state=filters.FlowRunFilterState(type=unfinished),
            deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment.id]),
        )
    )
    taken = []
    for run in runs:
        living = lives_on(root, str(run.id))
        if living or (living is None and not alone):
            continue
        client.set_flow_run_state(run.id, AwaitingRetry(), force=True)
        forget(root, str(run.id))
        taken.append(run)
    return taken


def _work() -> int:
    """Run a worker until it ends, or this is interrupted."""
    command = ["worker", "start", "--pool", POOL, "--type", "process"]
    command += ["--install-policy", "never", "--name", f"make deploy on {socket.gethostname()}"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", *command], start_new_session=True, env=_environment()
    )
    try:
        code = worker.wait()
    except KeyboardInterrupt:
        _end(worker)
        print("\nThe worker has ended; a run that it was in goes on with the next `make deploy`.")
        return 0
    raise TripDurationError(
        f"The worker ended by itself, with code {code}: see above, and run `make deploy` again."
    )


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """End the worker and its run at once: asked politely, it would wait for the run's end.

    All that a run writes is written under another name first, and its state stays Running, by
    which the next `take_up` knows it.
    """
    import psutil

    with suppress(psutil.Error):
        processes = psutil.Process(worker.pid).children(recursive=True)
        worker.kill()
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=PATIENCE)
    worker.wait()


def _environment() -> dict[str, str]:
    """This process's; the settings are the worker's own, so that its runs look for no server."""
    return {name: value for name, value in os.environ.items() if name != orchestration.OURS}


def _prefect(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-SHOWN:])
        raise TripDurationError(
            f"`prefect {' '.join(words[:2])}` failed: {redacted(said)}\nSee that the server "
            "answers, and that prefect.yaml is as it was committed; then run `make deploy` again."
        )
    return done
