"""Prefect: one server for a whole pipeline, and what all flows and tasks have in common.

A stage calls `begin` first of all, before Prefect is imported. It finds the server that another
stage or ``make ui`` started, or starts one, and returns at once: imports and useful work go on
while the server starts. `ready` then waits for it.

DVC tells nobody when a pipeline ends. So each `begin` leaves a small file that names a process
(the nearest ancestor that is DVC, else the stage itself), and a thread inside the server ends the
server when the last of these processes is gone, however it went. Since the thread lives in the
server's own process, neither can outlive the other.

Whoever sets ``PREFECT_API_URL``, ``PREFECT_API_KEY`` or ``PREFECT_PROFILE`` has a server of their
own: that one is used, and nothing is started.
"""

import fcntl
import http.client
import json
import logging
import math
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar
from uuid import UUID

from trip_duration import interrupts, runs
from trip_duration.errors import SourceError, TripDurationError, redacted
from trip_duration.processes import asker, lives, living

if TYPE_CHECKING:
    import psutil
    from prefect import Flow, State

    from trip_duration.cluster import Cluster
    from trip_duration.params import Params

__all__ = [
    "Server",
    "begin",
    "environment",
    "fetching",
    "keep_console_clean",
    "mapped",
    "markdown",
    "on_cluster",
    "ready",
    "run",
    "serve",
    "stage_flow",
    "stay",
    "table",
    "task",
    "uses_cluster",
    "waiting_as_asked",
]

P = ParamSpec("P")
R = TypeVar("R")

HOST = "127.0.0.1"
PATIENCE = 120.0  # seconds; the first start migrates the database: 11 s, more on a slow disk
POLL = 0.5  # seconds between two looks at the watched processes
STOP = 3.0  # seconds that a server is given to end by itself
OURS = "TRIP_DURATION_ENVIRONMENT"  # what `begin` set, as JSON: all else is the user's own
HEALTH = {"prefect": "/api/health", "mlflow": "/health"}
USUAL_PORTS = {"prefect": 4200, "mlflow": 5000}

# A server started with `--no-services` records no task run and no event: the task-run recorder
# and the event persister are services too. So they stay, and those that serve deployments,
# schedules and automations, of which the pipeline has none, are switched off one by one; a server
# that runs deployments has them all.
IDLE_SERVICES = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TRIGGERS",
)

_SWITCHES = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED" for name in IDLE_SERVICES}
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_log = logging.getLogger(__name__)
_server: "Server | None" = None  # the one that this process uses
_cluster: "Cluster | None" = None  # the one that runs this stage's tasks


@dataclass(frozen=True)
class Server:
    """A server of ours, as ``server.json`` in its folder records it."""

    kind: str  # prefect or mlflow
    home: str  # its folder: .prefect or .mlflow
    port: int
    pid: int
    created: float  # when the process began, seconds since 1970: a pid alone may be used again
    schedules: bool = False  # whether its scheduler runs, so that deployments do

    @property
    def address(self) -> str:
        """The page for people."""
        return f"http://{HOST}:{self.port}"

    @property
    def api(self) -> str:
        """What ``PREFECT_API_URL`` is set to."""
        return f"{self.address}/api"

    @property
    def log(self) -> Path:
        """Where the server writes what it has to say."""
        return Path(self.home) / "server.log"


def environment(root: str | Path) -> dict[str, str]:
    """Settings of Prefect and MLflow for the repository at ``root``; the user's own values win.

    Both keep what they write below ``root`` (in ``.prefect`` and ``.mlflow``), send nothing to
    anybody and leave the console to the pipeline. Prefect's messages from INFO up are in its pages.
    """
    root = Path(root).resolve()
    settings = {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what fails is said in a line by tracking.py
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / '.mlflow' / 'mlflow.db'}",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_CLI_PROMPT": "false",
        # A flow's end joins its heartbeat thread, which sleeps in whole seconds: up to 1 s lost
        # in each flow. Nobody listens to the heartbeats here. Only JSON can say "none".
        "PREFECT_FLOWS": '{"heartbeat_frequency": null}',
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    settings |= dict.fromkeys(sorted(_SWITCHES), "false")
    own = _users_own()
    if any(f"PREFECT_{name}_HEARTBEAT_FREQUENCY" in own for name in ("FLOWS", "RUNNER")):
        del settings["PREFECT_FLOWS"]
    if _elsewhere(own):
        del settings["PREFECT_HOME"]  # the user's own has their profiles
    return {name: own.get(name, value) for name, value in settings.items()}


