"""A simulated city: the default source, without a network and with a known noise floor.

`city` draws a city from a seed: zones on a plane, a river around an island, a creek, bridges,
motorways to two airports, homes and workplaces. `SimulatedMonth` draws a month of trips in it, in
TLC's own column layout and with TLC's own dirt, so that they pass through the same mapping and
cleaning as real ones.

How long a trip takes
---------------------
With the recorded zones, the recorded moment and the recorded distance,

    expected = base(pair, moment) · (miles / road_miles[pair]) ** BETA
    duration = expected · exp(SIGMA · z - SIGMA² / 2)           z, y ~ N(0, 1), independent
    miles    = road_miles[pair] · exp(spread[pair] · y)

in whole seconds and hundredths of a mile. ``base`` is the fastest way over the roads without
traffic, its minutes split by kind of road and direction, each part slowed by its own curve over
the minutes of the week (federal holidays are Sundays). Given the distance a duration is lognormal
with SIGMA; without it, lognormal with sqrt(SIGMA² + BETA² · spread²). Both laws are closed, also
when cut to what the cleaning keeps, and that gives the noise floor (`noise_floor`).

Dirt
----
The rates for green are those of January 2023 and January 2024, for yellow those of a sample of
120,000 trips of 2019; they were measured on TLC's files, of which nothing is copied. fhv and fhvhv,
which were not measured, get yellow's rates; their layouts have no columns to be missing. A dirty
record is drawn so that the floor stays exact: what drives the duration is what is recorded, be it a
pickup of 2009 or zone 264, and a wrong duration depends on nothing else in the record but a
distance of zero, which the floor knows.

The same rows everywhere
------------------------
A row depends on (seed, taxi, month, its number) alone: chunks of `CHUNK` rows have generators of
their own. numpy's exp, log and sin may differ in the last bit between processors, so the city's
places and tables are rounded early, and durations are whole seconds and distances hundredths of a
mile: a last bit changes one in something like 10¹² of them.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.months import bounds, parse_month

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    _Trips = dict[str, NDArray[Any]]

__all__ = ["CHUNK", "TAXIS", "City", "SimulatedMonth", "city", "federal_holidays", "noise_floor"]

Kind = Literal["metered", "booking"]  # of model: with or without the recorded distance
KINDS: tuple[Kind, ...] = ("metered", "booking")
TAXIS = ("yellow", "green", "fhv", "fhvhv")
CHUNK = 1 << 16  # rows that share a generator; changing it changes every month

BETA = 0.75  # a trip twice as long as its pair's road takes 2 ** BETA times as long
SIGMA = 0.22  # what traffic lights and drivers add, as a standard deviation of the log

ZONES = 263  # TLC's number of zones
UNKNOWN, OUTSIDE = 264, 265  # zone ids that stand for no place

# The land

# The plane is in miles. Its first axis runs along the avenues, which point GRID_DEGREES east of
# north; the second along the streets, to the right of it. The centre of town is the origin.
GRID_DEGREES = 29.0
ORIGIN = (-73.97, 40.76)  # longitude, latitude
HALF_LENGTH, HALF_WIDTH = 12.5, 9.5  # miles from the origin to the coast, roughly
SEA, ISLAND, WEST, NORTH_EAST, SOUTH_EAST = range(-1, 4)

_FIRST = (
    "Alder Amber Arbor Ash Beacon Bell Birch Bramble Candle Chapel Cinder Clover Copper Cradle "
    "Drover Elder Fallow Fern Flint Garnet Hazel Heron Ivory Juniper Lantern Linden Marble "
    "Orchard Otter Pepper Quarry Rowan Saddle Slate Thistle Walnut Willow Wren"
)
_SECOND = "Bank Corner Cross Field Gardens Green Heights Hill Market Mill Park Row Square"
_AIRPORTS = ("Kestrel Airport", "Meridian Airport")


@dataclass(frozen=True)
class _Land:
    """Where the water is: a river that parts around an island, a creek, and the coast."""

    phase: tuple[float, ...]  # five angles; they tell one city's shores from another's

    def river(self, along: "Floats") -> "Floats":
        """The middle of the river, as a place across, for places ``along``."""
        return 0.5 * np.sin(along / 3.7 + self.phase[0]) + 0.2 * np.sin(along / 1.6 + self.phase[1])

    def island(self, along: "Floats") -> "Floats":
        """Half the island's width; 0 where the river flows in one bed."""
        return 1.35 * np.sqrt(np.clip(1 - np.abs(along / 6.5) ** 3, 0, None))

    def landmass(self, place: "Floats") -> "Ints":
        """The shore each place is on, or `SEA`."""
        along, across = place[..., 0], place[..., 1]
        aside = across - self.river(along)
        north = along > 2.5 + 0.6 * np.sin(across / 1.8 + self.phase[2])  # of the creek
        bank = np.where(aside < 0, WEST, np.where(north, NORTH_EAST, SOUTH_EAST))
        land = np.where(np.abs(aside) < self.island(along), ISLAND, bank)
        angle = np.arctan2(across, along)
        coast = 1 + 0.07 * np.sin(3 * angle + self.phase[3])
        coast += 0.04 * np.sin(7 * angle + self.phase[4])
        return np.where(np.hypot(along / HALF_LENGTH, across / HALF_WIDTH) < coast, land, SEA)

    def dry(self, place: "Floats") -> "Mask":
        """Whether a place has land all around it, 0.15 miles far, with no water between."""
        here = self.landmass(place)
        around = [(0.15, 0.0), (-0.15, 0.0), (0.0, 0.15), (0.0, -0.15)]
        shores = [self.landmass(place + np.array(step)) for step in around]
        return (here != SEA) & (np.array(shores) == here).all(axis=0)


