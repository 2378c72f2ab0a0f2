"""Run one stage of the pipeline: ``python src/stages ingest``, as dvc.yaml does.

Ends with exit code 0, or with one sentence on stderr and exit code 1. ``--debug`` shows the
traceback as well.
"""

import atexit
import importlib
import os
import sys
import time
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("ingest", "featurize", "search", "train", "evaluate")

# XGBoost's threads wait for each other by spinning. Where another process wants one of their cores,
# they spin while the one they wait for is not running: on two cores a fit of 1.7 s took 14.8 s, and
# 4.4 s where threads sleep once they have spun for a while. Alone it took 1.7 s either way, and
# 2.0 s where they sleep at once (OMP_WAIT_POLICY=passive). The bits are the same.
THREADS = {"GOMP_SPINCOUNT": "1000"}

SECONDS = 4.0  # that a stage is given to end on Ctrl-C or SIGTERM
KEPT = {  # of a stage that was interrupted
    "ingest": "the months that are written are kept",
    "search": "the trials that have ended are kept",
}


def main(arguments: list[str]) -> int:
    """Run the stage that is named."""
    debug = "--debug" in arguments or bool(os.environ.get("DEBUG"))
    names = [argument for argument in arguments if argument != "--debug"]
    if len(names) != 1 or names[0] not in STAGES:
        return _fail(f"expected one stage, one of {', '.join(STAGES)}; found {names}.")
    sys.path[0] = str(ROOT / "src")
    os.chdir(ROOT)
    if "OMP_WAIT_POLICY" not in os.environ:  # it sets the count as well, and is the user's own
        for variable, value in THREADS.items():  # read once, as libgomp is loaded with XGBoost
            os.environ.setdefault(variable, value)
    from trip_duration.errors import TripDurationError, disk_trouble, redacted
    from trip_duration.interrupts import INTERRUPTED, end_in_time, unwrapped

    end_in_time(SECONDS, lambda: _say_interrupted(names[0]))
    began = time.monotonic()
    try:
        with unwrapped():
            _run(names[0])
        _note_seconds(names[0], time.monotonic() - began)
        return 0
    except ModuleNotFoundError as error:
        if debug:
            raise
        return _fail(
            f"{sys.executable} has no {error.name}: activate the environment first "
            "(`make setup`, then `source .venv/bin/activate`), or use `make train`."
        )
    except KeyboardInterrupt:
        _say_interrupted(names[0])
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        if isinstance(error, TripDurationError):
            return _fail(f"{names[0]}: {error}")
        trouble = disk_trouble(error, ROOT)
        if trouble:
            return _fail(f"{names[0]}: {trouble}")
        first = next(iter(redacted(error).splitlines()), "no reason given")
        return _fail(
            f"{names[0]} failed unexpectedly: {type(error).__name__}: {first} (where: run it again "
            "with DEBUG=1)"
        )


def _run(name: str) -> None:
    from trip_duration import interrupts, orchestration, params, processes, readiness

    dvc = processes.asker()
    if dvc != os.getpid():
        interrupts.end_with(dvc)
    elif processes.abandoned():
        raise KeyboardInterrupt
    settings = params.load()
    readiness.check(settings)
    if orchestration.uses_cluster(name, settings):
        from trip_duration import cluster

        cluster.check(settings.engine)  # before a server is started in vain
    orchestration.begin(ROOT)
    if name == "train":  # the search before it is over, and DVC has its result
        from trip_duration.search import forget_finished

        forget_finished(ROOT / ".cache/search")
    stage = imported(name)
    orchestration.ready()
    orchestration.run(getattr(stage, name), settings, ROOT)


def imported(name: str) -> ModuleType:
    """A stage's module, and XGBoost where the stage uses it.

    XGBoost imports scikit-learn, a second's work, for wrappers that no stage uses, and does without
    it where it is not installed: which is what it finds here. Anyone else still can import it.
    """
    if name in ("search", "train", "evaluate") and "sklearn" not in sys.modules:
        sys.modules["sklearn"] = None  # type: ignore[assignment]  # Python's own way to refuse one
        try:
            importlib.import_module("xgboost")
        finally:
            del sys.modules["sklearn"]
    return importlib.import_module(f"stages.{name}")


def _say_interrupted(name: str) -> None:
    """One line, unless ``make train`` or another command of ours stands above, and says it."""
    if os.environ.get("TRIP_DURATION_COMMAND"):
        return
    kept = KEPT.get(name, "the stages before it are kept, and it begins anew")
    print(f"{name} was interrupted: {kept}; the same command goes on from there.", file=sys.stderr)


def _fail(sentence: str, code: int = 1) -> int:
    print(sentence, file=sys.stderr)
    return code


def _note_seconds(name: str, seconds: float) -> None:
    """For the table at the end of ``make train``; not an out, since it never repeats."""
    from trip_duration.files import write_json

    write_json({"at": time.time(), "seconds": seconds}, ROOT / f".cache/seconds/{name}.json")


def _leave_at_once() -> None:
    """Skip the interpreter's teardown, half a second of taking hundreds of modules apart.

    What is registered first runs last: threads have been joined and logs flushed by then.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    code = 1
    atexit.register(_leave_at_once)
    code = main(sys.argv[1:])
