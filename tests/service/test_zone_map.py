"""The map of the zones: what is drawn is where it is, whole, small and the same each time."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
import shapely
from shapely.affinity import affine_transform

from service import zone_map
from trip_duration.errors import TripDurationError
from trip_duration.files import write_bytes, write_parquet
from trip_duration.geometry import ZONES, projected
from trip_duration.sources.simulated import city
from trip_duration.zones import load_zones

MOST_BYTES = 250_000
NOWHERE = np.full((ZONES, 2), np.nan)

Place = Callable[..., Path]


@pytest.fixture
def place(tmp_path: Path, root: Path) -> Place:
    """Makes a repository with its settings and, where it has been ingested, its zones."""

    def make(zones: str | Path | None = None, written: pa.Table | None = None) -> Path:
        text = (root / "params.yaml").read_text(encoding="utf-8")
        named = "null" if zones is None else json.dumps(str(zones))
        text, count = re.subn(r"^  zones: null$", f"  zones: {named}", text, flags=re.MULTILINE)
        assert count == 1
        write_bytes(text.encode(), tmp_path / "params.yaml")
        if written is not None:
            write_parquet(written, tmp_path / "data" / "zones.parquet")
        return tmp_path

    return make


def places_of(zones: pa.Table) -> np.ndarray:
    return projected(*(zones[name].to_numpy() for name in ("zone", "longitude", "latitude")))


def shape(path: str) -> shapely.Geometry:
    """What a path draws, holes and parts by the rule of even and odd."""
    drawn = shapely.Polygon()
    for ring in re.findall(r"M([^Mlz]+)l([^Mlz]+)z", path):
        first, steps = (np.array(part.split(), float).reshape(-1, 2) for part in ring)
        drawn ^= shapely.make_valid(shapely.Polygon(np.cumsum(np.vstack([first, steps]), axis=0)))
    return drawn


def shapes(plane: dict) -> dict[int, shapely.Geometry]:
    return {zone["zone"]: shape(zone["path"]) for zone in plane["zones"] if zone["path"]}


def check(plane: dict) -> None:
    """What holds of every map."""
    numbers = [zone["zone"] for zone in plane["zones"]]
    assert numbers == sorted(set(numbers))
    assert plane["width"] == zone_map.WIDTH
    assert len(orjson.dumps(plane)) < MOST_BYTES
    found = shapes(plane)
    if found:
        west, north, east, south = shapely.total_bounds(np.array(list(found.values())))
        assert (west, north) == pytest.approx((0, 0), abs=1)
        assert (east, south) == pytest.approx((plane["width"], plane["height"]), abs=1)
    for zone in plane["zones"]:
        if zone["path"]:
            assert found[zone["zone"]].buffer(0.1).covers(shapely.Point(zone["x"], zone["y"])), zone


# -- schematics ----------------------------------------------------------------------------------


def test_the_simulated_city_is_cells_around_its_zones(place: Place, tmp_path: Path) -> None:
    zones = city(42).zones()
    plane = zone_map.zones(place(written=zones), places_of(zones))
    check(plane)
    assert plane["kind"] == "schematic"
    kept = [(zone["zone"], zone["borough"], zone["name"]) for zone in plane["zones"]]
    assert kept == list(
        zip(*(zones[n].to_pylist() for n in ("zone", "borough", "name")), strict=True)
    )
    assert [zone["zone"] for zone in plane["zones"] if zone["path"] is None] == [264, 265]
    places = places_of(zones)[1:264]
    drawn = np.array([[zone["x"], -zone["y"]] for zone in plane["zones"][:263]])
    scale, _ = np.polyfit(places[:, 0], drawn[:, 0], 1)  # one for both axes, and north is up
    aside = drawn - drawn.mean(axis=0)
    np.testing.assert_allclose(aside, scale * (places - places.mean(axis=0)), atol=0.2)


def test_cells_do_not_overlap_and_boroughs_have_water_between(place: Place, tmp_path: Path) -> None:
    zones = city(42).zones()
    plane = zone_map.zones(place(written=zones), None)
    found = shapes(plane)
    whole = shapely.union_all(list(found.values()))
    assert whole.area == pytest.approx(sum(one.area for one in found.values()), rel=1e-3)
    boroughs: dict[str, list] = {}
    for zone in plane["zones"][:263]:
        boroughs.setdefault(zone["borough"], []).append(found[zone["zone"]])
    lands = [shapely.union_all(cells) for cells in boroughs.values()]
    assert len(lands) == 5
    assert all(one.distance(other) > 3 for one, other in itertools.combinations(lands, 2))


def test_it_is_the_same_each_time(place: Place, tmp_path: Path) -> None:
    root, served = place(written=city(7).zones()), None
    assert orjson.dumps(zone_map.zones(root, served)) == orjson.dumps(zone_map.zones(root, served))


def test_without_shapes_the_model_says_where_the_zones_are(place: Place, tmp_path: Path) -> None:
    lookup = tmp_path / "lookup.csv"
    rows = [f"{zone},Borough {zone % 2},Name {zone}" for zone in range(1, 264)]
    lookup.write_text("\n".join(["LocationID,Borough,Zone", *rows]))
    known = places_of(city(42).zones())
    plane = zone_map.zones(place(lookup), known)
    check(plane)
    assert plane["kind"] == "schematic"
    assert len(shapes(plane)) == 263
    assert plane["zones"][6] | {"path": "", "x": 0, "y": 0} == {
        "zone": 7,
        "borough": "Borough 1",
        "name": "Name 7",
        "path": "",
        "x": 0,
        "y": 0,
    }


def test_a_model_of_another_city_is_drawn_as_it_knows_it(place: Place, tmp_path: Path) -> None:
    other = places_of(city(7).zones())
    plane = zone_map.zones(place(written=city(42).zones()), other)
    check(plane)
    named = {zone["zone"]: zone["name"] for zone in plane["zones"] if zone["name"]}
    assert named == {264: "Unknown", 265: "Outside of the city"}
    drawn = np.array([[zone["x"], -zone["y"]] for zone in plane["zones"][:263]])
    aside, across = drawn - drawn.mean(axis=0), other[1:264] - other[1:264].mean(axis=0)
    assert np.corrcoef(aside.ravel(), across.ravel())[0, 1] > 0.999


def test_a_turned_and_mirrored_map_is_of_the_same_city(place: Place, tmp_path: Path) -> None:
    zones = city(42).zones()
    learned = 1.4 * places_of(zones)[:, ::-1] * [1, -1]
    plane = zone_map.zones(place(written=zones), learned)
    assert plane["zones"][0]["name"] == zones["name"][0].as_py()


def test_zones_that_are_nowhere_are_names_alone(place: Place, tmp_path: Path) -> None:
    plane = zone_map.zones(place(), None)
    check(plane)
    assert len(plane["zones"]) == 265
    assert not shapes(plane)


@pytest.mark.parametrize(
    ("at", "cells"),
    [
        pytest.param([[0, 0]], 1, id="one"),
        pytest.param([[0, 0], [1, 0]], 2, id="two"),
        pytest.param([[0, 0], [0, 0]], 1, id="two in one place"),
        pytest.param([[0, 0], [1, 1], [2, 2]], 3, id="three in a row"),
        pytest.param([[0, 0], [0, 0], [1, 0], [0, 1]], 3, id="two of four in one place"),
        pytest.param([[0, 0], [90, 0]], 2, id="far apart"),
    ],
)
def test_few_zones(place: Place, tmp_path: Path, at: list[list[float]], cells: int) -> None:
    places = NOWHERE.copy()
    places[1 : 1 + len(at)] = at
    plane = zone_map.zones(place(), places)
    check(plane)
    assert len(shapes(plane)) == cells
    assert [zone["zone"] for zone in plane["zones"] if zone["x"] is not None] == [
        *range(1, 1 + len(at))
    ]


# -- TLC's shapes --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tlc_shapes(tlc: Path) -> dict[int, shapely.Geometry]:
    found = load_zones(tlc / "taxi_zones.geojson").shapes
    assert found is not None
    return found


def test_tlc_s_shapes_are_drawn_as_they_are(
    place: Place, tmp_path: Path, tlc: Path, tlc_shapes: dict[int, shapely.Geometry]
) -> None:
    plane = zone_map.zones(place(tlc / "taxi_zones.geojson"), None)
    check(plane)
    assert plane["kind"] == "map"
    found = shapes(plane)
    assert list(found) == list(tlc_shapes)
    west, south, east, north = shapely.total_bounds(np.array(list(tlc_shapes.values())))
    narrow = np.cos(np.radians((south + north) / 2))
    unit = plane["width"] / (narrow * (east - west))
    matrix = [narrow * unit, 0, 0, -unit, -west * narrow * unit, north * unit]
    for zone, original in tlc_shapes.items():
        true = affine_transform(original, matrix)
        assert found[zone].symmetric_difference(true).area < 0.06 * true.area + 2, zone
    by_id = {zone["zone"]: zone for zone in plane["zones"]}
    assert by_id[132]["name"] == "JFK Airport"
    assert by_id[1]["x"] < by_id[132]["x"]  # Newark lies west of it
    assert by_id[200]["y"] < by_id[132]["y"]  # and Riverdale north


def test_neighbours_keep_their_common_borders(place: Place, tmp_path: Path, tlc: Path) -> None:
    plane = zone_map.zones(place(tlc / "taxi_zones.geojson"), None)
    found = list(shapes(plane).values())
    whole = shapely.union_all(found)
    assert sum(one.area for one in found) == pytest.approx(whole.area, rel=2e-3)
    cracks = whole.buffer(0.15).buffer(-0.15).area - whole.area
    assert cracks < 2e-3 * whole.area


def test_zones_without_a_shape_may_be_chosen_still(place: Place, tmp_path: Path, tlc: Path) -> None:
    plane = zone_map.zones(place(tlc / "taxi_zones.geojson"), None)
    nowhere = [zone for zone in plane["zones"] if zone["path"] is None]
    assert [(zone["zone"], zone["name"]) for zone in nowhere] == [
        (264, "Unknown"),
        (265, "Outside of the city"),
    ]


def test_a_path_in_the_settings_is_the_repository_s(
    place: Place, tmp_path: Path, tlc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "zones.geojson").symlink_to(tlc / "taxi_zones.geojson")
    monkeypatch.chdir("/")
    plane = zone_map.zones(place("shapes/zones.geojson"), None)
    assert plane["kind"] == "map"


def test_a_path_in_the_settings_may_begin_at_home(
    place: Place, tmp_path: Path, tlc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "zones.geojson").symlink_to(tlc / "taxi_zones.geojson")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert zone_map.zones(place("~/zones.geojson"), None)["kind"] == "map"


# -- what is amiss -------------------------------------------------------------------------------


def test_shapes_that_cannot_be_had_are_a_schematic(place: Place, tmp_path: Path) -> None:
    root = place("http://127.0.0.1:1/taxi_zones.zip", city(42).zones())
    plane = zone_map.zones(root, None)
    assert plane["kind"] == "schematic"
    assert len(shapes(plane)) == 263


def test_shapes_that_cannot_be_read_are_a_sentence(place: Place, tmp_path: Path) -> None:
    (tmp_path / "zones.geojson").write_text("no zones")
    with pytest.raises(TripDurationError, match=r"data\.zones"):
        zone_map.zones(place("zones.geojson"), None)


@pytest.mark.parametrize("broken", ["bytes", "columns"])
def test_what_ingest_wrote_and_is_broken_is_a_sentence(
    place: Place, tmp_path: Path, broken: str
) -> None:
    root = place(written=city(42).zones().drop_columns("longitude"))
    if broken == "bytes":
        (root / "data" / "zones.parquet").write_bytes(b"PAR1")
    with pytest.raises(TripDurationError, match=r"zones.parquet is no file of zones.*make train"):
        zone_map.zones(root, None)
