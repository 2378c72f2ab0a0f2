"""The simulated city: its places and roads, its trips, their dirt, and the noise floor."""

import os
import subprocess
import sys
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.sources import simulated
from trip_duration.sources.simulated import CHUNK, TAXIS, ZONES, SimulatedMonth, city, noise_floor

SEED = 42
COLUMNS = {
    "green": [
        "VendorID",
        "lpep_pickup_datetime",
        "lpep_dropoff_datetime",
        "store_and_fwd_flag",
        "RatecodeID",
        "PULocationID",
        "DOLocationID",
        "passenger_count",
        "trip_distance",
        "trip_type",
    ],
    "yellow": [
        "VendorID",
        "tpep_pickup_datetime",
        "tpep_dropoff_datetime",
        "store_and_fwd_flag",
        "RatecodeID",
        "PULocationID",
        "DOLocationID",
        "passenger_count",
        "trip_distance",
    ],
    "fhvhv": [
        "hvfhs_license_num",
        "dispatching_base_num",
        "pickup_datetime",
        "dropoff_datetime",
        "PULocationID",
        "DOLocationID",
        "trip_miles",
    ],
    "fhv": [
        "dispatching_base_num",
        "pickup_datetime",
        "dropOff_datetime",
        "PUlocationID",
        "DOlocationID",
        "SR_Flag",
    ],
}


def drawn(month="2023-01", taxi="green", seed=SEED, trips=1000, **settings):
    return SimulatedMonth(month, taxi=taxi, seed=seed, trips=trips, **settings)


def table(month: SimulatedMonth) -> pa.Table:
    return pa.Table.from_batches(list(month.batches()))


def plain(trips: pa.Table) -> pd.DataFrame:
    """Pickup, minutes, zones and miles, under short names."""
    pickup, dropoff = (
        trips.column(name).to_pandas() for name in trips.column_names if "datetime" in name
    )
    begin, end = (name for name in trips.column_names if name.endswith("ocationID"))
    frame = pd.DataFrame(
        {
            "pickup": pickup,
            "minutes": (dropoff - pickup).dt.total_seconds() / 60,
            "begin": trips.column(begin).to_pandas(),
            "end": trips.column(end).to_pandas(),
        }
    )
    for name in ("trip_distance", "trip_miles"):
        if name in trips.column_names:
            frame["miles"] = trips.column(name).to_pandas()
    return frame


@pytest.fixture(scope="module")
def big() -> tuple[SimulatedMonth, pa.Table]:
    month = drawn(trips=200_000)
    return month, table(month)


@pytest.fixture(scope="module")
def trips(big) -> pd.DataFrame:
    return plain(big[1])


# The city


def test_the_same_seed_draws_the_same_city_and_another_seed_another():
    first = city(SEED)
    city.cache_clear()
    assert city(SEED).zones().equals(first.zones())
    assert np.array_equal(city(SEED).road_miles, first.road_miles)
    assert not city(SEED + 1).zones().equals(first.zones())


def test_a_city_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        city(SEED).road_miles[0, 0] = 1


def test_zones_have_the_columns_of_tlcs_own():
    zones = city(SEED).zones()
    assert zones.schema == pa.schema(
        [
            ("zone", pa.int16()),
            ("borough", pa.string()),
            ("name", pa.string()),
            ("longitude", pa.float64()),
            ("latitude", pa.float64()),
        ]
    )
    assert zones["zone"].to_pylist() == list(range(1, 266))
    assert len(set(zones["name"].to_pylist())) == 265
    assert len(set(zones["borough"].to_pylist())) == 7
    for axis, low, high in (("longitude", -74.4, -73.5), ("latitude", 40.5, 41.1)):
        known = zones[axis].to_numpy()[:ZONES]
        assert low < known.min() < known.max() < high
        assert np.array_equal(known, known.round(6))
        assert zones[axis].to_pylist()[ZONES:] == [None, None]


