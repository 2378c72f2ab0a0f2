"""The presets on real months, beside the course's model and the naive baselines.

Each model is fitted as the stage train does it, with the parameters under
search.points_to_evaluate in params.yaml, and the number of rounds is found inside the training
months: the month that is judged is seen by nothing before. Green 2021-01 → 2021-02 is the course's
split; the others are months that nobody tuned on. Returns 1 if `metered` is above what is claimed.
"""

import argparse
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from report import ROOT, Claim, report

sys.path.insert(0, str(ROOT / "src"))

CLAIMED = {"map": 4.95, "learned": 5.03}  # minutes, `metered` on green 2021-01 → 2021-02
SECONDS = 60.0  # of all fits
FLOOR = 1.05  # times the simulated city's noise, with half a million training trips
SIMULATED = 258_500  # trips a month; of two months 500,000 are kept
SHARED = ROOT.parent / "shared" / "tlc"
OTHERS = {
    "green, raw file, three years later": ("green", ["2021-01", "2021-02"], "2024-01"),
    "yellow 2018": ("yellow", [f"2018-{n:02d}" for n in range(1, 7)], "2018-07"),
    "yellow 2019": ("yellow", [f"2019-{n:02d}" for n in range(4, 10)], "2019-10"),
    "yellow, into 2020": ("yellow", [f"2019-{n:02d}" for n in range(7, 13)], "2020-01"),
}


def main() -> int:
    """Fit each preset, and print what came out."""
    from trip_duration import params

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only-green", action="store_true", help="the course's split alone")
    arguments = parser.parse_args()
    chosen = params.load(ROOT / "params.yaml")
    claims = on_the_courses_split(chosen)
    conditions = "One fit each, green 2021-01 → 2021-02"
    if not arguments.only_green:
        claims += in_the_simulated_city(chosen)
        conditions += f", and the simulated city with two months of {SIMULATED:,} trips"
        for name, (taxi, learned, judged) in OTHERS.items():
            if all(path_of(taxi, month).exists() for month in [*learned, judged]):
                claims += elsewhere(chosen, name, taxi, learned, judged)
            else:
                print(f"\nSkipped, since its months are not in {SHARED}: {name}.")
    print()
    return report("accuracy", claims, f"{conditions}; {chosen.train.nthread} threads.")


def on_the_courses_split(chosen: Any) -> list[Claim]:
    """The table of green 2021-01 → 2021-02, and its claims."""
    from course import month

    learned, judged = trips_of(month("2021-01")), trips_of(month("2021-02"))
    heading("green 2021-01 → 2021-02")
    baselines(learned, judged)
    claims = []
    for preset in ("booking", "metered"):
        for kind in ("learned", "map"):
            name = f"{preset}, {'no map' if kind == 'learned' else 'TLC zone shapes'}"
            found = row(
                name,
                *fitted(
                    chosen,
                    {"2021-01": learned},
                    {"2021-02": judged},
                    preset=preset,
                    places=places() if kind == "map" else None,
                ),
                judged,
            )
            bound = CLAIMED[kind] if preset == "metered" else None
            claims += [
                Claim(f"green, {name}: RMSE", found[0], "minutes", bound),
                Claim(f"green, {name}: features and fits", found[1], "s", SECONDS),
            ]
    return claims


def elsewhere(chosen: Any, name: str, taxi: str, learned: list[str], judged: str) -> list[Claim]:
    """The same on months that nobody tuned on, beside the course's own model."""
    import pyarrow as pa

    months = {month: trips_of(path_of(taxi, month)) for month in learned}
    last = trips_of(path_of(taxi, judged))
    heading(f"{name}: {learned[0]} … {learned[-1]} → {judged}")
    baselines(pa.concat_tables(months.values()), last)
    claims = []
    for preset in ("booking", "metered"):
        made = fitted(chosen, months, {judged: last}, preset=preset, places=places())
        rmse, _ = row(f"{preset}, TLC zone shapes", *made, last)
        claims.append(Claim(f"{name}, {preset}: RMSE", rmse, "minutes"))
    return claims


