"""What holds for any trips, however they are cut, ordered and written; tests of single modules hold
more of the kind.
"""

import itertools
import json
import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from trip_duration import files, ingest, trips
from trip_duration.baselines import Baselines
from trip_duration.features import FeatureBuilder
from trip_duration.geometry import projected
from trip_duration.intervals import Calibration, calibrate_model, train_quantiles
from trip_duration.prediction import Model
from trip_duration.search import Journal, Trial
from trip_duration.sources import simulated
from trip_duration.splits import Rows
from trip_duration.training import matrix, train_for_rounds
from trip_duration.trips import SCHEMA, Rules, clean, to_canonical
from trip_duration.zones import Zones

QUICK = {"derandomize": True, "database": None, "deadline": None}
QUICK |= {"phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}
OWN = {
    "categorical": ["hour", "PU_DO", "vendor"],
    "numerical": ["trip_distance", "pair_residual", "distance_ratio", "detour", "date"],
}
PRESETS = {name: {"preset": name} for name in ("course", "metered", "booking")} | {"own": OWN}


def rows(table: pa.Table) -> list[tuple]:
    return [tuple(row.values()) for row in table.to_pylist()]


@cache
def drawn(month: str, count: int) -> pa.Table:
    """Clean canonical trips of the simulated city."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated, "CHUNK", 1 << 11)
        month_of = simulated.SimulatedMonth(month, taxi="green", seed=42, trips=count)
        raw = pa.concat_tables(to_canonical(batch) for batch in month_of.batches())
    return clean(raw, Rules(month=month))[0]


# Cleaning

RAW = st.fixed_dictionaries(
    {
        "lpep_pickup_datetime": st.none()
        | st.datetimes(datetime(2020, 12, 31, 23), datetime(2021, 2, 1)).map(
            lambda moment: moment.replace(microsecond=0)
        ),
        "seconds": st.none() | st.integers(-100, 5_000),
        "PULocationID": st.none() | st.integers(-1, 270),
        "DOLocationID": st.none() | st.sampled_from([1, 264, 265, 99_999]),
        "trip_distance": st.none() | st.sampled_from([-1.0, -0.0, 2.5, 80.0, 1e9]),
        "passenger_count": st.none() | st.sampled_from([0.0, 1.0, 5.5, -3.0]),
        "store_and_fwd_flag": st.sampled_from(["Y", "N", "", "?", None]),
    }
)
KINDS = {
    "lpep_pickup_datetime": pa.timestamp("us"),
    "lpep_dropoff_datetime": pa.timestamp("us"),
    "PULocationID": pa.int64(),
    "DOLocationID": pa.int64(),
    "trip_distance": pa.float64(),
    "passenger_count": pa.float64(),
    "store_and_fwd_flag": pa.string(),
}
RULES = st.builds(
    partial(Rules, month="2021-01"),
    min_minutes=st.sampled_from([0.0, 1.0, 5.0]),
    max_minutes=st.sampled_from([10.0, 60.0, 1440.0]),
    other_months=st.booleans(),
    unknown_zones=st.booleans(),
    max_distance=st.sampled_from([None, 2.5, 60.0]),
)


def as_published(records: list[dict[str, Any]]) -> pa.Table:
    """The records in TLC's columns of green taxi."""
    columns: dict[str, list] = {name: [] for name in KINDS}
    for record in records:
        begun, seconds = record["lpep_pickup_datetime"], record["seconds"]
        known = begun is not None and seconds is not None
        ended = datetime.fromtimestamp(begun.timestamp() + seconds) if known else None
        for name in KINDS:
            columns[name].append(ended if name == "lpep_dropoff_datetime" else record[name])
    return pa.table({name: pa.array(columns[name], kind) for name, kind in KINDS.items()})


@settings(max_examples=60, **QUICK)
@given(
    st.lists(RAW, max_size=25),
    RULES,
    st.lists(st.integers(0, 25), max_size=5),
    st.integers(2, 4),
    st.randoms(use_true_random=False),
)
def test_no_row_is_invented_or_lost(
    records: list, rules: Rules, cuts: list[int], threads: int, random: Any
) -> None:
    whole = as_published(records)
    read = Counter(rows(to_canonical(whole)))
    kept, count, aside = ingest._cleaned(whole.to_batches(), rules, None)
    assert count == whole.num_rows == kept.num_rows + sum(aside.values())
    assert Counter(rows(kept)) <= read  # each of them was read, and nothing in it is changed
    order = list(range(whole.num_rows))
    random.shuffle(order)
    shuffled = whole.take(pa.array(order, pa.int64()))
    edges = sorted({0, *(min(cut, len(order)) for cut in cuts), len(order)})
    parts = [shuffled.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    batches = [batch for part in parts for batch in part.combine_chunks().to_batches()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "THREADS", threads)
        again, others, counted = ingest._cleaned(batches, rules, None)
    assert (others, +counted) == (count, +aside)
    first, second = (pa.concat_tables(list(ingest._sorted(table))) if table.num_rows else table
                     for table in (kept, again))  # fmt: skip
    assert first.equals(second)


# Features and predictions


@dataclass(frozen=True)
class Made:
    """A small model, and trips that it has not learned from."""

    model: Model
    later: pa.Table


@pytest.fixture(
    scope="module",
    params=[(name, geometry) for name in PRESETS for geometry in ("map", "learned")],
    ids="-".join,
)
def made(request: pytest.FixtureRequest) -> Made:
    name, geometry = request.param
    train, later = drawn("2024-01", 2_000), drawn("2024-02", 1_200)
    zones = simulated.city(42).zones()
    places = projected(*(zones[n].to_numpy() for n in ("zone", "longitude", "latitude")))
    known = places if geometry == "map" else None
    builder = FeatureBuilder.fit([train], **PRESETS[name], places=known)
    X = builder.matrix(builder.transform_training(train))
    learned = Rows.of(X, train["duration"].to_numpy())
    columns = {"names": builder.columns, "types": builder.feature_types, "nthread": 1}
    how = {"learning_rate": 0.2, "max_depth": 5, "min_child_weight": 5}
    booster = train_for_rounds(matrix(learned, **columns), how, 30, nthread=1)
    quantiles = train_quantiles(learned, level=0.9, rounds=10, **columns)
    half = later.slice(0, later.num_rows // 2)
    rows = Rows.of(builder.matrix(builder.transform(half)), half["duration"].to_numpy())
    calibration = calibrate_model(booster, quantiles, builder, rows, 0.9)
    return Made(Model(booster, builder, quantiles, calibration), later.slice(half.num_rows))


def nearly(numbers: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | numbers


ZONE = nearly(st.sampled_from([-1, 0, 264, 265, 266, 999, 32_767]) | st.integers(1, 265))
ANY_TRIP = st.fixed_dictionaries(
    {
        "pickup": st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(
            lambda moment: moment.replace(microsecond=0)
        )
        | st.sampled_from([datetime(2024, 2, 29, 23, 59, 59), datetime(1, 1, 1), datetime.max]),
        "pickup_zone": ZONE,
        "dropoff_zone": ZONE,
        "trip_distance": nearly(
            st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e308, 5e-324, 60.0])
            | st.floats(0, 60)
        ),
        "passenger_count": nearly(st.integers(-(2**15), 2**15 - 1)),
        "vendor": nearly(st.sampled_from([-1, 1, 2, 99_999, 100_000, 2**31 - 1])),
        "rate_code": nearly(st.integers(0, 99)),
        "trip_type": nearly(st.integers(0, 3)),
        "store_and_forward": nearly(st.booleans()),
    }
)


def table_of(records: list[dict[str, Any]]) -> pa.Table:
    names = [name for name in SCHEMA.names if name != "duration"]
    return pa.table(
        {n: pa.array([r[n] for r in records], SCHEMA.field(n).type, safe=False) for n in names}
    )


def same_bits(left: pa.Table, right: pa.Table) -> None:
    assert left.schema == right.schema
    for name in left.column_names:
        one, other = (table[name].to_numpy() for table in (left, right))
        assert one.tobytes() == other.tobytes(), name


def test_any_trip_has_features_and_a_prediction_of_its_own(made: Made) -> None:
    model = made.model

    @settings(max_examples=15, **QUICK)
    @given(st.lists(ANY_TRIP, min_size=1, max_size=12), st.randoms(use_true_random=False))
    def check(records: list, random: Any) -> None:
        batch = table_of(records)
        together, said = model.builder.transform(batch), model.predict(batch)
        assert all(np.isfinite(part).all() for part in said.values())
        assert (said["lower"] >= 0).all()
        assert (said["lower"] <= said["minutes"]).all()
        assert (said["minutes"] <= said["upper"]).all()
        order = list(range(len(records)))
        random.shuffle(order)
        shuffled = batch.take(pa.array(order))
        same_bits(model.builder.transform(shuffled), together.take(pa.array(order)))
        for name, part in model.predict(shuffled).items():
            assert part.tobytes() == said[name][order].tobytes()
        for row in range(len(records)):
            alone = model.predict(batch.slice(row, 1))
            same_bits(model.builder.transform(batch.slice(row, 1)), together.slice(row, 1))
            assert {name: part[0] for name, part in alone.items()} == {
                name: part[row] for name, part in said.items()
            }

    check()


def test_a_longer_distance_takes_longer_on_average(made: Made) -> None:
    distance = made.later["trip_distance"].to_numpy()
    sound = made.later.filter(pa.array((distance > 0.5) & (distance < 12)))
    place = sound.column_names.index("trip_distance")

    @settings(max_examples=10, **QUICK)
    @given(st.floats(1.3, 3), st.floats(1.05, 1.6))
    def check(near: float, times: float) -> None:
        """Of trips whose distances are all multiplied, by more and then by less than that."""
        longer = [
            made.model.predict(
                sound.set_column(place, "trip_distance", pa.array(distance_of(sound) * by))
            )["minutes"].mean()
            for by in (1.0, near, near * times)
        ]
        if "trip_distance" in used(made.model.builder):
            assert longer[0] < longer[1]
            assert longer[1] <= longer[2] * 1.001
        else:
            assert longer[0] == longer[1] == longer[2]

    check()


def distance_of(table: pa.Table) -> np.ndarray:
    return table["trip_distance"].to_numpy()


def used(builder: FeatureBuilder) -> set[str]:
    """The columns of trips that a builder's features are made of."""
    from trip_duration.features import _columns_read

    return set(_columns_read(builder.features))


# Written and read again


@settings(max_examples=12, **QUICK)
@given(
    st.sampled_from(sorted(PRESETS)),
    st.lists(ANY_TRIP, min_size=1, max_size=30),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(2, 50),
    st.lists(ANY_TRIP, min_size=1, max_size=5),
)
def test_any_fitted_features_come_back_from_json(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    records: list,
    seed: int,
    folds: int,
    new: list,
) -> None:
    learned = table_of(records)
    minutes = pa.array(np.linspace(0, 60, learned.num_rows))
    learned = learned.append_column(SCHEMA.field("duration"), minutes)
    builder = FeatureBuilder.fit([learned], **PRESETS[name], seed=seed, folds=folds)
    path = tmp_path_factory.mktemp("features") / "features.json"
    files.write_json(builder.to_json(), path)
    loaded = FeatureBuilder.from_json(files.read_json(path))
    assert loaded.to_json() == builder.to_json()
    assert loaded.columns == builder.columns
    for trips_ in (learned, table_of(new)):
        same_bits(loaded.transform(trips_), builder.transform(trips_))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=60, **QUICK)
@given(JSON)
def test_any_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    files.write_json(value, path)
    found = files.read_json(path)
    assert repr(sorted_keys(found)) == repr(sorted_keys(value))  # tells 1 from 1.0, 0.0 from -0.0
    written = path.read_bytes()
    files.write_json(found, path)
    assert path.read_bytes() == written


def sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    return [sorted_keys(part) for part in value] if isinstance(value, list) else value


@settings(max_examples=40, **QUICK)
@given(st.lists(ANY_TRIP, max_size=40), st.lists(st.integers(0, 40), max_size=6), st.integers(1, 9))
def test_any_trips_come_back_from_parquet(
    tmp_path_factory: pytest.TempPathFactory, records: list, cuts: list[int], group: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = table_of(records)
    edges = [0, *sorted(min(cut, whole.num_rows) for cut in cuts), whole.num_rows]
    parts = [whole.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "ROW_GROUP", group)
        files.write_parquet(whole, folder / "whole.parquet")
        files.write_parquet(iter(parts), folder / "parts.parquet", whole.schema)
        written = (folder / "whole.parquet").read_bytes()
        found = pq.read_table(folder / "whole.parquet").cast(whole.schema)  # seconds come as ms
        files.write_parquet(found, folder / "again.parquet")
    same_bits_or_nulls(found, whole)
    assert (folder / "parts.parquet").read_bytes() == written
    assert (folder / "again.parquet").read_bytes() == written


def same_bits_or_nulls(left: pa.Table, right: pa.Table) -> None:
    assert left.schema == right.schema
    assert repr(left.to_pydict()) == repr(right.to_pydict())  # NaN and -0.0 included


NUMBER = st.floats(0, 1e8).map(lambda number: round(number, 6))


@settings(max_examples=40, **QUICK)
@given(
    st.floats(0.5, 0.99),
    st.lists(NUMBER, max_size=3).map(sorted),
    st.data(),
    st.floats(0.001, 1e6),
    st.integers(0, 10**8),
)
def test_any_calibration_comes_back(
    level: float, edges: list[float], data: st.DataObject, pad: float, count: int
) -> None:
    ends = st.lists(NUMBER, min_size=len(edges) + 1, max_size=len(edges) + 1).map(tuple)
    below, above = data.draw(ends), data.draw(ends)
    made = Calibration(level, tuple(edges), below, above, pad, data.draw(NUMBER), count)
    assert Calibration.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False))) == made


