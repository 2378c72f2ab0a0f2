"""TLC's taxi zones: which zone a place lies in, and where and in which borough each zone is."""

import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trip_duration.errors import TripDurationError, shown

__all__ = ["Zones", "load_zones"]

_DEGREES = "EPSG:4326"
_POLYGONS = (3, 6)  # Polygon and MultiPolygon, as shapely counts its types
_SOUTH = -60.0  # degrees of latitude below which there is no city: New York's longitude is -74
_SHAPEFILE = b"\x00\x00\x27\x0a"
_FILES = "TLC's taxi_zones.zip, a GeoJSON file of the zones or taxi_zone_lookup.csv"
_UNSUPPORTED = "not recognized as being in a supported file format"
# TLC's own names for the columns, then those of NYC Open Data's copies. `objectid` comes last:
# TLC's shapes 57, 104 and 105 are parts of the zones 56 and 103; only the location id says so.
_COLUMNS = {
    "zone": ("locationid", "location_id", "objectid"),
    "borough": ("borough",),
    "name": ("zone", "zone_name", "name"),
}


class Zones:
    """Zones in order of their ids, with or without their shapes.

    Parameters
    ----------
    zone : sequence of int, shape (n,)
        Zone ids; an id that comes twice joins its shapes.
    borough, name : sequence of str or None, shape (n,)
        What TLC calls them; None where it does not say. Of an id that comes twice the first counts.
    shapes : numpy.ndarray of shapely geometries, shape (n,), optional
        Polygons in degrees of longitude and latitude (EPSG:4326).
    source : str
        Where they come from, for messages.
    """

    def __init__(
        self,
        zone: Sequence[int],
        borough: Sequence[str | None],
        name: Sequence[str | None],
        shapes: np.ndarray | None = None,
        *,
        source: str = "the zones",
    ) -> None:
        ids, first, number = np.unique(
            np.asarray(zone, np.int16), return_index=True, return_inverse=True
        )
        self._ids = ids
        self._boroughs = [borough[i] for i in first]
        self._names = [name[i] for i in first]
        self._shapes = None if shapes is None else _joined(shapes, number, len(ids))
        self._source = source

    @property
    def shapes(self) -> dict[int, Any] | None:
        """A shapely geometry for each zone id, in degrees; None where these zones have none."""
        if self._shapes is None:
            return None
        return dict(zip(self._ids.tolist(), self._shapes, strict=True))

    def locate(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """Give the zone of each place.

        Parameters
        ----------
        longitude, latitude : numpy.ndarray of float, shape (n,)
            Degrees (EPSG:4326).

        Returns
        -------
        numpy.ndarray of int16, shape (n,)
            Zone ids: the lowest where zones meet, 0 where there is none.

        Raises
        ------
        TripDurationError
            If these zones have no shapes.
        """
        import shapely

        if self._shapes is None:
            raise TripDurationError(
                f"{self._source} names zones but gives no shapes, so coordinates cannot be placed: "
                "set data.zones to TLC's taxi_zones.zip or to a GeoJSON file of the zones."
            )
        longitude, latitude = np.asarray(longitude, float), np.asarray(latitude, float)
        # In order of longitude, the places that a zone can hold are one slice.
        order = np.argsort(longitude, kind="stable")
        x, y = longitude[order], latitude[order]
        found = np.zeros(len(x), np.int16)
        # From the highest id down: on a border the lowest is written last.
        for zone, shape in zip(self._ids[::-1], self._shapes[::-1], strict=True):
            west, south, east, north = shape.bounds
            start, end = np.searchsorted(x, west, "left"), np.searchsorted(x, east, "right")
            near = start + np.flatnonzero((y[start:end] >= south) & (y[start:end] <= north))
            found[near[shapely.intersects_xy(shape, x[near], y[near])]] = zone
        zones = np.empty_like(found)
        zones[order] = found
        return zones

    def table(self) -> pa.Table:
        """Give one row for each zone, in order of the ids.

        Returns
        -------
        pyarrow.Table
            ``zone`` int16, ``borough`` and ``name`` string, ``longitude`` and ``latitude`` float64:
            the centroid in degrees, rounded to 6 decimals (0.1 m); null without shapes.
        """
        import shapely

        places = np.full((len(self._ids), 2), np.nan)
        if self._shapes is not None:
            places = np.round(shapely.get_coordinates(shapely.centroid(self._shapes)), 6)
        return pa.table(
            {
                "zone": pa.array(self._ids, pa.int16()),
                "borough": pa.array(self._boroughs, pa.string()),
                "name": pa.array(self._names, pa.string()),
                "longitude": pa.array(places[:, 0], pa.float64(), from_pandas=True),
                "latitude": pa.array(places[:, 1], pa.float64(), from_pandas=True),
            }
        )


def load_zones(path: str | Path) -> Zones:
    """Read zones from a GeoJSON file, a zipped shapefile or a lookup table.

    Parameters
    ----------
    path : str or Path
        TLC's ``taxi_zones.zip``, the same as GeoJSON, or ``taxi_zone_lookup.csv``, which gives
        boroughs and names but no shapes.

    Raises
    ------
    TripDurationError
        If there is no such file or it holds no zones.
    """
    path = Path(path)
    if not path.is_file():
        raise _refusal(path, f"is not a file: expected {_FILES}.")
    return _load_lookup(path) if path.suffix.lower() == ".csv" else _load_shapes(path)


def _load_lookup(path: Path) -> Zones:
    import pyarrow.csv

    with _refusing(path, pa.ArrowInvalid):
        table = pyarrow.csv.read_csv(path)
        for field in table.schema:
            if pa.types.is_binary(field.type):  # what Arrow makes of text in Latin-1
                raise pa.ArrowInvalid(f"the column {field.name!r} is not UTF-8")
    columns = {name: table.column(i).to_pylist() for i, name in enumerate(table.column_names)}
    zone, borough, name = _columns(path, columns)
    return Zones(zone, borough, name, source=str(path))


def _load_shapes(path: Path) -> Zones:
    import shapely
    from pyogrio.errors import DataSourceError
    from pyogrio.raw import read
    from pyproj.exceptions import ProjError

    with _refusing(path, DataSourceError, OSError, zipfile.BadZipFile, RuntimeError):
        inside = _inside(path)
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            meta, _, geometry, values = read(inside)  # what it warns of is checked below
    zone, borough, name = _columns(path, dict(zip(meta["fields"], values, strict=True)))
    if geometry is None or any(shape is None for shape in geometry):
        raise _refused_shapes(path, "zones without a shape")
    with _refusing(path, shapely.errors.ShapelyError, ProjError), np.errstate(invalid="ignore"):
        shapes = _in_degrees(shapely.from_wkb(geometry), meta["crs"])
    _check_shapes(path, shapes)
    return Zones(zone, borough, name, shapes, source=str(path))


def _check_shapes(path: Path, shapes: np.ndarray) -> None:
    """Refuse what no zone of a city can look like."""
    import shapely

    if shapely.is_empty(shapes).any():
        raise _refused_shapes(path, "zones without a shape")
    if not np.isin(shapely.get_type_id(shapes), _POLYGONS).all():
        raise _refused_shapes(path, "zones that are points or lines")
    places = shapely.get_coordinates(shapes)
    degrees = (np.abs(places) <= [180, 90]).all(axis=1)  # not so for NaN
    for good, what in ((degrees, ""), (places[:, 1] > _SOUTH, ", which may be swapped")):
        if not good.all():
            x, y = places[~good][0]
            corner = f"a corner at longitude {x:g} and latitude {y:g}{what}"
            raise _refused_shapes(path, corner)


def _refused_shapes(path: Path, found: str) -> TripDurationError:
    expected = "a polygon for each zone, in degrees"
    return _refusal(path, f"has {found}: expected {expected}; take TLC's taxi_zones.zip.")


def _refusal(path: Path, said: str) -> TripDurationError:
    return TripDurationError(f"{shown(path)} (data.zones) {said}")


@contextmanager
def _refusing(path: Path, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        reason = shown(str(error).splitlines()[0].rstrip("."))
        reason = re.sub(r"/vsizip/\S+", "it", reason)  # GDAL's own name of what is in a zip
        if _UNSUPPORTED in reason:  # the rest is GDAL's advice to programmers
            reason = "its format is not known"
        raise _refusal(path, f"cannot be read ({reason}): expected {_FILES}.") from error


def _inside(path: Path) -> str:
    """Where the shapes are, as GDAL writes it: a zip may hold its shapefile in a folder.

    GDAL goes by what is in a file, and some of what it knows, like the XML of its virtual formats,
    can name other files and addresses to read: so only what it is said to be is let through.
    """
    if path.suffix.lower() != ".zip":
        with path.open("rb") as file:
            head = file.read(2048)
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if not head:
            raise _refusal(path, f"is empty: expected {_FILES}.")
        if start.startswith(b"<") or b"<OGR" in head:
            raise _refusal(path, f"is a web page or XML: expected {_FILES}.")
        if not (start.startswith(b"{") or head.startswith(_SHAPEFILE)):
            raise _refusal(path, f"begins with {head[:8]!r}: expected {_FILES}.")
        return str(path)
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith(".shp"))
        names = [name for name in names if not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise _refusal(
                path,
                f"holds {len(names)} shapefiles and one was expected: take TLC's taxi_zones.zip.",
            )
        name = names[0]
        if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
            raise _refusal(
                path, f"holds {name!r}, which leads out of it: take TLC's taxi_zones.zip."
            )
        members = {member.lower() for member in archive.namelist()}
        for part in (f"{name[:-4]}.shx", f"{name[:-4]}.dbf"):
            if part.lower() not in members:
                raise _refusal(
                    path, f"holds {name!r} without its {part!r}: take TLC's taxi_zones.zip."
                )
        with archive.open(name) as shapes:
            if shapes.read(len(_SHAPEFILE)) != _SHAPEFILE:
                raise _refusal(
                    path, f"holds {name!r}, which is no shapefile: take TLC's taxi_zones.zip."
                )
    return f"/vsizip/{path.resolve()}/{name}"


def _in_degrees(shapes: np.ndarray, crs: str | None) -> np.ndarray:
    """Turn the shapes (TLC's own are in feet, EPSG:2263) into longitude and latitude."""
    import shapely
    from pyproj import Transformer

    if crs is not None:
        to_degrees = Transformer.from_crs(crs, _DEGREES, always_xy=True)
        shapes = shapely.transform(
            shapes, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1]))
        )
    return shapes


