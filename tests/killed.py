"""Registers and rolls back in processes that are killed, each at a moment that it is given.

    python killed.py SEED COUNT

First in a copy of the registry in ROOT, by a process that does what ACTION says. Then COUNT times,
in another copy, by a process that is killed at a moment drawn with SEED: before or after one of the
steps that write. Others look at what there is, do the same again, and look again. Each of them
comes out as a line of JSON. ROOT, ACTION and WORKSPACE are in the environment.

MLflow is imported once, and the processes are forks that share nothing they write.
"""

import functools
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient

from trip_duration import registry, tracking
from trip_duration.errors import TripDurationError

STEPS = (
    (MlflowClient, "create_run"),
    (mlflow.pyfunc, "log_model"),
    (MlflowClient, "set_terminated"),
    (MlflowClient, "create_registered_model"),
    (MlflowClient, "create_model_version"),
    (MlflowClient, "set_registered_model_alias"),
    (MlflowClient, "set_model_version_tag"),
    (MlflowClient, "update_model_version"),
    (registry, "write_json"),
    (registry, "_append"),
    (Path, "unlink"),
    (Path, "rename"),
)


# What the processes would else import each for itself; none of it starts a thread.
LATE = (
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.utils.requirements_utils",
    "scipy.sparse",
    "sklearn.feature_extraction",
    "trip_duration.features",
    "xgboost",
)


def arm(moment: int | None) -> Callable[[], int]:
    """Have this process killed at a moment; what is given tells how many it has passed."""
    passed = 0

    def tick() -> None:
        nonlocal passed
        if passed == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    for owner, name in STEPS:
        step = getattr(owner, name)

        def watched(*args: Any, _step: Callable[..., Any] = step, **kwargs: Any) -> Any:
            tick()
            done = _step(*args, **kwargs)
            tick()
            return done

        setattr(owner, name, functools.wraps(step)(watched))
    return lambda: passed


def seen(root: Path) -> dict[str, Any]:
    """The registry as others see it."""
    served = registry.champion(root)
    with registry._registry(root) as client:
        assert client is not None
        versions = client.search_model_versions(f"name='{registry.MODEL}'")
        aliases = client.get_registered_model(registry.MODEL).aliases if versions else {}
    return {
        "aliases": {name: str(version) for name, version in aliases.items()},
        "versions": {
            str(version.version): [
                version.tags["digest"],
                version.tags.get("promoted"),
                version.tags.get("previous"),
                "rolled_back" in version.tags,
                (version.description or "").partition(",")[0],
            ]
            for version in versions
        },
        "served": served.version if served else None,
        "journal": [[entry["what"], entry["version"]] for entry in registry.journal(root)],
        "pending": len([*(root / ".mlflow").glob("promotion-*.json")]),
    }


def act(root: Path) -> None:
    """What the process is there for."""
    match os.environ["ACTION"]:
        case "register":
            registry.register(root, workspace=os.environ["WORKSPACE"], say=lambda _: None)
        case "rollback":
            try:
                registry.rollback(root)
            except TripDurationError:  # it was ended before the kill, and there is none before that
                return


def forked(work: Callable[[], Any]) -> tuple[Any, int]:
    """What it gives in a process of its own, and the signal that killed that; None then."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read()
    _, status = os.waitpid(pid, 0)
    return (json.loads(text) if text else None), os.WTERMSIG(status)


def tried(moment: int | None) -> dict[str, Any]:
    """What was seen after a kill at a moment, or after none."""
    pristine = Path(os.environ["ROOT"])
    root = pristine.with_name(f"{pristine.name}-{moment}")
    shutil.copytree(pristine, root)

    def kill() -> int:
        passed = arm(moment)
        act(root)
        return passed()

    found: dict[str, Any] = {"moment": moment}
    found["passed"], found["signal"] = forked(kill)
    found["between"], _ = forked(lambda: seen(root))
    if moment is not None:
        forked(lambda: act(root))
        found["after"], _ = forked(lambda: seen(root))
    shutil.rmtree(root)
    return found


def drawn(seed: int, count: int, passed: int) -> list[int]:
    """Moments of those that were passed, one of each stretch of equal length."""
    generator = np.random.default_rng([seed, passed])
    edges = np.linspace(0, passed, min(count, passed) + 1).astype(int)
    return [int(generator.integers(start, stop)) for start, stop in pairwise(edges)]


def main(seed: int, count: int) -> None:
    """A line for a whole run, and one for each kill."""
    whole = tried(None)
    print(json.dumps(whole), flush=True)
    for moment in drawn(seed, count, whole["passed"]):
        print(json.dumps(tried(moment)), flush=True)


if __name__ == "__main__":
    tracking._import_with_pyfunc()
    for name in LATE:
        importlib.import_module(name)
    main(*map(int, sys.argv[1:]))
