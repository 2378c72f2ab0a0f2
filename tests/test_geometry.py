"""Maps of zones, against maps that are known: by hand, simulated, and TLC's own."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes
from scipy.spatial.distance import cdist, pdist

from trip_duration import geometry
from trip_duration.errors import TripDurationError
from trip_duration.features import read_dataframe
from trip_duration.geometry import ZONES, PairDistances, learned, projected
from trip_duration.sources.simulated import SimulatedMonth, city
from trip_duration.trips import Rules, clean, to_canonical
from trip_duration.zones import load_zones

SEED = 42


def known(places: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isfinite(places).all(axis=1))


def off(places: np.ndarray, truth: np.ndarray, zones: np.ndarray | None = None) -> float:
    """How far places lie from the true ones, after the best turning, mirroring and scaling.

    Root mean square, as a share of the true places' own from their middle: 0 is the same map, 1 is
    as far off as having all zones in the middle.
    """
    zones = known(places) if zones is None else zones
    return float(np.sqrt(procrustes(truth[zones], places[zones])[2]))


def shuffled(places: np.ndarray) -> np.ndarray:
    zones = known(places)
    mixed = places.copy()
    mixed[zones] = places[np.random.default_rng(SEED).permutation(zones)]
    return mixed


def scattered(zones: int = 100) -> np.ndarray:
    """Places of the zones 1 to ``zones`` in a box of 20 by 10 miles."""
    places = np.full((ZONES, 2), np.nan)
    places[1 : zones + 1] = np.random.default_rng(SEED).uniform(0, [20, 10], (zones, 2))
    return places


def pairs_of(
    places: np.ndarray, share: float = 1.0, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Some of the pairs of the places, their miles and a count, as `PairDistances` gives them."""
    rng = np.random.default_rng(SEED)
    zones = known(places)
    i, j = (zones[end] for end in np.triu_indices(len(zones), 1))
    kept = rng.random(len(i)) < share
    i, j = i[kept], j[kept]
    miles = np.linalg.norm(places[i] - places[j], axis=1)
    return i, j, miles * np.exp(noise * rng.normal(size=len(i))), np.full(len(i), 3)


# From longitude and latitude


def test_miles_east_and_north_by_hand() -> None:
    places = projected(np.array([3, 7, 9]), np.array([-74.5, -73.5, np.nan]), np.array([41, 40, 1]))
    assert places.shape == (ZONES, 2)
    assert places.dtype == np.float64
    assert known(places).tolist() == [3, 7]
    north = np.pi / 180 * 3958.7613 / 2  # half a degree
    east = north * np.cos(np.radians(40.5))
    np.testing.assert_allclose(places[[3, 7]], [[-east, north], [east, -north]], atol=5.1e-5)
    assert np.array_equal(places[3], np.round(places[3], 4))


def test_a_map_without_places_is_unknown_everywhere() -> None:
    assert np.isnan(projected(np.array([1]), np.array([np.nan]), np.array([np.nan]))).all()


@pytest.mark.parametrize("zone", [-1, 0, 266])
def test_a_zone_that_does_not_exist_is_refused(zone: int) -> None:
    with pytest.raises(TripDurationError, match=rf"zone id {zone}: expected ids from 1 to 265"):
        projected(np.array([1, zone]), np.zeros(2), np.zeros(2))


def true_map() -> np.ndarray:
    zones = city(SEED).zones()
    return projected(*(zones[name].to_numpy() for name in ("zone", "longitude", "latitude")))


def test_the_simulated_citys_own_plane_comes_back() -> None:
    places = true_map()
    assert known(places).tolist() == list(range(1, 264))
    # The city turns latitude into miles a little differently: 69.05 of them, here 69.09.
    np.testing.assert_allclose(pdist(places[1:264]), pdist(city(SEED).place), rtol=3e-3, atol=1e-3)


# Medians

TRIPS = st.lists(
    st.tuples(
        st.integers(0, 6) | st.just(264),
        st.integers(0, 6) | st.just(265),
        st.integers(1, 5999).map(lambda hundredths: hundredths / 100)
        | st.sampled_from([0.001, 0.07, 0.0, -1.0, 59.999, 60.0, 1e9, float("nan")]),
    ),
    max_size=60,
)


