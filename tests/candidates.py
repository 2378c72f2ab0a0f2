"""Small evaluated models, each in a folder like the one that a pipeline's run leaves."""

import shutil
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
from tests.test_properties import drawn
from xgboost import Booster

from trip_duration import params
from trip_duration.baselines import Baselines
from trip_duration.evaluation import metrics
from trip_duration.features import FeatureBuilder
from trip_duration.files import write_json
from trip_duration.geometry import projected
from trip_duration.intervals import calibrate_model, train_quantiles
from trip_duration.prediction import FILES, Model
from trip_duration.sources import simulated
from trip_duration.splits import Rows
from trip_duration.training import matrix, train_for_rounds

TRAIN, VALIDATION, TEST = "2024-01", "2024-02", "2024-03"
POOR, GOOD, BETTER = 6, 20, 60  # rounds of boosting
SETTINGS = {
    "data.train": [TRAIN],
    "data.validation": [VALIDATION],
    "data.test": [TEST],
    "promotion.slice_trips": 150,
    "promotion.slice_bound": 0.2,
    "promotion.coverage_within": 0.1,
}


@cache
def learned() -> tuple[FeatureBuilder, Rows, Booster]:
    """What all of them share: the features, 2,000 trips of the simulated city, the quantiles."""
    train, zones = drawn(TRAIN, 2_000), simulated.city(42).zones()
    places = projected(*(zones[name].to_numpy() for name in ("zone", "longitude", "latitude")))
    builder = FeatureBuilder.fit([train], preset="metered", places=places)
    rows = Rows.of(builder.matrix(builder.transform_training(train)), train["duration"].to_numpy())
    columns = {"names": builder.columns, "types": builder.feature_types, "nthread": 1}
    return builder, rows, train_quantiles(rows, level=0.9, rounds=10, **columns)


@cache
def model(rounds: int) -> Model:
    """A booster of so many rounds."""
    builder, rows, quantiles = learned()
    columns = {"names": builder.columns, "types": builder.feature_types, "nthread": 1}
    how = {"learning_rate": 0.1, "max_depth": 4, "min_child_weight": 5}
    booster = train_for_rounds(matrix(rows, **columns), how, rounds, nthread=1)
    half = drawn(VALIDATION, 1_200)
    later = Rows.of(builder.matrix(builder.transform(half)), half["duration"].to_numpy())
    calibration = calibrate_model(booster, quantiles, builder, later, 0.9)
    return Model(booster, builder, quantiles, calibration)


def write(folder: Path, text: str, rounds: int, **overrides: object) -> Path:
    """Write what `registry.register` reads of a run: settings, trips, zones, model and errors."""
    changed, settings = params.override(text, {**SETTINGS, **overrides})
    for name in ("data/trips", "models", "metrics", "search"):
        (folder / name).mkdir(parents=True)
    (folder / "params.yaml").write_text(changed)
    booster, features, quantiles, calibration = (folder / "models" / name for name in FILES)
    found = model(rounds)
    found.booster.save_model(booster)
    found.quantiles.save_model(quantiles)
    write_json(found.builder.to_json(), features)
    write_json(found.calibration.to_json(), calibration)
    write_json(Baselines.fit([drawn(TRAIN, 2_000)]).to_json(), folder / "models/baselines.json")
    write_json({"params": {"max_depth": 4, "rounds": rounds}}, folder / "search/best_params.json")
    judged = settings.judged[-1]
    [month] = getattr(settings.data, judged)
    later = drawn(month, 1_200)
    pq.write_table(later, folder / "data/trips" / f"green-{month}.parquet")
    pq.write_table(simulated.city(42).zones(), folder / "data/zones.parquet")
    errors = metrics(later["duration"].to_numpy(), found.predict(later)["minutes"])
    write_json({judged: {"model": errors}}, folder / "metrics/evaluation.json")
    return folder


def copied(folder: Path, to: Path) -> Path:
    """A workspace of one's own."""
    shutil.copytree(folder, to)
    return to