def in_the_simulated_city(chosen: Any) -> list[Claim]:
    """500,000 training trips of the city that states its own noise, and a test month."""
    import pyarrow as pa

    from trip_duration.geometry import projected
    from trip_duration.sources import simulated
    from trip_duration.trips import Rules, clean, to_canonical

    def drawn(month: str) -> tuple[Any, dict[str, Any]]:
        source = simulated.SimulatedMonth(month, taxi="green", seed=chosen.seed, trips=SIMULATED)
        rules = Rules(min_minutes=1.0, max_minutes=60.0)
        parts = [clean(to_canonical(batch), rules)[0] for batch in source.batches()]
        return pa.concat_tables(parts), source.noise()

    months = {month: drawn(month)[0] for month in ("2024-01", "2024-02")}
    last, noise = drawn("2024-03")
    zones = simulated.city(chosen.seed).zones()
    where = projected(*(zones[name].to_numpy() for name in ("zone", "longitude", "latitude")))
    heading(f"the simulated city, {sum(t.num_rows for t in months.values()):,} training trips")
    floors = simulated.noise_floor([noise])
    claims = []
    for preset, kind in (("booking", "map"), ("metered", "map"), ("metered", "no map")):
        made = fitted(
            chosen,
            months,
            {"2024-03": last},
            preset=preset,
            places=where if kind == "map" else None,
        )
        rmse, _ = row(f"{preset}, {kind}", *made, last)
        ratio = rmse / floors[preset]
        print(f"{'':28}{ratio:8.3f} times the noise floor of {floors[preset]:.3f}", flush=True)
        claims.append(
            Claim(
                f"simulated city, {preset}, {kind}: RMSE",
                ratio,
                "times the noise floor",
                FLOOR,
                detail=f"{rmse:.3f} and {floors[preset]:.3f} minutes",
            )
        )
    return claims


def heading(name: str) -> None:
    """The head of a table."""
    print(f"\n{name}")
    print(f"{'':28}{'RMSE':>8}{'MAE':>8}{'bias':>8}{'rounds':>8}{'seconds':>9}", flush=True)


def baselines(learned: Any, judged: Any) -> None:
    """The naive baselines, and the course's own model as the course fits it."""
    import numpy as np
    import xgboost as xgb

    from trip_duration.baselines import Baselines
    from trip_duration.evaluation import metrics
    from trip_duration.features import FeatureBuilder
    from trip_duration.training import (
        COURSE_EARLY_STOPPING_ROUNDS,
        COURSE_PARAMS,
        COURSE_ROUNDS,
        matrices,
        train_best_model,
    )

    actual = judged["duration"].to_numpy()
    for name, minutes in Baselines.fit([learned]).predict(judged).items():
        found = metrics(actual, minutes)
        print(f"{name.replace('_', ' '):28}" + "".join(f"{found[k]:8.3f}" for k in KEYS))
    began = time.perf_counter()
    builder = FeatureBuilder.fit([learned], preset="course")
    sides = [builder.matrix(builder.transform(trips)) for trips in (learned, judged)]
    pair = matrices(sides[0], learned["duration"].to_numpy(), sides[1], actual)
    fit = train_best_model(
        *pair,
        COURSE_PARAMS,
        num_boost_round=COURSE_ROUNDS,
        early_stopping_rounds=COURSE_EARLY_STOPPING_ROUNDS,
        curve=False,
    )
    predicted = fit.booster.predict(xgb.DMatrix(sides[1]))
    found = metrics(actual, np.asarray(predicted))
    cells = "".join(f"{found[k]:8.3f}" for k in KEYS)
    print(f"{'the course':28}{cells}{fit.rounds:8}{time.perf_counter() - began:9.1f}", flush=True)


