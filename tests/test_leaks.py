"""Leaks that are planted are found, and honest features are let through."""

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from trip_duration.errors import TripDurationError
from trip_duration.features import FeatureBuilder
from trip_duration.files import write_parquet
from trip_duration.leaks import ANSWER, SHARED, check, check_answer, check_encodings, check_rows
from trip_duration.sources import simulated
from trip_duration.sources.files import read_batches
from trip_duration.sources.simulated import SimulatedMonth
from trip_duration.trips import Rules, clean, sort, to_canonical

SOMEWHERE = np.random.default_rng(0).uniform(-5, 5, (266, 2)).round(4)
ENCODED = ["pair_minutes", "pair_residual", "pickup_minutes", "hour_residual", "pair_distance"]


@cache
def city(month: str, trips: int = 20_000) -> pa.Table:
    drawn = SimulatedMonth(month, taxi="green", seed=42, trips=trips).batches()
    return sort(pa.concat_tables(clean(to_canonical(part), Rules())[0] for part in drawn))


@cache
def real(path: Path) -> pa.Table:
    parts = read_batches(path)
    return sort(pa.concat_tables(clean(to_canonical(part), Rules())[0] for part in parts))


def months(where: str, tlc: Path | None) -> tuple[pa.Table, pa.Table]:
    if where == "city":
        return city("2024-01"), city("2024-02")
    assert tlc is not None
    first, second = (tlc / f"green_tripdata_2021-0{n}.parquet" for n in (1, 2))
    return real(first), real(second)


@pytest.fixture(params=["city", "green"])
def pair(request: pytest.FixtureRequest) -> tuple[pa.Table, pa.Table]:
    tlc = request.getfixturevalue("tlc") if request.param == "green" else None
    return months(request.param, tlc)


def planted(features: pa.Table, values: np.ndarray) -> pa.Table:
    return features.append_column("odd", pa.array(values.astype(np.float32)))


# The answer in a column


def disguises(minutes: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {
        "as it is": minutes,
        "seconds": 60 * minutes,
        "logarithm": np.log(minutes),
        "mirrored": 100 - minutes,
        "folded": np.abs(minutes - 20) + 1000 * (minutes > 20),
        "whole minutes": np.round(minutes),
        "with noise of a minute": minutes + random.normal(size=len(minutes)),
        "numbers of no order": np.argsort(random.permutation(61))[minutes.astype(int)],
        "missing in a third": np.where(random.random(len(minutes)) < 1 / 3, np.nan, minutes),
        "zero in a third": np.where(random.random(len(minutes)) < 1 / 3, 0.0, minutes),
    }


@pytest.mark.parametrize("disguise", disguises(np.array([5.0])))
def test_the_answer_is_found_in_every_disguise(disguise: str) -> None:
    trips = city("2024-01")[:5_000]
    features = FeatureBuilder.fit(trips, preset="booking", places=SOMEWHERE).transform(trips)
    honest = check_answer({"train": features})
    assert honest["share"] < ANSWER - 0.2
    odd = disguises(trips["duration"].to_numpy())[disguise]
    with pytest.raises(TripDurationError, match="The column 'odd' of the validation features"):
        check_answer({"train": features, "validation": planted(features, odd)})


# Encodings without folds


def test_an_encoding_without_folds_is_found_and_one_with_folds_is_not(
    pair: tuple[pa.Table, pa.Table],
) -> None:
    train, unseen = pair
    builder = FeatureBuilder.fit(train, numerical=ENCODED, places=SOMEWHERE)
    later = builder.transform(unseen)
    honest = check_encodings(builder.transform_training(train), later, train, unseen)
    assert honest["gain"] < honest["limit"]
    with pytest.raises(TripDurationError, match="was learned from the durations") as caught:
        check_encodings(builder.transform(train), later, train, unseen)  # the leak: no folds
    assert "'pair_minutes'" in str(caught.value) or "'pair_residual'" in str(caught.value)


# Trips on both sides


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_trips_that_are_judged_and_learned_from_are_found(share: float) -> None:
    train, test = city("2024-01"), city("2024-02")
    assert check_rows({"train": [train], "validation": [test]})
    part = train.take(np.arange(int(share * test.num_rows)) * 7 % train.num_rows)
    with pytest.raises(TripDurationError, match="test"):
        check_rows(
            {
                "train": [train],
                "validation": [city("2024-03")],
                "test": [test, part],
            }
        )


def test_a_few_trips_in_two_months_are_how_the_records_are() -> None:
    train, test = city("2024-01"), city("2024-02")
    few = train[: int(SHARED * test.num_rows / 2)]
    check_rows({"train": [train], "validation": [pa.concat_tables([test, few])]})


# All of it, as featurize calls it


@pytest.mark.parametrize("preset", ["course", "metered", "booking"])
def test_what_featurize_writes_is_let_through(
    preset: str, pair: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    train, unseen = pair
    builder = FeatureBuilder.fit(train, preset=preset, places=SOMEWHERE)
    paths = {split: tmp_path / f"{split}.parquet" for split in ("train", "validation")}
    write_parquet(builder.transform_training(train), paths["train"])
    write_parquet(builder.transform(unseen), paths["validation"])
    features = {split: [path] for split, path in paths.items()}
    found = check(features, {"train": [train], "validation": [unseen]})
    assert set(found) == {"answer", "encodings", "rows"}
    assert found["answer"]["share"] < ANSWER


def test_honest_features_of_few_trips_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 280 trips, `weekday` was taken for a column that knows the answers."""
    monkeypatch.setattr(simulated, "CHUNK", 1 << 11)
    train, unseen = (city.__wrapped__(month, 300) for month in ("2024-01", "2026-06"))
    builder = FeatureBuilder.fit(train, preset="metered", places=SOMEWHERE)
    made = builder.transform_training(train), builder.transform(unseen)
    assert check_encodings(*made, train, unseen)["column"] is None


def test_the_features_know_nothing_of_the_validation_answers() -> None:
    """What is learned and what training sees are the same whatever came later."""
    train = city("2024-01")
    builder = FeatureBuilder.fit([train], numerical=ENCODED)
    before, seen = builder.to_json(), builder.transform_training(train)
    later = city("2024-02")
    changed = later.set_column(
        later.column_names.index("duration"), "duration", pa.array(np.full(later.num_rows, 59.0))
    )
    features = builder.transform(changed).drop(["duration"])
    assert features.equals(builder.transform(later).drop(["duration"]))
    again = FeatureBuilder.fit([train], numerical=ENCODED)
    assert again.to_json() == before
    assert again.transform_training(train).equals(seen)
