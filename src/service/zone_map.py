"""The map that a person clicks on: the zones' shapes, or a schematic of where they are.

Shapes come from the settings' ``data.zones`` or TLC's own. Where there are none, a zone is what
lies nearest to its middle (a Voronoi cell): its middle is in ``data/zones.parquet``, or it is where
the model learned that it must be. The plane is `WIDTH` wide, in units of no meaning, y down.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trip_duration.errors import SourceError, TripDurationError, shown
from trip_duration.geometry import projected
from trip_duration.params import Data, load
from trip_duration.trips import OUTSIDE, UNKNOWN

if TYPE_CHECKING:
    import pyarrow as pa

    from trip_duration.zones import Zones

__all__ = ["WIDTH", "zones"]

WIDTH = 1000.0
DETAIL = 0.3  # units of the plane, 14 m of New York: corners that stand out less are left out
AGREEMENT = 0.5  # correlation of the distances on two maps of one city; of two cities it is near 0

# Miles, so that the schematic looks like a city by the sea.
_COAST = 1.25  # a zone reaches so many times as far as its neighbours are away
_NEIGHBOURS = 3
_BAY = 2.0  # bays and inlets narrower than twice this are filled
_RIVER = 0.08  # half the width of the water between boroughs
_ROUND = 0.25  # radius of a shore's corners
_LONE = 0.5  # how far a zone without neighbours reaches

_Said = tuple[str | None, str | None]  # a zone's borough and name
_NO_PLACES = {UNKNOWN: "Unknown", OUTSIDE: "Outside of the city"}


def zones(root: str | Path, learned: np.ndarray | None) -> dict[str, Any]:
    """Draw the zones that trips of a model begin and end in.

    Parameters
    ----------
    root : str or Path
        The repository's folder, with its settings and what ingest wrote.
    learned : array of shape (ZONES, 2), optional
        Where the model knows the zones to be, as `FeatureBuilder.fit` takes it. That is drawn where
        it is another city than the settings', or more of it.

    Returns
    -------
    dict
        ``kind`` (``"map"`` of shapes or ``"schematic"``), the plane's ``width`` and ``height``, and
        ``zones``, in order of their ids: ``zone``, ``name`` and ``borough`` (None where nobody
        said), ``path`` (of SVG) and a place within, ``x`` and ``y``; these three are None for a
        zone that is nowhere, like 264 and 265.

    Raises
    ------
    TripDurationError
        If the settings or the zones' file cannot be read.
    """
    root = Path(root)
    if learned is None:
        learned = np.full((OUTSIDE + 1, 2), np.nan)
    known, table = _known(root, load(root / "params.yaml").data)
    columns = table.to_pydict()
    degrees = (np.array(columns[name], np.float64) for name in ("longitude", "latitude"))
    places = projected(np.array(columns["zone"], np.int64), *degrees)
    if not _agree(places, learned):
        known, columns, places = None, {"zone": [], "borough": [], "name": []}, learned
    elif not np.isfinite(places).any():
        places = learned
    named = zip(columns["borough"], columns["name"], strict=True)
    said: dict[int, _Said] = dict.fromkeys(range(1, OUTSIDE + 1), (None, None))
    said |= {zone: (None, name) for zone, name in _NO_PLACES.items()}
    said |= dict(zip(columns["zone"], named, strict=True))
    if known is not None and known.shapes is not None:
        # A zone of TLC's list that has no shape, such as 57, is no zone of any trip.
        said = {zone: said[zone] for zone in (*known.shapes, *_NO_PLACES)}
        return _drawn("map", *_map(known.shapes), said)
    boroughs = {zone: borough for zone, (borough, _) in said.items()}
    return _drawn("schematic", *_schematic(places, boroughs), said)


def _known(root: Path, data: Data) -> tuple["Zones | None", "pa.Table"]:
    """The zones of the settings, and a table as `Zones.table` gives it of all that is known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from trip_duration.ingest import fetch_zones
    from trip_duration.workspace import absolute
    from trip_duration.zones import Zones, load_zones

    if data.zones is not None:
        data = data.model_copy(update={"zones": absolute(root, data.zones)})
    try:
        path = fetch_zones(data, root / ".cache" / "source")
    except SourceError:
        path = None  # what ingest wrote of them is drawn in their place
    if path is not None:
        known = load_zones(path)
        return known, known.table()
    nothing = Zones([], [], []).table()
    written = root / "data" / "zones.parquet"
    if not written.is_file():
        return None, nothing
    try:
        return None, pq.read_table(written).select(nothing.column_names)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise TripDurationError(
            f"{written} is no file of zones ({shown(error)}): run `make train` again."
        ) from error


