"""Who learns, who stops, who calibrates: by whole days, and nobody twice."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from tests.test_leaks import SOMEWHERE, city

from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.features import FeatureBuilder
from trip_duration.files import write_parquet
from trip_duration.splits import Roles, Rows, calibrates, divide, weigher

JANUARY = int(np.datetime64("2021-01-01").astype("datetime64[D]").astype(int))
MONTHS = {"train_months": ["2021-01"], "validation_months": ["2021-02"]}


def days(first: int, last: int, *, a_day: int = 3, sparse: bool = False) -> Rows:
    """So many trips on each day, counted from 2021-01-01; the only column numbers them."""
    day = np.repeat(np.arange(first, last + 1), a_day) + JANUARY
    X = np.arange(len(day), dtype=np.float32)[:, None] + 1000 * first
    return Rows.of(csr_matrix(X) if sparse else X, np.ones(len(day)), day)


def numbered(rows: Rows) -> set[int]:
    return {round(float(x)) for x in np.asarray(rows.whole.X.sum(axis=1)).ravel()}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["inside", "validation"]), st.integers(1, 30), st.integers(2, 9), st.booleans()
)
def test_nobody_has_two_roles(stop_on: str, stop_days: int, every: int, refit: bool) -> None:
    train, validation = days(0, 30), days(31, 58)
    roles = divide(
        train,
        validation,
        **MONTHS,
        stop_on=stop_on,
        stop_days=stop_days,
        calibration_every=every,
        refit=refit,
    )
    assert len(roles.fit) == len(roles.fit.whole.day)
    fit, stop, final, apart = map(numbered, (roles.fit, roles.stop, roles.final, roles.calibration))
    assert not fit & stop
    assert not apart & (fit | stop | final)
    assert fit <= final
    both = numbered(train) | numbered(validation)
    if stop_on == "inside":
        assert fit | stop == numbered(train)
        assert len(stop) == 3 * stop_days
        assert roles.fit.days[-1] < roles.stop.days[0]
    else:
        assert fit == numbered(train)
        assert stop == numbered(validation) - apart
    assert final == (both - apart if refit else numbered(train))
    assert not set(roles.calibration.days) & set(roles.stop.days)
    assert len(roles.calibration.days) in (28 // every, 28 // every + 1)


def test_the_last_day_calibrates_and_every_so_many_before_it() -> None:
    february = np.arange(31, 59) + JANUARY
    chosen = february[calibrates(february, ["2021-02"], 9)]
    assert (chosen - JANUARY).tolist() == [31, 40, 49, 58]


def test_where_nothing_new_is_learned_the_last_fit_is_the_first() -> None:
    roles = divide(days(0, 30), days(31, 58), **MONTHS, stop_on="validation")
    assert roles.final is roles.fit


def test_sparse_rows_are_joined_as_dense_ones_are() -> None:
    def divided(sparse: bool) -> Roles:
        parts = days(0, 30, sparse=sparse), days(31, 58, sparse=sparse)
        return divide(*parts, **MONTHS, refit=True)

    sparse, dense = divided(True), divided(False)
    np.testing.assert_array_equal(sparse.final.whole.X.toarray(), dense.final.whole.X)
    np.testing.assert_array_equal(sparse.final.whole.day, dense.final.whole.day)
    assert sparse.final.whole.X.format == "csr"


@pytest.mark.parametrize(("first", "last", "which"), [(27, 30, "all"), (0, 20, "none")])
def test_days_that_leave_a_role_empty_are_refused(first: int, last: int, which: str) -> None:
    with pytest.raises(SettingsError, match=f"train.stop_days is 7, and {which} of the"):
        divide(days(first, last), days(31, 58), **MONTHS)


@pytest.mark.parametrize("empty", [0, 1])
def test_months_without_trips_are_refused(empty: int) -> None:
    parts = [days(0, 30), days(31, 58)]
    parts[empty] = days(31, 30)
    with pytest.raises(TripDurationError, match=r"data\.(train|validation)"):
        divide(*parts, **MONTHS)


def test_a_half_life_halves_and_clocks_that_are_off_change_nothing() -> None:
    day = np.arange(20_000) // 200 + JANUARY  # 100 days

    def weights(day: np.ndarray) -> np.ndarray:
        weigh = weigher(Rows.of(np.zeros((len(day), 1)), day, day), 0.1)
        assert weigh is not None
        return weigh(day)

    half = weights(day)
    assert half[-1] == 1.0
    assert half[-1 - 10 * 200] == pytest.approx(0.5)  # a tenth of the days earlier
    assert half[0] == pytest.approx(0.5**9.9)
    off = weights(np.concatenate([[JANUARY - 4000], day, [JANUARY + 4000]]))
    np.testing.assert_allclose(off, np.concatenate([half[:1], half, [1.0]]))
    assert weigher(Rows.of(day, day, day), None) is None


def test_rows_are_read_as_often_as_they_are_asked_for(tmp_path: Path) -> None:
    trips = city("2024-01", 900)
    builder = FeatureBuilder.fit(trips, preset="booking", places=SOMEWHERE)
    made = builder.transform(trips)
    paths = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    for path, part in zip(paths, (made.slice(0, 300), made.slice(300)), strict=True):
        write_parquet(part, path)
    read, held = Rows.read(paths, builder), Rows.read([made], builder)
    assert len(read) == len(made)
    for _ in range(2):
        assert [len(part.minutes) for part in read] == [300, made.num_rows - 300]
    thin = Rows.read(paths, builder, every=7)
    kept = np.r_[0:300:7, 300 : len(made) : 7]
    np.testing.assert_array_equal(thin.whole.minutes, held.whole.minutes[kept])
    assert len(thin) == len(kept)
    for one, other in zip(read.whole, held.whole, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(read.days, held.days)
    np.testing.assert_array_equal(read.trips, held.trips)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any), st.integers(1, 60))
def test_a_sample_is_evenly_spaced_however_the_rows_are_cut(sizes: list[int], most: int) -> None:
    X = np.arange(sum(sizes))[:, None] * 1.0
    ends = np.cumsum(sizes)
    whole = Rows.of(X, X[:, 0], X[:, 0].astype(np.int64))
    parts = [whole.whole.where(np.arange(b - n, b)) for n, b in zip(sizes, ends, strict=True)]
    rows = Rows(lambda: iter(parts), whole.days, whole.trips)
    taken = rows.sample(most)
    assert len(taken) <= most
    joined = list(rows.together(most))
    assert all(len(part.minutes) >= most for part in joined[:-1])
    np.testing.assert_array_equal(np.concatenate([part.minutes for part in joined]), X[:, 0])
    step = -(-len(rows) // most)
    np.testing.assert_array_equal(taken.whole.minutes, np.arange(0, len(rows), step))
