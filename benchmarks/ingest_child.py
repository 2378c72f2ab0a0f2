"""One side of the benchmark `ingest`: ``ingest_child.py SIDE FILE FOLDER``, a process of its own.

Reads a month in TLC's layout, cleans it by the default rules, sorts it by all columns, writes it
into FOLDER, and prints as JSON the seconds from the first byte read to the last one written, the
rows kept and those set aside by reason. Imports are not counted, of any side. Each gets 2 cores
where a process can be kept to some, and 2 threads.

DuckDB and Polars are told what the benchmark's file needs, and no more: which of TLC's layouts it
is, that times have no fractions, and that a flag is Y or N; `trip_duration` finds that out. They
hash nothing; the ledger of `trip_duration` has the hash of what was read and of what was written.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

THREADS = 2
ROW_GROUP = 1 << 18
MONTH = "2024-01"
Result = tuple[float, int, dict[str, int]]  # seconds, rows kept, rows set aside by reason


def main() -> None:
    """Run one side and print what it says."""
    side, source, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    seconds, kept, set_aside = SIDES[side](source, folder)
    found = {reason: count for reason, count in sorted(set_aside.items()) if count}
    print(json.dumps({"seconds": seconds, "kept": kept, "set_aside": found}))


def ours(source: Path, folder: Path) -> Result:
    """`ingest_month` as the stage calls it, ledger included."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    import pandas  # noqa: F401  pyarrow imports it when it first meets an array
    import pyarrow.parquet  # noqa: F401

    from trip_duration import ingest, params

    text = (Path(__file__).resolve().parents[1] / "params.yaml").read_text(encoding="utf-8")
    template = f"{source.parent}/{source.name.replace(MONTH, '{year}-{month}')}"
    chosen = {"data.source": template, "data.taxi": "yellow", "data.train": [MONTH]}
    settings = params.override(text, chosen)[1]
    began = time.perf_counter()
    ledger = ingest.ingest_month(
        settings.data, settings.clean, settings.seed, MONTH, raw=source, zones=None, folder=folder
    )
    return time.perf_counter() - began, ledger["kept"], ledger["set_aside"]


def arrow(source: Path, folder: Path) -> Result:
    """The same rules as pyarrow has them: the whole file at once, sorted by `pc.sort_indices`."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    import pandas  # noqa: F401  pyarrow imports it when it first meets an array
    import pyarrow as pa
    import pyarrow.parquet as pq

    from trip_duration import files, trips

    pa.set_cpu_count(THREADS)
    began = time.perf_counter()
    names = trips.wanted(pq.read_schema(source).names)
    kept, set_aside = trips.clean(
        trips.to_canonical(pq.read_table(source, columns=names)), trips.Rules(month=MONTH)
    )
    files.write_parquet(trips.sort_slow(kept), folder / "arrow.parquet")
    return time.perf_counter() - began, kept.num_rows, set_aside


CANONICAL = """
SELECT
    tpep_pickup_datetime::TIMESTAMP_S AS pickup,
    (epoch(tpep_dropoff_datetime) - epoch(tpep_pickup_datetime)) / 60.0 AS duration,
    CASE WHEN PULocationID BETWEEN 1 AND 265 THEN PULocationID::SMALLINT END AS pickup_zone,
    CASE WHEN DOLocationID BETWEEN 1 AND 265 THEN DOLocationID::SMALLINT END AS dropoff_zone,
    CASE WHEN isfinite(trip_distance) THEN trip_distance + 0.0 END AS trip_distance,
    CASE WHEN passenger_count = floor(passenger_count)
        THEN TRY_CAST(passenger_count AS SMALLINT) END AS passenger_count,
    CASE WHEN VendorID >= 0 THEN VendorID::INTEGER END AS vendor,
    CASE WHEN RatecodeID = floor(RatecodeID)
        THEN TRY_CAST(RatecodeID AS SMALLINT) END AS rate_code,
    NULL::SMALLINT AS trip_type,
    CASE store_and_fwd_flag WHEN 'Y' THEN true WHEN 'N' THEN false END AS store_and_forward
FROM read_parquet('{source}')
"""
REASON = """
CASE
    WHEN pickup IS NULL THEN 'no_pickup_time'
    WHEN duration IS NULL THEN 'no_dropoff_time'
    WHEN duration < 0 THEN 'negative_duration'
    WHEN duration < 1 THEN 'under_min_minutes'
    WHEN duration > 60 THEN 'over_max_minutes'
    ELSE 'kept'
