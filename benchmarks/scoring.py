"""Score a file of a million trips, beside pandas and MLflow's pyfunc of the same model.

Each side is a process that reads the same file, made once, with the columns of TLC's green months
and the simulated city's trips and dirt in them, and writes it with the predictions of the model in
``models/``. What the sides do is in
scoring_child.py. The predictions must be the same to the bit. A file of a fifth of the trips shows
whether the memory grows with them.
"""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from report import KEPT, Claim, Run, child, in_turns, report  # noqa: E402
from scoring_child import THREADS, save_pyfunc  # noqa: E402
from trip_duration import registry  # noqa: E402
from trip_duration.files import atomic  # noqa: E402
from trip_duration.scoring import ADDED  # noqa: E402

CHILD = ROOT / "benchmarks" / "scoring_child.py"
MONTH = "2024-04"
SECONDS = 10.0  # for a million trips


def main() -> int:
    """Make the files, run both sides in turns, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if registry.local(ROOT) is None:
        print("There is no model in models/: run `make train` first.", file=sys.stderr)
        return 1
    KEPT.mkdir(parents=True, exist_ok=True)
    few, many = arguments.rows // 5, arguments.rows
    with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
        folder = Path(scratch)
        save_pyfunc(ROOT / "models", folder / "pyfunc")
        calls = {
            "ours": partial(run, "ours", file(many), folder),
            "pyfunc": partial(run, "pyfunc", file(many), folder),
            "ours, a fifth": partial(run, "ours", file(few), folder),
        }
        found = in_turns(calls, arguments.rounds)
        check(folder, many)
    seconds = {side: median(run.seconds for run in runs) for side, runs in found.items()}
    peaks = {side: max(run.peak for run in runs) for side, runs in found.items()}
    size = f"{many / 1e6:g} million"
    claims = [
        Claim(f"score {size} trips", seconds["ours"], "seconds", SECONDS * many / 1e6),
        Claim(
            f"score {size} trips",
            seconds["pyfunc"] / seconds["ours"],
            "times as fast as pandas and MLflow's pyfunc",
            bound=1.0,
            at_least=True,
            detail=f"{seconds['ours']:.2f} s and {seconds['pyfunc']:.2f} s",
        ),
        Claim(
            f"memory to score {size} trips",
            peaks["ours"] / peaks["ours, a fifth"],
            "times that of a fifth of them",
            bound=1.25,
            detail=f"{peaks['ours']:.0f} MB and {peaks['ours, a fifth']:.0f} MB",
        ),
        Claim(
            f"memory to score {size} trips",
            peaks["pyfunc"] / peaks["ours"],
            "times less than pandas and MLflow's pyfunc",
            bound=1.0,
            at_least=True,
            detail=f"{peaks['ours']:.0f} MB and {peaks['pyfunc']:.0f} MB",
        ),
    ]
    conditions = (
        f"A file of {many:,} trips in TLC's green layout, the model of the default run, {THREADS} "
        f"cores a side, medians of {arguments.rounds} rounds. Seconds from the first byte read to "
        "the last one written, without imports; peaks are of the whole process."
    )
    return report("scoring", claims, conditions)


def file(rows: int) -> Path:
    """The file that both sides read, made once."""
    from trip_duration.sources.simulated import SimulatedMonth

    path = KEPT / f"green-{rows}" / f"green_tripdata_{MONTH}.parquet"
    if not path.exists():
        print(f"Drawing {rows:,} trips, once …", flush=True)
        batches = SimulatedMonth(MONTH, taxi="green", seed=42, trips=rows).batches()
        with atomic(path) as temporary:
            pq.write_table(pa.Table.from_batches(batches), temporary, compression="zstd")
    return path


def run(side: str, source: Path, folder: Path) -> Run:
    """One process; its seconds are those it counted itself."""
    target = folder / f"{side}-{source.parent.name}.parquet"
    ran = child([sys.executable, CHILD, side, source, target, folder / "pyfunc"])
    return Run(json.loads(ran.output)["seconds"], ran.peak, ran.output)


def check(folder: Path, rows: int) -> None:
    """Refuse to compare sides that did not say the same."""
    made = [
        pq.read_table(folder / f"{side}-green-{rows}.parquet", columns=list(ADDED[:3]))
        for side in ("ours", "pyfunc")
    ]
    if made[0].num_rows != rows or not made[0].equals(made[1]):
        sys.exit("The two sides predict other minutes, or in another order.")


if __name__ == "__main__":
    sys.exit(main())
