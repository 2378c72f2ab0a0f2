"""Stage 2: learn encodings from the training months, and turn all months into features."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from trip_duration import leaks
from trip_duration.baselines import Baselines
from trip_duration.features import FeatureBuilder
from trip_duration.files import write_json, write_parquet
from trip_duration.geometry import projected
from trip_duration.orchestration import mapped, stage_flow, task
from trip_duration.params import Params
from trip_duration.trips import month_paths

FEATURES = Path("data/features")
SPLITS = ("train", "validation", "test")


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
    return Baselines.fit(month_paths(params.data, "train"))


@task
def write_month(params: Params, builder: FeatureBuilder, split: str, number: int) -> None:
    """Write the features of a split's month, the ``number``-th from 0."""
    [trips] = read_by(params, builder, split, number)
    [features] = written_by(params, builder, split, number)
    tables = builder.transform_month(trips, training=number if split == "train" else None)
    write_parquet(tables, features, builder.schema)


def read_by(params: Params, builder: FeatureBuilder, split: str, number: int) -> list[Path]:
    """The file that `write_month` reads."""
    return [month_paths(params.data, split)[number]]


def written_by(params: Params, builder: FeatureBuilder, split: str, number: int) -> list[Path]:
    """The file that `write_month` writes."""
    return [month_paths(params.data, split, FEATURES / split)[number]]


@task
def look_for_leaks(params: Params) -> None:
    """Refuse features that tell the answer, and trips that are learned from and judged on."""
    splits = [split for split in SPLITS if getattr(params.data, split)]
    leaks.check(
        {split: month_paths(params.data, split, FEATURES / split) for split in splits},
        {split: month_paths(params.data, split) for split in splits},
    )


@stage_flow("featurize")
def featurize(params: Params) -> None:
    """data/features, models/features.json and models/baselines.json."""
    shutil.rmtree(FEATURES, ignore_errors=True)  # months that are no longer asked for
    builder = learn(params)
    months = [
        (params, builder, split, number)
        for split in SPLITS
        for number in range(len(getattr(params.data, split)))
    ]
    mapped(write_month, months, reads=read_by, writes=written_by)
    look_for_leaks(params)
    write_json(builder.to_json(), "models/features.json")
    write_json(learn_baselines(params).to_json(), "models/baselines.json")