def test_degrees_keep_the_distances_of_the_plane():
    town = city(SEED)
    zones = town.zones()
    longitude, latitude = (zones[a].to_numpy()[:ZONES] for a in ("longitude", "latitude"))
    east = np.radians(longitude - longitude[:, None]) * 3958.8 * np.cos(np.radians(40.76))
    north = np.radians(latitude - latitude[:, None]) * 3958.8
    crow = np.linalg.norm(town.place - town.place[:, None], axis=2)
    assert np.hypot(east, north) == pytest.approx(crow, rel=0.005, abs=0.01)


@pytest.mark.parametrize("seed", [0, 1, 7, SEED])
def test_roads_reach_every_zone_and_are_no_shorter_than_the_grid(seed):
    town = city(seed)
    road = town.road_miles[:ZONES, :ZONES]
    grid = np.abs(town.place - town.place[:, None]).sum(axis=2)
    apart = ~np.eye(ZONES, dtype=bool)
    assert (road[apart] >= grid[apart] - 1e-5).all()
    assert road.max() < 60  # what features take for dirt
    assert (town.minutes >= 0).all()
    assert (town.minutes.sum(axis=2) > 0).all()


def test_zones_are_denser_in_the_core():
    town = city(SEED)
    apart = np.linalg.norm(town.place - town.place[:, None], axis=2) + 99 * np.eye(ZONES)
    nearest = apart.min(axis=1)
    assert nearest.min() > 0.25
    assert nearest[town.density > 0.7].mean() < 0.6 * nearest[town.density < 0.1].mean()


@pytest.mark.parametrize("seed", [0, 1, SEED])
def test_a_river_between_two_zones_makes_their_way_longer(seed):
    town = city(seed)
    crow = np.linalg.norm(town.place - town.place[:, None], axis=2) + np.eye(ZONES)
    near = (crow < 3) & ~np.eye(ZONES, dtype=bool)
    across = town.landmass != town.landmass[:, None]
    ratio = town.road_miles[:ZONES, :ZONES] / crow
    assert np.median(ratio[near & across]) > 1.2 * np.median(ratio[near & ~across])


def test_roads_are_not_the_same_both_ways():
    road = city(SEED).road_miles[:ZONES, :ZONES]
    off = np.abs(road / road.T - 1)
    assert 0.001 < np.median(off[~np.eye(ZONES, dtype=bool)]) < 0.05


def test_the_way_to_an_airport_is_faster_than_other_ways_as_long():
    town = city(SEED)
    road, minutes = town.road_miles[:ZONES, :ZONES], town.minutes[:ZONES, :ZONES, 1:].sum(axis=2)
    long = (road > 6) & (road < 9)
    to_airport = np.isin(np.arange(ZONES), town.airports)
    mph = 60 * road / np.maximum(minutes, 1e-9)
    assert np.median(mph[:, to_airport][long[:, to_airport]]) > 1.05 * np.median(mph[long])


# The week


@pytest.mark.parametrize("year", [2009, 2012, 2016, 2019, 2021, 2022, 2024, 2027])
def test_holidays_are_pandas_holidays(year):
    from pandas.tseries.holiday import USFederalHolidayCalendar

    expected = USFederalHolidayCalendar().holidays(f"{year}-01-01", f"{year}-12-31")
    ours = [day for y in (year, year + 1) for day in simulated.federal_holidays(y)]
    assert [pd.Timestamp(day) for day in ours if day.astype(str).startswith(str(year))] == list(
        expected
    )


def test_pace_is_smooth_and_has_rush_hours():
    pace = simulated._pace()
    step = np.abs(np.diff(np.vstack([pace, pace[:1]]), axis=0))
    assert step.max() < 0.02  # of the free-flow time, from one minute to the next
    tuesday = pace[simulated.DAY : 2 * simulated.DAY]
    morning, night, evening = (tuesday[60 * hour] for hour in (8, 3, 17))
    assert (morning[1:] > 1.3 * night[1:]).all()
    assert morning[simulated.INBOUND] > 1.2 * morning[simulated.OUTBOUND]
    assert evening[simulated.OUTBOUND] > 1.2 * evening[simulated.INBOUND]