END
"""


def duckdb(source: Path, folder: Path) -> Result:
    """DuckDB: one query that counts, which reads two columns, and one that sorts and writes.

    A table of all columns in between, from which both read, took longer.
    """
    import duckdb as engine

    connection = engine.connect()
    connection.execute(f"SET threads = {THREADS}")
    began = time.perf_counter()
    canonical = CANONICAL.format(source=source)
    counts = dict(
        connection.execute(
            f"SELECT {REASON} AS reason, count(*) FROM ({canonical}) GROUP BY reason"
        ).fetchall()
    )
    connection.execute(
        f"COPY (SELECT * FROM ({canonical}) WHERE duration BETWEEN 1 AND 60 "
        f"AND pickup IS NOT NULL ORDER BY ALL ASC NULLS LAST) TO '{folder}/duckdb.parquet' "
        f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
    )
    return time.perf_counter() - began, counts.pop("kept"), counts


def polars(source: Path, folder: Path) -> Result:
    """Polars: one lazy query, collected once; it is counted, filtered, sorted and written."""
    import polars as pl

    def whole(name: str, kind: type[pl.DataType]) -> pl.Expr:
        column = pl.col(name)
        return pl.when(column == column.floor()).then(column.cast(kind, strict=False))

    def zone(name: str) -> pl.Expr:
        return pl.when(pl.col(name).is_between(1, 265)).then(pl.col(name).cast(pl.Int16))

    assert pl.thread_pool_size() == THREADS
    began = time.perf_counter()
    pickup, dropoff = pl.col("tpep_pickup_datetime"), pl.col("tpep_dropoff_datetime")
    flag, miles = pl.col("store_and_fwd_flag"), pl.col("trip_distance")
    canonical = pl.scan_parquet(source).select(
        pickup=pickup.cast(pl.Datetime("ms")),
        duration=(dropoff - pickup).dt.total_seconds() / 60.0,
        pickup_zone=zone("PULocationID"),
        dropoff_zone=zone("DOLocationID"),
        trip_distance=pl.when(miles.is_finite()).then(miles + 0.0),
        passenger_count=whole("passenger_count", pl.Int16),
        vendor=pl.when(pl.col("VendorID") >= 0).then(pl.col("VendorID").cast(pl.Int32)),
        rate_code=whole("RatecodeID", pl.Int16),
        trip_type=pl.lit(None, pl.Int16),
        store_and_forward=pl.when(flag.is_in(["Y", "N"])).then(flag == "Y"),
    )
    duration = pl.col("duration")
    reason = (
        pl.when(pl.col("pickup").is_null())
        .then(pl.lit("no_pickup_time"))
        .when(duration.is_null())
        .then(pl.lit("no_dropoff_time"))
        .when(duration < 0)
        .then(pl.lit("negative_duration"))
        .when(duration < 1)
        .then(pl.lit("under_min_minutes"))
        .when(duration > 60)
        .then(pl.lit("over_max_minutes"))
        .otherwise(pl.lit("kept"))
    )
    counted = canonical.group_by(reason.alias("reason")).len().collect(engine="streaming")
    counts = dict(counted.iter_rows())
    canonical.filter(duration.is_between(1, 60), pl.col("pickup").is_not_null()).sort(
        pl.all(), nulls_last=True
    ).sink_parquet(
        folder / "polars.parquet",
        compression="zstd",
        compression_level=3,
        row_group_size=ROW_GROUP,
        engine="streaming",
    )
    return time.perf_counter() - began, counts.pop("kept"), counts


def course(source: Path, folder: Path) -> Result:
    """What the course's notebook does: durations one by one, zones and their pairs as text.

    It neither sorts nor writes, and counts only what it drops.
    """
    import pandas as pd

    began = time.perf_counter()
    frame = pd.read_parquet(source)
    ride = frame["tpep_dropoff_datetime"] - frame["tpep_pickup_datetime"]
    frame["duration"] = ride.apply(lambda delta: delta.total_seconds() / 60)
    read = len(frame)
    frame = frame[(frame["duration"] >= 1) & (frame["duration"] <= 60)].copy()
    zones = ["PULocationID", "DOLocationID"]
    frame[zones] = frame[zones].astype(str)
    frame["PU_DO"] = frame["PULocationID"] + "_" + frame["DOLocationID"]
    return time.perf_counter() - began, len(frame), {"dropped": read - len(frame)}


SIDES: dict[str, Callable[[Path, Path], Result]] = {
    "ours": ours,
    "arrow": arrow,
    "duckdb": duckdb,
    "polars": polars,
    "course": course,
}

if __name__ == "__main__":
    main()
