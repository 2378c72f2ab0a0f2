"""A model's short way and its long way, and models that must not answer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from tests.service.conftest import drawn, make_model, served

from service import predictor
from service.predictor import FEW, load
from service.trees import Trees
from trip_duration import prediction
from trip_duration.errors import TripDurationError
from trip_duration.registry import Served


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected) == {"minutes", "lower", "upper"}
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("which", ["first", "second", "booking", "course"])
@pytest.mark.parametrize("rows", [0, 1, 2, FEW, FEW + 1])
def test_few_and_many_trips_get_what_batches_say(
    which: str, rows: int, request: pytest.FixtureRequest
) -> None:
    model: Served = request.getfixturevalue(which)
    trips = drawn(rows)
    expected = prediction.load(model.folder).predict(predictor.table(trips))
    same(load(model).predict(trips), expected)
    assert len(expected["minutes"]) == rows


def test_trees_are_walked_side_by_side_where_they_can_be(
    first: Served, second: Served, booking: Served, course: Served
) -> None:
    made = {model.preset + model.version: load(model) for model in (first, second, booking, course)}
    walked = {name: one.trees is not None for name, one in made.items()}
    assert walked == {"metered1": True, "metered2": True, "booking3": True, "course4": False}
    asked = {name: one.uses_distance for name, one in made.items()}
    assert asked == {"metered1": True, "metered2": True, "booking3": False, "course4": True}


def test_a_short_way_that_differs_by_a_bit_is_not_taken(
    first: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Trees.predict

    def wrong(self: Trees, X: np.ndarray) -> np.ndarray:
        said = honest(self, X)
        said[-1, 0] = np.nextafter(said[-1, 0], np.float32(np.inf))
        return said

    monkeypatch.setattr(Trees, "predict", wrong)
    made = load(first)
    assert made.trees is None
    same(made.predict(drawn(3)), prediction.load(first.folder).predict(predictor.table(drawn(3))))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "model.ubj").unlink(), "can't be read|is no whole file"),
        (lambda folder: (folder / "features.json").unlink(), "can't be read from"),
        (lambda folder: (folder / "features.json").write_text("{"), "is no whole file of a model"),
        (lambda folder: make_model(folder, pace=9.0), "the digest .*: expected .*; they changed"),
    ],
)
def test_a_broken_model_is_a_sentence(
    first: Served, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    folder = copytree(first.folder, tmp_path / "model")
    spoil(folder)
    with pytest.raises(TripDurationError, match=said):
        load(replace(first, folder=folder))


def test_a_model_that_gives_no_minutes_does_not_answer(tmp_path: Path) -> None:
    import xgboost as xgb

    folder = make_model(tmp_path / "model")
    booster = xgb.Booster(model_file=str(folder / "model.ubj"))
    booster.set_attr(level="nan")
    booster.save_model(folder / "model.ubj")
    with pytest.raises(TripDurationError, match="gives no minutes for 256 of 256 trips"):
        load(served(folder, "9"))
