"""Dask: the same tasks, run by the workers of a cluster in place of this process.

A stage's tasks name their files by paths relative to the repository's folder. A worker that sees
this folder runs them there. With ``engine.storage`` it need not: what a task reads goes through the
storage into a folder of the worker's own, and what it writes comes back the same way, so that DVC
finds all files here. Files in the storage are named by their SHA-256, so nothing there is ever
overwritten, two workers that do the same work do not disturb each other, and all of it may be
removed between two runs.

Nothing here imports Dask before a cluster is used: it is an extra (``make setup EXTRAS=dask``).
"""

import functools
import hashlib
import importlib.util
import logging
import os
import platform
import queue
import socket
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from trip_duration import files
from trip_duration.errors import TripDurationError
from trip_duration.files import sha256

if TYPE_CHECKING:
    from distributed import Client

    from trip_duration.params import Engine

__all__ = ["Cluster", "Home", "Storage", "check", "code_digest", "opened"]

T = TypeVar("T")

HOST = "127.0.0.1"
CONNECT = 5.0  # seconds for a scheduler to take a connection
PATIENCE = 30.0  # seconds for a first worker to come
ALONE = 60.0  # seconds without any worker after which a run is given up
LOOK = 2.0  # seconds between two looks at whether anybody is left
# The packages whose version decides bytes, or whether two processes understand each other.
DECISIVE = (
    *("numpy", "pyarrow", "scikit-learn", "scipy", "xgboost", "xgboost-cpu"),
    *("cloudpickle", "dask", "distributed", "prefect"),
)
# Stores whose writes are whole or not there; in others a file is renamed once it is whole.
WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"})

_log = logging.getLogger(__name__)
_known: set[str] = set()  # on a worker: the code that was found to be the driver's


# -- before anything starts ----------------------------------------------------------------------


def check(engine: "Engine") -> None:
    """Make sure that Dask is installed and that the scheduler takes connections.

    Raises
    ------
    TripDurationError
        If not; it takes `CONNECT` seconds at most.
    """
    for name in ("distributed", "prefect_dask"):
        if importlib.util.find_spec(name) is None:
            raise TripDurationError(
                f"engine.runner is dask, and {sys.executable} has no {name}: add it with "
                "`make setup EXTRAS=dask`, or set engine.runner=local."
            )
    address = engine.dask_scheduler
    if address is None:
        return
    parts = urlsplit(address)
    try:
        socket.create_connection((str(parts.hostname), int(parts.port or 0)), CONNECT).close()
    except OSError as error:
        raise _absent(address, error.strerror or str(error)) from None


def _absent(address: str, reason: str) -> TripDurationError:
    reason = reason.rstrip(".")
    return TripDurationError(
        f"no Dask scheduler answers at {address}, as engine.dask_scheduler says ({reason}): start "
        f"one with `dask scheduler` and workers with `dask worker {address} --nthreads 1`, correct "
        "the address, or set it to null for a cluster on this machine."
    )


def code_digest() -> str:
    """A digest of the sources beside this file, of Python's version and of `DECISIVE` packages.

    A worker with another digest might write other bytes.
    """
    digest = hashlib.sha256(".".join(platform.python_version_tuple()[:2]).encode())
    source = Path(__file__).resolve().parents[1]
    for path in sorted(source.rglob("*.py")):
        digest.update(path.relative_to(source).as_posix().encode() + b"\0" + path.read_bytes())
    for name in DECISIVE:
        try:
            digest.update(f"{name} {version(name)}".encode())
        except PackageNotFoundError:
            continue
    return digest.hexdigest()