def _density(place: "Floats") -> "Floats":
    """How much of a city a place is: 1 in the middle of the island, falling to 0 at the coast."""
    along, across = place[..., 0] / 4.5, place[..., 1] / 2.6
    return np.exp(-(along**2 + across**2) / 2)


def _spacing(place: "Floats") -> "Floats":
    """Miles between neighbouring zones."""
    return 0.45 + 0.9 * (1 - _density(place))


def _scatter(land: _Land, rng: np.random.Generator) -> "Floats":
    """Places of the zones: evenly spread, denser in the core.

    Mitchell's best candidate: of some random places take the one that is farthest from all taken
    so far, in units of the spacing wanted there.
    """
    tries = 40
    box = np.array([HALF_LENGTH, HALF_WIDTH]) * 1.12
    place = rng.uniform(-1, 1, (15 * tries * ZONES, 2)) * box
    wanted = (0.45 / _spacing(place)) ** 2
    place = place[land.dry(place) & (rng.random(len(place)) < wanted)]
    candidates = place[: tries * ZONES].reshape(ZONES, tries, 2)
    taken = candidates[:1, 0]
    for options in candidates[1:]:
        nearest = np.linalg.norm(options[:, None] - taken, axis=2).min(axis=1)
        best = options[np.argmax(nearest / _spacing(options))]
        taken = np.vstack([taken, best])
    return np.round(taken, 6)


# The roads

# Kinds of minutes: those at both ends of a trip, on the core's streets, and elsewhere towards or
# away from the centre. Each is slowed by its own curve over the week.
ENDS, CORE, INBOUND, OUTBOUND = range(4)
BRIDGE_SPACING = 2.2  # miles between neighbouring bridges over one water
LONGEST_BRIDGE = 3.0  # miles, with the ways to it
FERRY_MILES = 9.0  # what a crossing costs where no bridge is; keeps every zone within reach


@dataclass(frozen=True)
class _Roads:
    """Roads between neighbouring zones: edge ``k`` runs ``start[k]`` → ``end[k]``."""

    start: "Ints"
    end: "Ints"
    miles: "Floats"
    minutes: "Floats"  # without traffic
    core: "Floats"  # share of the minutes that is spent in the core's traffic
    inbound: "Mask"


