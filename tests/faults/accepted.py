"""Settings that should be accepted: for each key of params.yaml, what it may be, corners first."""

import math
from typing import Any

from hypothesis import strategies as st

from trip_duration import params
from trip_duration.features import CATALOGUE


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def months(*firsts: str, most: int = 3) -> st.SearchStrategy[list[str]]:
    """One to three months that follow one another, or lie a year apart."""

    def named(first: str, step: int, count: int) -> list[str]:
        start = 12 * int(first[:4]) + int(first[5:]) - 1
        return [f"{n // 12}-{n % 12 + 1:02d}" for n in range(start, start + step * count, step)]

    return st.builds(named, st.sampled_from(firsts), one_of(1, 12), st.integers(1, most))


def within(name: str) -> st.SearchStrategy[Any]:
    """What XGBoost takes for a parameter, the ends of its range among them."""
    if name in params._WORDS:
        return st.sampled_from(sorted(params._WORDS[name]))
    if name == "monotone_constraints":
        return one_of("(0)", "(1,0,-1)", f"({','.join(['-1'] * 23)})")
    low, high, whole, above = params._RANGES[name]
    if whole:
        usual = st.integers(int(low), min(int(high), 12))
        return (
            one_of(int(low), min(int(high), 100 if name == "num_parallel_tree" else 10**9)) | usual
        )
    least = 1e-9 if above else low
    return one_of(least, float(high), int(high)) | st.floats(least, min(high, 100))


PARAMETERS = sorted(params.BOOSTER_PARAMETERS)


@st.composite
def distribution(draw: st.DrawFn, name: str) -> dict[str, list[Any]]:
    """One of hyperopt's, that stays where XGBoost takes what it draws."""
    if name not in params._RANGES or draw(st.integers(0, 3)) == 0:
        return {"choice": draw(st.lists(within(name), min_size=1, max_size=3))}
    takes = params._RANGES[name]
    low, high = sorted([draw(within(name)), draw(within(name))])
    if takes.whole:
        kind = draw(one_of("uniformint", "quniform", "qloguniform", "qnormal", "qlognormal"))
    else:
        kind = draw(st.sampled_from(sorted(set(params.DISTRIBUTIONS) - {"uniformint", "choice"})))
    if "log" in kind:
        low, high = (math.log(max(end, 1e-3)) for end in (low, high))
    if high - low < 1e-6:
        return {"choice": [takes.high if takes.high == 1 else 2]}
    if "normal" in kind:
        low, high = (low + high) / 2, (high - low) / 11
    step = draw(one_of(1, 2)) if takes.whole else (high - low) / draw(one_of(1, 4, 1000))
    return {kind: [low, high, step][: params.DISTRIBUTIONS[kind]]}


SPACES = st.lists(st.sampled_from(PARAMETERS), max_size=6, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: distribution(name) for name in names})
)
FIXED = st.lists(st.sampled_from(PARAMETERS), max_size=4, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: within(name) for name in names})
)
COLUMNS = st.lists(st.sampled_from(sorted(CATALOGUE)), max_size=4, unique=True)