def test_a_holiday_is_a_sunday():
    moments = np.array(["2024-07-04T08:15:30", "2024-07-11T08:15:30"], "M8[s]").astype(np.int64)
    holidays = np.array(simulated.federal_holidays(2024), "M8[D]").astype(np.int64)
    assert simulated._minute_of_week(moments, holidays).tolist() == [
        6 * 1440 + 8 * 60 + 15,
        3 * 1440 + 8 * 60 + 15,
    ]


def test_rush_hours_show_in_the_trips(trips):
    sane = trips[(trips.miles > 1) & (trips.miles < 5) & trips.minutes.between(1, 60)]
    pace = sane.minutes / sane.miles
    weekday, hour = sane.pickup.dt.weekday < 5, sane.pickup.dt.hour
    night = pace[weekday & hour.isin([2, 3, 4])].median()
    assert pace[weekday & (hour == 8)].median() > 1.25 * night
    assert pace[weekday & (hour == 17)].median() > 1.25 * night
    assert pace[~weekday & (hour == 8)].median() < 1.15 * night
    share = trips.pickup.dt.hour.value_counts(normalize=True)
    assert share[18] > 5 * share[4]


def test_mornings_go_to_work_and_evenings_home(trips):
    town = city(SEED)
    work = np.append(town.jobs / town.homes.clip(1e-9) > 1, [False, False])
    hour, weekday = trips.pickup.dt.hour, trips.pickup.dt.weekday < 5
    into = work[trips.end - 1]
    assert into[weekday & (hour == 8)].mean() > 1.5 * into[weekday & (hour == 22)].mean()


# The columns and rows


@pytest.mark.parametrize("taxi", TAXIS)
def test_each_taxi_has_tlcs_own_columns(taxi):
    rows = table(drawn(taxi=taxi))
    assert rows.column_names == COLUMNS[taxi]
    assert rows.num_rows == 1000
    types = dict(zip(rows.column_names, rows.schema.types, strict=True))
    for name, kind in types.items():
        if "datetime" in name:
            assert kind == pa.timestamp("us")
        if name.endswith("ocationID"):
            assert kind == pa.int64()
            assert pc.min_max(rows[name]).as_py()["min"] >= 1
            assert pc.min_max(rows[name]).as_py()["max"] <= 265
    if "passenger_count" in types:
        assert types["passenger_count"] == pa.float64()


def test_taxis_and_months_and_seeds_draw_other_trips_in_the_same_city():
    base = plain(table(drawn()))
    for other in (drawn(taxi="fhvhv"), drawn("2023-02"), drawn(seed=1)):
        assert (plain(table(other)).begin == base.begin).mean() < 0.2
    assert drawn("2023-02").city is drawn(taxi="fhv").city


@settings(max_examples=8, deadline=None)
@given(
    st.dates(datetime(2009, 1, 1).date(), datetime(2030, 12, 31).date()),
    st.sampled_from(TAXIS),
    st.integers(1, 3000),
)
def test_any_month_and_number_of_trips(day, taxi, count):
    month = f"{day:%Y-%m}"
    rows = plain(table(drawn(month, taxi, trips=count)))
    assert len(rows) == count
    inside = rows.pickup.dt.strftime("%Y-%m") == month
    assert inside.sum() >= count - 5
    assert rows.minutes.between(0, 1440).all()


def test_a_shorter_month_is_the_beginning_of_a_longer_one():
    long, short = drawn(trips=CHUNK + 500), drawn(trips=700)
    assert table(long).slice(0, 700).equals(table(short))
    assert [batch.num_rows for batch in long.batches()] == [CHUNK, 500]


