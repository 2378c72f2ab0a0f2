"""Stage 2: learn encodings from the training months, and turn all months into features."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trip_duration import leaks
from trip_duration.baselines import Baselines
from trip_duration.features import FeatureBuilder
from trip_duration.files import write_json, write_parquet
from trip_duration.geometry import projected
from trip_duration.orchestration import stage_flow, task
from trip_duration.params import Params
from trip_duration.trips import month_paths, read_month

FEATURES = Path("data/features")


def known_places() -> np.ndarray | None:
    """Where the zones are, in miles, if a map says so."""
    zones = pq.read_table("data/zones.parquet")
    columns = (zones[name].to_numpy() for name in ("zone", "longitude", "latitude"))
    places = projected(*columns)
    return None if np.isnan(places).all() else places


@task
def learn(params: Params) -> FeatureBuilder:
    """Fit the features on the training months."""
    chosen = params.features
    return FeatureBuilder.fit(
        month_paths(params.data, "train"),
        preset=chosen.preset,
        categorical=chosen.categorical,
        numerical=chosen.numerical,
        folds=chosen.folds,
        seed=params.seed,
        places=known_places() if chosen.geometry == "map" else None,
        trend=chosen.trend,
    )


@task
def learn_baselines(params: Params) -> Baselines:
    """What one would say without a model, from the training months as well."""
    return Baselines.fit(read_month(path) for path in month_paths(params.data, "train"))


@task
def write_split(params: Params, builder: FeatureBuilder, split: str) -> None:
    """Write the features of a split, month after month."""

    def tables() -> Iterator[pa.Table]:
        for number, path in enumerate(month_paths(params.data, split)):
            trips = read_month(path)
            if split == "train":
                yield builder.transform_training(trips, month=number)
            else:
                yield builder.transform(trips)

    write_parquet(tables(), FEATURES / f"{split}.parquet", builder.schema)


@task
def look_for_leaks(params: Params) -> None:
    """Refuse features that tell the answer, and trips that are learned from and judged on."""
    splits = [split for split in ("train", "validation", "test") if getattr(params.data, split)]
    leaks.check(
        {split: FEATURES / f"{split}.parquet" for split in splits},
        {split: month_paths(params.data, split) for split in splits},
    )


@stage_flow("featurize")
def featurize(params: Params) -> None:
    """data/features, models/features.json and models/baselines.json."""
    builder = learn(params)
    for split in ("train", "validation", "test"):
        write_split(params, builder, split)
    look_for_leaks(params)
    write_json(builder.to_json(), "models/features.json")
    write_json(learn_baselines(params).to_json(), "models/baselines.json")
