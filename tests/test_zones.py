"""Zones from shapes on the fly and from TLC's own, against a slow oracle."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import shapely

from trip_duration.errors import TripDurationError
from trip_duration.zones import Zones, load_zones

# Two squares of a hundredth of a degree that meet at -73.99, and a far part of the second.
WEST = shapely.box(-74.00, 40.70, -73.99, 40.71)
EAST = shapely.box(-73.99, 40.70, -73.98, 40.71)
ISLAND = shapely.box(-73.95, 40.75, -73.94, 40.76)


def geojson(path: Path, zones: list[tuple[dict, object]]) -> Path:
    features = [
        {
            "type": "Feature",
            "properties": p,
            "geometry": shape and json.loads(shapely.to_geojson(shape)),
        }
        for p, shape in zones
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    def zone(number: object, borough: str, name: str) -> dict:
        return {"OBJECTID": 9, "LocationID": number, "borough": borough, "zone": name}

    return geojson(
        tmp_path / "zones.geojson",
        [
            (zone(7, "Queens", "East"), EAST),
            (zone(3, "Manhattan", "West"), WEST),
            (zone(7, "Queens", "East"), ISLAND),
        ],
    )


def test_shapes_are_those_of_the_file_by_zone(tiny: Path) -> None:
    shapes = load_zones(tiny).shapes
    assert shapes is not None
    assert list(shapes) == [3, 7]
    assert shapes[3].equals(WEST)
    assert shapes[7].equals(EAST | ISLAND)


def test_a_lookup_table_has_no_shapes(tmp_path: Path) -> None:
    path = tmp_path / "lookup.csv"
    path.write_text("LocationID,Borough,Zone\n3,Manhattan,West\n")
    assert load_zones(path).shapes is None


def shapefile(path: Path, folder: str = "") -> Path:
    """The same as TLC serves it: a zipped shapefile in feet (EPSG:2263)."""
    from pyogrio.raw import write
    from pyproj import Transformer

    to_feet = Transformer.from_crs("EPSG:4326", "EPSG:2263", always_xy=True)
    shapes = shapely.transform(
        np.array([EAST, WEST, ISLAND]),
        lambda xy: np.column_stack(to_feet.transform(xy[:, 0], xy[:, 1])),
    )
    plain = path.parent / "shapes"
    plain.mkdir()
    write(
        str(plain / "taxi_zones.shp"),
        shapely.to_wkb(shapes),
        [
            np.array([1, 2, 3], np.int32),
            np.array([7, 3, 7], np.int32),
            np.array(["Queens", "Manhattan", "Queens"], object),
            np.array(["East", "West", "East"], object),
        ],
        ["OBJECTID", "LocationID", "borough", "zone"],
        geometry_type="Polygon",
        crs="EPSG:2263",
        driver="ESRI Shapefile",
    )
    with zipfile.ZipFile(path, "w") as file:
        for part in sorted(plain.iterdir()):
            file.write(part, folder + part.name)
    return path


PLACES = {
    "in the west": (-73.995, 40.705, 3),
    "in the east": (-73.985, 40.705, 7),
    "in the far part of the east": (-73.945, 40.755, 7),
    "in neither": (-73.97, 40.705, 0),
    "south of both": (-73.995, 40.60, 0),
    "not a place": (np.nan, np.nan, 0),
}


@pytest.mark.parametrize("kind", ["geojson", "zip", "zip with a folder"])
def test_places_lie_in_their_zones(tiny: Path, kind: str) -> None:
    path = tiny
    if kind != "geojson":
        path = shapefile(tiny.with_name("zones.zip"), "taxi_zones/" if "folder" in kind else "")
    zones = load_zones(path)
    x, y, expected = (np.array(values) for values in zip(*PLACES.values(), strict=True))
    found = zones.locate(x, y)
    assert found.dtype == np.int16
    assert found.tolist() == expected.tolist()

    west, east = zones.table().to_pylist()
    assert (west["zone"], west["borough"], west["name"]) == (3, "Manhattan", "West")
    assert (east["zone"], east["borough"], east["name"]) == (7, "Queens", "East")
    assert (west["longitude"], west["latitude"]) == pytest.approx((-73.995, 40.705), abs=2e-6)
    assert (east["longitude"], east["latitude"]) == pytest.approx((-73.965, 40.73), abs=2e-5)


@pytest.mark.parametrize("order", [1, -1])
def test_a_border_belongs_to_the_lowest_zone(order: int) -> None:
    zones = Zones([3, 7][::order], ["a", "b"], ["a", "b"], np.array([WEST, EAST][::order]))
    on_it = np.array([40.70, 40.705, 40.71])
    assert zones.locate(np.full(3, -73.99), on_it).tolist() == [3, 3, 3]
    overlap = Zones([3, 7][::order], ["a", "b"], ["a", "b"], np.array([EAST, EAST]))
    assert overlap.locate(np.array([-73.985]), np.array([40.705])).tolist() == [3]


def test_the_outermost_points_of_a_zone_are_its_own() -> None:
    zones = Zones([3], ["a"], ["a"], np.array([WEST]))
    x, y = np.meshgrid([-74.00, -73.99], [40.70, 40.71])
    assert zones.locate(x.ravel(), y.ravel()).tolist() == [3, 3, 3, 3]


def test_the_order_of_places_is_kept_and_none_is_fine(tiny: Path) -> None:
    zones = load_zones(tiny)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-74.02, -73.93, 500), rng.uniform(40.69, 40.77, 500)
    found = zones.locate(x, y)
    shuffled = rng.permutation(500)
    assert set(found) == {0, 3, 7}
    assert zones.locate(x[shuffled], y[shuffled]).tolist() == found[shuffled].tolist()
    assert zones.locate(np.array([]), np.array([])).tolist() == []


@pytest.mark.parametrize("name", ["LocationID", "locationid", "location_id", "OBJECTID"])
@pytest.mark.parametrize("value", [4, "4", 4.0])
def test_the_id_may_be_called_and_written_otherwise(
    tmp_path: Path, name: str, value: object
) -> None:
    zones = load_zones(geojson(tmp_path / "z.geojson", [({name: value}, WEST)]))
    assert zones.table().to_pylist() == [
        {"zone": 4, "borough": None, "name": None, "longitude": -73.995, "latitude": 40.705}
    ]


def test_a_lookup_table_has_boroughs_but_no_places(tmp_path: Path) -> None:
    path = tmp_path / "taxi_zone_lookup.csv"
    path.write_bytes(
        b'"LocationID","Borough","Zone","service_zone"\r\n'
        b'265,"N/A","Outside of NYC","N/A"\r\n1,"EWR","Newark Airport","EWR"\r\n'
    )
    zones = load_zones(path)
    assert [list(row.values()) for row in zones.table().to_pylist()] == [
        [1, "EWR", "Newark Airport", None, None],
        [265, "N/A", "Outside of NYC", None, None],
    ]
    with pytest.raises(TripDurationError, match=r"taxi_zone_lookup\.csv.*data\.zones"):
        zones.locate(np.array([-73.9]), np.array([40.7]))


def test_what_is_no_zones_is_refused(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(TripDurationError, match=r"data\.zones") as caught:
            load_zones(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    path = tmp_path / "zones.geojson"
    assert "is not a file" in refusal(path)
    path.write_text("{")
    assert "cannot be read" in refusal(path)
    assert "'number'" in refusal(geojson(path, [({"number": 4}, WEST)]))
    assert "'four'" in refusal(geojson(path, [({"LocationID": "four"}, WEST)]))
    assert "4.5" in refusal(geojson(path, [({"LocationID": 4.5}, WEST)]))
    assert "without a shape" in refusal(geojson(path, [({"LocationID": 4}, None)]))

    archive = tmp_path / "zones.zip"
    archive.write_bytes(b"PK is not all")
    assert "cannot be read" in refusal(archive)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "no shapes")
    assert "0 shapefiles" in refusal(archive)

    lookup = tmp_path / "lookup.csv"
    lookup.write_text("LocationID,Borough\n")
    assert "no zones" in refusal(lookup)
    lookup.write_text("LocationID,Borough\n1,EWR,and more\n")
    assert "cannot be read" in refusal(lookup)


@pytest.fixture(scope="module")
def real(tlc: Path) -> Zones:
    return load_zones(tlc / "taxi_zones.geojson")


def test_real_zones_agree_with_a_slow_oracle(tlc: Path, real: Zones) -> None:
    features = json.loads((tlc / "taxi_zones.geojson").read_text())["features"]
    shapes = [
        (f["properties"]["LocationID"], shapely.geometry.shape(f["geometry"])) for f in features
    ]
    rng = np.random.default_rng(2)
    corners = np.concatenate([shapely.get_coordinates(shape)[:2] for _, shape in shapes])
    x = np.concatenate([rng.uniform(-74.26, -73.69, 1500), corners[:, 0]])
    y = np.concatenate([rng.uniform(40.49, 40.92, 1500), corners[:, 1]])
    touching = [
        [zone for zone, shape in shapes if shape.intersects(point)]
        for point in shapely.points(x, y)
    ]
    found = real.locate(x, y)
    assert found.tolist() == [min(zones, default=0) for zones in touching]
    assert 0 in found
    assert len(set(found)) > 200


def test_real_zones_have_their_boroughs_and_places(tlc: Path, real: Zones) -> None:
    rows = {row["zone"]: row for row in real.table().to_pylist()}
    assert list(rows) == sorted(rows)
    assert len(rows) == 260  # 263 shapes, of which three belong to the zones 56 and 103
    assert (rows[132]["borough"], rows[132]["name"]) == ("Queens", "JFK Airport")
    lookup = {
        row["zone"]: row["borough"]
        for row in load_zones(tlc / "taxi_zone_lookup.csv").table().to_pylist()
    }
    assert {zone: row["borough"] for zone, row in rows.items()} == {z: lookup[z] for z in rows}

    places = {  # longitude, latitude
        "Times Square": (-73.98570, 40.75800, "Manhattan"),
        "JFK": (-73.78390, 40.64413, "Queens"),
        "Yankee Stadium": (-73.92643, 40.82964, "Bronx"),
        "Prospect Park": (-73.96898, 40.66020, "Brooklyn"),
        "Newark Airport": (-74.17446, 40.68953, "EWR"),
        "Staten Island Mall": (-74.16550, 40.58200, "Staten Island"),
    }
    for name, (x, y, borough) in places.items():
        zone = int(real.locate(np.array([x]), np.array([y]))[0])
        assert rows[zone]["borough"] == borough, name
    assert real.locate(np.array([-74.3, 0.0]), np.array([40.9, 0.0])).tolist() == [0, 0]
