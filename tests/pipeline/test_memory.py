"""Memory: a small version of benchmarks/beyond_memory.py."""

import sys
from pathlib import Path

import pytest
from tests.test_leaks import city

import report
from trip_duration.files import write_parquet

MONTHS = (2, 12)
TRIPS = 80_000

CHILD = """
import sys
from pathlib import Path
from trip_duration.baselines import Baselines
from trip_duration.features import FeatureBuilder
from trip_duration.files import write_parquet
from trip_duration import training
from trip_duration.splits import Rows
from trip_duration.training import matrix, train_for_rounds

training.PAGE_ROWS = 50_000  # a page is in memory as a whole
month, folder, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
builder = FeatureBuilder.fit([month] * count, preset="metered")
made = [folder / f"{number}.parquet" for number in range(count)]
for number, path in enumerate(made):
    write_parquet(builder.transform_month(month, training=number), path, builder.schema)
Baselines.fit([month] * count)
rows = Rows.read(made, builder)
bins = matrix(rows, half_life=0.6, rows_in_memory=int(sys.argv[4]), cache=folder / "cache")
train_for_rounds(bins, {"max_depth": 3}, 2)
print(len(rows))
"""


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memory") / "month.parquet"
    write_parquet(city("2024-01", TRIPS), path)
    return path


def peak(month: Path, folder: Path, count: int, rows_in_memory: int) -> tuple[int, float]:
    """Rows, and the most megabytes that the process had."""
    folder.mkdir()
    arguments = map(str, [month, folder, count, rows_in_memory])
    source = str(Path(__file__).parents[2] / "src")
    run = report.child([sys.executable, "-c", CHILD, *arguments], PYTHONPATH=source)
    return int(run.output), run.peak


def test_memory_does_not_grow_with_the_months(month: Path, tmp_path: Path) -> None:
    few, many = (peak(month, tmp_path / str(count), count, 1) for count in MONTHS)
    more = many[0] - few[0]
    assert more > 0.9 * TRIPS * (MONTHS[1] - MONTHS[0])
    # A fit has some 50 bytes for each trip; 31 features of four bytes would be 124 more.
    assert many[1] - few[1] < more * 100 / 2**20