NAMES = (
    *("half_life", "level_days", "num_parallel_tree"),
    *("num_boost_round", "early_stopping_rounds"),
)
KEYS = ("rmse", "mae", "bias")


def row(name: str, booster: Any, builder: Any, seconds: float, judged: Any) -> tuple[float, float]:
    """Print a model's errors; its RMSE in minutes, and the seconds of its fits."""
    from trip_duration.evaluation import metrics
    from trip_duration.prediction import predict_minutes

    found = metrics(judged["duration"].to_numpy(), predict_minutes(judged, booster, builder))
    cells = "".join(f"{found[k]:8.3f}" for k in KEYS)
    rounds = booster.num_boosted_rounds()
    print(f"{name:28}{cells}{rounds:8}{seconds:9.1f}", flush=True)
    return found["rmse"], seconds


def fitted(
    chosen: Any,
    learned: dict[str, Any],
    judged: dict[str, Any],
    *,
    preset: str,
    places: Any,
    trend: bool = False,
    params: dict[str, Any] | None = None,
    **how: Any,
) -> tuple[Any, Any, float]:
    """Fit as the stages do: the booster, the features, and the seconds that all of it took.

    Parameters
    ----------
    chosen : Params
        Settings; ``how`` wins over those of the group train.
    learned, judged : dict of str to pyarrow.Table
        Canonical trips by month.
    preset : str
        Of the features.
    places : array of shape (266, 2) or None
        Where the zones are; None learns it.
    trend : bool
        As in `FeatureBuilder.fit`.
    params : dict, optional
        Win over the parameters of params.yaml.
    """
    from trip_duration.features import FeatureBuilder
    from trip_duration.splits import Rows, divide
    from trip_duration.training import train_model

    began = time.perf_counter()
    months = sorted(learned)
    builder = FeatureBuilder.fit(
        [learned[month] for month in months],
        preset=preset,
        seed=chosen.seed,
        places=places,
        trend=trend,
    )
    made = [
        builder.transform_training(learned[month], month=number)
        for number, month in enumerate(months)
    ]
    roles = divide(
        Rows.read(made, builder),
        Rows.read([builder.transform(trips) for trips in judged.values()], builder),
        train_months=months,
        validation_months=judged,
        stop_days=chosen.train.stop_days,
    )
    settings = {name: getattr(chosen.train, name) for name in NAMES}
    booster, _ = train_model(
        roles,
        {**chosen.search.points_to_evaluate[0], **chosen.train.params, **(params or {})},
        names=builder.columns,
        types=builder.feature_types,
        seed=chosen.seed,
        nthread=chosen.train.nthread,
        max_bin=chosen.train.max_bin,
        curve=False,
        **settings | how,
    )
    return booster, builder, time.perf_counter() - began


def path_of(taxi: str, month: str) -> Path:
    """Where a real month is, of green taxi or of the samples of yellow."""
    folder = SHARED if taxi == "green" else SHARED / "samples"
    return folder / f"{taxi}_tripdata_{month}.parquet"


def trips_of(path: Path) -> Any:
    """A month's canonical trips, cleaned as the course does."""
    import pyarrow as pa

    from trip_duration.features import read_dataframe
    from trip_duration.trips import SCHEMA

    return pa.Table.from_pandas(read_dataframe(path)[SCHEMA.names], SCHEMA, preserve_index=False)


@cache
def places() -> Any:
    """Where TLC's zones are, in miles: from the folder of real months, else from TLC itself."""
    from trip_duration.geometry import projected
    from trip_duration.sources import tlc
    from trip_duration.zones import load_zones

    path = SHARED / "taxi_zones.geojson"
    if not path.exists():
        path = ROOT / ".cache/source/taxi_zones.zip"
        if not path.exists():
            tlc.download(tlc.zones_url(), path)
    table = load_zones(path).table()
    return projected(*(table[name].to_numpy() for name in ("zone", "longitude", "latitude")))


if __name__ == "__main__":
    sys.exit(main())