# -- storage -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Storage:
    """Files by their SHA-256 below an fsspec URL.

    Attributes
    ----------
    url : str
        Like ``s3://bucket/folder``; the store's own package reads credentials from the environment.
    """

    url: str

    def put(self, path: str | Path) -> str:
        """Bring a file there, unless it is there; gives its SHA-256."""
        digest = sha256(path)
        with self._saying("written to"):
            system, base = self._system()
            name = f"{base}/{digest}"
            system.invalidate_cache()
            if system.exists(name) and system.size(name) == Path(path).stat().st_size:
                return digest
            system.makedirs(base, exist_ok=True)
            if self.url.partition("://")[0] in WHOLE:
                system.put_file(str(path), name)
            else:
                partial = f"{base}/.{digest}.{uuid.uuid4().hex}"
                system.put_file(str(path), partial)
                system.mv(partial, name)
        return digest

    def get(self, digest: str, path: str | Path) -> None:
        """Bring a file from there to ``path``: whole, or not at all."""
        with self._saying("read from"), files.atomic(path) as temporary:
            system, base = self._system()
            system.get_file(f"{base}/{digest}", str(temporary))
            if sha256(temporary) != digest:
                raise TripDurationError(
                    f"{self.url}/{digest} does not hold what its name says: remove it there, "
                    "and run the command again."
                )

    def _system(self) -> tuple[Any, str]:
        import fsspec

        system, base = fsspec.url_to_fs(self.url)
        return system, base.rstrip("/")

    @contextmanager
    def _saying(self, what: str) -> Iterator[None]:
        try:
            yield
        except TripDurationError:
            raise
        except Exception as error:  # each kind of store has errors of its own
            first = next(iter(str(error).splitlines()), "") or "no reason given"
            raise TripDurationError(
                f"engine.storage {self.url} can't be {what} ({type(error).__name__}: "
                f"{first}): correct it, or give the driver and the workers what the store "
                "asks for in their environment."
            ) from None


# -- on a worker ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Home:
    """Where a worker runs a task, and with which code.

    Attributes
    ----------
    root : str
        The repository's folder on the driver's machine; without storage on the worker's as well.
    code : str
        The driver's `code_digest`.
    storage : Storage or None
        Through which files come and go.
    log : str or None
        The file for what a worker of this machine's own cluster prints, such as XGBoost's lines
        about its rank, which no setting silences; others print where they were started.
    """

    root: str
    code: str
    storage: Storage | None = None
    log: str | None = None

    def enter(self) -> Path:
        """Go to the folder where tasks run here, which is given; once for each process.

        Raises
        ------
        TripDurationError
            If the worker has other code, or does not see the folder.
        """
        if self.code not in _known:
            if code_digest() != self.code:
                raise TripDurationError(_other_code(_address(), self.root))
            if self.log:
                with Path(self.log).open("ab") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
            _known.add(self.code)
            files.unique_temporaries()
        folder = Path(self.root)
        if self.storage:
            from distributed import get_worker

            folder = Path(get_worker().local_directory) / "trip-duration"
            folder.mkdir(exist_ok=True)
        try:
            os.chdir(folder)
        except OSError as error:
            raise TripDurationError(
                _unseen(_address(), self.root, error.strerror or "no reason given")
            ) from None
        return folder

    def place(self, reads: dict[str, str]) -> dict[Path, Path]:
        """Have the files there that a task reads; gives where those from outside the folder are.

        Parameters
        ----------
        reads : dict
            SHA-256 by path, as the task names it.
        """
        elsewhere = {}
        for name, digest in reads.items():
            here = Path(name)
            if _outside(here):
                here = Path("outside") / digest / here.name
                elsewhere[Path(name)] = here
            if self.storage and not (here.is_file() and sha256(here) == digest):
                self.storage.get(digest, here)
        return elsewhere


def _outside(path: Path) -> bool:
    return path.is_absolute() or ".." in path.parts


def _address() -> str:
    from distributed import get_worker

    return str(get_worker().address)


def _other_code(address: str, root: str) -> str:
    return (
        f"the Dask worker {address} has other code or other packages than this process: start it "
        f"from {root} with `.venv/bin/dask worker`, or from a clone of the same commit whose "
        "environment `make setup EXTRAS=dask` made."
    )


def _unseen(address: str, root: str, reason: str) -> str:
    return (
        f"the Dask worker {address} does not see {root} ({reason}): mount the folder there under "
        "the same path, or set engine.storage to an fsspec URL that driver and workers reach."
    )


