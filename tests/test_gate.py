"""The gate: against numbers worked out by hand, and what must hold of any numbers."""

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_evaluation import TRIPS

from trip_duration.baselines import Baselines
from trip_duration.errors import TripDurationError
from trip_duration.gate import ALL, CHAMPION, COVERAGE, Slice, Verdict, decide, judge
from trip_duration.params import Promotion

RULES = Promotion(
    over_baselines=0.1, over_champion=0.02, slice_bound=0.05, slice_trips=100, coverage_within=0.05
)


def found(**others: Any) -> Verdict:
    numbers = {
        "promoted": False,
        "checks": (),
        "reasons": (),
        "notes": (),
        "months": ("2024-04",),
        "trips": 1000,
        "rmse": 4.0,
        "champion_rmse": 5.0,
        "baselines": {"mean": 9.0, "pair_median": 6.0},
        "level": 0.9,
        "coverage": 0.91,
        "width": 10.0,
        "slices": (Slice("hour", "08", 100, 5.0, 5.0), Slice("hour", "09", 99, 50.0, 5.0)),
    }
    return Verdict(**numbers | others)


def failed(verdict: Verdict) -> list[tuple[str, str]]:
    return [(check.name, check.slice) for check in verdict.checks if not check.passed]


# -- the rules -----------------------------------------------------------------------------------


def test_a_model_that_is_better_is_promoted() -> None:
    verdict = decide(found(), RULES)
    assert verdict.promoted
    assert [(check.name, check.slice, check.difference) for check in verdict.checks] == [
        ("mean", ALL, -0.555556),
        ("pair_median", ALL, -0.333333),
        (CHAMPION, ALL, -0.2),
        (CHAMPION, "hour 08", 0.0),
        (COVERAGE, ALL, 0.01),
    ]
    assert verdict.reasons[2] == "RMSE 4.000 is 20.0% below that of the champion (5.000)"
    assert verdict.notes == ("Too few trips to compare (below 100): hour 09.",)


@pytest.mark.parametrize(
    ("others", "why", "reason"),
    [
        (
            {"champion_rmse": 4.0},
            (CHAMPION, ALL),
            "RMSE 4.000 is that of the champion (4.000), and it must be more than 2.0% below",
        ),
        (
            {"champion_rmse": 4.07},
            (CHAMPION, ALL),
            "RMSE 4.000 is 1.7% below that of the champion (4.070), and it must be more than 2.0% "
            "below",
        ),
        (
            {"baselines": {"mean": 4.4}},
            ("mean", ALL),
            "RMSE 4.000 is 9.1% below that of the mean (4.400), and it must be more than 10.0% "
            "below",
        ),
        (
            {"slices": (Slice("borough", "Queens", 100, 5.3, 5.0),)},
            (CHAMPION, "borough Queens"),
            "borough Queens: RMSE 5.300 is 6.0% above that of the champion (5.000), and it must "
            "be at most 5.0% above",
        ),
        (
            {"coverage": 0.84},
            (COVERAGE, ALL),
            "84.0% of the trips lie in their intervals of 90%, more than 5 points off",
        ),
        (
            {"coverage": 0.96},
            (COVERAGE, ALL),
            "96.0% of the trips lie in their intervals of 90%, more than 5 points off",
        ),
    ],
)
def test_a_model_that_fails_is_kept_and_told_why(
    others: dict[str, Any], why: tuple[str, str], reason: str
) -> None:
    verdict = decide(found(**others), RULES)
    assert not verdict.promoted
    assert failed(verdict) == [why]
    assert verdict.reasons == (reason,)


def test_without_a_margin_as_good_is_not_enough() -> None:
    rules = RULES.model_copy(update={"over_champion": 0.0})
    assert not decide(found(champion_rmse=4.0), rules).promoted
    assert decide(found(champion_rmse=4.001), rules).promoted
    assert decide(found(champion_rmse=4.001), rules).reasons[2] == (
        "RMSE 4.000 is 0.025% below that of the champion (4.001)"
    )


def test_without_a_champion_the_baselines_alone_are_to_beat() -> None:
    slices = (Slice("hour", "08", 100, 50.0, None),)
    verdict = decide(found(champion_rmse=None, slices=slices), RULES, learned=["2024-04"])
    assert verdict.promoted
    assert {check.name for check in verdict.checks} == {"mean", "pair_median", COVERAGE}
    assert verdict.notes == ()


def test_a_champion_that_learned_from_what_judges_is_said() -> None:
    verdict = decide(found(months=("2024-04", "2024-05")), RULES, learned=["2024-03", "2024-04"])
    assert verdict.notes[0] == (
        "The champion learned from 2024-04, whose trips judge here: that favours it over the "
        "challenger."
    )


def test_a_rival_without_error_is_not_beaten() -> None:
    verdict = decide(found(baselines={"mean": 0.0}), RULES)
    assert failed(verdict) == [("mean", ALL)]
    assert math.isinf(verdict.checks[0].difference)


RMSE = st.floats(0.001, 100).map(lambda value: round(value, 6))
SLICES = st.lists(
    st.builds(
        Slice, st.just("hour"), st.text("0123456789", min_size=2), st.integers(1, 300), RMSE, RMSE
    ),
    max_size=6,
).map(tuple)
SHARE = st.floats(0, 0.5)