def test_rows_do_not_depend_on_how_batches_are_consumed():
    month = drawn(trips=2 * CHUNK)
    whole = table(month)
    noise = month.noise()
    part = month.batches()
    next(part)
    other = list(month.batches())  # while the first is half read
    assert pa.Table.from_batches([*other]).equals(whole)
    assert pa.Table.from_batches([next(part)]).equals(whole.slice(CHUNK))
    assert month.noise() == noise


def test_more_trips_have_the_same_distributions(trips):
    few = trips[:50_000]
    quantiles = [0.05, 0.25, 0.5, 0.75, 0.95]
    for name in ("minutes", "miles"):
        some, every = (rows[name][rows[name] > 0].quantile(quantiles) for rows in (few, trips))
        assert some.tolist() == pytest.approx(every.tolist(), rel=0.03)
    days = few.pickup.dt.day.value_counts(normalize=True).sort_index()
    assert len(days) == 31
    assert np.abs(days - trips.pickup.dt.day.value_counts(normalize=True)).max() < 0.003


def test_rows_come_unsorted(trips):
    assert 0.4 < (trips.pickup.diff().dt.total_seconds() > 0).mean() < 0.6


def test_the_same_bytes_in_every_process():
    code = (
        "import hashlib, pyarrow as pa\n"
        "from trip_duration.sources.simulated import SimulatedMonth, city\n"
        "h = hashlib.sha256()\n"
        "for taxi in ('green', 'fhvhv'):\n"
        "    month = SimulatedMonth('2021-03', taxi=taxi, seed=7, trips=3000, drift=0.01)\n"
        "    rows = pa.Table.from_batches(list(month.batches()))\n"
        "    h.update(rows.to_pandas().to_csv().encode() + repr(month.noise()).encode())\n"
        "h.update(city(7).road_miles.tobytes() + str(city(7).zones().to_pydict()).encode())\n"
        "print(h.hexdigest())\n"
    )
    here = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "OMP_NUM_THREADS": "1",
    }
    settings_of = (
        {"TZ": "America/New_York", "LC_ALL": "C", "PYTHONHASHSEED": "0"},
        {
            "TZ": "Asia/Kathmandu",
            "LC_ALL": "C.UTF-8",
            "PYTHONHASHSEED": "1",
            "OMP_NUM_THREADS": "2",
        },
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], env={**here, **env}, stdout=subprocess.PIPE, text=True
        )
        for env in settings_of
    ]
    said = [process.communicate(timeout=120)[0].strip() for process in running]
    assert len(said[0]) == 64
    assert said[0] == said[1]


# The dirt


def test_dirt_comes_at_tlcs_rates(big, trips):
    rows = big[1]
    assert (trips.minutes < 1).mean() == pytest.approx(0.024, abs=0.003)
    assert (trips.minutes > 60).mean() == pytest.approx(0.009, abs=0.002)
    assert (trips.minutes > 1300).mean() == pytest.approx(139 / 68_000, rel=0.25)
    assert (trips.miles <= 0).mean() == pytest.approx(0.049, abs=0.004)
    assert trips.miles.max() > 20_000
    assert (trips.miles > 100).mean() == pytest.approx(0.0008, rel=0.3)
    assert not trips.miles.between(60, 3999).any()
    missing = rows["passenger_count"].is_null()
    assert pc.mean(missing.cast(pa.float64())).as_py() == pytest.approx(0.063, abs=0.003)
    for name in ("RatecodeID", "store_and_fwd_flag", "trip_type"):
        assert rows[name].is_null().equals(missing)
    assert rows["VendorID"].null_count == 0
    for end, unknown, outside in (("begin", 0.002, 0.0005), ("end", 0.0074, 0.0032)):
        assert (trips[end] == 264).mean() == pytest.approx(unknown, rel=0.3)
        assert (trips[end] == 265).mean() == pytest.approx(outside, rel=0.5)
    assert (trips.pickup < "2010").any()
    assert (trips.pickup.dt.year == 2022).any()
    assert (trips.pickup < "2023").mean() < 0.0002


