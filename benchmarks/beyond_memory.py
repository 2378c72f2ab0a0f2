"""120 simulated months of a million trips through ingest, featurize and train, and their memory.

The stages run as `dvc repro` runs them, in a scratch clone of what is committed, one after another:
each is a process whose seconds and whose peak memory are measured. The other side is the same with
a million trips in all. The fits are short (`SETTINGS`), and those of both sides take equally many
rounds; XGBoost reads the bins of the large side from files. Of its 118 million training trips every
third is learned from (train.sample_rows), since a fit needs some 50 bytes for each of them beside
the bins: gradients, labels, predictions and the row's place in the tree.

Takes a quarter of an hour and 15 GB of disk.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from report import ROOT, Claim, Run, child, report

sys.path.insert(0, str(ROOT / "src"))

STAGES = ("ingest", "featurize", "train")
SETTINGS = {
    "search.max_evals": 0,
    "train.stop_on": "validation",
    "train.num_parallel_tree": 1,
    "train.num_boost_round": 10,
    "train.half_life": None,
}
MEMORY, SLOWER = 4096.0, 1.3  # MB, and times the time a row


def months(count: int) -> list[str]:
    """So many months from 2009-01 on."""
    return [f"{2009 + number // 12}-{number % 12 + 1:02d}" for number in range(count)]


def side(scratch: Path, count: int, trips: int, sample: int | None) -> dict[str, Run]:
    """Run the stages on so many months of so many trips; what each took."""
    from trip_duration import params

    clone = scratch / f"{count} months"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    *learned, judged, last = months(count)
    changes = SETTINGS | {
        "data.train": learned,
        "data.validation": [judged],
        "data.test": [last],
        "data.simulated.trips_per_month": trips,
        "train.sample_rows": sample,
    }
    settings = clone / "params.yaml"
    text, _ = params.override(settings.read_text(encoding="utf-8"), changes)
    settings.write_text(text, encoding="utf-8")
    runs = {}
    for stage in STAGES:
        runs[stage] = child([sys.executable, clone / "src/stages", stage])
        said = f"{runs[stage].seconds:8.1f} s {runs[stage].peak:8.0f} MB"
        print(f"  {count * trips:>11,} trips  {stage:10}{said}", flush=True)
    return runs


def main() -> int:
    """Run both sides, and say whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--months", type=int, default=120)
    parser.add_argument("--trips", type=int, default=1_000_000, help="a month")
    parser.add_argument("--sample", type=int, default=40_000_000, help="train.sample_rows")
    chosen = parser.parse_args()
    few = 4
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as scratch:
        small = side(Path(scratch), few, chosen.trips // few, None)
        large = side(Path(scratch), chosen.months, chosen.trips, chosen.sample)
    rows = chosen.months * chosen.trips
    claims = []
    a_row = [
        1e6 * sum(run.seconds for run in runs.values()) / count
        for runs, count in ((large, rows), (small, chosen.trips))
    ]
    claims.append(
        Claim(
            "time a row, ingest to train",
            a_row[0] / a_row[1],
            f"times that at {chosen.trips:,} trips",
            SLOWER,
            detail=f"{a_row[0]:.2f} and {a_row[1]:.2f} µs",
        )
    )
    for stage in STAGES:
        run = large[stage]
        detail = f"{run.seconds:.0f} s, {1e6 * run.seconds / rows:.2f} µs a row"
        claims.append(Claim(f"{stage}, peak memory", run.peak, "MB", MEMORY, detail=detail))
    conditions = (
        f"{chosen.months} simulated months of {chosen.trips:,} trips, once; "
        f"{SETTINGS['train.num_boost_round']} rounds on {chosen.sample:,} trips at most."
    )
    return report("beyond_memory", claims, conditions)


if __name__ == "__main__":
    sys.exit(main())
