"""MLflow: every search, model and evaluation, each with what it came from.

MLflow takes 3 s to import and 5 to 10 s to make its store, and neither changes a result. So the
store is made once, in the background (`prepare`), and a search logs from a thread of its own.

Whatever goes wrong in here costs one line on the console and never a result: what the pipeline
computes is in DVC's outs, and MLflow is the diary.
"""

import fcntl
import functools
import logging
import os
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from trip_duration.errors import TripDurationError, redacted

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

__all__ = [
    "EXPERIMENT",
    "SearchLog",
    "connect",
    "log_model",
    "prepare",
    "search_run",
    "signature",
    "store_file",
    "tags",
]

P = ParamSpec("P")
R = TypeVar("R")

EXPERIMENT = "trip-duration"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # has MLflow's page open on the runs
STAGES = ("ingest", "featurize", "search", "train", "evaluate")  # each has what those before wrote
PATIENCE = 180.0  # seconds that the end of a search waits for its last trials to be logged
LONGEST = {"tag": 5000, "param": 6000}  # characters, MLflow's own limits

# What a logged model needs to predict; versions are those installed.
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "xgboost")

_log = logging.getLogger(__name__)


# -- the store -----------------------------------------------------------------------------------


def prepare() -> None:
    """Make MLflow's SQLite store, or bring it to the installed MLflow's schema; else do nothing.

    Any number of processes may call it at once. The migrations run on a file beside the store
    that takes its place when they are done, so whoever sees a store sees a whole one, also after
    a kill. They run in a process of their own, since Alembic replaces the root logger's handlers.
    A store that was not made here is left as it is.

    Raises
    ------
    TripDurationError
        If the migrations fail.
    """
    store = store_file()
    if store is None or not _is_due(store):
        return
    store.parent.mkdir(parents=True, exist_ok=True)
    with (store.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_due(store):  # nobody made it while we waited
            for stale in store.parent.glob(f"{store.name}.partial*"):
                stale.unlink(missing_ok=True)
            # A killed caller's migrations may still run: no two may share SQLite's side files.
            partial = store.with_name(f"{store.name}.partial{os.getpid()}")
            _migrate_apart(store, partial)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(store)
            _stamp(store).write_text(version("mlflow"), encoding="utf-8")


def store_file() -> Path | None:
    """The SQLite file that the tracking URI names; None where it names something else."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _stamp(store: Path) -> Path:
    return store.with_name(f"{store.name}.version")


def _is_due(store: Path) -> bool:
    """Whether there is no store, or one that we made with another MLflow."""
    if not store.exists():
        return True
    stamp = _stamp(store)
    return stamp.exists() and stamp.read_text(encoding="utf-8") != version("mlflow")


def _migrate_apart(store: Path, partial: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "trip_duration.tracking", "migrate", store, partial],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise TripDurationError(
            f"MLflow could not make its store {store} ({reason}): move that file away to begin a "
            "new one."
        )


def _migrate(store: str, partial: str) -> None:
    """Run ``mlflow db upgrade`` on a copy that nobody reads yet, so it need not be flushed."""
    import runpy
    import sqlite3
    from contextlib import closing

    import sqlalchemy.event

    if Path(store).exists():
        with closing(sqlite3.connect(store)) as old, closing(sqlite3.connect(partial)) as new:
            old.backup(new)

    @sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "connect")
    def without_flushing(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    sys.argv = ["mlflow", "db", "upgrade", f"sqlite:///{partial}"]
    runpy.run_module("mlflow", run_name="__main__", alter_sys=True)


def connect() -> "tuple[MlflowClient, str]":
    """A client of the tracking server or store, and the id of our experiment; both are made."""
    prepare()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI"))
    store = store_file()
    artifacts = str(store.parent / "artifacts") if store else None
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return client, client.create_experiment(
                EXPERIMENT, artifact_location=artifacts, tags=KIND
            )
        except MlflowException:  # another process may have made it just now
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return client, found.experiment_id


def _never_fatal(function: Callable[P, R]) -> Callable[P, R | None]:
    """Whatever MLflow raises becomes one line, and None."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            _log.warning("MLflow has no record of this: %s", _one_line(error))
            return None

    return wrapped


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(redacted(error).split())[:300]}"


# -- what a run came from ------------------------------------------------------------------------