@given(
    verdict=st.builds(
        found,
        rmse=RMSE,
        champion_rmse=RMSE,
        baselines=st.fixed_dictionaries({"mean": RMSE, "pair_median": RMSE}),
        coverage=st.floats(0, 1),
        slices=SLICES,
    ),
    rules=st.builds(
        Promotion,
        over_baselines=SHARE,
        over_champion=SHARE,
        slice_bound=SHARE,
        slice_trips=st.integers(1, 300),
        coverage_within=st.floats(0.01, 1),
    ),
)
def test_any_verdict_follows_from_its_checks(verdict: Verdict, rules: Promotion) -> None:
    decided = decide(verdict, rules)
    slack = 2e-6  # differences are rounded
    below = [
        (verdict.rmse / rival - 1, -margin)
        for rivals, margin in (
            (verdict.baselines.values(), rules.over_baselines),
            ([verdict.champion_rmse], rules.over_champion),
        )
        for rival in rivals
        if rival is not None
    ]
    within = [
        (part.rmse / (part.champion_rmse or 1) - 1, rules.slice_bound)
        for part in verdict.slices
        if part.trips >= rules.slice_trips
    ]
    within.append((abs(verdict.coverage - verdict.level), rules.coverage_within))
    if decided.promoted:
        assert all(value < bound + slack for value, bound in below + within)
    else:
        assert any(value > bound - slack for value, bound in below + within)
        assert len(decided.reasons) == len(failed(decided))
    assert len(decided.checks) == len(below) + len(within)
    assert decided.promoted == (not failed(decided))
    assert Verdict.from_json(json.loads(json.dumps(decided.to_json()))) == decided


@given(SLICES, RMSE, SHARE, SHARE)
def test_stricter_rules_promote_no_more(
    slices: tuple[Slice, ...], rmse: float, one: float, other: float
) -> None:
    loose, strict = min(one, other), max(one, other)
    for name in ("over_baselines", "over_champion"):
        verdict = found(rmse=rmse, slices=slices)
        by = [
            decide(verdict, RULES.model_copy(update={name: margin})).promoted
            for margin in (loose, strict)
        ]
        assert by[0] >= by[1]
    bounds = [RULES.model_copy(update={"slice_bound": bound}) for bound in (loose, strict)]
    assert decide(verdict, bounds[0]).promoted <= decide(verdict, bounds[1]).promoted


# -- both models on the same trips ---------------------------------------------------------------


@dataclass
class Off:
    """Stands for a model: off by so many minutes, up and down in turn."""

    minutes: float
    width: float = 2.0

    @property
    def calibration(self) -> Any:
        return type("Calibration", (), {"level": 0.9})

    def predict(self, trips: pa.Table) -> dict[str, np.ndarray]:
        said = trips["duration"].to_numpy() + self.minutes
        return {"minutes": said, "lower": said - self.width, "upper": said + self.width}


class Nothing(Baselines):
    """Always says zero."""

    def __init__(self) -> None:
        pass

    def predict(self, trips: pa.Table) -> dict[str, np.ndarray]:
        return {"mean": np.zeros(trips.num_rows)}


def judged(
    challenger: Off, champion: Off | None, months: dict[str, pa.Table], **how: Any
) -> Verdict:
    rules = RULES.model_copy(update={"slice_trips": 1})
    boroughs = {1: "Upper", 2: "Lower"}
    return judge(challenger, champion, Nothing(), months, rules, boroughs=boroughs, **how)  # type: ignore[arg-type]


def test_errors_by_hand() -> None:
    verdict = judged(Off(1.0), Off(-2.0), {"2021-01": TRIPS})
    assert (verdict.trips, verdict.rmse, verdict.champion_rmse) == (6, 1.0, 2.0)
    assert verdict.baselines == {
        "mean": pytest.approx(np.sqrt((TRIPS["duration"].to_numpy() ** 2).mean()))
    }
    assert (verdict.coverage, verdict.width) == (1.0, 4.0)
    assert [(part.name, part.trips) for part in verdict.slices] == [
        ("hour 08", 4),
        ("hour 23", 2),
        ("borough Lower", 1),
        ("borough Upper", 4),
        ("borough unknown", 1),
        ("distance 00-01", 1),
        ("distance 01-02", 1),
        ("distance 10+", 1),
        ("distance unknown", 3),
    ]
    assert {(part.rmse, part.champion_rmse) for part in verdict.slices} == {(1.0, 2.0)}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=3), st.floats(-9, 9))
def test_it_does_not_matter_how_trips_are_cut_into_months(cuts: list[int], minutes: float) -> None:
    ends = [0, *sorted(cuts), 6]
    parts = {
        f"2021-{number + 1:02}": TRIPS.slice(start, stop - start)
        for number, (start, stop) in enumerate(pairwise(ends))
    }
    whole = judged(Off(minutes), Off(1.0), {"2021-01": TRIPS})
    cut = judged(Off(minutes), Off(1.0), parts)
    assert cut.rmse == pytest.approx(whole.rmse, abs=2e-6)
    assert (cut.trips, cut.coverage, cut.width) == (whole.trips, whole.coverage, whole.width)
    assert [part.name for part in cut.slices] == [part.name for part in whole.slices]
    for one, other in zip(cut.slices, whole.slices, strict=True):
        assert one.trips == other.trips
        assert one.rmse == pytest.approx(other.rmse, abs=3e-6)


def test_days_that_calibrate_do_not_say_how_many_trips_are_held() -> None:
    first = np.datetime64("2021-01-01").astype(int)  # two trips in three, see TRIPS
    wide = Off(0.0)
    assert judged(wide, None, {"2021-01": TRIPS}, calibrates=lambda day: day == first).coverage == 1
    missed = Off(3.0)  # further off than half the width
    verdict = judged(missed, None, {"2021-01": TRIPS}, calibrates=lambda day: day == first)
    assert (verdict.coverage, verdict.rmse, verdict.trips) == (0.0, 3.0, 6)


def test_no_trips_judge_nothing() -> None:
    with pytest.raises(TripDurationError, match="2021-01 has no trips that can judge"):
        judged(Off(0.0), None, {"2021-01": TRIPS.slice(0, 0)})