def begin(
    root: str | Path,
    *,
    watch: int | None = None,
    port: int | None = None,
    schedules: bool = False,
) -> Server | None:
    """Set the environment, and find the pipeline's Prefect server or start it.

    Call it before Prefect is imported. It waits for nothing; `ready` does.

    Parameters
    ----------
    root : str or Path
        The repository's folder.
    watch : int, optional
        The process for which the server is kept. Left out: the nearest ancestor that is DVC,
        else this process.
    port : int, optional
        The port to take, if a server must be started and the port is free.
    schedules : bool
        Whether a server that must be started runs schedules and deployments. One that is found is
        taken as it is.

    Returns
    -------
    Server or None
        None where the user has a server of their own.
    """
    global _server
    own, settings = _users_own(), environment(root)
    if schedules:
        for name in _SWITCHES - own.keys():
            del settings[name]
            os.environ.pop(name, None)
    os.environ.update(settings)
    _server = None
    if not _elsewhere(own):
        home = Path(settings["PREFECT_HOME"]).expanduser()
        _server = _join("prefect", home, watch or asker(), port, schedules)
        os.environ["PREFECT_API_URL"] = settings["PREFECT_API_URL"] = _server.api
        _bypass_proxy()
    ours = {name: value for name, value in settings.items() if name not in own}
    os.environ[OURS] = json.dumps(ours)
    return _server


def ready(timeout: float = PATIENCE) -> None:
    """Wait until the server that `begin` found or started answers.

    Raises
    ------
    TripDurationError
        If it ends or stays silent; the message names its log.
    """
    if _server is not None:
        _wait(_server, timeout)
    context = sys.modules.get("prefect.context")
    if context is not None:  # imported before `begin`, perhaps: have it read the environment again
        context.refresh_global_settings_context()


def stay(root: str | Path) -> None:
    """Have the server that this process was given kept for as long as it lives, if it is ours.

    A run whose worker was killed can then go on to its end.
    """
    home = Path(root).resolve() / ".prefect"
    server = _recorded(home)
    if server and server.api == os.environ.get("PREFECT_API_URL"):
        with _locked(home):
            _register(home, os.getpid())


def serve(root: str | Path) -> None:
    """Show Prefect's and MLflow's pages until Ctrl-C or SIGTERM (``make ui``).

    A Prefect server that a pipeline has started is shown as it is, and then kept for as long as
    either needs it; a pipeline that starts meanwhile finds this one.
    """
    interrupts.listen()
    this = os.getpid()
    ours = []
    try:
        prefect = begin(root, watch=this, port=USUAL_PORTS["prefect"], schedules=True)
        if prefect:
            ours.append(prefect)
        store = os.environ["MLFLOW_TRACKING_URI"]
        mlflow = None
        if not store.startswith(("http:", "https:")):
            home = Path(root).resolve() / ".mlflow"
            mlflow = _join("mlflow", home, this, USUAL_PORTS["mlflow"])
            ours.append(mlflow)
        for server in ours:
            _wait(server, PATIENCE)
        elsewhere = redacted(os.environ.get("PREFECT_API_URL", "-"))
        print(f"Prefect  {prefect.address if prefect else elsewhere}")
        print(f"MLflow   {mlflow.address if mlflow else redacted(store)}")
        print("Ctrl-C ends both.", flush=True)
        while all(living(server.pid, server.created) for server in ours) or not ours:
            time.sleep(POLL)
        raise TripDurationError(f"A page's server ended: see {ours[0].log} and {ours[-1].log}.")
    except KeyboardInterrupt:
        print()
    finally:
        for server in ours:
            _leave(server, this)


# -- flows, tasks and artifacts ------------------------------------------------------------------