def _sent(
    function: Callable[..., T],
    home: Home,
    reads: dict[str, str],
    writes: Callable[..., Iterable[Path]] | None,
) -> Callable[..., tuple[T, dict[str, str]]]:
    """What a worker runs: the function in its folder, with what it reads there.

    Gives the result, and the SHA-256 of each file that it left in the storage.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> tuple[T, dict[str, str]]:
        home.enter()
        elsewhere = home.place(reads) if home.storage else {}
        given = [elsewhere.get(each, each) if isinstance(each, Path) else each for each in args]
        named = {
            name: elsewhere.get(each, each) if isinstance(each, Path) else each
            for name, each in kwargs.items()
        }
        result = function(*given, **named)
        if not (home.storage and writes):
            return result, {}
        written = writes(*args, **kwargs)
        return result, {path.as_posix(): home.storage.put(path) for path in written}

    return run


def _look_around(root: str, shared: bool, prefect: tuple[str, int] | None) -> Callable[[], dict]:
    """A function that says what a worker finds; it comes to the worker with its code."""

    def look() -> dict[str, str]:
        import os
        import socket

        found = {}
        try:
            from trip_duration import cluster, orchestration

            found["code"] = cluster.code_digest()
            orchestration.keep_console_clean()
        except ImportError as error:
            found["missing"] = str(error.name)
        if shared:
            try:
                os.listdir(root)  # noqa: PTH208 - a worker may lack our imports
            except OSError as error:
                found["unseen"] = error.strerror or "no reason given"
        if prefect:
            try:
                socket.create_connection(prefect, 5).close()
            except OSError as error:
                found["prefect"] = error.strerror or str(error)
        return found

    return look


# -- on the driver -------------------------------------------------------------------------------


class Cluster:
    """A cluster whose workers were found to be fit for the work.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    home : Home
        What the workers are told.
    """

    def __init__(self, client: "Client", home: Home) -> None:
        self.client = client
        self.home = home
        self.address = str(client.scheduler.address)
        self._alone_since: float | None = None
        self._put: dict[str, tuple[tuple[int, int], str]] = {}

    def task_runner(self) -> Any:
        """Prefect's task runner on this cluster."""
        from prefect_dask import DaskTaskRunner

        return DaskTaskRunner(address=self.address)

    def put(self, paths: Iterable[str | Path]) -> dict[str, str]:
        """SHA-256 by path of files that workers will read; brought to the storage if there is one.

        Without storage nothing is done, and nothing returned.
        """
        if self.home.storage is None:
            return {}
        found = {}
        for path in map(Path, paths):
            stat = path.stat()
            state = (stat.st_size, stat.st_mtime_ns)
            known = self._put.get(str(path))
            if known is None or known[0] != state:
                known = self._put[str(path)] = (state, self.home.storage.put(path))
            found[str(path)] = known[1]
        return found

    def map(
        self,
        task: Any,
        items: Sequence[tuple],
        *,
        reads: Callable[..., Iterable[Path]] | None = None,
        writes: Callable[..., Iterable[Path]] | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Submit a Prefect task for each item to its flow's runner; gives results as they come.

        No more are submitted than the workers have threads, so that after an error only what runs
        already is awaited.

        Parameters
        ----------
        task : prefect.Task
            What to run.
        items : sequence of tuple
            Its arguments.
        reads, writes : callable, optional
            Take the same arguments and give the paths that the task reads and writes.

        Yields
        ------
        (int, result)
            The item's number and what the task returned.

        Raises
        ------
        Exception
            Of the items that failed, the error of the first.
        TripDurationError
            If the workers or the scheduler are gone.
        """
        waiting = list(enumerate(items))[::-1]
        done: queue.SimpleQueue[int] = queue.SimpleQueue()
        running: dict[int, Any] = {}
        failed: dict[int, Exception] = {}
        self._alone_since = None
        while running or (waiting and not failed):
            while waiting and not failed and len(running) < self._threads():
                number, item = waiting.pop()
                needed = self.put(reads(*item)) if reads else {}
                sent = task.with_options()
                sent.fn = _sent(task.fn, self.home, needed, writes)
                future = running[number] = sent.submit(*item)
                future.wrapped_future.add_done_callback(_putting(done, number))
            try:
                number = done.get(timeout=LOOK)
            except queue.Empty:
                self._look()
                continue
            try:
                result, written = running.pop(number).result()
                self._bring(written)
            except Exception as error:
                failed[number] = self._translated(error)
            else:
                yield number, result
        if failed:
            raise failed[min(failed)]

    def _threads(self) -> int:
        return max(sum(self.client.nthreads().values()), 1)

    def _bring(self, written: dict[str, str]) -> None:
        for path, digest in written.items():
            assert self.home.storage is not None
            if not (Path(path).is_file() and sha256(path) == digest):
                self.home.storage.get(digest, path)

    def _look(self) -> None:
        """Raise if the scheduler is gone, or all workers are, and have been for a while."""
        if self.client.status != "running":
            raise TripDurationError(_gone(self.address))
        try:
            threads = self.client.nthreads()
        except Exception:
            raise TripDurationError(_gone(self.address)) from None
        if threads:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > ALONE:
            raise TripDurationError(
                f"the Dask scheduler {self.address} has had no worker for {ALONE:.0f} seconds: see "
                f"why they ended, start some with `dask worker {self.address} --nthreads 1`, and "
                "run the command again."
            )

    def _translated(self, error: Exception) -> Exception:
        """What happened, in a sentence, where it is the cluster that failed."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            return TripDurationError(
                f"{error.allowed_failures + 1} Dask workers ended while they ran the same task, "
                f"the last at {error.last_worker.address}: see their logs; too little memory is "
                "the usual reason, so give each worker more, or fewer threads."
            )
        if isinstance(error, CancelledError):
            return TripDurationError(_gone(self.address))
        if isinstance(error, ModuleNotFoundError) and str(error.name).startswith(
            ("stages", "trip_duration")
        ):
            return TripDurationError(_other_code("that joined last", self.home.root))
        return error


