"""``make refresh``: what it prints, what it takes, and what it says where it can't ask."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.test_ingest import HEADER, LINES
from tests.test_refresh import MONTH, made

from commands.refresh import refresh, rows
from trip_duration import ingest, params
from trip_duration.errors import SettingsError, SourceError, TripDurationError
from trip_duration.refresh import Change
from trip_duration.trips import month_path

LONGER = "2021-01-06 08:00:00,2021-01-06 08:40:00,74,75,1.5\n"


@pytest.fixture
def house(tmp_path: Path, root: Path) -> Path:
    """A repository's folder whose one month is a file's, and ingested."""
    house = tmp_path / "house"
    house.mkdir()
    source = tmp_path / "green_2021-01.csv"
    source.write_text(HEADER + "\n".join(LINES) + "\n")
    change(
        house,
        root,
        {
            "data.source": f"{tmp_path}/{{taxi}}_{{year}}-{{month}}.csv",
            "data.train": [MONTH],
            "data.validation": ["2021-02"],
            "data.test": [],
        },
    )
    made(params.load(house / "params.yaml"), source, house / "data/trips")
    return house


def change(house: Path, start: Path, overrides: dict[str, object]) -> None:
    text, _ = params.override((start / "params.yaml").read_text(), overrides)
    (house / "params.yaml").write_text(text)


def add_a_trip(house: Path) -> None:
    with (house.parent / "green_2021-01.csv").open("a") as file:
        file.write(LONGER)


@pytest.fixture
def said(house: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def said(taking: str = "") -> str:
        assert refresh(house, taking) == 0
        return " ".join(capsys.readouterr().out.split())

    return said


def state(house: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(house.rglob("*.*")) if path.is_file()}


def test_an_unchanged_month_is_said_and_one_that_is_not_there(said: Callable[..., str]) -> None:
    text = said()
    assert "As the source has it: 2021-01." in text
    assert "2021-02: not ingested yet: `make ingest` first." in text
    assert "republished" not in text


def test_a_changed_month_is_shown_and_not_taken(house: Path, said: Callable[..., str]) -> None:
    add_a_trip(house)
    before = state(house)
    text = said()
    assert state(house) == before
    for words in (
        "2021-01 was republished",
        "rows read 5 6 +1",
        "rows kept 2 3 +1",
        "set aside: under min minutes 1 1 0",
        "minutes, 50% below 15.00 20.00 +5.00",
        "miles, 95% below",
        "100.0% of the 2 trips that were kept are there unchanged.",
        "`make refresh TAKE=2021-01` takes it.",
        "`make train` takes a changed file of this machine's",
    ):
        assert words in text


@pytest.mark.parametrize("taking", [MONTH, "all", f" {MONTH}, "])
def test_what_is_taken_is_what_ingest_would_make(
    house: Path, said: Callable[..., str], taking: str
) -> None:
    add_a_trip(house)
    assert "Taken: 2021-01." in said(taking)
    chosen = params.load(house / "params.yaml")
    assert ingest.current(chosen.data, chosen.clean, chosen.seed, MONTH, house / "data/trips")
    made(chosen, house.parent / "green_2021-01.csv", house / "again")
    for suffix in (".parquet", ".json"):
        paths = [month_path(house / name, "green", MONTH) for name in ("data/trips", "again")]
        taken, again = (path.with_suffix(suffix).read_bytes() for path in paths)
        assert taken == again
    assert not (house / ".cache").exists() or not any((house / ".cache").rglob("*.*"))
    assert "As the source has it: 2021-01." in said(taking)


def test_a_month_that_was_made_with_other_settings_is_not_compared(
    house: Path, said: Callable[..., str]
) -> None:
    change(house, house, {"clean.max_minutes": 30})
    add_a_trip(house)
    text = said()
    assert "2021-01: ingested with other settings, zones or code: `make ingest` first." in text
    assert "rows" not in text
    with pytest.raises(TripDurationError, match="TAKE names 2021-01, which is ingested with other"):
        said(MONTH)


def test_a_republished_file_that_is_broken_changes_nothing(house: Path) -> None:
    (house.parent / "green_2021-01.csv").write_text("<html>")
    before = state(house)
    with pytest.raises(TripDurationError, match="web page"):
        refresh(house, "all")
    assert state(house) == before


def test_a_source_that_cannot_be_asked_is_one_sentence(house: Path) -> None:
    (house.parent / "green_2021-01.csv").unlink()
    with pytest.raises(SourceError, match=r"green_2021-01\.csv does not exist"):
        refresh(house, "")


def test_where_nothing_is_ingested_it_says_what_to_do(house: Path) -> None:
    shutil.rmtree(house / "data")
    with pytest.raises(TripDurationError, match="make ingest"):
        refresh(house, "")


def test_a_month_to_take_must_be_one_of_the_settings(house: Path) -> None:
    with pytest.raises(SettingsError, match=r"TAKE names 2020-01: .*2021-01, 2021-02"):
        refresh(house, "2020-01")


def test_of_a_simulated_city_nothing_is_asked(house: Path, said: Callable[..., str]) -> None:
    change(house, house, {"data.source": "simulated"})
    assert said("all").startswith("The months are drawn from the seed")


def test_reasons_and_values_of_one_side_alone_have_their_rows() -> None:
    before = {"read": 1_000, "kept": 900, "set_aside": {"no_dropoff_time": 100}}
    after = {"read": 1_200, "kept": 1_199, "set_aside": {"cut_record": 1}}
    none, some = [None] * 5, [1.0, 2.0, 3.0, 4.0, 5.004]
    found = rows(
        Change(before, after, {"duration": (some, some), "trip_distance": (none, some)}, 1)
    )
    assert found[:4] == [
        ("rows read", "1,000", "1,200", "+200"),
        ("rows kept", "900", "1,199", "+299"),
        ("set aside: cut record", "0", "1", "+1"),
        ("set aside: no dropoff time", "100", "0", "-100"),
    ]
    assert found[4] == ("minutes, 5% below", "1.00", "1.00", "0")
    assert found[-1] == ("miles, 95% below", "–", "5.00", "–")