def _agree(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two maps, each turned, mirrored and scaled as it likes, can be of one city."""
    both = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
    if both.sum() < 3:
        return True
    first, second = (_distances(places[both]).ravel() for places in (one, other))
    return bool(np.corrcoef(first, second)[0, 1] > AGREEMENT)


def _distances(places: np.ndarray) -> np.ndarray:
    return np.linalg.norm(places[:, None] - places, axis=2)


# What is drawn, by zone: a shape and a place within, y up


def _map(shapes: dict[int, Any]) -> tuple[dict[int, Any], dict[int, np.ndarray]]:
    """Shapes in degrees on a plane, simplified so that neighbours still share their borders."""
    import shapely

    flat = np.array(list(shapes.values()), object)
    _, south, _, north = shapely.total_bounds(flat)
    narrow = np.cos(np.radians((south + north) / 2))
    flat = shapely.transform(flat, lambda places: places * [narrow, 1.0])
    west, _, east, _ = shapely.total_bounds(flat)
    flat = shapely.coverage_simplify(flat, DETAIL * (east - west) / WIDTH)
    inside = shapely.get_coordinates(shapely.point_on_surface(flat))
    return dict(zip(shapes, flat, strict=True)), dict(zip(shapes, inside, strict=True))


def _schematic(
    places: np.ndarray, boroughs: dict[int, str | None]
) -> tuple[dict[int, Any], dict[int, np.ndarray]]:
    """What lies nearest to each zone, cut to a coast, with water between the boroughs."""
    import shapely

    ids = np.flatnonzero(np.isfinite(places).all(axis=1))
    inside = {int(zone): places[zone] for zone in ids}
    _, first = np.unique(places[ids], axis=0, return_index=True)
    ids = ids[np.sort(first)]  # of two zones in one place the first has the cell
    if not len(ids):
        return {}, inside
    middle = shapely.points(places[ids])
    away = np.sort(_distances(places[ids]), axis=1)[:, 1 : 1 + _NEIGHBOURS]
    reach = _COAST * away.mean(axis=1) if away.size else np.array([_LONE])
    coast = shapely.union_all(shapely.buffer(middle, reach)).buffer(_BAY).buffer(-_BAY)
    cells = np.array([coast], object)
    if len(ids) > 1:
        nearest = shapely.voronoi_polygons(
            shapely.multipoints(middle), extend_to=coast, ordered=True
        )
        cells = shapely.intersection(shapely.get_parts(nearest), coast)
    shore = np.array([boroughs[int(zone)] or "" for zone in ids])
    for name in np.unique(shore):
        land = shapely.union_all(cells[shore == name]).buffer(-_RIVER - _ROUND).buffer(_ROUND)
        cut = shapely.intersection(cells[shore == name], land)
        # Where a land is too narrow for its shores, a zone keeps its cell: it is to be clicked on.
        left = shapely.contains(cut, middle[shore == name])
        cells[shore == name] = np.where(left, cut, cells[shore == name])
    return {int(zone): cell for zone, cell in zip(ids, cells, strict=True)}, inside


# What is sent


def _drawn(
    kind: str,
    shapes: dict[int, Any],
    inside: dict[int, np.ndarray],
    said: dict[int, _Said],
) -> dict[str, Any]:
    import shapely

    west, south, east, north = 0.0, 0.0, 1.0, 1.0
    if shapes:
        every = np.array(list(shapes.values()), object)
        west, south, east, north = shapely.total_bounds(every).tolist()
    scale = WIDTH / (east - west)

    def on_plane(places: np.ndarray) -> np.ndarray:
        """Tenths of the plane's units, y down."""
        return np.rint((places - [west, north]) * [10 * scale, -10 * scale]).astype(np.int64)

    found: list[dict[str, Any]] = []
    for zone, (borough, name) in sorted(said.items()):
        path, x, y = None, None, None
        if zone in inside:
            x, y = (on_plane(inside[zone]) / 10).tolist()
        if zone in shapes:
            rings = [
                on_plane(shapely.get_coordinates(ring))
                for part in shapely.get_parts(shapes[zone])
                if part.geom_type == "Polygon"
                for ring in (part.exterior, *part.interiors)
            ]
            path = _path(rings)
        found.append({"zone": zone, "name": name, "borough": borough, "path": path, "x": x, "y": y})
    height = round((north - south) * scale, 1)
    return {"kind": kind, "width": WIDTH, "height": height, "zones": found}


def _path(rings: Iterable[np.ndarray]) -> str | None:
    """Rings in tenths as an SVG path, each corner as the step from the one before."""
    parts = []
    for ring in rings:
        steps = np.diff(ring[:-1], axis=0)
        steps = steps[steps.any(axis=1)]
        if len(steps) < 2:
            continue  # too small to be seen
        words = [f"{x / 10:g} {y / 10:g}" for x, y in steps.tolist()]
        start_x, start_y = (ring[0] / 10).tolist()
        parts.append(f"M{start_x:g} {start_y:g}l{' '.join(words)}z")
    return "".join(parts) or None