def _roads(land: _Land, place: "Floats", airports: "Ints", rng: np.random.Generator) -> _Roads:
    """Join neighbouring zones by roads, over bridges where there is water, and lay motorways."""
    from scipy.spatial import Delaunay

    corners = Delaunay(place).simplices
    edges = np.vstack([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    ends = place[edges]
    miles = np.abs(ends[:, 0] - ends[:, 1]).sum(axis=1)  # along avenues and streets
    wet = _crosses_water(land, ends)
    bridge = _bridges(land.landmass(ends), ends.mean(axis=1), miles)
    miles = miles + FERRY_MILES * (wet & ~bridge)

    density = _density(ends).mean(axis=1)
    speed = 22 - 12 * density
    motorway = _motorways(place, edges, miles / speed, airports)
    speed = np.where(motorway, 40 - 12 * density, speed)
    # One-way streets: the way there is a little longer than the way back, or the other way round.
    both = np.vstack([edges, edges[:, ::-1]])
    miles = np.tile(miles, 2) * rng.uniform(1.0, 1.06, len(both))
    centre = np.abs(place).sum(axis=1)
    return _Roads(
        start=both[:, 0],
        end=both[:, 1],
        miles=miles,
        minutes=60 * miles / np.tile(speed, 2),
        core=np.tile(density * ~motorway, 2),
        inbound=centre[both[:, 1]] < centre[both[:, 0]],
    )


def _crosses_water(land: _Land, ends: "Floats") -> "Mask":
    part = np.linspace(0, 1, 9)[:, None, None]
    on = land.landmass(ends[:, 0] * (1 - part) + ends[:, 1] * part)
    return (on != on[0]).any(axis=0)


def _bridges(shores: "Ints", middle: "Floats", miles: "Floats") -> "Mask":
    """Pick the shortest ways from shore to shore, some way apart on each water."""
    shores = np.sort(shores, axis=1)
    bridge = np.zeros(len(miles), dtype=bool)
    apart = (shores[:, 0] != shores[:, 1]) & (miles < LONGEST_BRIDGE)
    for edge in np.argsort(miles, kind="stable"):
        rivals = bridge & (shores == shores[edge]).all(axis=1)
        away = np.linalg.norm(middle[rivals] - middle[edge], axis=1)
        bridge[edge] = apart[edge] and (away > BRIDGE_SPACING).all()
    return bridge


def _motorways(place: "Floats", edges: "Ints", minutes: "Floats", airports: "Ints") -> "Mask":
    """Mark the fastest streets from the airports and the city's corners to the centre."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    corners = np.array([[-11, -3], [10, -4], [10, 5], [-10, 4]])
    far = np.linalg.norm(place - corners[:, None], axis=2).argmin(axis=1)
    centre = int(np.linalg.norm(place, axis=1).argmin())
    graph = csr_matrix((minutes, (edges[:, 0], edges[:, 1])), shape=(len(place), len(place)))
    _, before = dijkstra(graph, directed=False, indices=centre, return_predecessors=True)
    used = set()
    for zone in [*airports.tolist(), *far.tolist()]:
        while zone != centre:
            used.add((min(zone, before[zone]), max(zone, before[zone])))
            zone = before[zone]
    return np.array([(a, b) in used for a, b in edges.tolist()])


def _fastest_ways(roads: _Roads, zones: int) -> tuple["Floats", "Floats"]:
    """Miles (n × n) and minutes by kind (n × n × 4) of the fastest way between two zones."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    shape = (zones, zones)
    graph = csr_matrix((roads.minutes, (roads.start, roads.end)), shape=shape)
    total, before = dijkstra(graph, return_predecessors=True)
    edge = np.zeros((zones, zones, 5))  # miles, then minutes by kind
    edge[roads.start, roads.end, 0] = roads.miles
    edge[roads.start, roads.end, 1 + CORE] = roads.minutes * roads.core
    outer = roads.minutes * (1 - roads.core)
    edge[roads.start, roads.end, 1 + INBOUND] = outer * roads.inbound
    edge[roads.start, roads.end, 1 + OUTBOUND] = outer * ~roads.inbound
    # A way is the way to the zone before the last, and one road more. Nearer zones come first.
    way = np.zeros_like(edge)
    origin = np.arange(zones)
    for zone in np.argsort(total, axis=1, kind="stable").T[1:]:
        last = before[origin, zone]
        way[origin, zone] = way[origin, last] + edge[last, zone]
    return way[..., 0], way[..., 1:]


# The city


@dataclass(frozen=True, eq=False)
class City:
    """A city; index ``i`` of an array belongs to zone id ``i + 1``.

    Attributes
    ----------
    seed : int
        What it was drawn from.
    place : (263, 2) float array
        Miles along the avenues and along the streets from the centre.
    landmass : (263,) int array
        Which shore a zone is on: the island, west, north-east or south-east.
    airports : (2,) int array
        Indices of the airports.
    boroughs, names : tuple of str
        For all 265 zone ids; ids are in the order of the names, as TLC's are.
    density, homes, jobs, nights : (263,) float arrays
        What draws trips.
    road_miles : (265, 265) float array
        Length of the fastest way from zone to zone; within a zone, that of a typical trip. The
        last two rows and columns are what is drawn for zones 264 (unknown) and 265 (outside).
    spread : (265, 265) float array
        Standard deviation of the log of metered over road miles.
    minutes : (265, 265, 4) float array
        Minutes of the fastest way without traffic: at the ends, in the core, inbound, outbound.
    """

    seed: int
    place: "Floats"
    landmass: "Ints"
    airports: "Ints"
    boroughs: tuple[str, ...]
    names: tuple[str, ...]
    density: "Floats"
    homes: "Floats"
    jobs: "Floats"
    nights: "Floats"
    road_miles: "Floats"
    spread: "Floats"
    minutes: "Floats"

    def __post_init__(self) -> None:
        for value in vars(self).values():  # one city is shared by all months
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    def zones(self) -> pa.Table:
        """All 265 zone ids: zone, borough, name, longitude and latitude (degrees, or null)."""
        along, across = self.place.T
        sine, cosine = math.sin(math.radians(GRID_DEGREES)), math.cos(math.radians(GRID_DEGREES))
        east, north = along * sine + across * cosine, along * cosine - across * sine
        mile = 1 / 69.05  # degrees of latitude
        longitude = ORIGIN[0] + east * mile / math.cos(math.radians(ORIGIN[1]))
        latitude = ORIGIN[1] + north * mile
        return pa.table(
            {
                "zone": pa.array(range(1, OUTSIDE + 1), pa.int16()),
                "borough": pa.array(self.boroughs, pa.string()),
                "name": pa.array(self.names, pa.string()),
                "longitude": pa.array([*longitude.round(6).tolist(), None, None], pa.float64()),
                "latitude": pa.array([*latitude.round(6).tolist(), None, None], pa.float64()),
            }
        )


@lru_cache(maxsize=4)
def city(seed: int) -> City:
    """Draw the city of ``seed``, a whole number from 0 on; the same for every month and taxi."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise SettingsError(f"seed is {seed!r}: the simulated city needs a whole number from 0 on.")
    rng = _generator(seed)
    land = _Land(tuple(rng.uniform(0, 2 * math.pi, 5).round(6).tolist()))
    place = _scatter(land, rng)
    names, airport_places = _name(place, land, rng)
    order = np.argsort(names)
    place, names = place[order], [names[i] for i in order]
    airports = np.array([int(np.flatnonzero(order == i)[0]) for i in airport_places])

    density = _density(place).round(6)
    landmass = land.landmass(place)
    homes, jobs, nights = np.exp(rng.normal(0, [[0.5], [0.6], [0.9]], (3, ZONES)))
    homes *= 0.25 + 0.75 * np.sqrt(density)
    jobs *= 0.04 + density**1.3
    nights *= 0.05 + density
    for draw in (homes, jobs, nights):
        draw[airports] = 0
        draw /= draw.sum()

    miles, minutes = _fastest_ways(_roads(land, place, airports, rng), ZONES)
    ends = rng.uniform(0.7, 1.7, ZONES)
    ends[airports] = 3.5
    return City(
        seed=seed,
        place=place,
        landmass=landmass,
        airports=airports,
        boroughs=(*_boroughs(place, landmass), "Unknown", "Outside"),
        names=(*names, "Unknown", "Outside of the city"),
        density=density,
        homes=homes.round(9),
        jobs=jobs.round(9),
        nights=nights.round(9),
        **_pairs(place, density, ends, miles, minutes),
    )


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _name(place: "Floats", land: _Land, rng: np.random.Generator) -> tuple[list[str], list[int]]:
    """Invent names for the zones; two far from the centre become the airports."""
    every = [f"{first} {second}" for first in _FIRST.split() for second in _SECOND.split()]
    names = [every[i] for i in rng.choice(len(every), len(place), replace=False)]
    landmass = land.landmass(place)
    airports = []
    for name, shore, far in zip(_AIRPORTS, (NORTH_EAST, SOUTH_EAST), (6.0, 9.0), strict=True):
        off = np.abs(np.linalg.norm(place, axis=1) - far) + 100 * (landmass != shore)
        airports.append(int(off.argmin()))
        names[airports[-1]] = name
    return names, airports


def _boroughs(place: "Floats", landmass: "Ints") -> list[str]:
    beyond = (landmass == SOUTH_EAST) & (place[:, 1] > 5.5)
    names = np.array(["Holm", "Westerley", "Northmoor", "Eastbrook", "Farside"])
    return names[np.where(beyond, 4, landmass)].tolist()


def _pairs(
    place: "Floats", density: "Floats", ends: "Floats", miles: "Floats", minutes: "Floats"
) -> dict[str, "Floats"]:
    """Complete what is known of pairs by trips within a zone and by zones 264 and 265."""
    size = _spacing(place)
    total = OUTSIDE
    road = np.zeros((total, total))
    spread = np.full((total, total), 0.6)
    legs = np.zeros((total, total, 4))

    road[:ZONES, :ZONES] = miles
    legs[:ZONES, :ZONES] = minutes
    within = np.arange(ZONES)
    inside = 0.75 * size  # miles of a trip within a zone
    slow = inside * 60 / (22 - 12 * density)
    road[within, within] = inside
    legs[within, within, CORE] = slow * density
    legs[within, within, INBOUND] = legs[within, within, OUTBOUND] = slow * (1 - density) / 2
    # Both ends lie anywhere in their zones, which matters less the farther they are apart.
    known = road[:ZONES, :ZONES]
    spread[:ZONES, :ZONES] = np.hypot(0.1, 0.35 * (size[:, None] + size) / 2 / known).clip(0, 0.5)

    unknown, outside = UNKNOWN - 1, OUTSIDE - 1
    road[unknown], road[:, unknown] = 2.2, 2.2
    spread[outside], spread[:, outside] = 0.25, 0.25
    away = np.abs(place - np.array([HALF_LENGTH, -HALF_WIDTH])).sum(axis=1)
    road[outside, :ZONES], road[:ZONES, outside] = away, away
    road[outside, unknown] = road[unknown, outside] = 14.0
    road[outside, outside] = 8.0
    legs[unknown] = legs[:, unknown] = [0.0, 4.0, 2.0, 2.0]
    legs[outside, :, INBOUND] = 1.9 * road[outside]
    legs[:, outside, OUTBOUND] = 1.9 * road[:, outside]
    both = np.append(ends, [1.2, 1.2])
    legs[..., ENDS] = both[:, None] + both
    return {"road_miles": road.round(6), "spread": spread.round(6), "minutes": legs.round(6)}


# The week

DAY, WEEK = 1440, 10080  # minutes; the week begins on Monday
_WORKDAYS, _WEEKEND, _ALL = range(5), range(5, 7), range(7)
_Peak = tuple[Iterable[int], float, float, float]  # days, hour, its standard deviation, height


def _curve(peaks: Iterable[_Peak], ground: float = 0.0) -> "Floats":
    """A smooth curve over the minutes of the week; its peaks run on over midnight and Sunday."""
    minute = np.arange(WEEK)
    total = np.full(WEEK, ground)
    for days, hour, width, height in peaks:
        for day in days:
            away = (minute - day * DAY - hour * 60 + WEEK / 2) % WEEK - WEEK / 2
            total += height * np.exp(-((away / (60 * width)) ** 2) / 2)
    return total.round(6)


_AFTERNOON: _Peak = (_WEEKEND, 15.0, 3.0, 0.30)
_TRAFFIC: dict[int, tuple[_Peak, ...]] = {
    ENDS: ((_ALL, 14.0, 4.5, 0.30),),
    CORE: (
        (_WORKDAYS, 8.4, 1.1, 0.45),
        (_WORKDAYS, 13.0, 2.8, 0.55),
        (_WORKDAYS, 17.4, 1.5, 0.60),
        _AFTERNOON,
        ((4, 5), 22.0, 2.0, 0.22),  # Friday and Saturday nights
    ),
    INBOUND: (
        (_WORKDAYS, 8.1, 1.1, 0.85),
        (_WORKDAYS, 13.0, 3.0, 0.25),
        (_WORKDAYS, 17.3, 1.4, 0.30),
        _AFTERNOON,
    ),
    OUTBOUND: (
        (_WORKDAYS, 8.2, 1.1, 0.25),
        (_WORKDAYS, 13.0, 3.0, 0.25),
        (_WORKDAYS, 17.3, 1.5, 0.85),
        _AFTERNOON,
    ),
}


def _pace() -> "Floats":
    """How many times longer than without traffic each kind of minutes takes, (10080, 4)."""
    return np.column_stack([_curve(peaks, 1.0) for _, peaks in sorted(_TRAFFIC.items())])


def federal_holidays(year: int) -> list[np.datetime64]:
    """Days on which US federal holidays are observed, for the holidays of ``year``.

    Fixed dates move to Friday from a Saturday and to Monday from a Sunday (5 U.S.C. 6103), so the
    first of them may be the last day of the year before. Juneteenth counts from 2021 on.
    """
    fixed = ["01-01", "07-04", "11-11", "12-25"] + (["06-19"] if year >= 2021 else [])
    days = [np.datetime64(f"{year}-{day}") for day in fixed]
    # Weekdays of np.datetime64[D]: day 0 was a Thursday.
    shift = {5: -1, 6: 1}
    days = [day + shift.get(int((day.astype(int) + 3) % 7), 0) for day in days]
    mondays = {"01": 2, "02": 2, "09": 0, "10": 1}  # month: how many Mondays come before
    for month, before in mondays.items():
        days.append(np.busday_offset(f"{year}-{month}", before, "forward", weekmask="Mon"))
    days.append(np.busday_offset(f"{year}-06", -1, "forward", weekmask="Mon"))
    days.append(np.busday_offset(f"{year}-11", 3, "forward", weekmask="Thu"))
    return sorted(days)


def _minute_of_week(second: "Ints", holidays: "Ints") -> "Ints":
    """Minute of the week of moments in seconds since 1970; holidays are Sundays."""
    day, rest = np.divmod(second, DAY * 60)
    weekday = (day + 3) % 7
    weekday[np.isin(day, holidays)] = 6
    return weekday * DAY + rest // 60


# The demand


@dataclass(frozen=True)
class _Purpose:
    """One reason to ride: when, from where, to where."""

    share: float
    peaks: tuple[_Peak, ...]
    push: str  # what draws the pickup
    pull: str  # what draws the drop-off
    reach: float  # miles after which a drop-off draws 1 / e as much


_PURPOSES = (
    # to work, on business, home from work
    _Purpose(0.17, ((_WORKDAYS, 8.3, 1.2, 1.0),), "homes", "jobs", 1.45),
    _Purpose(
        share=0.23,
        peaks=((_WORKDAYS, 11.5, 2.5, 1.0), (_WORKDAYS, 15.0, 1.8, 0.8), (_WEEKEND, 14, 3, 0.3)),
        push="jobs",
        pull="jobs",
        reach=0.85,
    ),
    _Purpose(
        share=0.20,
        peaks=((_WORKDAYS, 17.8, 1.6, 1.0), (_WORKDAYS, 20.5, 1.5, 0.25)),
        push="jobs",
        pull="homes",
        reach=1.45,
    ),
    # errands and visits, a night out, home from it
    _Purpose(
        share=0.20,
        peaks=((_ALL, 13.0, 3.0, 0.7), (_ALL, 18.5, 2.0, 0.8), (_WEEKEND, 15.0, 3.5, 0.6)),
        push="homes",
        pull="homes",
        reach=0.75,
    ),
    _Purpose(0.07, ((_ALL, 19.5, 1.4, 0.4), ((4, 5), 20.5, 1.5, 1.0)), "homes", "nights", 1.1),
    _Purpose(0.08, ((_ALL, 22.5, 1.5, 0.5), ((4, 5), 25.0, 2.0, 1.0)), "nights", "homes", 1.1),
    # to and from the airports
    _Purpose(0.02, ((_ALL, 6.5, 1.8, 1.0), (_ALL, 15.0, 2.5, 1.0)), "homes", "airports", 4.5),
    _Purpose(0.03, ((_ALL, 12.0, 3.5, 0.6), (_ALL, 20.5, 2.5, 1.0)), "airports", "homes", 4.5),
)


def _pair_weights(town: City, purpose: _Purpose, taxi: str) -> "Floats":
    """Relative numbers of trips from zone to zone, (263, 263): a gravity model."""
    airport = np.zeros(ZONES)
    airport[town.airports] = 0.4, 0.6
    draws = {"homes": town.homes, "jobs": town.jobs, "nights": town.nights, "airports": airport}
    # Yellow cabs cruise where the city is dense and wait at the airports; green ones may pick up
    # in neither place.
    hail = {
        "yellow": np.where(airport > 0, 1.0, 0.02 + town.density),
        "green": np.where((town.density < 0.45) & (airport == 0), 0.02 + town.density, 0.005),
    }.get(taxi, np.ones(ZONES))
    near = np.exp(-town.road_miles[:ZONES, :ZONES] / purpose.reach)
    near[np.diag_indices(ZONES)] *= 0.6  # who stays in the zone often walks
    pull = draws[purpose.pull] * near
    pull /= pull.sum(axis=1, keepdims=True)
    return (draws[purpose.push] * hail)[:, None] * pull


def _cumulative(weights: "Floats") -> "Floats":
    total = np.cumsum(weights, axis=None)
    return total / total[-1]


# The dirt


@dataclass(frozen=True)
class _Dirt:
    """Shares of all rows, unless said otherwise; see the module's docstring for their source."""

    false_start: float  # under a minute
    forgotten: float  # near 24 hours: the meter ran on until the next day
    zero_of_false: float  # share of the false starts with a distance at or below zero
    zero: float  # share of the others
    negative: float  # share of those at or below zero
    absurd: float  # thousands of miles; share of the rows with missing values
    missing: float  # no passenger count, rate code, flag and trip type
    unknown_both: float  # zone 264 at both ends
    unknown_pickup: float
    unknown_dropoff: float
    outside_pickup: float
    outside_dropoff: float
    misdated: float  # a clock that fell back to 2009, or a trip of the day before


_GREEN = _Dirt(
    false_start=0.024,
    forgotten=0.002,
    zero_of_false=0.62,
    zero=0.036,
    negative=0.0,
    absurd=0.013,
    missing=0.063,
    unknown_both=0.0015,
    unknown_pickup=0.0005,
    unknown_dropoff=0.0059,
    outside_pickup=0.0005,
    outside_dropoff=0.0032,
    misdated=0.00004,
)
_YELLOW = _Dirt(
    false_start=0.0095,
    forgotten=0.0023,
    zero_of_false=0.6,
    zero=0.0028,
    negative=0.011,
    absurd=0.0,
    missing=0.0031,
    unknown_both=0.0068,
    unknown_pickup=0.0023,
    unknown_dropoff=0.002,
    outside_pickup=0.0005,
    outside_dropoff=0.0026,
    misdated=0.00004,
)
DIRT = {"green": _GREEN, "yellow": _YELLOW, "fhv": _YELLOW, "fhvhv": _YELLOW}

TRIP, FALSE_START, FORGOTTEN = range(3)
SANE_MILES = 60.0  # what a meter shows of a real trip stays below
_UNIFORM = {FALSE_START: (-0.5 / 60, 59.5 / 60), FORGOTTEN: (1370.0, 1439.0)}  # minutes


# The month


class SimulatedMonth:
    """A month of trips in the city of ``seed``.

    Parameters
    ----------
    month : str
        ``YYYY-MM``.
    taxi : str
        One of `TAXIS`: decides the columns, where trips begin, and the dirt.
    seed : int
        A whole number from 0 on.
    trips : int
        Number of rows, dirt included. The rows of a month with fewer are its first rows.
    drift : float
        Relative change of all durations from one month to the next, counted from 2020-01.
    min_minutes, max_minutes : float
        What the cleaning keeps, both included; decides `noise`, not the rows.

    Raises
    ------
    SettingsError
        If one of them cannot be used.
    """

    def __init__(
        self,
        month: str,
        *,
        taxi: str,
        seed: int,
        trips: int,
        drift: float = 0.0,
        min_minutes: float = 1.0,
        max_minutes: float = 60.0,
    ) -> None:
        if taxi not in TAXIS:
            raise SettingsError(f"data.taxi is {taxi!r}: expected one of {', '.join(TAXIS)}.")
        if trips < 1:
            raise SettingsError(
                f"data.simulated.trips_per_month is {trips}: a month needs at least one trip."
            )
        if drift <= -1:
            raise SettingsError(
                f"data.simulated.drift is {drift}: expected a relative change of more than -1."
            )
        if not 0 <= min_minutes < max_minutes:
            raise SettingsError(
                f"clean.min_minutes is {min_minutes} and clean.max_minutes {max_minutes}: expected "
                "the first to be at least 0 and the second to be larger."
            )
        self.city = city(seed)
        self.month, self.taxi, self.seed, self.trips = month, taxi, seed, trips
        self._year, self._number = parse_month(month)
        self._dirt = DIRT[taxi]
        self._drift = math.log1p(drift)
        # Durations are whole seconds: these are the bounds of what is rounded into the window.
        self._window = (
            (math.ceil(60 * min_minutes) - 0.5) / 60,
            (math.floor(60 * max_minutes) + 0.5) / 60,
        )
        self._noise: dict[str, dict[str, Any]] | None = None

        town = self.city
        self._pace = _pace()
        self._minutes = town.minutes.reshape(-1, 4)
        self._log_miles = np.log(town.road_miles).ravel()
        self._spread = town.spread.ravel()
        holidays = [
            day
            for year in {2008, 2009, 2010, self._year - 1, self._year, self._year + 1}
            for day in federal_holidays(year)
        ]
        self._holidays = np.unique(np.array(holidays, dtype="M8[D]").astype(np.int64))
        start, end = (np.datetime64(moment, "s").astype(np.int64) for moment in bounds(month))
        self._start = int(start)
        minute = _minute_of_week(np.arange(start, end, 60), self._holidays)
        where = [_pair_weights(town, purpose, taxi) for purpose in _PURPOSES]
        curves = [_curve(purpose.peaks, 0.01) for purpose in _PURPOSES]
        self._where = [_cumulative(weights) for weights in where]
        self._when = [_cumulative(curve[minute]) for curve in curves]
        # A month with more Mondays sees more of what happens on Mondays.
        share = [
            purpose.share * weights.sum() * curve[minute].mean() / curve.mean()
            for purpose, weights, curve in zip(_PURPOSES, where, curves, strict=True)
        ]
        self._share = (np.array(share) / sum(share)).round(9)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Draw the month, `CHUNK` rows at a time, in TLC's columns of this taxi."""
        sums = dict.fromkeys(KINDS, 0.0)
        rows = 0
        low, high = self._window
        for trip in self._chunks():
            kept = (trip["seconds"] > 60 * low) & (trip["seconds"] < 60 * high)
            rows += int(kept.sum())
            for kind in KINDS:
                sums[kind] += float(self._moments(trip, kind)[1][kept].sum())
            yield self._columns(trip)
        self._noise = {
            kind: {"variance_sum": round(total, 6), "rows": rows} for kind, total in sums.items()
        }

    def noise(self) -> dict[str, dict[str, Any]]:
        """Sums over the kept rows of what no model can explain; see `noise_floor`.

        Returns
        -------
        dict
            ``{"metered": {"variance_sum": minutes², "rows": n}, "booking": {…}}``

        Raises
        ------
        TripDurationError
            Before `batches` has been read to its end.
        """
        if self._noise is None:
            raise TripDurationError(
                f"The noise of {self.month} is known once its batches are read to the end."
            )
        return self._noise

    def expected(self, kind: Kind) -> Iterator["Floats"]:
        """What the best model would say, in minutes, for each row of each batch, kept or not.

        Parameters
        ----------
        kind : {"metered", "booking"}
            Whether it sees the recorded distance.
        """
        for trip in self._chunks():
            yield self._moments(trip, kind)[0]

    def _chunks(self) -> Iterator["_Trips"]:
        for number in range(-(-self.trips // CHUNK)):
            trip = self._draw(number)
            size = min(CHUNK, self.trips - number * CHUNK)
            yield {name: values[:size] for name, values in trip.items()}

    def _draw(self, number: int) -> "_Trips":
        """Draw chunk ``number``, always whole, so that a shorter month begins a longer one."""
        key = (self.seed, TAXIS.index(self.taxi), self._year * 12 + self._number, number)
        rng = _generator(*key)
        pickup, pair = self._demand(rng)
        pair = self._lose_zones(pair, rng)

        log_base = self._log_base(pair, pickup)
        ratio = self._spread[pair] * rng.standard_normal(CHUNK)
        miles = np.exp(self._log_miles[pair] + ratio)
        miles = np.clip(np.rint(miles * 100) / 100, 0.01, SANE_MILES - 0.01)
        # From here on the recorded, rounded distance counts.
        longer = BETA * (np.log(miles) - self._log_miles[pair])
        z = rng.standard_normal(CHUNK)
        seconds = np.rint(60 * np.exp(log_base + longer + SIGMA * z - SIGMA**2 / 2))
        seconds = np.minimum(seconds, 86_399)
        trip = {"pickup": pickup, "pair": pair, "log_base": log_base, "longer": longer}
        return trip | self._soil(seconds, miles, rng)

    def _demand(self, rng: np.random.Generator) -> tuple["Ints", "Ints"]:
        """Moments (seconds since 1970) and pairs (row in the city's flattened arrays)."""
        counts = rng.multinomial(CHUNK, self._share / self._share.sum())
        minutes, pairs = [], []
        for count, when, where in zip(counts, self._when, self._where, strict=True):
            minutes.append(np.searchsorted(when, rng.random(count), side="right"))
            # In order, because neighbouring look-ups are fast; the moments beside them are not.
            pairs.append(np.searchsorted(where, np.sort(rng.random(count)), side="right"))
        order = rng.permutation(CHUNK)
        minute, pair = np.concatenate(minutes)[order], np.concatenate(pairs)[order]
        pickup = self._start + minute * 60 + rng.integers(0, 60, CHUNK)
        wrong = np.flatnonzero(rng.random(CHUNK) < self._dirt.misdated)
        fallen = np.datetime64("2008-12-31T22:00:00", "s").astype(np.int64)
        reset = rng.random(len(wrong)) < 0.5
        pickup[wrong] = np.where(
            reset,
            fallen + rng.integers(0, 4 * 3600, len(wrong)),
            self._start - rng.integers(1, 12 * 3600, len(wrong)),
        )
        begin, end = np.divmod(pair, ZONES)
        return pickup, begin * OUTSIDE + end

    def _lose_zones(self, pair: "Ints", rng: np.random.Generator) -> "Ints":
        """Put 264 and 265 in the place of some zones."""
        dirt = self._dirt
        begin, end = np.divmod(pair, OUTSIDE)
        u = rng.random((3, CHUNK))
        begin[u[0] < dirt.unknown_pickup + dirt.outside_pickup] = UNKNOWN - 1
        begin[u[0] < dirt.outside_pickup] = OUTSIDE - 1
        end[u[1] < dirt.unknown_dropoff + dirt.outside_dropoff] = UNKNOWN - 1
        end[u[1] < dirt.outside_dropoff] = OUTSIDE - 1
        both = u[2] < dirt.unknown_both
        begin[both], end[both] = UNKNOWN - 1, UNKNOWN - 1
        return begin * OUTSIDE + end

    def _log_base(self, pair: "Ints", pickup: "Ints") -> "Floats":
        pace = self._pace[_minute_of_week(pickup, self._holidays)]
        base = np.log(np.einsum("ij,ij->i", self._minutes[pair], pace))
        if self._drift:
            months = pickup.astype("M8[s]").astype("M8[M]").astype(np.int64) - 600  # 2020-01
            base += self._drift * months
        return base

    def _soil(self, seconds: "Floats", miles: "Floats", rng: np.random.Generator) -> "_Trips":
        """Put wrong durations and distances, and missing values, in the place of some."""
        dirt = self._dirt
        u = rng.random(CHUNK)
        false = u < dirt.false_start
        seconds[false] = np.floor(60 * u[false] / dirt.false_start)
        forgotten = np.flatnonzero(u >= 1 - dirt.forgotten)
        low, high = _UNIFORM[FORGOTTEN]
        seconds[forgotten] = np.rint(60 * rng.uniform(low, high, len(forgotten)))

        zero = rng.random(CHUNK) < np.where(false, dirt.zero_of_false, dirt.zero)
        negative = rng.random(CHUNK) < dirt.negative
        missing = rng.random(CHUNK) < dirt.missing
        absurd = missing & ~zero & (rng.random(CHUNK) < dirt.absurd)
        # A negative distance is another trip's, so that it says nothing about its own.
        miles = np.where(zero, np.where(negative, -np.roll(miles, 1), 0.0), miles)
        far = np.exp(rng.normal(10.1, 0.8, int(absurd.sum()))).clip(4e3, 3e5)
        miles[absurd] = np.rint(100 * far) / 100
        return {
            "seconds": seconds,
            "miles": miles,
            "sane": ~(zero | absurd),
            "zero": zero,
            "missing": missing,
            "luck": rng.random((CHUNK, 4)),  # for what is on the record and means nothing
        }

    def _moments(self, trip: "_Trips", kind: Kind) -> tuple["Floats", "Floats"]:
        """E and Var, in minutes, of a kept duration given what ``kind`` of model may see."""
        dirt = self._dirt
        middle = trip["log_base"] - SIGMA**2 / 2
        width = np.hypot(SIGMA, BETA * self._spread[trip["pair"]])
        false: Floats | float = dirt.false_start
        if kind == "metered" and self.taxi != "fhv":
            sane, zero = trip["sane"], trip["zero"]
            middle = np.where(sane, middle + trip["longer"], middle)
            width = np.where(sane, SIGMA, width)
            # A distance of zero makes a false start more likely, any other less (Bayes).
            among_false = np.where(zero, dirt.zero_of_false, 1 - dirt.zero_of_false)
            among_others = np.where(zero, dirt.zero, 1 - dirt.zero)
            false = dirt.false_start * among_false
            false = false / (false + (1 - dirt.false_start) * among_others)
        forgotten = (1 - false) * dirt.forgotten / (1 - dirt.false_start)
        share = {TRIP: 1 - false - forgotten, FALSE_START: false, FORGOTTEN: forgotten}
        moments = share[TRIP] * _lognormal_moments(middle, width, *self._window)
        for wrong, (start, end) in _UNIFORM.items():
            cut = _uniform_moments(start, end, *self._window)
            moments = moments + share[wrong] * cut[:, None]
        # Nothing that is kept is this unlikely, but rows that are not kept are computed too.
        weight = np.maximum(moments[0], 1e-300)
        mean = moments[1] / weight
        # Rounding to whole seconds adds the variance of a uniform law one second wide.
        variance = np.maximum(moments[2] / weight - mean**2, 0) + 1 / 12 / 60**2
        return mean, variance

    def _columns(self, trip: "_Trips") -> pa.RecordBatch:
        """Name and type the columns as TLC does."""
        begin, end = np.divmod(trip["pair"], OUTSIDE)
        pickup, dropoff = _stamps(trip["pickup"]), _stamps(trip["pickup"] + trip["seconds"])
        first, second, third, fourth = trip["luck"].T
        missing = trip["missing"]
        if self.taxi == "fhv":
            bases = ("B00256", "B01312", "B02849")
            return pa.record_batch(
                {
                    "dispatching_base_num": _choice(first, bases, (0.5, 0.3)),
                    "pickup_datetime": pickup,
                    "dropOff_datetime": dropoff,
                    "PUlocationID": begin + 1,
                    "DOlocationID": end + 1,
                    "SR_Flag": pa.nulls(len(first), pa.float64()),
                }
            )
        if self.taxi == "fhvhv":
            return pa.record_batch(
                {
                    "hvfhs_license_num": _choice(first, ("HV0003", "HV0005"), (0.73,)),
                    "dispatching_base_num": _choice(first, ("B03404", "B03406"), (0.73,)),
                    "pickup_datetime": pickup,
                    "dropoff_datetime": dropoff,
                    "PULocationID": begin + 1,
                    "DOLocationID": end + 1,
                    "trip_miles": trip["miles"],
                }
            )
        # Shares as in the months that the dirt was measured on; riders from 1 to 6, the rest 0.
        prefix, vendor_one, riders, dispatched = {
            "green": ("lpep", 0.13, (0.843, 0.087, 0.011, 0.004, 0.028, 0.017), 0.033),
            "yellow": ("tpep", 0.36, (0.693, 0.151, 0.043, 0.020, 0.040, 0.024), 0.006),
        }[self.taxi]
        count = (np.searchsorted(np.cumsum(riders), first, side="right") + 1.0) % 7
        airport = self.city.airports[1]
        fare = np.where((begin == airport) ^ (end == airport), 2.0, 1.0)  # 2: the airport's
        hailed = second >= dispatched
        columns = {
            "VendorID": np.where(third < vendor_one, 1, 2),
            f"{prefix}_pickup_datetime": pickup,
            f"{prefix}_dropoff_datetime": dropoff,
            "store_and_fwd_flag": _choice(fourth, ("Y", "N"), (0.004,), missing),
            "RatecodeID": pa.array(np.where(hailed, fare, 5.0), mask=missing),  # 5: negotiated
            "PULocationID": begin + 1,
            "DOLocationID": end + 1,
            "passenger_count": pa.array(count, mask=missing),
            "trip_distance": trip["miles"],
        }
        if self.taxi == "green":
            columns["trip_type"] = pa.array(np.where(hailed, 1.0, 2.0), mask=missing)
        return pa.record_batch(columns)


def _stamps(seconds: "NDArray[Any]") -> pa.Array:
    return pa.array(seconds.astype(np.int64) * 1_000_000).view(pa.timestamp("us"))


def _choice(
    u: "Floats",
    words: tuple[str, ...],
    shares: tuple[float, ...],
    missing: "Mask | None" = None,
) -> pa.Array:
    """Words by their shares (the last one takes the rest) from uniform numbers."""
    codes = np.searchsorted(np.cumsum(shares), u, side="right").astype(np.int8)
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, mask=missing), pa.array(words)
    ).dictionary_decode()


# The floor


def _lognormal_moments(middle: "Floats", width: "Floats", low: float, high: float) -> "Floats":
    """E[T^k; low < T < high] for k = 0, 1, 2 of log T ~ N(middle, width²), (3, n)."""
    from scipy.special import ndtr

    above = (math.log(high) - middle) / width
    below = (math.log(low) - middle) / width if low > 0 else np.full(len(middle), -np.inf)
    return np.array(
        [
            np.exp(k * middle + (k * width) ** 2 / 2)
            * (ndtr(above - k * width) - ndtr(below - k * width))
            for k in range(3)
        ]
    )


def _uniform_moments(start: float, end: float, low: float, high: float) -> "Floats":
    """E[T^k; low < T < high] for k = 0, 1, 2 of T uniform from start to end, (3,)."""
    a, b = max(start, low), min(end, high)
    if a >= b:
        return np.zeros(3)
    return np.array([(b**k - a**k) / k / (end - start) for k in (1, 2, 3)])


def noise_floor(parts: Iterable[dict[str, dict[str, Any]]]) -> dict[str, float]:
    """The lowest RMSE, in minutes, that any model could reach on some simulated months.

    A model sees X: both recorded zones, the recorded moment of pickup and all else on the record
    but the drop-off; with the recorded distance ("metered") or without it ("booking"). The best
    prediction of a kept duration D is E[D | X, kept], and what it misses by has the variance
    Var(D | X, kept). The floor is the root of that variance's mean over the kept rows: those with
    ``min_minutes <= D <= max_minutes``. Where the distance is dirt, or as in fhv not recorded,
    "metered" has the variance of "booking". The laws behind are in the module's docstring; cut to
    the window they are mixtures of truncated lognormal and uniform laws, so nothing is estimated.
    Cleaning rules about what is recorded (zones, miles, dates) change which rows count, not their
    variance, and are left out here.
    It is the floor in expectation: a model that knows the truth may land a little on either side.

    Parameters
    ----------
    parts : iterable of dict
        What `SimulatedMonth.noise` gave for each month.

    Returns
    -------
    dict
        ``{"metered": RMSE, "booking": RMSE}``, rounded to 6 decimals.

    Raises
    ------
    TripDurationError
        If the parts hold no rows.
    """
    parts = list(parts)
    floor: dict[str, float] = {}
    for kind in KINDS:
        rows = sum(part[kind]["rows"] for part in parts)
        if not rows:
            raise TripDurationError(
                "The noise floor needs trips that the cleaning keeps and found none: widen "
                "clean.min_minutes and clean.max_minutes."
            )
        total = sum(part[kind]["variance_sum"] for part in parts)
        floor[kind] = round(math.sqrt(total / rows), 6)
    return floor