def test_the_city_is_like_tlcs_green_january_2024(tlc):
    real = plain(pq.read_table(tlc / "green_tripdata_2024-01.parquet"))
    ours = plain(table(drawn("2024-01", trips=60_000)))
    for rows in (real, ours):
        rows["short"], rows["no_miles"] = rows.minutes < 1, rows.miles <= 0
    assert ours.minutes.median() == pytest.approx(real.minutes.median(), rel=0.1)
    assert ours.miles.median() == pytest.approx(real.miles.median(), rel=0.25)
    assert ours.short.mean() == pytest.approx(real.short.mean(), rel=0.25)
    assert ours.no_miles.mean() == pytest.approx(real.no_miles.mean(), rel=0.1)
    both = [(rows.short & rows.no_miles).mean() for rows in (ours, real)]
    assert both[0] == pytest.approx(both[1], rel=0.25)
    hours = [rows.pickup.dt.hour.value_counts(normalize=True).sort_index() for rows in (ours, real)]
    assert np.corrcoef(*hours)[0, 1] > 0.9


def test_yellow_has_some_distances_below_zero():
    rows = plain(table(drawn(taxi="yellow", trips=200_000)))
    assert 0 < (rows.miles < 0).mean() < 0.0005
    assert (rows.miles <= 0).mean() == pytest.approx(0.00885, rel=0.15)


def test_green_cabs_do_not_pick_up_in_the_core():
    core = np.append(city(SEED).density > 0.5, [False, False])
    shares = {
        taxi: core[plain(table(drawn(taxi=taxi, trips=20_000))).begin - 1].mean()
        for taxi in ("green", "yellow")
    }
    assert shares["green"] < 0.05 < 0.4 < shares["yellow"]


# The floor


def rmse(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2)))


@pytest.mark.parametrize("kind", ["metered", "booking"])
def test_who_knows_the_truth_reaches_the_floor_and_others_do_not(big, trips, kind):
    month, _ = big
    kept = trips.minutes.between(1, 60).to_numpy()
    truth = np.concatenate(list(month.expected(kind)))[kept]
    minutes = trips.minutes.to_numpy()[kept]
    floor = noise_floor([month.noise()])[kind]
    assert month.noise()[kind]["rows"] == kept.sum()
    assert rmse(minutes - truth) == pytest.approx(floor, rel=0.01)
    assert np.mean(minutes - truth) == pytest.approx(0, abs=0.03)
    shaken = truth * np.random.default_rng(0).normal(1, 0.1, len(truth))
    for worse in (1.1 * truth, truth + 1, shaken, np.full(len(truth), minutes.mean())):
        assert rmse(minutes - worse) > 1.02 * floor
    # What is left has nothing to do with what the model sees.
    seen = trips[kept]
    left = pd.Series(minutes - truth, seen.index)
    for group in (seen.pickup.dt.hour, seen.begin.isin([264, 265]), seen.miles.between(0.01, 60)):
        by = left.groupby(group).agg(["mean", "sem"])
        assert (by["mean"].abs() < 4.5 * by["sem"]).all()


def test_the_floor_is_worth_knowing(big, trips):
    floor = noise_floor([big[0].noise()])
    assert 3 < floor["metered"] < 4.5
    assert floor["booking"] > 1.05 * floor["metered"]
    kept = trips[trips.minutes.between(1, 60)]
    half = len(kept) // 2
    known = kept[:half].groupby(["begin", "end"]).minutes.median()
    later = kept[half:].join(known.rename("median"), on=["begin", "end"])
    naive = later["median"].fillna(kept[:half].minutes.median())
    assert rmse((later.minutes - naive).to_numpy()) > 1.3 * floor["booking"]


