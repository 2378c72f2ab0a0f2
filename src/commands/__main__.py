"""What the Makefile calls: ``python src/commands train``. `make` alone lists the commands.

A command ends with exit code 0, or with one sentence on stderr and exit code 1; DEBUG=1 shows the
traceback as well.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ("train", "ingest", "featurize", "search", "evaluate")


def main(arguments: list[str]) -> int:
    """Run the command that is named."""
    sys.path[0] = str(ROOT / "src")
    os.chdir(ROOT)
    from trip_duration.errors import TripDurationError, disk_trouble
    from trip_duration.interrupts import INTERRUPTED, unwrapped

    try:
        with unwrapped():
            return _run(arguments)
    except TripDurationError as error:
        if os.environ.get("DEBUG"):
            raise
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        trouble = disk_trouble(error, ROOT)
        if trouble is None or os.environ.get("DEBUG"):
            raise
        print(trouble, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "Interrupted: the stages, months and trials that have ended are kept; the same command "
            "goes on from there.",
            file=sys.stderr,
        )
        return INTERRUPTED


def _run(arguments: list[str]) -> int:
    match arguments:
        case [name] if name in PIPELINE:
            from commands.pipeline import run

            return run(name, os.environ.get("SET", ""))
        case ["explain"]:
            from commands.explain import explain

            return explain(ROOT, os.environ.get("TRIP", ""))
        case ["score"]:
            from commands.score import score

            return score(ROOT, os.environ.get("INPUT", ""), os.environ.get("OUTPUT", ""))
        case ["monitor"]:
            from commands.monitor import monitor

            return monitor(ROOT, os.environ.get("MONTH", ""))
        case ["ui"]:
            from trip_duration.orchestration import serve

            serve(ROOT)
            return 0
        case ["serve"]:
            from commands.serve import serve_model

            return serve_model(ROOT)
        case ["push" | "pull" as name]:
            from commands import locks, remote

            with locks.alone(f"make {name}"):
                locks.release_dead()
                return getattr(remote, name)(ROOT, os.environ.get("REMOTE", ""))
        case ["refresh"]:
            from commands import locks
            from commands.refresh import refresh

            with locks.alone("make refresh"):
                return refresh(ROOT, os.environ.get("TAKE", ""))
        case ["register"]:
            from commands import locks
            from commands.register import register

            with locks.alone("make register"):
                return register(ROOT)
        case ["rollback"]:
            from commands.rollback import rollback

            return rollback(ROOT)
        case ["audit"]:
            from commands.audit import audit

            return audit(ROOT)
        case ["deploy"]:
            from commands.deploy import deploy

            return deploy(ROOT)
        case ["backfill"]:
            from commands.backfill import backfill

            return backfill(ROOT, os.environ.get("FROM", ""), os.environ.get("TO", ""))
        case ["lock"]:
            from commands.lock import lock

            return lock(ROOT)
        case _:
            print("run `make` to see what there is.", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