@settings(max_examples=30, **QUICK)
@given(st.lists(ANY_TRIP, min_size=1, max_size=30))
def test_any_baselines_come_back(records: list) -> None:
    table = to_canonical(
        table_of(records).append_column(
            SCHEMA.field("duration"), pa.array(np.linspace(0, 1440, len(records)))
        )
    )
    fitted = Baselines.fit([table])
    again = Baselines.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert again.to_json() == fitted.to_json()
    left, right = fitted.predict(table), again.predict(table)
    assert {n: v.tobytes() for n, v in left.items()} == {n: v.tobytes() for n, v in right.items()}


FINITE = st.floats(allow_nan=False, allow_infinity=False)
TRIALS = st.builds(
    Trial,
    number=st.integers(0, 10**6),
    params=st.dictionaries(st.text(min_size=1), FINITE | st.integers() | st.text(), max_size=4),
    loss=FINITE,
    rounds=st.integers(1, 10**6),
    stopped=st.booleans(),
    forecasts=st.lists(FINITE, max_size=3).map(tuple),
    error=st.text(),
)


@settings(max_examples=40, **QUICK)
@given(st.lists(TRIALS, max_size=5, unique_by=lambda trial: trial.number), st.binary(max_size=30))
def test_any_trials_come_back_from_the_journal(
    tmp_path_factory: pytest.TempPathFactory, trials: list[Trial], cut: bytes
) -> None:
    journal = Journal(tmp_path_factory.getbasetemp() / "journal.jsonl")
    journal.path.unlink(missing_ok=True)
    for trial in trials:
        journal.add(trial)
    with journal.path.open("ab") as file:
        file.write(cut)  # what a kill left of a line
    assert journal.read() == {trial.number: trial for trial in trials}


def test_zones_come_back(tmp_path: Path) -> None:
    table = simulated.city(1).zones()
    files.write_parquet(table, tmp_path / "zones.parquet")
    assert pq.read_table(tmp_path / "zones.parquet").equals(table)
    none = Zones([], [], []).table()
    files.write_parquet(none, tmp_path / "none.parquet")
    assert pq.read_table(tmp_path / "none.parquet").equals(none)
    assert trips.SCHEMA.field("pickup_zone").type == table.schema.field("zone").type
