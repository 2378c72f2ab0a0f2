"""What the benchmarks have in common: runs of both sides in turns, claims, and where they go.

A claim is a figure with a bound. Each benchmark ends with `report`, which prints its claims and
keeps them in .cache/benchmarks, from where ``make bench`` makes docs/benchmarks.md.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Claim", "Run", "child", "in_turns", "median", "report"]

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".cache" / "benchmarks"


@dataclass(frozen=True)
class Claim:
    """A figure and what it must be.

    Attributes
    ----------
    what : str
        What was measured, in a few words: a row of the table.
    value : float
        The figure: mostly a ratio of two medians of one run.
    unit : str
        Of the figure, like ``times the time of DuckDB`` or ``MB``.
    bound : float or None
        What it must reach, or not exceed; None where nothing was promised.
    at_least : bool
        Whether the bound is the least value, and not the largest.
    detail : str
        The two medians behind a ratio, like ``0.9 s and 1.1 s``.
    """

    what: str
    value: float
    unit: str
    bound: float | None = None
    at_least: bool = False
    detail: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure is what it must be."""
        if self.bound is None:
            return True
        return self.value >= self.bound if self.at_least else self.value <= self.bound


@dataclass(frozen=True)
class Run:
    """A process that ended: wall-clock seconds, peak resident memory in MB, and what it printed."""

    seconds: float
    peak: float
    output: str


def child(arguments: Sequence[str | Path], **environment: str) -> Run:
    """Run a process and measure it; one that fails ends the benchmark with its words."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(argument) for argument in arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        cwd=ROOT,
    )
    assert process.stdout
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{arguments} failed:\n{output}")
    divisor = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return Run(seconds, usage.ru_maxrss / divisor, output)


def in_turns(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Call each side once a round, so that what disturbs the machine disturbs all of them."""
    found: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            found[name].append(call())
    return found


def median(runs: Sequence[Run]) -> float:
    """The median of some processes' seconds."""
    return statistics.median(run.seconds for run in runs)


def report(name: str, claims: Sequence[Claim], conditions: str) -> int:
    """Print the claims, keep them for docs/benchmarks.md, and say whether all are met.

    Parameters
    ----------
    name : str
        Of the benchmark: its file's stem.
    claims : sequence of Claim
        What was measured.
    conditions : str
        The data, its size and how many runs, in a sentence.

    Returns
    -------
    int
        The exit code: 0 if all are met, else 1.
    """
    print(conditions)
    width = max(len(claim.what) for claim in claims)
    for claim in claims:
        sign = "≥" if claim.at_least else "≤"
        asked = "" if claim.bound is None else f"  ({sign} {claim.bound:g})"
        asked += "" if claim.met else "  NOT MET"
        print(f"  {claim.what:{width}}  {claim.value:9.3g} {claim.unit}{asked}  {claim.detail}")
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = {"conditions": conditions, "claims": [asdict(claim) for claim in claims]}
    (KEPT / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n")
    return 0 if all(claim.met for claim in claims) else 1