def _joined(shapes: np.ndarray, number: np.ndarray, count: int) -> np.ndarray:
    """One valid shape for each zone, prepared for many questions."""
    import shapely

    valid = shapely.make_valid(shapes)
    joined = np.array([shapely.union_all(valid[number == i]) for i in range(count)], object)
    shapely.prepare(joined)
    return joined


def _columns(path: Path, columns: dict[str, Any]) -> tuple[list[int], list[Any], list[Any]]:
    """Zone ids, boroughs and names; None where the file has no column of them."""
    plain = {name.strip().lower(): list(values) for name, values in columns.items()}
    found = {
        wanted: next((plain[name] for name in names if name in plain), None)
        for wanted, names in _COLUMNS.items()
    }
    if found["zone"] is None:
        names = ", ".join(map(repr, columns)) or "none"
        raise _refusal(
            path,
            f"has no column 'LocationID': found {names}; take TLC's taxi_zones.zip or "
            "taxi_zone_lookup.csv.",
        )
    zone = [_zone(path, value) for value in found["zone"]]
    if not zone:
        raise _refusal(path, "holds no zones: take TLC's taxi_zones.zip.")
    unsaid = [None] * len(zone)
    return zone, found["borough"] or unsaid, found["name"] or unsaid


def _zone(path: Path, value: object) -> int:
    """A zone id; NYC Open Data writes it as text, some tools as a double."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = float("nan")
    if not (number.is_integer() and 0 < number < 2**15):
        found = value.item() if isinstance(value, np.generic) else value
        raise _refusal(
            path,
            f"has a zone with the id {found!r}: expected a whole number from 1 to {2**15 - 1}; "
            "take TLC's taxi_zones.zip or taxi_zone_lookup.csv.",
        )
    return int(number)
