"""``make explain``: what it prints, and what it says of a trip that it cannot read."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb

from commands import explain as command
from commands.explain import COLUMNS, EXAMPLE, TLC_NAMES, explain
from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.explanations import contributions, importance
from trip_duration.features import FeatureBuilder
from trip_duration.files import write_csv, write_json, write_parquet
from trip_duration.intervals import Calibration, train_quantiles
from trip_duration.prediction import load
from trip_duration.splits import Rows
from trip_duration.training import save_booster
from trip_duration.trips import SCHEMA, to_canonical

Say = Callable[..., str]


def trips(rows: int = 200) -> pa.Table:
    random = np.random.default_rng(3)
    seconds = random.integers(0, 30 * 86400, rows) + 1_704_067_200
    miles = random.gamma(2.0, 1.5, rows).round(2)
    columns = {
        "pickup": pa.array(seconds.astype("datetime64[s]")),
        "duration": 4 + 3 * miles + 4 * (seconds // 3600 % 24 == 8),
        "pickup_zone": random.choice([42, 74], rows),
        "dropoff_zone": random.choice([42, 74], rows),
        "trip_distance": miles,
    }
    empty = {f.name: pa.nulls(rows, f.type) for f in SCHEMA if f.name not in columns}
    return pa.table(columns | empty).select(SCHEMA.names).cast(SCHEMA)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its features, the zones and the importance."""
    root = tmp_path_factory.mktemp("house")
    names = ["trip_distance", "distance_odd", "time_of_day", "weekday", "weekend", "hour_of_week"]
    names += ["hour_sin", "hour_cos", "holiday", "vendor", "rate_code", "passenger_count", "hour"]
    builder = FeatureBuilder.fit([trips()], categorical=["PU_DO"], numerical=names)
    features = builder.transform(trips())
    data = xgb.DMatrix(
        builder.matrix(features),
        label=features["duration"].to_numpy(),
        feature_names=builder.columns,
        nthread=1,
    )
    booster = xgb.train({"max_depth": 4, "nthread": 1}, data, 15)
    save_booster_into(root, booster, builder)
    found = importance(contributions(features, booster, builder), builder.features)
    write_csv(found, root / "plots" / "importance.csv")
    zones = {"zone": pa.array([42, 74], pa.int16()), "name": ["[b] Lane", None]}
    write_parquet(pa.table(zones), root / "data" / "zones.parquet")
    return root


def save_booster_into(root: Path, booster: xgb.Booster, builder: FeatureBuilder) -> None:
    (root / "models").mkdir(exist_ok=True)
    save_booster(booster, root / "models" / "model.ubj")
    write_json(builder.to_json(), root / "models" / "features.json")
    features = builder.transform(trips())
    columns = {"names": builder.columns, "types": builder.feature_types}
    X, minutes = builder.matrix(features), features["duration"].to_numpy()
    quantiles = train_quantiles(Rows.of(X, minutes), level=0.9, rounds=5, nthread=1, **columns)
    save_booster(quantiles, root / "models" / "intervals.ubj")
    calibration = Calibration(
        level=0.9, edges=(), below=(1.0,), above=(1.5,), pad=1.0, constant=4.0, trips=99
    )
    write_json(calibration.to_json(), root / "models" / "intervals.json")