@pytest.mark.parametrize("window", [(0.0, 60.0), (5.0, 20.0), (0.5, 45.25)])
@pytest.mark.parametrize("kind", ["metered", "booking"])
def test_the_floor_holds_for_any_window(window, kind):
    month = drawn(trips=131_072, min_minutes=window[0], max_minutes=window[1])
    minutes = plain(table(month)).minutes.to_numpy()
    kept = (minutes >= window[0]) & (minutes <= window[1])
    truth = np.concatenate(list(month.expected(kind)))
    floor = noise_floor([month.noise()])[kind]
    assert month.noise()[kind]["rows"] == kept.sum()
    assert rmse((minutes - truth)[kept]) == pytest.approx(floor, rel=0.015)


def test_forgotten_meters_are_in_the_floor_where_they_are_kept():
    month = drawn(trips=131_072, min_minutes=0, max_minutes=1500)
    minutes = plain(table(month)).minutes.to_numpy()
    truth = np.concatenate(list(month.expected("booking")))
    floor = noise_floor([month.noise()])["booking"]
    assert month.noise()["booking"]["rows"] == len(minutes)
    assert floor > 40  # few, and of a day each
    assert rmse(minutes - truth) == pytest.approx(floor, rel=0.15)


def test_variance_is_that_of_the_law_cut_to_the_window():
    """The closed form against a million draws."""
    middle, width, low, high = np.array([2.0, 3.9, 0.1]), np.array([0.22, 0.4, 0.3]), 1.0, 60.0
    moments = simulated._lognormal_moments(middle, width, low, high)
    draws = np.exp(middle + width * np.random.default_rng(1).standard_normal((1_000_000, 3)))
    inside = (draws > low) & (draws < high)
    for i in range(3):
        kept = draws[inside[:, i], i]
        mean = moments[1, i] / moments[0, i]
        assert moments[0, i] == pytest.approx(inside[:, i].mean(), abs=0.002)
        assert mean == pytest.approx(kept.mean(), rel=0.002)
        assert moments[2, i] / moments[0, i] - mean**2 == pytest.approx(kept.var(), rel=0.01)


def test_without_a_meter_there_is_one_floor():
    month = drawn(taxi="fhv", trips=5000)
    table(month)
    assert month.noise()["metered"] == month.noise()["booking"]


def test_the_floor_of_two_months_is_that_of_their_rows():
    one = {kind: {"variance_sum": 90.0, "rows": 10} for kind in ("metered", "booking")}
    two = {kind: {"variance_sum": 110.0, "rows": 40} for kind in ("metered", "booking")}
    assert noise_floor([one, two]) == {"metered": 2.0, "booking": 2.0}
    with pytest.raises(TripDurationError, match="clean"):
        noise_floor([])


def test_noise_is_known_only_after_the_last_batch():
    month = drawn(trips=CHUNK + 1)
    next(month.batches())
    with pytest.raises(TripDurationError, match="2023-01"):
        month.noise()


def test_drift_makes_every_trip_longer_month_by_month():
    base, later = (plain(table(drawn("2021-01", trips=5000, drift=d))) for d in (0.0, 0.01))
    whole = (base.minutes > 5) & (base.minutes < 200) & (base.pickup >= "2021")
    ratio = later.minutes[whole] / base.minutes[whole]
    assert np.allclose(ratio, 1.01**12, rtol=0.005)
    start = [plain(table(drawn("2020-01", drift=d))) for d in (0.0, 0.01)]
    now = start[0].pickup >= "2020"
    assert start[0][now].equals(start[1][now])


@pytest.mark.parametrize(
    ("settings_of", "says"),
    [
        ({"taxi": "red"}, "data.taxi is 'red'"),
        ({"trips": 0}, "trips_per_month is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"drift": -1.0}, "drift is -1.0"),
        ({"month": "2021-13"}, "2021-13 is not a month"),
        ({"min_minutes": 9.0, "max_minutes": 2.0}, "clean.min_minutes is 9.0"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings_of, says):
    with pytest.raises(SettingsError, match=says):
        drawn(**settings_of)
