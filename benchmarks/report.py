"""What the benchmarks have in common: runs of both sides in turns, claims, and where they go.

A claim is a figure with a bound. Each benchmark ends with `report`, which prints its claims and
keeps them in .cache/benchmarks, with the machine and the commit that they are of. From there
``make bench`` makes docs/benchmarks.md, with `page`.
"""

import ast
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = [
    "KEPT",
    "ROOT",
    "Claim",
    "Run",
    "child",
    "description",
    "in_turns",
    "machine",
    "median",
    "page",
    "report",
]

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".cache" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"
PACKAGES = ("numpy", "pyarrow", "xgboost-cpu", "xgboost")  # whose versions decide most figures

INTRO = """# Benchmarks

What the README and the documentation claim, as measured. A figure that compares is a ratio of two
sides that ran in turns on the same data, in one run; bounds in seconds hold for the machine that is
named. A figure that misses its bound says so here.

    make bench                # all of them, and then this page
    make bench ARGS=course    # one of them; the others keep their last figures

The numbers behind this page are in `.cache/benchmarks`, which git ignores.
"""


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


# A process begins with the peak of the one that started it, so a small one starts those we measure.
_LAUNCHER = """
import os, sys
kept, *arguments = sys.argv[1:]
_, status, usage = os.wait4(os.spawnvp(os.P_NOWAIT, arguments[0], arguments), 0)
with open(kept, "w") as file:
    file.write(str(usage.ru_maxrss))
sys.exit(max(os.waitstatus_to_exitcode(status), -1) % 256)
"""


def child(arguments: Sequence[str | Path], **environment: str) -> Run:
    """Run a process and measure it; one that fails ends the benchmark with its words."""
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "peak"
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-IS", "-c", _LAUNCHER, str(kept), *words],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            cwd=ROOT,
            check=False,
        )
        seconds = time.perf_counter() - began
        if done.returncode:
            sys.exit(f"{words} failed:\n{done.stdout}")
        peak = int(kept.read_text())
    return Run(seconds, peak / (1 << (20 if sys.platform == "darwin" else 10)), done.stdout)


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
    kept = {
        "conditions": conditions,
        "claims": [asdict(claim) for claim in claims],
        "machine": machine(),
        "date": date.today().isoformat(),
        "commit": _commit(),
        "versions": _versions(),
    }
    (KEPT / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return 0 if all(claim.met for claim in claims) else 1


# -- the page ------------------------------------------------------------------------------------


def page(names: Sequence[str], kept: Path = KEPT, sources: Path = ROOT / "benchmarks") -> str:
    """The text of docs/benchmarks.md.

    Parameters
    ----------
    names : sequence of str
        The benchmarks, in the order of the page.
    kept : Path
        The folder with what `report` has kept; a benchmark that has nothing there is listed as not
        measured yet.
    sources : Path
        The folder with the benchmarks, whose docstrings begin with what they measure.
    """
    parts = [INTRO]
    for name in names:
        path = kept / f"{name}.json"
        lines = [f"## {name}", "", description(sources / f"{name}.py"), ""]
        if path.exists():
            lines += _section(json.loads(path.read_text(encoding="utf-8")))
        else:
            lines += ["Not measured yet."]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def description(path: Path) -> str:
    """The first line of a benchmark's docstring."""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return said.partition("\n")[0]


def machine() -> dict[str, str]:
    """What this runs on: processor, cores, memory, system and Python."""
    import psutil

    model = platform.processor() or platform.machine()
    system = f"{platform.system()} {platform.release()}"
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        model = subprocess.run(asked, capture_output=True, text=True).stdout.strip() or model
        system = f"macOS {platform.mac_ver()[0]}"
    elif sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        if Path("/etc/os-release").exists():
            system = platform.freedesktop_os_release()["PRETTY_NAME"]
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": model,
        "cores": str(len(affinity(0)) if affinity else os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{system}, {platform.machine()}",
        "python": platform.python_version(),
    }


def _section(found: Mapping[str, Any]) -> list[str]:
    """A benchmark's conditions, its table, and what it was measured on."""
    rows = [["what", "figure", "asked", "met", "measured"]]
    for claim in (Claim(**claim) for claim in found["claims"]):
        sign = "≥" if claim.at_least else "≤"
        asked = "–" if claim.bound is None else f"{sign} {_number(claim.bound)}"
        met = "–" if claim.bound is None else "yes" if claim.met else "**no**"
        rows.append([claim.what, f"{_number(claim.value)} {claim.unit}", asked, met, claim.detail])
    machine = found["machine"]
    on = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']}, {machine['system']}, "
        f"Python {machine['python']}"
    )
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    at = f"{found['date']}, commit {found['commit']}, {versions}"
    return [found["conditions"], "", *_table(rows), "", f"{on}; {at}."]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown whose columns are aligned in the text as well."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _number(value: float) -> str:
    """Three digits, or all before the point where they are more."""
    if not math.isfinite(value):
        return "no"  # where nothing came out of it, as of an AutoML that found no model
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _commit() -> str:
    """The commit that is measured, and whether files differ from it."""

    def git(*words: str) -> str:
        command = ["git", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        status = ["status", "--porcelain", "--untracked-files=no", "--", "."]
        changed = git(*status, f":!{PAGE.relative_to(ROOT)}")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} and changes to it" if changed else commit


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # one of the two builds of XGBoost is there
    return found
