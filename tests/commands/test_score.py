"""``make score``: what it prints, and what it says where it cannot score."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.test_scoring import make_model, without_time
from tests.test_scoring import tlc as trips_of_tlc

from commands import score as command
from commands.score import score
from trip_duration import params, registry
from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.interrupts import INTERRUPTED
from trip_duration.trips import REASONS


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A folder with settings and a model."""
    made = tmp_path_factory.mktemp("house")
    (made / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    make_model(made / "models")
    return made


@pytest.fixture(autouse=True)
def _no_handler_of_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "listen", lambda: None)


def test_it_says_what_came_of_it(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trips = pa.concat_tables([trips_of_tlc(5), without_time(trips_of_tlc(1))])
    trips = trips.rename_columns({"lpep_pickup_datetime": "tpep_pickup_datetime"})
    pq.write_table(trips, tmp_path / "in.parquet")
    assert score(house, str(tmp_path / "in.parquet"), str(tmp_path / "out.csv")) == 0
    said = capsys.readouterr()
    model = registry.local(house)
    assert model is not None
    lines = said.out.splitlines()
    assert lines[0].startswith(f"5 of 6 rows scored by model {model.version} in ")
    assert lines[0].endswith(f", 1 rejected ({REASONS['no_pickup_time']}: 1)")
    assert lines[1:] == [f"  {tmp_path / name}" for name in ("out.csv", "out.rejected.csv")]
    assert "other taxis than the green ones" in said.err
    assert said.err.count("\n") == 1  # and no progress bar, since nobody looks


@pytest.mark.parametrize(("given", "missing"), [(("", "b"), "INPUT"), (("a", ""), "OUTPUT")])
def test_what_is_not_given_is_asked_for(house: Path, given: tuple[str, str], missing: str) -> None:
    with pytest.raises(SettingsError, match=f"has no {missing}: expected"):
        score(house, *given)


def test_without_a_model_it_says_what_makes_one(tmp_path: Path, root: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    with pytest.raises(TripDurationError, match="make train"):
        score(tmp_path, "in.parquet", "out.parquet")


def test_an_interruption_is_a_line(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trip_duration.scoring.score", interrupt)
    assert score(house, "in.parquet", "out.parquet") == INTERRUPTED
    assert "Interrupted: nothing of the file" in capsys.readouterr().err


def test_places_are_found_by_the_settings_zones(
    house: Path, root: Path, tlc: Path, tmp_path: Path
) -> None:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    locate: Callable = command._locate
    assert locate(params.override(text, {"data.zones": None})[1].data, tmp_path) is None
    shapes = {"data.zones": str(tlc / "taxi_zones.geojson")}
    found = locate(params.override(text, shapes)[1].data, tmp_path)
    assert found(np.array([-73.9857, 0.0]), np.array([40.7580, 0.0])).tolist() == [230, 0]