def columns(trips: list[tuple[int, int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(trips, float).reshape(-1, 3)
    return table[:, 0].astype(np.int32), table[:, 1].astype(np.int32), table[:, 2]


@settings(max_examples=40)
@given(TRIPS)
def test_medians_are_numpys_within_a_bin(trips: list[tuple[int, int, float]]) -> None:
    held: dict[tuple[int, int], list[float]] = {}
    for pickup, dropoff, miles in trips:
        pair = min(pickup, dropoff), max(pickup, dropoff)
        if 0.005 <= miles < 60 and 0 < pair[0] < pair[1] <= 6:
            held.setdefault(pair, []).append(max(miles, 0.05))
    distances = PairDistances()
    distances.add(*columns(trips))
    i, j, miles, count = distances.medians()
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == sorted(held)
    assert count.tolist() == [len(held[pair]) for pair in sorted(held)]
    exact = np.array([np.median(held[pair]) for pair in sorted(held)])
    assert (np.abs(miles - exact) <= 0.01 + 0.08 * exact).all()


def test_a_median_of_many_trips_is_close() -> None:
    miles = np.round(np.random.default_rng(SEED).lognormal(1.0, 0.5, 20_001), 2)
    distances = PairDistances()
    distances.add(np.full(20_001, 5), np.full(20_001, 2), miles)
    assert distances.medians()[2] == pytest.approx(np.median(miles), rel=0.005)


@settings(max_examples=30)
@given(TRIPS, st.integers(0, 60), st.randoms(use_true_random=False))
def test_order_direction_and_batches_leave_no_trace(trips, cut, random) -> None:
    once, twice = PairDistances(), PairDistances()
    once.add(*columns(trips))
    mixed = [(b, a, miles) if random.random() < 0.5 else (a, b, miles) for a, b, miles in trips]
    random.shuffle(mixed)
    for part in (mixed[:cut], mixed[cut:]):
        pickup, dropoff, miles = columns(part)
        twice.add(pickup.astype(np.int16), dropoff.astype(np.int16), miles)
    for one, other in zip(once.medians(), twice.medians(), strict=True):
        assert np.array_equal(one, other)


# Learning


def test_a_triangle_by_hand() -> None:
    i, j = np.array([1, 1, 2]), np.array([2, 9, 9])
    places = learned(i, j, np.array([3.0, 4.0, 5.0]), np.array([1, 7, 1]))
    assert places.shape == (ZONES, 2)
    assert known(places).tolist() == [1, 2, 9]
    np.testing.assert_allclose(pdist(places[[1, 2, 9]]), [3, 4, 5], atol=2e-3)
    np.testing.assert_allclose(places[[1, 2, 9]].mean(axis=0), 0, atol=1e-4)
    assert np.array_equal(places[[1, 2, 9]], np.round(places[[1, 2, 9]], 4))


def test_exact_miles_give_the_exact_map() -> None:
    truth = scattered()
    places = learned(*pairs_of(truth))
    assert known(places).tolist() == list(range(1, 101))
    np.testing.assert_allclose(pdist(places[1:101]), pdist(truth[1:101]), atol=2e-3)
    assert off(shuffled(places), truth) > 0.8


def test_pairs_that_no_trip_had_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = scattered()
    pairs = pairs_of(truth, share=0.3, noise=0.1)
    assert off(learned(*pairs), truth) < 0.05
    monkeypatch.setattr(geometry, "_ROUNDS", ())  # classical scaling alone
    assert off(learned(*pairs), truth) > 0.09


def test_zones_that_nothing_joins_to_the_others_are_unknown() -> None:
    i, j = np.array([1, 1, 2, 10]), np.array([2, 3, 3, 11])
    places = learned(i, j, np.array([1.0, 2.0, 2.0, 1.0]), np.ones(4))
    assert known(places).tolist() == [1, 2, 3]


def test_without_trips_nothing_is_known() -> None:
    assert np.isnan(learned(*PairDistances().medians())).all()


def test_one_pair_lies_on_the_first_axis() -> None:
    places = learned(np.array([4]), np.array([5]), np.array([6.0]), np.array([1]))
    assert places[4:6].tolist() == [[3.0, 0.0], [-3.0, 0.0]]


def test_the_order_of_the_pairs_leaves_no_trace() -> None:
    pairs = pairs_of(scattered(), share=0.5, noise=0.2)
    order = np.random.default_rng(SEED).permutation(len(pairs[0]))
    mixed = [part[order] for part in pairs]
    assert np.array_equal(learned(*pairs), learned(*mixed), equal_nan=True)


def test_the_map_lies_on_its_principal_axes() -> None:
    turned = scattered() @ np.array([[0.0, -1.0], [1.0, 0.0]])
    places = learned(*pairs_of(turned))[1:101]
    across, tilt, along = (places.T @ places)[[0, 0, 1], [0, 1, 1]]
    assert across > along
    assert abs(tilt) < 1e-3 * along
    assert (places.max(axis=0) >= -places.min(axis=0)).all()


def with_wrong_meters(
    pairs: tuple[np.ndarray, ...], share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    i, j, miles, count = pairs
    wrong = np.random.default_rng(SEED).random(len(miles)) < share
    return i, j, np.where(wrong, 0.05, miles), count


def test_wrong_meters_do_not_pull_the_map_together(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = scattered()
    pairs = with_wrong_meters(pairs_of(truth, share=0.5, noise=0.1), share=0.05)
    assert off(learned(*pairs), truth) < 0.06
    with monkeypatch.context() as without:
        without.setattr(geometry, "_TRUST", np.inf)  # all errors count squared
        assert off(learned(*pairs), truth) > 0.08
    with monkeypatch.context() as without:
        without.setattr(geometry, "_COMMON", ZONES)  # no pair is left out
        assert off(learned(*pairs), truth) > 0.2


def test_honest_pairs_are_not_contradicted() -> None:
    for noise, most in ((0.0, 0.0), (0.1, 0.003)):
        i, j, miles, _ = pairs_of(scattered(), noise=noise)
        driven = np.full((ZONES, ZONES), np.nan)
        driven[i, j] = driven[j, i] = miles
        wrong = geometry._contradicted(driven)
        assert np.array_equal(wrong, wrong.T)
        assert wrong.sum() / 2 <= most * len(miles)


def test_classical_scaling_is_scikit_learns() -> None:
    from sklearn.manifold import ClassicalMDS

    rng = np.random.default_rng(SEED)
    paths = cdist(*[rng.normal(size=(30, 4))] * 2)  # of four dimensions, so no map fits
    theirs = ClassicalMDS(n_components=2, metric="precomputed").fit_transform(paths)
    np.testing.assert_allclose(pdist(geometry._classical(paths)), pdist(theirs), rtol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_a_step_has_no_more_stress(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, weight = (np.triu(rng.uniform(0.1, 5, (8, 8)), 1) for _ in range(2))
    target, weight = target + target.T + np.eye(8), weight + weight.T
    places = rng.normal(size=(8, 2))

    def stress(places: np.ndarray) -> float:
        return float((weight * (cdist(places, places) - target) ** 2).sum())

    apart = np.maximum(cdist(places, places), 1e-9)
    assert stress(geometry._step(places, apart, target, weight)) <= stress(places) * (1 + 1e-9)


# Whole cities


@pytest.fixture(scope="module")
def simulated() -> np.ndarray:
    distances = PairDistances()
    for batch in SimulatedMonth("2023-01", taxi="green", seed=SEED, trips=60_000).batches():
        trips = clean(to_canonical(batch), Rules())[0]
        distances.add(
            *(trips[end].fill_null(0).to_numpy() for end in ("pickup_zone", "dropoff_zone")),
            trips["trip_distance"].fill_null(np.nan).to_numpy(),
        )
    return learned(*distances.medians())


def test_the_learned_map_of_the_simulated_city_is_the_true_one(simulated: np.ndarray) -> None:
    """Within 8 % of the city's radius, 0.55 miles; measured 6.0 %, rivers and all."""
    truth = true_map()
    assert len(known(simulated)) > 255
    assert off(simulated, truth) < 0.08
    assert off(simulated * [1, -1], truth) < 0.08  # mirrored: nothing tells them apart
    assert off(shuffled(simulated), truth) > 0.9
    zones = known(simulated)
    crow, driven = pdist(truth[zones]), pdist(simulated[zones])
    assert np.median(driven / crow) == pytest.approx(1.4, abs=0.1)  # driven miles, not the crow's


def test_the_learned_map_of_new_york_is_the_true_one(tlc: Path) -> None:
    trips = read_dataframe(tlc / "green_tripdata_2021-01.parquet")
    ends = [trips[end].fillna(0).to_numpy(np.int32) for end in ("pickup_zone", "dropoff_zone")]
    distances = PairDistances()
    distances.add(*ends, trips["trip_distance"].to_numpy(np.float64, na_value=np.nan))
    places = learned(*distances.medians())
    zones = load_zones(tlc / "taxi_zones.geojson").table()
    truth = projected(*(zones[name].to_numpy() for name in ("zone", "longitude", "latitude")))
    often = np.bincount(np.concatenate(ends), minlength=ZONES) >= 30
    often &= np.isfinite(places + truth).all(axis=1)
    assert often.sum() > 220
    assert off(places, truth, np.flatnonzero(often)) < 0.15
    assert off(shuffled(places), truth, np.flatnonzero(often)) > 0.9
