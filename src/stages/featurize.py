"""Stage 2: learn encodings from the training months, and turn every month's trips into features."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trip_duration.features import FeatureBuilder
from trip_duration.files import write_json, write_parquet
from trip_duration.ingest import month_path
from trip_duration.orchestration import stage_flow, task
from trip_duration.params import Params

FEATURES = Path("data/features")


def read_month(params: Params, month: str) -> pa.Table:
    """A month's canonical trips."""
    return pq.read_table(month_path("data/trips", params.data.taxi, month))


@task
def learn(params: Params) -> FeatureBuilder:
    """Fit the features on the training months."""
    chosen = params.features
    return FeatureBuilder.fit(
        [month_path("data/trips", params.data.taxi, month) for month in sorted(params.data.train)],
        preset=chosen.preset,
        categorical=chosen.categorical,
        numerical=chosen.numerical,
        folds=chosen.folds,
        seed=params.seed,
    )


@task
def write_split(params: Params, builder: FeatureBuilder, split: str, months: list[str]) -> int:
    """Write the features of a split, month after month; gives the number of rows."""

    def tables() -> Iterator[pa.Table]:
        for month in sorted(months):
            yield builder.table(
                read_month(params, month), training=month if split == "train" else None
            )

    write_parquet(tables(), FEATURES / f"{split}.parquet", builder.schema)
    return pq.read_metadata(FEATURES / f"{split}.parquet").num_rows


@stage_flow("featurize")
def featurize(params: Params) -> None:
    """data/features and models/features.json."""
    builder = learn(params)
    for split in ("train", "validation", "test"):
        write_split(params, builder, split, getattr(params.data, split))
    write_json(builder.to_json(), "models/features.json")
