"""Ingest a month of 3 and of 14 million trips, beside DuckDB, Polars and the course's pandas code.

Each side is a process that reads the same file, made once, with the 19 columns of TLC's yellow
months and the simulated city's trips and dirt in them. What the sides do is in ingest_child.py.
What we keep is compared with what DuckDB keeps, value by value.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from ingest_child import MONTH, THREADS  # noqa: E402
from report import KEPT, Claim, Run, child, in_turns, report  # noqa: E402
from trip_duration.environments import environment  # noqa: E402
from trip_duration.files import atomic  # noqa: E402

CHILD = ROOT / "benchmarks" / "ingest_child.py"
LOCK = ROOT / "benchmarks" / "engines.txt"
VENV = ROOT / ".cache" / "bench-venv"
COURSE_ROWS = 3_000_000  # at 14 million its strings alone would fill the memory
TLC_ROW_GROUP = 1 << 20  # of the months since 2023
MEMORY = {3_000_000: 700.0, 14_000_000: 2000.0}  # MB


def main() -> int:
    """Make the files, run all sides in turns, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[3_000_000, 14_000_000])
    parser.add_argument("--rounds", type=int, default=5, help="3 at most above 5 million rows")
    arguments = parser.parse_args()
    if not environment(VENV, LOCK, "the engines'"):
        print("DuckDB and Polars can't be installed: see above.", file=sys.stderr)
        return 1
    claims = []
    for rows in arguments.rows:
        rounds = min(arguments.rounds, 3) if rows > 5_000_000 else arguments.rounds
        claims += measured(rows, rounds)
    sizes = " and ".join(f"{rows:,}" for rows in arguments.rows)
    conditions = (
        f"A month of {sizes} trips in TLC's yellow layout, {THREADS} threads a side, medians of "
        f"{arguments.rounds} rounds (3 at most above 5 million rows). Peaks are of the whole "
        "process."
    )
    return report("ingest", claims, conditions)


def measured(rows: int, rounds: int) -> list[Claim]:
    """Run the sides on one file, print their table, and give the claims."""
    source = month(rows)
    sides = ["ours", "duckdb", "polars", "arrow"] + ["course"] * (rows <= COURSE_ROWS)
    with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
        folder = Path(scratch)
        calls = {side: partial(run, side, source, folder) for side in sides}
        found = in_turns(calls, rounds)
        check(found, folder)
        sizes = {path.stem: path.stat().st_size / 1e6 for path in folder.glob("*.parquet")}
    seconds = {side: median(run.seconds for run in runs) for side, runs in found.items()}
    peaks = {side: max(run.peak for run in runs) for side, runs in found.items()}
    print(f"{rows:,} trips{'':12}{'seconds':>9}{'peak MB':>9}{'file MB':>9}")
    for side in sides:
        written = sizes.get(f"yellow-{MONTH}" if side == "ours" else side)
        wrote = f"{written:9.1f}" if written else f"{'–':>9}"
        print(f"  {side:20}{seconds[side]:9.2f}{peaks[side]:9.0f}{wrote}", flush=True)
    size = f"{rows / 1e6:g} million"
    claims = [
        Claim(
            f"ingest {size} trips",
            seconds["ours"] / seconds["duckdb"],
            "times the time of DuckDB",
            bound=1.5,
            detail=f"{seconds['ours']:.2f} s and {seconds['duckdb']:.2f} s",
        )
    ]
    if "course" in seconds:
        claims.append(
            Claim(
                f"ingest {size} trips",
                seconds["course"] / seconds["ours"],
                "times as fast as the course's pandas code",
                bound=8.0,
                at_least=True,
                detail=f"{seconds['ours']:.2f} s and {seconds['course']:.2f} s",
            )
        )
    return [*claims, Claim(f"peak memory at {size} trips", peaks["ours"], "MB", MEMORY.get(rows))]


def run(side: str, source: Path, folder: Path) -> Run:
    """One process; its seconds are those it counted itself."""
    own = side in ("ours", "arrow", "course")
    python = sys.executable if own else VENV / "bin" / "python"
    ran = child([python, CHILD, side, source, folder], POLARS_MAX_THREADS=str(THREADS))
    return Run(json.loads(ran.output)["seconds"], ran.peak, ran.output)


def check(found: dict[str, list[Run]], folder: Path) -> None:
    """Refuse to compare sides that did not do the same."""
    said = {side: json.loads(runs[0].output) for side, runs in found.items()}
    for side, words in said.items():
        same = ("kept",) if side == "course" else ("kept", "set_aside")
        if any(words[key] != said["ours"][key] for key in same):
            sys.exit(f"{side} keeps other trips than we do: {words} and {said['ours']}")
    paths = [folder / f"yellow-{MONTH}.parquet", folder / "duckdb.parquet"]
    groups = [pq.ParquetFile(path).iter_batches(1 << 20) for path in paths]
    for mine, theirs in zip(*groups, strict=True):
        if not theirs.cast(mine.schema).equals(mine):
            sys.exit("DuckDB wrote other trips than we did, or in another order.")


def month(rows: int) -> Path:
    """The file that all sides read, made once: yellow's 19 columns, as TLC writes them."""
    path = KEPT / f"yellow-{rows}" / f"yellow_tripdata_{MONTH}.parquet"
    if not path.exists():
        print(f"Drawing {rows:,} trips, once …", flush=True)
        with atomic(path) as temporary:
            writer = None
            for table in _grouped(_batches(rows)):
                writer = writer or pq.ParquetWriter(temporary, table.schema, compression="zstd")
                writer.write_table(table, row_group_size=TLC_ROW_GROUP)
            assert writer
            writer.close()
    return path


def _grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= TLC_ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _batches(rows: int) -> Iterator[pa.Table]:
    """The simulated city's trips, in no order of time, with made-up payments beside them."""
    from trip_duration.sources.simulated import SimulatedMonth

    random = np.random.default_rng(1)
    for batch in SimulatedMonth(MONTH, taxi="yellow", seed=42, trips=rows).batches():
        trips = pa.table(batch)
        count = trips.num_rows
        fare = (3.0 + 2.5 * np.abs(trips["trip_distance"].to_numpy())).round(2)
        tip = np.where(random.random(count) < 0.7, fare * random.uniform(0.1, 0.3, count), 0)
        plain = {
            "payment_type": random.choice([1, 2, 3, 4], count, p=[0.78, 0.2, 0.01, 0.01]),
            "fare_amount": fare,
            "extra": random.choice([0.0, 0.5, 1.0, 2.5], count),
            "mta_tax": np.full(count, 0.5),
            "tip_amount": tip.round(2),
            "tolls_amount": np.where(random.random(count) < 0.07, 6.94, 0.0),
            "improvement_surcharge": np.ones(count),
        }
        total = sum(values for name, values in plain.items() if name != "payment_type")
        plain |= {
            "total_amount": np.asarray(total).round(2),
            "congestion_surcharge": random.choice([0.0, 2.5], count, p=[0.1, 0.9]),
            "Airport_fee": random.choice([0.0, 1.75], count, p=[0.91, 0.09]),
        }
        for name, values in plain.items():
            trips = trips.append_column(name, pa.array(values))
        narrow = ("VendorID", "PULocationID", "DOLocationID")
        yield trips.cast(
            pa.schema([f.with_type(pa.int32()) if f.name in narrow else f for f in trips.schema])
        )


if __name__ == "__main__":
    sys.exit(main())