@pytest.fixture
def say(house: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs the command for a trip and gives what it printed."""

    def run(trip: dict | str) -> str:
        assert explain(house, trip if isinstance(trip, str) else json.dumps(trip)) == 0
        return capsys.readouterr().out

    return run


def refusal(house: Path, trip: dict | str) -> str:
    with pytest.raises(SettingsError) as caught:
        explain(house, trip if isinstance(trip, str) else json.dumps(trip))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_trip_is_explained(say: Say, house: Path) -> None:
    said = say(EXAMPLE)
    trip = EXAMPLE | {"pickup": datetime(2024, 5, 3, 8, 30), "duration": 1.0}
    row = to_canonical(pa.table({name: [value] for name, value in trip.items()}))
    [minutes], [lower], [upper] = load(house / "models").predict(row).values()
    ends = f"with a chance of 90% between {lower:.1f} and {upper:.1f}"
    average = "an average trip of the training months takes"
    assert f"This trip: {minutes:.1f} minutes, {ends} ({average}" in " ".join(said.split())
    lines = [line.strip() for line in said.splitlines()]
    [where] = [line for line in lines if line.startswith("where")]
    assert "from zone 74 to 42 [b] Lane" in where
    [when] = [line for line in lines if line.startswith("when")]
    assert "Friday 2024-05-03, 8:30" in when
    assert when.split()[-1].startswith("+")  # at eight it takes longer
    [distance] = [line for line in lines if line.startswith("distance ")]
    assert "1.9 miles as metered" in distance
    assert distance.split()[-1].startswith("-")  # shorter than most
    assert any(line.startswith("6 others") for line in lines)


def test_the_rows_add_up_to_the_prediction(say: Say) -> None:
    said = say(EXAMPLE).splitlines()
    minutes, base = float(said[1].split()[2]), float(said[2].rstrip(")").split()[-1])
    first = next(i for i, line in enumerate(said) if line.strip().startswith("Why"))
    rows = []
    for line in said[first + 2 :]:
        if not line.strip():
            break
        rows.append(float(line.split()[-1]))
    assert base + sum(rows) == pytest.approx(minutes, abs=0.05 * (len(rows) + 2))


def test_tlcs_names_and_words_are_understood(say: Say) -> None:
    own = {
        "pickup": "2024-05-03T08:30:00",
        "pickup_zone": 74,
        "dropoff_zone": 42,
        "vendor": 2,
        "store_and_forward": True,
        "trip_distance": None,
    }
    tlc = {
        "Lpep_pickup_datetime": "2024-05-03 08:30",
        "PULocationID": "74",
        "DOLocationID": 42.0,
        "VendorID": "2",
        "store_and_fwd_flag": "Y",
    }
    assert say(own) == say(tlc)
    assert "vendor 2, store_and_forward True" in say(tlc)


def test_a_time_with_a_zone_is_new_yorks(say: Say) -> None:
    assert say(EXAMPLE | {"pickup": "2024-05-03T12:30Z"}) == say(EXAMPLE)


def test_tlcs_names_are_those_of_the_trips() -> None:
    assert set(COLUMNS) == set(SCHEMA.names) - {"duration"}
    for theirs, ours in TLC_NAMES.items():
        value = datetime(2024, 5, 3) if ours == "pickup" else 1
        row = {"pickup": [datetime(2024, 1, 1)], "pickup_zone": [2], "dropoff_zone": [2]}
        row.pop(ours, None)
        row |= {theirs: [value], "dropoff_datetime": [datetime(2024, 5, 3, 1)]}
        assert to_canonical(pa.table(row))[ours][0].as_py() == value


def test_without_a_trip_the_whole_model_is_explained(say: Say) -> None:
    for text in ("", "  "):
        lines = [line.strip() for line in say(text).splitlines()]
        rows = [line for line in lines if "±" in line]
        assert len(rows) == command.SHOWN
        assert rows[0].startswith("trip_distance ")
        assert "miles as the meter gave them" in rows[0]
        sizes = [float(row.split("±")[1]) for row in rows]
        assert sizes == sorted(sizes, reverse=True)
        assert any(line.startswith("2 others: ") for line in lines)
        assert f"make explain TRIP='{json.dumps(EXAMPLE)}'" in lines[-1]


def test_the_printed_example_can_be_run(say: Say) -> None:
    text = say("").splitlines()[-1].split("TRIP='")[1].rstrip("'")
    assert say(text) == say(EXAMPLE)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"pickup": "2024-13-03 08:30"},
            'TRIP\'s pickup is "2024-13-03 08:30": expected a date and a time',
        ),
        ({"pickup": "2024-05-03"}, "expected a date and a time"),
        ({"pickup": "tomorrow at noon"}, "expected a date and a time"),
        ({"pickup": 20240503}, "expected a date and a time"),
        ({"pickup": True}, "expected a date and a time"),
        (
            {"pickup_zone": 0},
            "TRIP's pickup_zone is 0: expected TLC's zone id, a whole number from 1 to 265",
        ),
        ({"dropoff_zone": 266}, "TRIP's dropoff_zone is 266: expected TLC's zone id"),
        ({"dropoff_zone": 1.5}, "is 1.5: expected TLC's zone id"),
        ({"dropoff_zone": "Harlem"}, 'is "Harlem": expected TLC\'s zone id'),
        ({"dropoff_zone": True}, "is true: expected TLC's zone id"),
        ({"dropoff_zone": [42]}, "is [42]: expected TLC's zone id"),
        ({"dropoff_zone": {"id": 42}}, "expected TLC's zone id"),
        ({"trip_distance": "far"}, 'TRIP\'s trip_distance is "far": expected a number of miles'),
        ({"trip_distance": float("nan")}, "is NaN: expected a number of miles"),
        ({"passenger_count": 1.5}, "is 1.5: expected a whole number"),
        ({"passenger_count": 10**30}, "expected a whole number"),
        ({"VendorID": -1}, "TRIP's VendorID is -1: expected the number in TLC's id"),
        ({"store_and_forward": "maybe"}, 'is "maybe": expected true or false'),
        (
            {"pickup_zone": None},
            "TRIP has no pickup_zone: a trip needs pickup, pickup_zone and dropoff_zone, like",
        ),
        (
            {"trip_distence": 1},
            "the key 'trip_distence', which is no column of a trip: did you mean 'trip_distance'?",
        ),
        ({"PULocatonID": 1}, "did you mean 'pickup_zone'?"),
        (
            {"fare_amount": 7},
            "TRIP has the key 'fare_amount', which is no column of a trip: expected some of pick",
        ),
        ({"duration": 7}, "TRIP has the key 'duration', which the model is to predict: remove it."),
        ({"tpep_dropoff_datetime": "x"}, "which the model is to predict"),
        (
            {"PULocationID": 74},
            "TRIP gives the pickup_zone twice, the second time as 'PULocationID'.",
        ),
    ],
)
def test_a_wrong_value_is_one_sentence(house: Path, change: dict, expected: str) -> None:
    assert expected in refusal(house, EXAMPLE | change)


def test_what_is_no_trip_is_one_sentence(house: Path) -> None:
    unquoted = refusal(house, "{pickup: 2024-05-03}")
    assert unquoted.startswith("TRIP is no JSON (Expecting property name")
    assert "found '{pickup: 2024-05-03}'; write it in single quotes, like make explain" in unquoted
    assert refusal(house, "[1]").startswith("TRIP is [1]: expected a trip, like make explain TRIP=")
    assert "TRIP has no pickup and no pickup_zone and no dropoff_zone" in refusal(house, "{}")


def test_no_model_is_one_sentence(house: Path, tmp_path: Path) -> None:
    with pytest.raises(TripDurationError, match=r"^models/model\.ubj is not there.*make train"):
        explain(tmp_path, json.dumps(EXAMPLE))
    with pytest.raises(TripDurationError, match=r"^plots/importance\.csv is not there.*make train"):
        explain(tmp_path, "")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.ubj").write_bytes((house / "models/model.ubj").read_bytes())
    with pytest.raises(TripDurationError, match=r"^models/features\.json is not there"):
        explain(tmp_path, json.dumps(EXAMPLE))
    other = FeatureBuilder.fit([trips()], preset="course")
    write_json(other.to_json(), tmp_path / "models" / "features.json")
    for name in ("intervals.ubj", "intervals.json"):
        (tmp_path / "models" / name).write_bytes((house / "models" / name).read_bytes())
    with pytest.raises(TripDurationError, match=r"the files are of different models"):
        explain(tmp_path, json.dumps(EXAMPLE))


def test_a_wrong_trip_is_said_before_a_missing_model(tmp_path: Path) -> None:
    assert "expected TLC's zone id" in refusal(tmp_path, EXAMPLE | {"pickup_zone": 999})