def tags(stage: str, *, months: str = "", root: str | Path = ".") -> dict[str, str]:
    """What a stage's run came from, as MLflow's tags.

    Parameters
    ----------
    stage : str
        One of DVC's stages.
    months : str
        The months it was about, as people write them.
    root : str or Path
        The repository's folder.

    Returns
    -------
    dict
        ``stage``, ``months``, ``git.commit`` (ending in ``-dirty`` where files differ from it) and
        ``dvc.<path>`` with the hash of each file that the stages before this one wrote, as
        ``dvc.lock`` has it.
    """
    found = {"stage": stage, "months": months, "git.commit": _commit(Path(root))}
    found |= {f"dvc.{path}": digest for path, digest in _hashes(stage, Path(root)).items()}
    return {name: value[: LONGEST["tag"]] for name, value in found.items() if value}


def _commit(root: Path) -> str:
    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return ""  # not a clone, or no commit yet


def _hashes(stage: str, root: Path) -> dict[str, str]:
    from ruamel.yaml import YAML

    try:
        lock = YAML(typ="safe", pure=True).load(root / "dvc.lock")
    except OSError:
        return {}
    before = STAGES[: STAGES.index(stage)]  # what the lock says of later ones is of an older run
    outs = (out for name in before for out in lock["stages"].get(name, {}).get("outs", []))
    return {out["path"]: out.get("md5", "") for out in outs}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value)[: LONGEST["param"]] for name, value in values.items()}


# -- a search ------------------------------------------------------------------------------------


class SearchLog:
    """Logs a search's trials from a thread of its own; made by `search_run`."""

    def __init__(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._name, self._params, self._tags = name, _texts(params), dict(tags)
        self._summary: dict[str, float] = {}
        self._started = _milliseconds()
        self._failed = False
        self.run_id: str | None = None  # the parent's, once the thread has made it
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def trial(
        self,
        number: int,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        status: str = "FINISHED",
        *,
        seconds: float = 0.0,
    ) -> None:
        """Log a finished trial as a child run; returns at once.

        Parameters
        ----------
        number : int
            The trial's number.
        params, metrics : mapping
            What was tried and how it did. A metric that is not finite is left out.
        status : str
            MLflow's: FINISHED, FAILED or KILLED.
        seconds : float
            How long it took.
        """
        ended = _milliseconds()
        began = ended - round(seconds * 1000)
        given = (number, _texts(params), dict(metrics), status, began, ended)
        self._jobs.put(lambda: self._log_trial(*given))

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Set the metrics of the search as a whole: the best value, the number of trials."""
        self._summary |= metrics

    def close(self, status: str) -> None:
        """Log what still waits, and end the parent run; waits for it, but not for ever."""
        self._jobs.put(lambda: self._close(status))
        self._jobs.put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            _log.warning("MLflow lags behind by over %.0f s: the last trials are lost.", PATIENCE)

    def _work(self) -> None:
        """The thread: import MLflow, open the parent run, then log what comes."""
        jobs: list[Callable[[], None]] = [self._open]
        while job := (jobs.pop() if jobs else self._jobs.get()):
            if self._failed:
                continue
            try:
                job()
            except Exception as error:
                self._failed = True
                _log.warning("MLflow does not record the rest of this search: %s", _one_line(error))

    def _open(self) -> None:
        self._client, self._experiment = connect()
        run = self._client.create_run(
            self._experiment, start_time=self._started, tags=self._tags, run_name=self._name
        )
        self.run_id = run.info.run_id
        self._log_batch(self.run_id, self._params, {})

    def _log_trial(
        self,
        number: int,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        status: str,
        began: int,
        ended: int,
    ) -> None:
        run = self._client.create_run(
            self._experiment,
            start_time=began,
            tags={"mlflow.parentRunId": self.run_id, "trial": str(number)},
            run_name=f"{self._name} trial {number}",
        )
        self._log_batch(run.info.run_id, params, metrics)
        self._client.set_terminated(run.info.run_id, status=status, end_time=ended)

    def _log_batch(
        self, run_id: str, params: Mapping[str, str], metrics: Mapping[str, float]
    ) -> None:
        _log_batch(self._client, run_id, params, metrics)

    def _close(self, status: str) -> None:
        assert self.run_id is not None
        self._log_batch(self.run_id, {}, self._summary)
        self._client.set_terminated(self.run_id, status=status)


@contextmanager
def search_run(
    name: str, params: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
) -> Iterator[SearchLog]:
    """Record a search as a parent run with a child for each trial.

    MLflow is imported in a thread when the block begins, and trials are logged in that thread as
    they come: one batch each. Enter the block when the search's own imports are done.

    Parameters
    ----------
    name : str
        The parent run's name.
    params : mapping, optional
        The search's settings.
    tags : mapping, optional
        What it came from, by `tags`.
    """
    log = SearchLog(name, params or {}, tags or {})
    try:
        yield log
    except BaseException as error:
        log.close("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    log.close("FINISHED")


def _milliseconds() -> int:
    return round(time.time() * 1000)


def _log_batch(
    client: "MlflowClient", run_id: str, params: Mapping[str, str], metrics: Mapping[str, float]
) -> None:
    import math

    from mlflow.entities import Metric, Param

    now = _milliseconds()
    client.log_batch(
        run_id,
        metrics=[
            Metric(name, float(value), now, 0)
            for name, value in metrics.items()
            if math.isfinite(value)
        ],
        params=[Param(name, value) for name, value in params.items()],
    )


# -- models and evaluations ----------------------------------------------------------------------


def signature() -> "ModelSignature":
    """What the logged model takes and gives: trips as they are known, and minutes with their ends.

    Only the pickup's time and the zones must be there. Zones and other whole numbers may be of any
    number type, since pandas makes them integers where none is missing and floats otherwise, and
    MLflow would accept only one of the two.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import AnyType

    number = AnyType()
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.datetime, "pickup"),
        ColSpec(number, "pickup_zone"),
        ColSpec(number, "dropoff_zone"),
        ColSpec(DataType.double, "trip_distance", required=False),
    ]
    others = ("passenger_count", "vendor", "rate_code", "trip_type", "store_and_forward")
    inputs += [ColSpec(number, name, required=False) for name in others]
    ends = ("minutes", "lower", "upper")
    said: list[ColSpec | TensorSpec] = [ColSpec(DataType.double, name) for name in ends]
    return ModelSignature(Schema(inputs), Schema(said))


