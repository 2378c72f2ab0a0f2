"""Rerun a DVC pipeline from its commit and compare what it writes: ``python src/dvc_verify``.

Ends with exit code 0 where every file is the same, 1 where one is not or the rerun failed.
"""

import argparse
import contextlib
import errno
import io
import math
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from dvc_verify.rerun import Clone

NAME = "verify again ü "  # of the temporary folder: what a path may have and few scripts expect


def main(arguments: list[str]) -> int:
    """Verify what the arguments name, and return the exit code."""
    if not __package__:
        sys.path[0] = str(Path(__file__).resolve().parents[1])
    from dvc_verify.errors import VerifyError

    say_all(sys.stdout, sys.stderr)
    asked = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup ignores SIGHUP and means it. A script ignores SIGINT for what it runs beside it; so
        # would DVC then, and could not be ended by it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        return _verify(asked)
    except VerifyError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = error.filename or tempfile.gettempdir()
            print(f"No room is left for {where}: set TMPDIR to a larger disk.", file=sys.stderr)
        else:
            print(f"{error.filename or error.errno}: {error.strerror}.", file=sys.stderr)
    except KeyboardInterrupt as interrupt:
        print("\nInterrupted: the rerun was ended, nothing was verified.", file=sys.stderr)
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dvc_verify",
        description="Rerun a DVC pipeline from its commit, in a clone elsewhere, and compare.",
    )
    add = parser.add_argument
    add("targets", nargs="*", help="stages to end with (default: all)")
    add("--rev", default="HEAD", help="the commit (default: HEAD)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of params.yaml (or FILE:KEY=VALUE) in the clone",
    )
    add(
        "--tolerance",
        type=tolerance,
        help="relative difference that numbers in Parquet, CSV and JSON may have, like 1e-6",
    )
    add(
        "--ignore",
        action="append",
        default=[],
        metavar="PATTERN",
        help="files that may differ, like 'models/*.bin'",
    )
    add(
        "--same-conditions",
        action="store_true",
        help="keep locale, time zone and hash seed, to tell what depends on them from chance",
    )
    add("--keep", action="store_true", help="keep the clone, and say where it is")
    add("--json", type=Path, metavar="PATH", help="write all that was found there as well")
    return parser


def _verify(asked: argparse.Namespace) -> int:
    from rich.console import Console

    from dvc_verify import report, rerun
    from dvc_verify import settings as overrides
    from dvc_verify.errors import VerifyError

    console = Console(
        width=None if Console().is_terminal else 140, highlight=False, markup=False, emoji=False
    )
    settings = overrides.parse(asked.set)
    repository = rerun.find(Path.cwd(), asked.rev)
    changed = {} if asked.same_conditions else rerun.conditions(os.environ)
    folder = Path(tempfile.mkdtemp(prefix=NAME)).resolve()
    log = repository.root / ".dvc/tmp/verify.log"
    try:
        console.print(f"Commit   {repository.commit[:7]} of {repository.top}")
        if asked.rev == "HEAD" and (others := rerun.uncommitted(repository)):
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            console.print(f"         without what is not committed: {others[0]}{more}")
        clone = rerun.Clone(repository, folder, changed)
        stale = clone.stale()
        for key, value in settings.items():
            overrides.change(clone.root, key, value)
        clone.clear()
        _say_where(console, folder, changed, settings)
        seconds = _run(console, clone, asked.targets)
        found = report.judge(
            clone, targets=bool(asked.targets), tolerance=asked.tolerance, ignore=asked.ignore
        )
        if not found.rows:
            raise VerifyError("no stage that ran writes a file that DVC tracks.")
        if stale:
            found.notes.append(
                f"dvc.lock does not belong to commit {repository.commit[:7]} ({'; '.join(stale)}): "
                "run `dvc repro` and commit it."
            )
        report.show(found, console)
        if asked.json:
            about = {"commit": repository.commit, "changed": changed, "set": settings}
            report.write(found, asked.json, about | {"seconds": seconds})
        return 0 if found.same else 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # to end while the clone is removed
        with contextlib.suppress(OSError):  # what matters is that the clone goes
            log.parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / "verify.log", log)
        if asked.keep:
            console.print(f"Kept     {folder / 'clone'}")
        else:
            rerun.remove(folder)


def _say_where(
    console: "Console", folder: Path, changed: dict[str, str], settings: dict[str, str]
) -> None:
    console.print(f"Clone    {folder}, without a cache; the log: .dvc/tmp/verify.log")
    if changed:
        console.print(f"With     {' '.join(f'{name}={value}' for name, value in changed.items())}")
    if settings:
        console.print(f"Set      {' '.join(f'{key}={value}' for key, value in settings.items())}")


def _run(console: "Console", clone: "Clone", targets: list[str]) -> dict[str, float]:
    """Run the pipeline with a line for each stage, and return their seconds."""
    seconds: dict[str, float] = {}
    width = max(map(len, clone.committed), default=0)

    def told(stage: str, took: float | None) -> None:
        if took is None:
            console.print(f"Rerun    {stage:<{width}} ", end="")
            sys.stdout.flush()
        else:
            seconds[stage] = round(took, 1)
            console.print(f"{took:7.1f} s")

    clone.repro(targets, told)
    return seconds


def say_all(*streams: TextIO) -> None:
    """Have streams escape what they cannot say, such as bytes that are no text."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def tolerance(text: str) -> float:
    """What --tolerance may be."""
    number = float(text)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError
    return number


def _interrupt(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
