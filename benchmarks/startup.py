"""What each stage imports, and what `dvc repro` takes with nothing to do and 120 months under DVC.

`python -X importtime` gives the seconds of each module, without those that it imports itself. They
are taken twice: up to where the stage's flow would begin, and of a whole run on small months, since
most packages are imported where they are used. Where a stage imports in two threads, as the search
does, a module's seconds hold waits for the other thread. No stage may import a package that START
and RUN do not give it. Then a clone with 120 small months under DVC is run once, and the commands
that have nothing left to do are timed.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from orchestration import dvc, timed
from report import ROOT, Claim, report

sys.path.insert(0, str(ROOT / "src"))

STAGES = ("ingest", "featurize", "search", "train", "evaluate")
NOTHING = 3.0  # seconds at most, with nothing to do
MONTHS = [f"{year}-{month:02d}" for year in range(2014, 2024) for month in range(1, 13)]
SMALL = {
    "data.train": MONTHS[:118],
    "data.validation": MONTHS[118:119],
    "data.test": MONTHS[119:],
    "data.simulated.trips_per_month": 200,
    "search.max_evals": 1,
    "search.startup_trials": 1,
    "search.num_boost_round": 10,
    "train.num_boost_round": 10,
}

# Packages that take long to import: a stage has those that it uses, and no other.
WATCHED = frozenset(
    [
        *("alembic", "crepes", "dask", "distributed", "duckdb", "hyperopt", "matplotlib", "mlflow"),
        *("networkx", "pandas", "polars", "prefect", "pyogrio", "pyproj", "requests", "scipy"),
        *("shap", "shapely", "sklearn", "sqlalchemy", "xgboost"),
    ]
)
# What may be there when the flow begins: Prefect, and XGBoost with SciPy, its sparse matrices.
BOOSTER = frozenset(["prefect", "scipy", "xgboost"])
START = {
    "ingest": frozenset(["prefect"]),
    "featurize": frozenset(["prefect"]),
    "search": BOOSTER,
    "train": BOOSTER,
    "evaluate": BOOSTER,
}
# What a run may add. pyarrow imports pandas as soon as it is given an array or reads a table;
# crepes brings scikit-learn, hyperopt brings networkx, and MLflow's store all of the others.
TRACKING = frozenset(["alembic", "mlflow", "requests", "sqlalchemy"])
RUN = {
    "ingest": START["ingest"] | {"pandas", "requests", "scipy"},
    "featurize": START["featurize"] | {"pandas", "scipy"},
    "search": START["search"] | TRACKING | {"hyperopt", "networkx", "pandas"},
    "train": START["train"] | {"crepes", "pandas", "sklearn"},
    "evaluate": START["evaluate"] | TRACKING | {"pandas"},
}
HEAVY = 0.01  # seconds; importtime also lists imports that found no package

# What src/stages imports before the stage's flow begins.
BEFORE = """
import sys
sys.path.insert(0, "src")
from stages import __main__ as entry
from trip_duration import orchestration, params
entry.imported("{stage}")
"""

LINE = re.compile(r"import time:\s*(\d+) \|\s*\d+ \| *(\S+)$")


class Imports(NamedTuple):
    """What a process imported: seconds by package, and the number of modules."""

    seconds: dict[str, float]
    modules: int

    @property
    def total(self) -> float:
        """Seconds of all imports."""
        return sum(self.seconds.values())

    def heaviest(self, number: int = 5) -> str:
        """The packages that took longest, the longest first."""
        ranked = sorted(self.seconds.items(), key=lambda pair: (-pair[1], pair[0]))[:number]
        return ", ".join(f"{name} {seconds:.2f}" for name, seconds in ranked)


def parsed(lines: str) -> Imports:
    """What ``-X importtime`` wrote, by package; Python's own modules are called ``python``."""
    spent: Counter[str] = Counter()
    modules = 0
    for line in lines.splitlines():
        found = LINE.match(line)
        if found:
            package = found[2].partition(".")[0]
            own = package in sys.stdlib_module_names
            spent["python" if own else package] += int(found[1])
            modules += 1
    return Imports({name: spent[name] / 1e6 for name in sorted(spent)}, modules)


def imports(arguments: list[str], folder: Path) -> Imports:
    """What a Python process imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        sys.exit("\n".join([f"{arguments} failed:", *said]))
    return parsed(done.stderr)


def unused(found: set[str], allowed: frozenset[str]) -> list[str]:
    """The packages that were imported and should not have been."""
    return sorted((found & WATCHED) - allowed)


def main() -> int:
    """Measure, print the tables, and return 1 if a claim is not met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    claims = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        _small(folder)
        first = timed(dvc("repro", "--quiet"), folder)
        print(f"{len(MONTHS)} months went through the pipeline in {first:.0f} s.", flush=True)
        # What `make train` runs once the environment is there.
        train = [sys.executable, "src/commands", "train"]
        for name, command in (("dvc repro", dvc("repro")), ("make train", train)):
            each = [timed(command, folder) for _ in range(rounds)]
            claims.append(
                Claim(
                    f"{name}, nothing to do",
                    statistics.median(each),
                    "s",
                    NOTHING if name == "dvc repro" else None,
                    detail=f"{min(each):.2f} to {max(each):.2f} s",
                )
            )
        whole = {stage: imports(["src/stages", stage], folder) for stage in STAGES}
    before = {stage: imports(["-c", BEFORE.format(stage=stage)], ROOT) for stage in STAGES}
    for title, found, allowed in (
        ("before the flow", before, START),
        ("whole run", whole, RUN),
    ):
        print(f"\n{title:16}{'seconds':>9}{'modules':>9}   heaviest packages")
        for stage, made in found.items():
            print(f"{stage:16}{made.total:9.2f}{made.modules:9}   {made.heaviest()}")
            heavy = {name for name, seconds in made.seconds.items() if seconds >= HEAVY}
            wrong = unused(heavy, allowed[stage])
            wrongs = ", ".join(wrong)
            claims += [
                Claim(f"{stage}, {title}: imports", made.total, "s", detail=made.heaviest(3)),
                Claim(f"{stage}, {title}: not used", len(wrong), "packages", 0.0, detail=wrongs),
            ]
    print()
    conditions = (
        f"{len(MONTHS)} simulated months of {SMALL['data.simulated.trips_per_month']} trips in a "
        f"clone of what is committed, median of {rounds} runs; imports once, with warm caches."
    )
    return report("startup", claims, conditions)


def _small(folder: Path) -> None:
    from trip_duration import params

    path = folder / "params.yaml"
    text, _ = params.override(path.read_text(encoding="utf-8"), SMALL)
    path.write_text(text, encoding="utf-8")
    (folder / "dvc.lock").unlink()


if __name__ == "__main__":
    sys.exit(main())