def stage_flow(
    name: str, describe: Callable[..., str] | None = None
) -> "Callable[[Callable[P, R]], Flow[P, R]]":
    """Make a function a Prefect flow whose runs are called by the stage and its months.

    Parameters
    ----------
    name : str
        The flow's name, and the first word of its runs' names.
    describe : callable, optional
        Takes the flow's arguments (by their names) and gives the rest of the run's name. Left out,
        the taxi and the months of a first argument that has them in ``.data``: a run is then
        called ``ingest green 2021-01 … 2021-02``.
    """
    from prefect import flow
    from prefect.runtime import flow_run

    keep_console_clean()

    def run_name() -> str:
        arguments = flow_run.parameters
        rest = describe(**arguments) if describe else _months_of(*arguments.values())
        return f"{name} {rest}".strip()

    return flow(name=name, flow_run_name=run_name, persist_result=False, validate_parameters=False)


def task(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a function a Prefect task; nothing of it is cached or stored, since DVC does that.

    Parameters
    ----------
    function : callable, optional
        What to decorate. Left out, the decorator is given: ``@task(**fetching())``.
    **options
        Go to `prefect.task`.
    """
    import prefect
    from prefect.cache_policies import NO_CACHE

    decorate = prefect.task(cache_policy=NO_CACHE, persist_result=False, **options)
    return decorate if function is None else decorate(function)


def uses_cluster(name: str, params: "Params") -> bool:
    """Whether a stage has work for a cluster, and the settings name one."""
    stages = {"ingest", "featurize", "search"}
    stages |= {"train"} if params.engine.distributed_training else set()
    return params.engine.runner == "dask" and name in stages


def run(flow: Any, params: "Params", root: str | Path) -> None:
    """Run a stage's flow, its tasks by the runner that ``engine.runner`` names.

    Parameters
    ----------
    flow : Flow
        As `stage_flow` made it.
    params : Params
        Its one argument.
    root : str or Path
        The repository's folder.
    """
    global _cluster
    home = Path(root)
    _end_killed(home)
    noted: list[str] = []
    flow = flow.with_options(on_running=[partial(_note, home, noted)])
    try:
        if not uses_cluster(flow.name, params):
            flow(params)
            return
        from trip_duration import cluster

        with cluster.opened(params.engine, root) as _cluster:
            try:
                flow.with_options(task_runner=_cluster.task_runner())(params)
            finally:
                _cluster = None
    finally:
        for each in noted:
            runs.forget(home, each)


def _note(root: Path, noted: list[str], _flow: Any, run: Any, _state: Any) -> None:
    """Note, as a run of a stage begins, that this process does it."""
    noted.append(str(run.id))
    runs.note(root, noted[-1], runs.STAGE)


def _end_killed(root: Path) -> None:
    """Have Prefect say of stages that were killed that they crashed: nobody else tells it."""
    runs.tidy(root)
    dead = runs.killed(root, runs.STAGE)
    if not dead:
        return
    from prefect import get_client
    from prefect.client.schemas import filters
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        for run in dead:
            crashed: State[None] = Crashed(message="Its process was killed.")
            with suppress(ObjectNotFound, ValueError):  # no note of ours
                found = client.read_flow_run(UUID(run))
                if found.state is None or not found.state.is_final():
                    client.set_flow_run_state(found.id, crashed, force=True)
                mine = filters.FlowRunFilter(id=filters.FlowRunFilterId(any_=[found.id]))
                for part in client.read_task_runs(flow_run_filter=mine):
                    if part.state is None or not part.state.is_final():
                        client.set_task_run_state(part.id, crashed, force=True)
            runs.forget(root, run)


def on_cluster() -> "Cluster | None":
    """The cluster that runs this stage's tasks, if one does."""
    return _cluster


def mapped(
    task: Any,
    items: Sequence[tuple],
    *,
    reads: Callable[..., Iterable[Path]] | None = None,
    writes: Callable[..., Iterable[Path]] | None = None,
) -> list[Any]:
    """Run a task for each item: one after another here, or side by side on the cluster.

    Parameters
    ----------
    task : prefect.Task
        As `task` made it.
    items : sequence of tuple
        Its arguments.
    reads, writes : callable, optional
        Take the same arguments and give the paths of the files that the task reads and writes, for
        workers that do not see this folder.

    Returns
    -------
    list
        Results in the order of the items.
    """
    if _cluster is None:
        return [task(*item) for item in items]
    from trip_duration.files import remove_temporary

    try:
        found = dict(_cluster.map(task, items, reads=reads, writes=writes))
    finally:
        written = [path for item in items for path in (writes(*item) if writes else ())]
        for folder in sorted({path.parent for path in written}):
            remove_temporary(folder)  # of workers that were killed
    return [found[number] for number in range(len(items))]


def fetching(attempts: int = 5, seconds: float = 2.0) -> dict[str, Any]:
    """Options for a `task` that asks something outside: retries where they can help.

    Only a `SourceError` that is ``transient`` is retried, after ``seconds``, twice that, four
    times that and so on, each drawn at random between half and one and a half times as long so
    that many clients do not come back at once.

    Parameters
    ----------
    attempts : int
        How often to try, the first time included.
    seconds : float
        About how long to wait before the second attempt.
    """
    from prefect.tasks import exponential_backoff

    return {
        "retries": attempts - 1,
        "retry_delay_seconds": exponential_backoff(seconds),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": _worth_another_try,
    }


@contextmanager
def waiting_as_asked(longest: float = 120.0) -> Iterator[None]:
    """Wait as long as a server asked in ``Retry-After`` before its error goes on to a retry.

    Raises
    ------
    SourceError
        What was caught; no longer transient where the server asked for more than ``longest``
        seconds, since to come back earlier is what it asked not to do.
    """
    try:
        yield
    except SourceError as error:
        wait = error.retry_after or 0.0
        if error.transient and wait > longest:
            raise SourceError(
                f"{str(error).rstrip('.')}; it asks for {wait / 60:,.0f} minutes without another "
                "request, so run the command again after that.",
                retry_after=wait,
                status=error.status,
            ) from None
        if error.transient and wait:
            time.sleep(wait)
        raise


def table(key: str, rows: Iterable[Mapping[str, Any]], description: str | None = None) -> None:
    """Put a table into Prefect's pages, as the newest version of the artifact ``key``.

    Parameters
    ----------
    key : str
        Lower-case letters, digits and dashes.
    rows : iterable of mapping
        Column to value; NaN and infinities are left empty, since JSON has none.
    description : str, optional
        Shown above the table, as Markdown.
    """
    from prefect.artifacts import create_table_artifact

    cells = [{str(name): _cell(value) for name, value in row.items()} for row in rows]
    create_table_artifact(key=_artifact_key(key), table=cells, description=description)


def markdown(key: str, text: str, description: str | None = None) -> None:
    """Put Markdown into Prefect's pages, as the newest version of the artifact ``key``."""
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(key=_artifact_key(key), markdown=text, description=description)


def _months_of(*arguments: Any) -> str:
    data = getattr(arguments[0], "data", None) if arguments else None
    return str(getattr(data, "span", ""))


def _worth_another_try(task: Any, run: Any, state: Any) -> bool:
    """For Prefect: whether the exception of a failed task may go away by itself."""
    error = state.result(raise_on_failure=False)
    if not (isinstance(error, SourceError) and error.transient):
        return False
    _log.warning("%s Trying again.", error)
    return True


def _cell(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value  # NumPy's scalars
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _artifact_key(key: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]+", key):
        raise ValueError(f"artifact key {key!r}: only lower-case letters, digits and dashes")
    return key


class _Unsaid(logging.Filter):
    """Keeps from the console what is said elsewhere, or is no news.

    That is Prefect's word on an exception that it hands on, since its catcher says it once, and
    how many events a process that ends has still to send.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith("Still processing items"):
            return False
        of_a_run = record.name.startswith(("prefect.flow_runs", "prefect.task_runs"))
        return not of_a_run or not (
            record.exc_info or str(record.msg).startswith(("Finished in state", "Crash detected"))
        )


def keep_console_clean() -> None:
    """Keep from the console what Prefect says of errors that a stage says itself."""
    from prefect.logging.handlers import PrefectConsoleHandler

    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler) and not handler.filters:
            handler.addFilter(_Unsaid())


# -- finding and starting a server ---------------------------------------------------------------


def _users_own() -> dict[str, str]:
    """The environment without what a `begin` set, in this process or one that started it.

    So a pipeline that is started from within another one, in another clone, is its own.
    """
    ours = json.loads(os.environ.get(OURS, "{}"))
    return {name: value for name, value in os.environ.items() if ours.get(name) != value}


def _elsewhere(own: Mapping[str, str]) -> bool:
    """Whether the user has a Prefect server of their own."""
    return any(own.get(f"PREFECT_{name}") for name in ("API_URL", "API_KEY", "PROFILE"))


def _join(kind: str, home: Path, watch: int, port: int | None, schedules: bool = False) -> Server:
    """Have the server at ``home`` kept for the process ``watch``; start one if there is none."""
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        _register(home, watch)
        return _recorded(home) or _start(kind, home, port, schedules)


def _start(kind: str, home: Path, port: int | None, schedules: bool) -> Server:
    import psutil

    port = _free_port(port)
    source = Path(__file__).resolve().parents[1]
    paths = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [
        sys.executable,
        "-P",
        "-m",
        "trip_duration.orchestration",
        kind,
        str(home),
        str(port),
    ]
    pid = os.posix_spawn(
        sys.executable,
        command,
        {**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(home / "server.log"), _NEW_FILE, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,  # Ctrl-C is for the pipeline; the server sees the pipeline go
    )
    created = psutil.Process(pid).create_time()
    server = Server(kind, str(home), port, pid, created, schedules)
    partial = home / "server.json.partial"
    partial.write_text(json.dumps(asdict(server)), encoding="utf-8")
    partial.replace(home / "server.json")
    return server


def _recorded(home: Path) -> Server | None:
    """The server that ``server.json`` names, if its process lives."""
    try:
        server = Server(**json.loads((home / "server.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return server if living(server.pid, server.created) else None


def _wait(server: Server, timeout: float) -> None:
    page = server.kind.replace("prefect", "Prefect").replace("mlflow", "MLflow")
    deadline = time.monotonic() + timeout
    while not _answers(server):
        if living(server.pid, server.created) is None:
            raise TripDurationError(
                f"{page}'s server ended before it answered: see why in {server.log}, "
                "then run the command again."
            )
        if time.monotonic() > deadline:
            raise TripDurationError(
                f"{page}'s server (process {server.pid}) did not answer at {server.address} "
                f"within {timeout:.0f} seconds: see {server.log}, then run the command again."
            )
        time.sleep(0.05)


def _answers(server: Server) -> bool:
    """Whether the server is healthy, and is the one that has the port."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=5)
    try:
        connection.request("GET", HEALTH[server.kind])
        healthy = connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return healthy and _listens(server)


def _listens(server: Server) -> bool:
    import psutil

    try:
        process = psutil.Process(server.pid)
        return any(
            found.status == psutil.CONN_LISTEN and found.laddr.port == server.port
            for one in (process, *process.children(recursive=True))
            for found in one.net_connections(kind="tcp")
        )
    except psutil.Error:
        return False


def _free_port(wish: int | None) -> int:
    for port in filter(None, (wish,)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _bypass_proxy() -> None:
    """Keep calls to the server from a proxy that the environment names."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if HOST not in hosts:
            os.environ[name] = ",".join([*hosts, HOST])


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Alone at starting, joining and ending the server at ``home``; a lock dies with its holder."""
    with (home / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# -- whom a server is kept for -------------------------------------------------------------------


def _register(home: Path, pid: int) -> None:
    import psutil

    name = f"{pid}-{psutil.Process(pid).create_time():.2f}"
    (home / "watched").mkdir(exist_ok=True)
    (home / "watched" / name).touch()


def _leave(server: Server, pid: int) -> None:
    """Have the server kept for ``pid`` no more; wait until it is gone, or kept for another."""
    home = Path(server.home)
    with _locked(home):
        for path in (home / "watched").glob(f"{pid}-*"):
            path.unlink()
    deadline = time.monotonic() + STOP + 2 * POLL
    while time.monotonic() < deadline and living(server.pid, server.created):
        if any((home / "watched").glob("*-*")):
            return
        time.sleep(0.05)


class _Watch:
    """The processes that a server is kept for.

    A process is recognised by pid and start once, when it is first seen. From then on psutil's
    own handle says whether it lives, which holds even if somebody sets the clock.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._known: dict[str, psutil.Process | None] = {}

    def anybody(self) -> bool:
        """Whether one of them lives; the files of the dead are removed."""
        found = [self._lives(path) for path in (self.home / "watched").glob("*-*")]
        return any(found)

    def _lives(self, path: Path) -> bool:
        if path.name not in self._known:
            pid, _, created = path.name.partition("-")
            self._known[path.name] = living(int(pid), float(created))
        process = self._known[path.name]
        if process and lives(process):
            return True
        with suppress(OSError):  # on a disk that is read-only by now, it is looked at again
            path.unlink(missing_ok=True)
        return False


def _end_when_alone(home: Path) -> NoReturn:
    """End this server when nobody is left that it is kept for; runs in a thread of its own."""
    watch = _Watch(home)
    while True:
        time.sleep(POLL)
        if watch.anybody():
            continue
        try:
            with _locked(home):
                if watch.anybody():  # came while we waited for the lock
                    continue
                (home / "server.json").unlink(missing_ok=True)
        except OSError:  # the folder is gone, and so is the database
            pass
        _end()


def _end() -> NoReturn:
    """End this process and its children: politely at first, for the last events to be written.

    While Python is at its own end, this thread runs no more: a timer of the system ends a process
    that is stuck there.
    """
    import psutil

    signal.setitimer(signal.ITIMER_REAL, STOP + POLL)  # SIGALRM, which nobody handles
    this = psutil.Process()
    children = this.children(recursive=True)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in (*children, this):
            with suppress(psutil.NoSuchProcess):
                end(process)
        time.sleep(STOP)
    raise SystemExit  # not reached: a killed process does not get here


def _prepare_tracking(server: Server) -> None:
    """Make MLflow's store while the pipeline is at its first stages, without getting in its way."""
    while not _answers(server):
        time.sleep(POLL)
    command = [sys.executable, "-P", "-m", "trip_duration.tracking", "prepare"]
    subprocess.run(command, stdin=subprocess.DEVNULL)


def _take_turns_at_writing() -> None:
    """Have Prefect's transactions wait for each other where they would fail.

    A transaction that SQLite began as deferred and that reads first cannot wait when it then wants
    to write and another one has written meanwhile: "database is locked", a 503, and 2 s until
    the client asks again, in one flow out of ten. One that begins as immediate waits its turn.
    """
    import sqlalchemy.event

    @sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "before_cursor_execute", retval=True)
    def immediate(*call: Any) -> tuple[str, Any]:
        _, _, statement, parameters, _, _ = call
        return statement.replace("BEGIN DEFERRED", "BEGIN IMMEDIATE", 1), parameters


def _host(kind: str, home: Path, port: int) -> None:
    """Be the server: its command-line program, and a thread that ends it."""
    import psutil

    threading.Thread(target=_end_when_alone, args=(home,), daemon=True).start()
    arguments = ["server", "start", "--analytics-off"] if kind == "prefect" else ["server"]
    arguments += ["--host", HOST, "--port", str(port)]
    if kind == "prefect":
        _take_turns_at_writing()
        this = psutil.Process()
        server = Server(kind, str(home), port, this.pid, this.create_time())
        threading.Thread(target=_prepare_tracking, args=(server,), daemon=True).start()
    else:
        from trip_duration import tracking

        tracking.prepare()
        store = os.environ["MLFLOW_TRACKING_URI"]
        arguments += ["--workers", "1", "--backend-store-uri", store]
        arguments += ["--default-artifact-root", str(home / "artifacts")]
    sys.argv = [kind, *arguments]
    runpy.run_module(kind, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _host(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