# Keys whose largest value would only take long are held to what a test can wait for.
ACCEPTED: dict[str, st.SearchStrategy[Any]] = {
    "seed": one_of(0, 1, 2**31 - 1),
    "data.source": st.just("simulated"),
    "data.taxi": one_of("yellow", "green", "fhv", "fhvhv"),
    "data.train": months("2019-12", "2020-02", "2023-01", "2009-01"),
    "data.validation": months("2024-02", "2024-12", "2026-06", most=2),
    "data.test": st.just([]) | months("2027-01", "2031-12", most=2),
    "data.zones": st.none(),
    "data.simulated.trips_per_month": one_of(100, 150, 300, 1_200),
    "data.simulated.drift": one_of(0.0, -0.0, 1e-300, 0.02, -0.02, 0.499, -0.499),
    "clean.min_minutes": one_of(0, 0.001, 1 / 60, 1, 5, 59.9),
    "clean.max_minutes": one_of(1, 10.5, 60, 1439.9, 1440),
    "clean.max_miles": one_of(None, 0.01, 1, 3.5, 1e9, 1e299),
    "clean.other_months": st.booleans(),
    "clean.unknown_zones": st.booleans(),
    "features.preset": one_of("course", "metered", "booking", "custom"),
    "features.categorical": COLUMNS,
    "features.numerical": COLUMNS,
    "features.folds": one_of(2, 5, 50),
    "features.geometry": one_of("map", "learned"),
    "features.trend": st.booleans(),
    "search.max_evals": st.integers(0, 4),
    "search.algorithm": one_of("tpe", "random"),
    "search.startup_trials": one_of(1, 2, 100_000),
    "search.parallel_trials": one_of(1, 2, 3, 256),
    "search.num_boost_round": one_of(1, 2, 5),
    "search.early_stopping_rounds": one_of(1, 3, 1_000_000),
    "search.reduction_factor": one_of(None, 2, 3, 100),
    "search.first_rung": one_of(1e-300, 0.1, 3, 1_000_000),
    "search.max_bin": one_of(None, 2, 3, 64, 65_536),
    "search.sample_rows": one_of(None, 1, 2, 100, 10**12),
    "search.timeout_minutes": one_of(None, 1e-300, 1, 1e299),
    "search.space": SPACES,
    "search.points_to_evaluate": st.just([]),  # drawn from the space, see `points`
    "train.device": st.just("cpu"),  # cuda is refused before anything runs, where there is none
    "train.nthread": one_of(1, 2, 256),
    "train.max_bin": one_of(2, 3, 256, 65_536),
    "train.sample_rows": one_of(None, 10, 100, 10**12),
    "train.rows_in_memory": one_of(1, 200, 10**12),
    "train.num_boost_round": one_of(1, 2, 5),
    "train.early_stopping_rounds": one_of(1, 3, 1_000_000),
    "train.num_parallel_tree": one_of(1, 2, 100),
    "train.stop_on": one_of("inside", "validation"),
    "train.stop_days": one_of(1, 7, 28, 3_660),
    "train.half_life": one_of(None, 1e-300, 0.001, 0.6, 100),
    "train.level_days": one_of(None, 1, 7, 3_660),
    "train.refit": st.booleans(),
    "train.params": FIXED,
    "intervals.level": one_of(0.5, 0.9, 0.95, 0.99),
    "intervals.calibration_every": one_of(2, 3, 7, 28),
    "promotion.over_baselines": one_of(0, 0.1, 0.999),
    "promotion.over_champion": one_of(0, 1e-300, 0.999),
    "promotion.slice_bound": one_of(0, 0.05, 10),
    "promotion.slice_trips": one_of(1, 500, 10**12),
    "promotion.coverage_within": one_of(1e-300, 0.05, 1),
    "retrain.train_months": one_of(1, 2, 120),
    "retrain.validation_months": one_of(1, 24),
    "retrain.lag_months": one_of(0, 24),
    "retrain.wait_hours": one_of(1e-300, 24, 24 * 31),
    "retrain.patience_days": one_of(0, 3_660),
    "retrain.kept_share": one_of(0, 0.7, 1),
    "retrain.fewest_trips": one_of(1, 10**9),
    "monitor.sample_rows": one_of(100, 10_000_000),
    "monitor.column_drift": one_of(1e-300, 0.1, 10),
    "monitor.much_drift": one_of(1e-300, 0.5, 10),
    "monitor.much_share": one_of(1e-300, 0.5, 1),
    "monitor.much_error": one_of(1e-300, 0.25, 10),
    "serve.host": one_of("127.0.0.1", "0.0.0.0", "localhost", "::1"),
    "serve.port": one_of(1, 8000, 65_535),
    "serve.max_trips": one_of(1, 1000, 100_000),
    "serve.max_bytes": one_of(1_000, 262_144, 100_000_000),
    "serve.poll_seconds": one_of(0.1, 5, 86_400),
    "engine.runner": st.just("local"),  # tests/pipeline/test_dask.py runs the cluster
    "engine.dask_scheduler": one_of(None, "tcp://127.0.0.1:1", "tls://[::1]:65535"),
    "engine.workers": one_of(1, 2, 1024),
    "engine.distributed_training": st.just(False),
    "engine.storage": one_of(None, "s3://bucket/folder"),
}


@st.composite
def points(draw: st.DrawFn, space: dict[str, dict[str, list[Any]]]) -> list[dict[str, Any]]:
    """Points of a space, some of their values left to be drawn."""

    def value(kind: str, arguments: list[Any]) -> Any:
        if kind == "choice":
            return draw(st.sampled_from(arguments))
        if "normal" in kind:
            return math.exp(arguments[0]) if "log" in kind else arguments[0]
        low, high = params._reach(kind, arguments)
        return draw(st.sampled_from([low, high, low + (high - low) / 2]))

    found = []
    for _ in range(draw(st.integers(0, 2))):
        named = draw(st.lists(st.sampled_from(sorted(space)), unique=True)) if space else []
        point = {name: value(*next(iter(space[name].items()))) for name in named}
        whole = {n: params._RANGES[n].whole for n in point if n in params._RANGES}
        found.append({n: int(v) if whole.get(n) else v for n, v in point.items()})
    return found