def example() -> "pd.DataFrame":
    """Two trips as the logged model takes them."""
    import pandas as pd

    return pd.DataFrame(
        {
            "pickup": pd.to_datetime(["2021-02-01 08:30:00", "2021-02-06 23:05:00"]),
            "pickup_zone": [74.0, 166.0],
            "dropoff_zone": [41.0, 239.0],
            "trip_distance": [1.1, 3.4],
            "passenger_count": [1.0, 2.0],
        }
    )


@_never_fatal
def log_model(
    files: Sequence[str | Path],
    *,
    name: str,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Log the model as a pyfunc that takes raw trips and gives minutes with their intervals.

    There is no pickle in it.

    Parameters
    ----------
    files : sequence of str or Path
        The model's, `prediction.FILES`.
    name : str
        The run's name.
    params, metrics, tags : mapping, optional
        Of the run.

    Returns
    -------
    str or None
        The model's URI for ``mlflow.pyfunc.load_model``; None, and a line on the console, where
        MLflow failed.
    """
    package = Path(__file__).resolve().parent
    with _run(name, params, metrics, tags) as (_, run_id), _without_bytecode():
        mlflow = _import_with_pyfunc()
        mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", ""))
        with mlflow.start_run(run_id=run_id, nested=True):
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(package / "pyfunc.py"),
                artifacts={Path(file).name: str(file) for file in files},
                code_paths=[str(package)],
                signature=signature(),
                input_example=example(),
                pip_requirements=_requirements(),
            )
    return str(logged.model_uri)


@contextmanager
def _run(
    name: str,
    params: Mapping[str, Any] | None,
    metrics: Mapping[str, float] | None,
    tags: Mapping[str, str] | None,
) -> "Iterator[tuple[MlflowClient, str]]":
    client, experiment = connect()
    run_id = client.create_run(experiment, tags=dict(tags or {}), run_name=name).info.run_id
    try:
        _log_batch(client, run_id, _texts(params or {}), metrics or {})
        yield client, run_id
    except BaseException:
        client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id, status="FINISHED")


@contextmanager
def _without_bytecode() -> Iterator[None]:
    """MLflow runs pyfunc.py where it lies: what Python compiles of it would join the model."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _import_with_pyfunc() -> Any:
    with warnings.catch_warnings():  # MLflow warns of a type hint of its own
        warnings.filterwarnings("ignore", message=".*Any type hint", category=UserWarning)
        import mlflow.pyfunc
    return mlflow


def _requirements() -> list[str]:
    def pinned(name: str) -> str:
        try:
            return f"{name}=={version(name)}"
        except ModuleNotFoundError:  # the same module, from the wheel without a GPU
            return f"{name}-cpu=={version(f'{name}-cpu')}"

    return [pinned(name) for name in REQUIREMENTS]


if __name__ == "__main__":
    if sys.argv[1] == "migrate":
        _migrate(*sys.argv[2:])
    else:
        os.nice(10)  # the pipeline goes first
        prepare()