def _putting(done: "queue.SimpleQueue[int]", number: int) -> Callable[[Any], None]:
    return lambda _: done.put(number)


def _gone(address: str) -> str:
    return (
        f"the Dask scheduler {address} is gone: see why in its log, start it and its workers again "
        "and run the command again; what was finished is kept."
    )


@contextmanager
def opened(engine: "Engine", root: str | Path) -> Iterator[Cluster]:
    """Connect to the scheduler, or start a cluster here, and look whether its workers are fit.

    Parameters
    ----------
    engine : Engine
        The settings.
    root : str or Path
        The repository's folder.

    Raises
    ------
    TripDurationError
        If Dask is missing, nobody answers, no worker comes, or one can't do the work.
    """
    check(engine)
    import dask
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    storage = Storage(engine.storage) if engine.storage else None
    log = None
    if engine.dask_scheduler is None:
        log = Path(root).resolve() / ".cache/dask.log"
        log.parent.mkdir(exist_ok=True)
        log.write_bytes(b"")
    home = Home(str(Path(root).resolve()), code_digest(), storage, str(log) if log else None)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set({"distributed.comm.timeouts.connect": "10s"}):
        address = engine.dask_scheduler
        with _local(engine.workers, root) if address is None else _given(address) as found:
            try:
                with warnings.catch_warnings():  # `code_digest` knows which versions matter
                    warnings.simplefilter("ignore", VersionMismatchWarning)
                    client = Client(found, timeout=CONNECT, set_as_default=False)
            except (OSError, TimeoutError, ValueError) as error:
                raise _absent(str(found), str(error).splitlines()[0]) from None
            with client:
                _check_workers(client, home)
                yield Cluster(client, home)


@contextmanager
def _given(address: str) -> Iterator[str]:
    yield address


@contextmanager
def _local(workers: int, root: str | Path) -> Iterator[str]:
    """A scheduler and workers of this machine's, for as long as the block runs."""
    from distributed import LocalCluster

    scratch = Path(root).resolve() / ".cache/dask"
    scratch.mkdir(parents=True, exist_ok=True)

    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host=HOST,
        dashboard_address=f"{HOST}:0",
        worker_dashboard_address=f"{HOST}:0",
        silence_logs=logging.CRITICAL,
        local_directory=str(scratch),
    ) as started:
        yield str(started.scheduler_address)


def _check_workers(client: "Client", home: Home) -> None:
    """Raise the sentence about the first worker that can't do the work."""
    address = str(client.scheduler.address)
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise TripDurationError(
            f"the Dask scheduler {address} has no worker: start some with `dask worker {address} "
            "--nthreads 1`, from this folder."
        ) from None
    prefect = urlsplit(os.environ.get("PREFECT_API_URL", ""))
    port = prefect.port or (443 if prefect.scheme == "https" else 80)
    server = (prefect.hostname, port) if prefect.hostname else None
    look = _look_around(home.root, home.storage is None, server)
    for worker, found in sorted(client.run(look, on_error="return").items()):
        if isinstance(found, Exception):
            raise TripDurationError(
                f"the Dask worker {worker} can't run code of this process "
                f"({type(found).__name__}: {found}): start it with the same Python, "
                f"from {home.root}."
            )
        if found.get("code") != home.code:
            missing = found.get("missing")
            if missing and missing.partition(".")[0] != "trip_duration":
                raise TripDurationError(
                    f"the Dask worker {worker} has no {missing}: start it in an environment that "
                    "`make setup EXTRAS=dask` made."
                )
            raise TripDurationError(_other_code(worker, home.root))
        if "unseen" in found:
            raise TripDurationError(_unseen(worker, home.root, found["unseen"]))
        if "prefect" in found:
            raise TripDurationError(
                f"the Dask worker {worker} does not reach Prefect's server at {prefect.hostname}:"
                f"{port} ({found['prefect']}): set PREFECT_API_URL to a server that the driver and "
                "all workers reach."
            )
