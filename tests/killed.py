"""Registers and rolls back in processes that are killed, each at a moment that it is given.

    python killed.py NUMBER …

For each NUMBER: a copy of the registry in ROOT, and a process that does what ACTION says and is
killed right before (even numbers) or right after (odd ones) the NUMBER/2-th step that writes. Then
another looks at what there is, does the same again, and looks again. What was seen comes out as a
line of JSON. ROOT, ACTION and WORKSPACE are in the environment.

MLflow is imported once, and the processes are forks that share nothing they write.
"""

import functools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
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


def arm(moment: int) -> Callable[[], int]:
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


def main(numbers: list[int]) -> None:
    """One line for each number."""
    pristine = Path(os.environ["ROOT"])
    for number in numbers:
        root = pristine.with_name(f"{pristine.name}-{number}")
        shutil.copytree(pristine, root)

        def killed(number: int = number, root: Path = root) -> int:
            passed = arm(number)
            act(root)
            return passed()

        def again(root: Path = root) -> None:
            act(root)

        def look(root: Path = root) -> dict[str, Any]:
            return seen(root)

        passed, by = forked(killed)
        between, _ = forked(look)
        forked(again)
        after, _ = forked(look)
        print(
            json.dumps({"passed": passed, "signal": by, "between": between, "after": after}),
            flush=True,
        )
        shutil.rmtree(root)


if __name__ == "__main__":
    tracking._import_with_pyfunc()
    main([int(number) for number in sys.argv[1:]])
