"""What the stage featurize takes a row, at one million rows and at fifty, and what memory it has.

Months of a million simulated trips. The stage's parts are run as it runs them, in a process without
Prefect: fit, the training months with cross-fitted encodings, a validation month of as many trips,
the look for leaks, and the baselines. `metered` needs no encodings, so its columns are measured
with all encodings beside them as well.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report import ROOT, Claim, Run, child, in_turns, report

sys.path.insert(0, str(ROOT / "src"))

CLAIMED, GROWTH = 2.0, 100.0  # µs a row, and MB from the few months to the many


def months_from(count: int) -> list[str]:
    """So many months from 2020-01 on."""
    return [f"{2020 + number // 12}-{number % 12 + 1:02d}" for number in range(count)]


def drawn(month: str, trips: int) -> Path:
    """A canonical month of the simulated city, kept for the next time."""
    path = ROOT / f".cache/benchmarks/{month}-{trips}.parquet"
    if not path.exists():
        import pyarrow as pa

        from trip_duration import trips as canonical
        from trip_duration.files import write_parquet
        from trip_duration.sources import simulated

        rules = canonical.Rules(month=month)
        city = simulated.SimulatedMonth(month, taxi="green", seed=42, trips=trips)
        parts = [canonical.clean(canonical.to_canonical(b), rules)[0] for b in city.batches()]
        write_parquet(canonical.sort(pa.concat_tables(parts)), path)
    return path


def work(months: int, trips: int, encodings: bool) -> dict[str, Any]:
    """The stage's parts; seconds of each, and the rows that were written."""
    import pyarrow.parquet as pq

    from trip_duration import leaks
    from trip_duration.baselines import Baselines
    from trip_duration.features import CATALOGUE, PRESETS, FeatureBuilder
    from trip_duration.files import write_parquet
    from trip_duration.geometry import projected
    from trip_duration.sources import simulated

    *learned_from, last = (drawn(month, trips) for month in months_from(months + 1))
    zones = simulated.city(42).zones()
    places = projected(*(zones[name].to_numpy() for name in ("zone", "longitude", "latitude")))
    learned = [name for name in CATALOGUE if name.endswith(("_minutes", "_residual", "_distance"))]
    columns = [*PRESETS["metered"][1], *(name for name in learned if name != "trip_distance")]
    chosen = {"numerical": columns} if encodings else {"preset": "metered"}
    spent, began = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal began
        spent[name], began = time.perf_counter() - began, time.perf_counter()

    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as scratch:
        builder = FeatureBuilder.fit(learned_from, places=places, **chosen)
        lap("fit")
        made = [Path(scratch) / path.name for path in learned_from]
        for number, (path, target) in enumerate(zip(learned_from, made, strict=True)):
            tables = builder.transform_month(path, training=number)
            write_parquet(tables, target, builder.schema)
        unseen = Path(scratch) / "validation.parquet"
        write_parquet(builder.transform_month(last), unseen, builder.schema)
        lap("features")
        features = {"train": made, "validation": [unseen]}
        leaks.check(features, {"train": learned_from, "validation": [last]})
        lap("leaks")
        Baselines.fit(learned_from)
        lap("baselines")
    rows = sum(pq.read_metadata(path).num_rows for path in [*learned_from, last])
    return {"rows": rows, **spent}


def main() -> int:
    """Measure both sizes, and say whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--months", type=int, nargs=2, default=[1, 50])
    parser.add_argument("--trips", type=int, default=1_000_000, help="a month")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", action="store_true", help="what a child process does")
    parser.add_argument("--encodings", action="store_true")
    chosen = parser.parse_args()
    if chosen.work:
        print(json.dumps(work(chosen.months[0], chosen.trips, chosen.encodings)))
        return 0
    for month in months_from(max(chosen.months) + 1):
        drawn(month, chosen.trips)

    def run(months: int, *flags: str) -> Run:
        count = ["--months", str(months), "0", "--trips", str(chosen.trips)]
        return child([sys.executable, __file__, "--work", *count, *flags])

    few, many = chosen.months
    found = in_turns(
        {
            "metered": lambda: run(few),
            "metered and encodings": lambda: run(few, "--encodings"),
        },
        chosen.rounds,
    )
    found["metered, many"] = [run(many)]
    claims, peaks = [], {}
    for name, runs in found.items():
        said = sorted((json.loads(r.output) for r in runs), key=lambda s: sum(s.values()))
        middle = said[len(said) // 2]
        rows = middle.pop("rows")
        parts = ", ".join(f"{part} {1e6 * s / rows:.2f}" for part, s in middle.items())
        peaks[name] = max(r.peak for r in runs)
        claims.append(
            Claim(
                f"{name.removesuffix(', many')}, {rows:,} rows",
                1e6 * sum(middle.values()) / rows,
                "µs a row",
                CLAIMED,
                detail=f"{parts}; peak {peaks[name]:.0f} MB",
            )
        )
    claims.append(
        Claim(
            f"memory of {many} months less that of {few}",
            peaks["metered, many"] - peaks["metered"],
            "MB",
            GROWTH,
        )
    )
    how = f"median of {chosen.rounds} runs, the many once"
    conditions = f"Months of {chosen.trips:,} simulated trips; {how}."
    return report("featurize_stage", claims, conditions)


if __name__ == "__main__":
    sys.exit(main())
