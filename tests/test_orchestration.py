"""Against real servers on loopback: one for the module, others ended while they start."""

import errno
import http.client
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import psutil
import pytest

from trip_duration import orchestration, processes
from trip_duration.errors import SourceError, TripDurationError
from trip_duration.orchestration import Server, begin, environment

SOURCE = Path(orchestration.__file__).parents[1]
GONE = 10.0  # seconds within which a server must notice that it is alone, and be gone
PARAMS = SimpleNamespace(data=SimpleNamespace(span="green 2021-01 … 2021-02"))
USERS = (
    "PREFECT_API_URL",
    "PREFECT_API_KEY",
    "PREFECT_PROFILE",
    "PREFECT_HOME",
    orchestration.OURS,
)


def eventually(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def lives(server: Server) -> bool:
    return processes.living(server.pid, server.created) is not None


def post(server: Server, path: str, **body: object) -> list:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    headers = {"content-type": "application/json"}
    connection.request("POST", f"/api/{path}/filter", json.dumps(body), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def script(folder: Path, text: str, *, name: str = "script.py") -> Path:
    path = folder / name
    path.write_text(f"import sys\nsys.path.insert(0, {str(SOURCE)!r})\n{textwrap.dedent(text)}")
    return path


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    """What `begin` sets is unset after the module, and what its caller had set is not seen."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            patch.setenv(name, os.environ[name])
        for name in USERS:
            patch.delenv(name, raising=False)
        known = set(os.environ)
        yield
        for name in set(os.environ) - known:
            del os.environ[name]
    orchestration._server = None
    if "prefect.context" in sys.modules:
        sys.modules["prefect.context"].refresh_global_settings_context()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clone")


@pytest.fixture(scope="module")
def watched() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def started(root: Path, watched: subprocess.Popen[bytes]) -> Server:
    """The module's server, answering; kept for the process ``watched``."""
    server = begin(root, watch=watched.pid)
    assert server is not None
    orchestration.ready()
    return server


@pytest.fixture
def server(started: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The same, as the one that this process uses."""
    monkeypatch.setattr(orchestration, "_server", started)
    for name, value in environment(root).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_API_URL", started.api)
    orchestration.ready()
    return started


# -- the environment -----------------------------------------------------------------------------


def test_the_users_own_values_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example")
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "60")
    found = environment(tmp_path)
    assert found["MLFLOW_TRACKING_URI"] == "http://tracking.example"
    assert "PREFECT_FLOWS" not in found
    assert found["PREFECT_HOME"] == str(tmp_path / ".prefect")
    assert found["DO_NOT_TRACK"] == "1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PREFECT_API_URL", "http://prefect.example/api"),
        ("PREFECT_API_KEY", "key"),
        ("PREFECT_PROFILE", "mine"),
    ],
)
def test_a_server_of_the_users_own_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, name: value})
    assert begin(tmp_path) is None
    orchestration.ready()  # does not wait for what is not ours
    assert os.environ[name] == value
    assert "PREFECT_HOME" not in os.environ
    assert not list(tmp_path.iterdir())


def test_another_clone_does_not_inherit(server: Server, tmp_path: Path) -> None:
    assert os.environ["PREFECT_API_URL"] == server.api
    found = environment(tmp_path)
    assert found["PREFECT_HOME"] == str(tmp_path / ".prefect")
    assert str(tmp_path) in found["MLFLOW_TRACKING_URI"]


# -- one server, started once and gone afterwards ------------------------------------------------

STAGE = """
    import time
    from trip_duration import orchestration, processes
    print(orchestration.begin({root!r}).pid, flush=True)
    time.sleep({seconds})
"""


def stage(folder: Path, root: Path, seconds: float = 600, **options: object) -> subprocess.Popen:
    path = script(folder, STAGE.format(root=str(root), seconds=seconds), name="stage.py")
    command = [sys.executable, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def test_two_at_once_share_a_server_and_the_last_ends_it(tmp_path: Path) -> None:
    with stage(tmp_path, tmp_path / "clone") as one, stage(tmp_path, tmp_path / "clone") as two:
        pids = {int(process.stdout.readline()) for process in (one, two)}
        home = tmp_path / "clone" / ".prefect"
        found = orchestration._recorded(home)
        assert found is not None
        assert pids == {found.pid}
        one.kill()
        one.wait()
        time.sleep(3 * orchestration.POLL)
        assert lives(found)
        two.kill()
        assert eventually(lambda: not lives(found), GONE)
    assert not (home / "server.json").exists()
    assert not list((home / "watched").iterdir())


def test_a_stage_of_dvc_keeps_the_server_until_dvc_is_killed(tmp_path: Path) -> None:
    inner = script(tmp_path, STAGE.format(root=str(tmp_path / "clone"), seconds=0), name="stage.py")
    dvc = script(
        tmp_path,
        f"""
        import subprocess, time
        subprocess.run("{sys.executable} {inner}", shell=True)  # as DVC does
        print("done", flush=True)
        time.sleep(600)
        """,
        name="dvc",
    )
    command = [sys.executable, str(dvc), "repro"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        assert process.stdout.readline() == "done\n"
        time.sleep(3 * orchestration.POLL)
        found = orchestration._recorded(tmp_path / "clone" / ".prefect")
        assert found is not None  # the stage is over, the pipeline is not
        assert found.pid == pid
        process.kill()
        assert eventually(lambda: not lives(found), GONE)


def test_a_reused_pid_keeps_nothing_alive(tmp_path: Path) -> None:
    this = psutil.Process()
    (tmp_path / "watched").mkdir()
    other = tmp_path / "watched" / f"{this.pid}-{this.create_time() - 60:.2f}"
    other.touch()
    watch = orchestration._Watch(tmp_path)
    assert not watch.anybody()
    assert not other.exists()
    orchestration._register(tmp_path, this.pid)
    assert watch.anybody()


def test_a_folder_that_became_read_only_keeps_nothing_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        orchestration._register(tmp_path, other.pid)
        watch = orchestration._Watch(tmp_path)
        assert watch.anybody()
        other.kill()

    def fails(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", fails)
    assert not watch.anybody()

    class EndedError(Exception):
        pass

    def end() -> NoReturn:
        raise EndedError

    monkeypatch.setattr(orchestration, "_end", end)
    with pytest.raises(EndedError):
        orchestration._end_when_alone(tmp_path)


STUCK = """
    import re, signal, threading, time
    from trip_duration import orchestration
    orchestration.STOP = 0.2
    signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=orchestration._end, daemon=True).start()
    time.sleep(0.1)
    print("stuck", flush=True)
    re.match("(a+)+$", 40 * "a" + "b")  # for hours, and no thread of Python runs meanwhile
"""


def test_a_server_that_is_stuck_ends_as_well(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, script(tmp_path, STUCK)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "stuck\n"
    assert done.returncode == -signal.SIGALRM, done.stderr


@pytest.mark.parametrize("text", ["", "{}", '{"pid": 1'])
def test_a_broken_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "server.json").write_text(text)
    assert orchestration._recorded(tmp_path) is None


def test_a_record_of_a_reused_pid_is_none(tmp_path: Path) -> None:
    record = {"kind": "prefect", "home": "", "port": 1, "pid": os.getpid(), "created": 1.0}
    (tmp_path / "server.json").write_text(json.dumps(record))
    assert orchestration._recorded(tmp_path) is None


def test_a_server_that_dies_is_one_sentence_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in USERS:
        os.environ.pop(name, None)
    monkeypatch.setattr(orchestration, "_server", None)
    found = begin(tmp_path, watch=os.getpid())
    os.kill(found.pid, signal.SIGKILL)
    with pytest.raises(TripDurationError, match=r"ended before it answered.*server\.log"):
        orchestration.ready()


def test_a_wished_port_that_is_taken_is_another_one(server: Server) -> None:
    assert orchestration._free_port(server.port) != server.port


def test_another_one_on_the_port_is_not_ours(
    server: Server, watched: subprocess.Popen[bytes]
) -> None:
    assert orchestration._answers(server)
    ours = Server("prefect", server.home, server.port, watched.pid, 0.0)
    assert not orchestration._answers(ours)


# -- flows, tasks and artifacts ------------------------------------------------------------------


def test_a_flow_leaves_its_name_tasks_logs_and_artifacts(server: Server) -> None:
    from prefect import get_run_logger

    from trip_duration.orchestration import markdown, stage_flow, table, task

    @task
    def count(rows: int) -> int:
        get_run_logger().info("counting %s", rows)
        return rows

    @stage_flow("ingest")
    def ingest(params: SimpleNamespace) -> int:
        table("set-aside", [{"month": "2021-01", "rows": 3, "share": float("nan")}], "What was.")
        markdown("evaluation", "# Good")
        return count(1) + count(2)

    began = time.monotonic()
    assert ingest(PARAMS) == 3
    print(f"a flow: {time.monotonic() - began:.2f} s")

    name = "ingest green 2021-01 … 2021-02"
    (run,) = post(server, "flow_runs", flow_runs={"name": {"any_": [name]}})
    assert run["state_type"] == "COMPLETED"

    def states() -> list[str]:
        runs = post(server, "task_runs", flow_runs={"id": {"any_": [run["id"]]}})
        return [found["state_type"] for found in runs]

    assert eventually(lambda: states() == ["COMPLETED"] * 2, 60)
    ours = {"flow_run_id": {"any_": [run["id"]]}}
    assert eventually(
        lambda: "counting 1" in [log["message"] for log in post(server, "logs", logs=ours)], 60
    )
    artifacts = {found["key"]: found for found in post(server, "artifacts", artifacts=ours)}
    rows = artifacts["set-aside"]["data"]
    assert (json.loads(rows) if isinstance(rows, str) else rows) == [
        {"month": "2021-01", "rows": 3, "share": None}
    ]
    assert artifacts["evaluation"]["data"] == "# Good"


def test_a_run_can_be_described(server: Server) -> None:
    from trip_duration.orchestration import stage_flow

    @stage_flow("score", describe=lambda month: f"month {month}")
    def score(month: str) -> str:
        from prefect.runtime import flow_run

        return flow_run.name

    assert score("2024-01") == "score month 2024-01"


KILLED = """
import os, sys, time
from types import SimpleNamespace
from trip_duration.orchestration import run, stage_flow, task

def heard(client, task_run):
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_task_run(task_run).state.is_running()
    except ObjectNotFound:
        return False

@task
def work():
    if sys.argv[2] == "killed":
        from prefect import get_client
        from prefect.runtime import task_run

        with get_client(sync_client=True) as client:
            while not heard(client, task_run.id):
                time.sleep(0.05)
        os._exit(9)

@stage_flow("train")
def train(params):
    work()

local = SimpleNamespace(runner="local", distributed_training=False)
data = SimpleNamespace(span=f"{sys.argv[2]} {sys.argv[3]}")
run(train, SimpleNamespace(engine=local, data=data), sys.argv[1])
"""


def test_the_run_of_a_stage_that_was_killed_has_crashed(server: Server, tmp_path: Path) -> None:
    source = str(Path(orchestration.__file__).parents[1])

    def stage(end: str, number: int) -> int:
        words = [sys.executable, "-c", KILLED, str(tmp_path), end, str(number)]
        return subprocess.run(
            words, env=os.environ | {"PYTHONPATH": source}, timeout=240, check=False
        ).returncode

    def states(kind: str, end: str, number: int) -> list[str]:
        runs = {"name": {"any_": [f"train {end} {number}"]}}
        return [found["state_name"] for found in post(server, kind, flow_runs=runs)]

    assert stage("killed", 1) == 9
    (tmp_path / ".cache/runs/.one.json.partial").touch()  # of one killed while it noted its run
    assert stage("ended", 2) == 0
    assert states("flow_runs", "killed", 1) == ["Crashed"]
    assert eventually(lambda: states("task_runs", "killed", 1) == ["Crashed"], 60)
    assert states("flow_runs", "ended", 2) == ["Completed"]
    assert [path.name for path in (tmp_path / ".cache/runs").iterdir()] == ["lock"]
    # What Prefect does not know, as after its database was removed, is forgotten.
    assert stage("killed", 3) == 9
    [note] = (tmp_path / ".cache/runs").glob("*.json")
    note.with_stem("no-run").write_bytes(note.read_bytes())
    note.rename(note.with_stem("b" * 8 + "-0000-4000-8000-000000000000"))
    assert stage("ended", 4) == 0
    assert states("flow_runs", "killed", 3) == ["Running"]
    assert [path.name for path in (tmp_path / ".cache/runs").iterdir()] == ["lock"]


def test_an_artifact_key_is_checked() -> None:
    with pytest.raises(ValueError, match="Set Aside"):
        orchestration.markdown("Set Aside", "text")


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (SourceError("busy.", transient=True), 3),
        (SourceError("not published.", transient=False), 1),
        (TripDurationError("wrong."), 1),
        (ConnectionError("not ours"), 1),
    ],
)
def test_only_transient_errors_are_tried_again(
    server: Server, error: Exception, attempts: int
) -> None:
    from trip_duration.orchestration import fetching, stage_flow, task

    tried = []

    @task(**fetching(attempts=3, seconds=0.01))
    def fetch() -> None:
        tried.append(time.monotonic())
        raise error

    @stage_flow("fetching")
    def fetch_all() -> None:
        fetch()

    with pytest.raises(type(error), match=str(error)) as caught:
        fetch_all()
    assert caught.value is error
    assert len(tried) == attempts


def test_retries_end_with_the_first_success(server: Server) -> None:
    from trip_duration.orchestration import fetching, task

    errors = [SourceError("busy.", transient=True)]

    @task(**fetching(attempts=3, seconds=0.01))
    def fetch() -> str:
        if errors:
            raise errors.pop()
        return "here"

    assert fetch() == "here"


def test_a_stage_finds_the_server_and_says_its_error_once(
    server: Server, root: Path, tmp_path: Path
) -> None:
    path = script(
        tmp_path,
        f"""
        from trip_duration import orchestration, processes
        from trip_duration.errors import SourceError
        print(orchestration.begin({str(root)!r}).pid)

        @orchestration.task
        def fetch():
            raise SourceError("Month 2030-01 is not published.")

        @orchestration.stage_flow("ingest")
        def ingest():
            fetch()

        orchestration.ready()
        try:
            ingest()
        except SourceError as error:
            print(error)
        """,
    )
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=240)
    assert done.stdout == f"{server.pid}\nMonth 2030-01 is not published.\n"
    assert done.stderr == ""


def test_mlflows_store_is_made_in_the_background(server: Server, root: Path) -> None:
    assert eventually((root / ".mlflow" / "mlflow.db").exists, 60)


def test_the_pages_are_shown_until_they_are_not(server: Server, root: Path, tmp_path: Path) -> None:
    """`serve` takes the server that is up, adds MLflow's, and takes only its own away."""
    from trip_duration import orchestration

    path = script(
        tmp_path, f"from trip_duration import orchestration; orchestration.serve({str(root)!r})"
    )
    with subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True) as ui:
        lines = [ui.stdout.readline().split() for _ in range(2)]
        assert lines[0] == ["Prefect", server.address]
        mlflow = orchestration._recorded(root / ".mlflow")
        assert lines[1] == ["MLflow", mlflow.address]
        assert orchestration._answers(mlflow)
        children = psutil.Process(mlflow.pid).children(recursive=True)
        began = time.monotonic()
        ui.terminate()
        assert ui.wait(timeout=60) == 0
        assert time.monotonic() - began < GONE
    assert eventually(lambda: not lives(mlflow), GONE)
    assert not any(child.is_running() for child in children)
    assert lives(server)


def test_at_last_the_server_goes_with_whom_it_was_kept_for(
    server: Server, watched: subprocess.Popen[bytes]
) -> None:
    watched.kill()  # not waited for: a zombie is gone too
    assert eventually(lambda: not lives(server), GONE)
    assert not (Path(server.home) / "server.json").exists()
    with pytest.raises(ConnectionRefusedError):
        post(server, "flow_runs")


def test_a_run_has_its_own_server_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ".prefect"
    home.mkdir()
    this = psutil.Process()
    server = Server("prefect", str(home), 4200, this.pid, this.create_time(), schedules=True)
    (home / "server.json").write_text(json.dumps(asdict(server)))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    orchestration.stay(tmp_path)
    assert not (home / "watched").exists()  # the user's own is theirs to keep
    monkeypatch.setenv("PREFECT_API_URL", server.api)
    orchestration.stay(tmp_path)
    [watched] = (home / "watched").iterdir()
    assert watched.name.startswith(f"{this.pid}-")


def test_a_server_that_schedules_has_all_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, str]] = []

    def join(kind: str, home: Path, watch: int, port: int | None, schedules: bool) -> Server:
        found = {name for name in os.environ if name.startswith("PREFECT_SERVER_SERVICES_")}
        started.append({"schedules": str(schedules), **{name: os.environ[name] for name in found}})
        return Server(kind, str(home), 4200, 1, 0.0, schedules)

    monkeypatch.setattr(orchestration, "_join", join)
    monkeypatch.setattr(orchestration, "_server", None)
    with monkeypatch.context() as patch:
        others = ("PREFECT_", "MLFLOW_", "TRIP_DURATION_")
        plain = {name: os.environ[name] for name in os.environ if not name.startswith(others)}
        patch.setattr(os, "environ", plain)
        begin(tmp_path)
        begin(tmp_path, schedules=True)
    off = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED" for name in orchestration.IDLE_SERVICES}
    assert {name for name, value in started[0].items() if value == "false"} == off
    assert started[1] == {"schedules": "True"}
