"""Where the zones are, in miles: from a map, or learned from what the meters of trips say.

A learned map knows nothing of north: it is the true one up to turning and mirroring. Its miles
are driven ones, in New York about 1.4 of them to a mile as the crow flies.
"""

import numpy as np

from trip_duration.errors import TripDurationError
from trip_duration.trips import OUTSIDE, UNKNOWN

__all__ = ["ZONES", "PairDistances", "learned", "projected"]

ZONES = 266  # zone ids 1 to 265; 0 is a zone that is missing or does not exist
EARTH = 3958.7613  # miles: the mean radius, 6371.0088 km, of the International Union of Geodesy
MAX_MILES = 60  # meters that say this or more, or 0 or less, are wrong
DECIMALS = 4  # of a mile: processors' last bits leave no trace

# Miles are counted in hundredths, as meters give them. A bin is one or two of them wide, or 8 % of
# the miles in it; whatever is below 0.05 miles counts as that.
_HUNDREDTHS = 100
_EDGES = np.unique(np.round(np.geomspace(5, MAX_MILES * _HUNDREDTHS, 97))).astype(np.int64)
_BINS = len(_EDGES)  # the bin 0 holds what is no distance, the bin b what is below _EDGES[b]

# Round numbers, not tuned: on real trips the map hardly changes if one is doubled or halved.
_SLACK = 1.15  # the factor by which an honest median may be off
_COMMON = 4  # zones that must contradict, before a pair is left out
_ZONE = 1.0  # mile: a trip may begin anywhere in its zone
_TRUST = 0.2  # relative error up to which errors count squared, and beyond it plainly
_COMPLETED = 0.01  # weight of a pair that no trip had; one with many trips weighs 1
_ROUNDS = ((0, 50), (2, 150))  # power of the miles that a pair's weight falls with, and steps


def projected(zone: np.ndarray, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Places of zones on a plane, by the equirectangular projection about their mean place.

    x = R cos(mean latitude) (longitude - mean longitude) and y = R (latitude - mean latitude), in
    radians (Snyder, "Map Projections: A Working Manual", 1987, p. 90). Up to 25 miles from the
    middle, distances are right to 0.6 %.

    Parameters
    ----------
    zone : array of int, shape (n,)
        Zone ids, 1 to 265.
    longitude, latitude : array of float, shape (n,)
        Degrees; NaN where a zone has no place.

    Returns
    -------
    numpy.ndarray of float64, shape (266, 2)
        Miles east and north of the mean place by zone id, rounded to 4 decimals; NaN where unknown.

    Raises
    ------
    TripDurationError
        If a zone id does not exist.
    """
    zone = np.asarray(zone, np.int64)
    degrees = np.column_stack([longitude, latitude]).astype(np.float64)
    outside = zone[(zone < 1) | (zone >= ZONES)]
    if len(outside):
        raise TripDurationError(
            f"The zones' places have the zone id {outside[0]}: expected ids from 1 to {ZONES - 1}; "
            "look at data.zones."
        )
    known = np.isfinite(degrees).all(axis=1)
    places = np.full((ZONES, 2), np.nan)
    if known.any():
        middle = degrees[known].mean(axis=0)
        turns = np.radians(degrees[known] - middle)
        miles = EARTH * turns * [np.cos(np.radians(middle[1])), 1.0]
        places[zone[known]] = np.round(miles, DECIMALS) + 0.0
    return places


class PairDistances:
    """Median metered miles of each zone pair, both ways together, of any number of trips.

    What is kept are whole numbers, a histogram for each pair (13 MB in all), so the order of the
    trips and the size of the batches leave no trace.
    """

    def __init__(self) -> None:
        first, second = np.triu_indices(ZONES, 1)
        place = (first > 0) & ~np.isin(first, (UNKNOWN, OUTSIDE))
        place &= ~np.isin(second, (UNKNOWN, OUTSIDE))
        self._pairs = first[place], second[place]
        number = np.zeros((ZONES, ZONES), np.int64)  # row 0 of the counts is what is no pair
        number[self._pairs] = np.arange(1, place.sum() + 1)
        self._row = (number + number.T).ravel() * _BINS
        self._bin = np.searchsorted(_EDGES, np.arange(MAX_MILES * _HUNDREDTHS + 1), "right")
        self._bin = np.clip(self._bin, 1, _BINS - 1)
        self._bin[0] = 0
        self._counts = np.zeros((place.sum() + 1) * _BINS, np.int32)

    def add(self, pickup: np.ndarray, dropoff: np.ndarray, miles: np.ndarray) -> None:
        """Count trips in; tens of thousands at once are quicker than more.

        Parameters
        ----------
        pickup, dropoff : array of int, shape (n,)
            Zone ids, 0 to 265. Trips within a zone, and from or to the zones 0, 264 (unknown) and
            265 (outside), which are no places, say nothing of the map and are passed over.
        miles : array of float, shape (n,)
            Metered miles. Passed over where missing, 0 or less, or 60 or more; rounded to
            hundredths.
        """
        pair = np.multiply(pickup, ZONES, dtype=np.int64)
        pair += dropoff
        metered = (miles > 0) & (miles < MAX_MILES)
        hundredths = np.rint(np.where(metered, miles, 0.0) * _HUNDREDTHS).astype(np.int64)
        cell = self._row.take(pair)
        cell += self._bin.take(hundredths)
        np.add.at(self._counts, cell, np.int32(1))

    def medians(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What was counted so far, by pairs of zones that any trip had.

        Returns
        -------
        i, j : numpy.ndarray of int64, shape (pairs,)
            Zone ids, i < j, in rising order.
        miles : numpy.ndarray of float64, shape (pairs,)
            The median, by interpolation within the bins that hold it.
        count : numpy.ndarray of int64, shape (pairs,)
            Trips.
        """
        counts = self._counts.reshape(-1, _BINS)[1:]
        seen = np.flatnonzero(counts[:, 1:].any(axis=1))
        below = counts[seen].cumsum(axis=1, dtype=np.int64) - counts[seen, :1]
        total = below[:, -1]
        lower, upper = (self._value(below, rank) for rank in ((total - 1) // 2, total // 2))
        i, j = (ends[seen] for ends in self._pairs)
        return i, j, (lower + upper) / 2, total

    @staticmethod
    def _value(below: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """Miles of the trip of this rank, from 0, among those of its pair."""
        row = np.arange(len(below))
        bin_ = (below <= rank[:, None]).sum(axis=1)
        before = below[row, bin_ - 1]
        part = (rank - before + 0.5) / (below[row, bin_] - before)
        # The value 5 stands for what was rounded to it, 4.5 to 5.5.
        low, high = _EDGES[bin_ - 1] - 0.5, _EDGES[bin_] - 0.5
        return (low + part * (high - low)) / _HUNDREDTHS


def learned(i: np.ndarray, j: np.ndarray, miles: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Places of zones from the miles between them alone.

    Wrong meters would pull far zones together, so a pair is left out if, by most of the zones that
    both ends have trips with, the two are farther apart than it says. Shortest paths over the
    others complete the pairs that no trip had, classical scaling (Torgerson, Psychometrika 17,
    1952) makes a first map of them, and SMACOF (de Leeuw, "Applications of convex analysis to
    multidimensional scaling", 1977) improves on it. It lowers the sum of the squared errors, at
    first those in miles and then those relative to the miles driven and one more; pairs with few
    trips or with none weigh less. Errors beyond a fifth, like ways around water, count by their
    size and not its square (Huber, Annals of Mathematical Statistics 35, 1964).

    Parameters
    ----------
    i, j : array of int, shape (pairs,)
        Zone ids, 1 to 265; each pair of different zones once.
    miles : array of float, shape (pairs,)
        Typical driven miles, above 0.
    count : array of int, shape (pairs,)
        Trips, at least 1.

    Returns
    -------
    numpy.ndarray of float64, shape (266, 2)
        Driven miles from the middle of the zones by zone id, rounded to 4 decimals. The first axis
        is the one along which the zones lie widest, and on both the farthest zone is on the
        positive side. NaN for zones without trips, and for those that no chain of pairs joins to
        most others.
    """
    miles, count = np.asarray(miles, np.float64), np.asarray(count, np.float64)
    driven, trips = np.full((ZONES, ZONES), np.nan), np.zeros((ZONES, ZONES))
    driven[i, j] = driven[j, i] = miles
    trips[i, j] = trips[j, i] = count
    driven[_contradicted(driven)] = np.nan
    places = np.full((ZONES, 2), np.nan)
    zones = _joined(driven)
    if len(zones) > 1:
        inside = np.ix_(zones, zones)
        places[zones] = _turned(_scaled(driven[inside], trips[inside]))
    return places


def _contradicted(driven: np.ndarray) -> np.ndarray:
    """Which pairs are farther apart than their miles, by most zones that both have miles to.

    From a zone 9 miles from the one and 2 from the other, the two are at least 7 apart.
    """
    wrong = np.zeros(driven.shape, bool)
    for zone, row in enumerate(driven):
        others = np.flatnonzero(np.isfinite(row))
        near, far = np.minimum(row, driven[others]), np.maximum(row, driven[others])
        apart = np.sort(far / _SLACK - near * _SLACK, axis=1)  # NaN comes last
        common = np.isfinite(apart).sum(axis=1)
        middle = apart[np.arange(len(others)), common // 2]
        wrong[zone, others] = (common >= _COMMON) & (middle > row[others] * _SLACK)
    return wrong


def _graph(driven: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(driven), driven, 0.0)  # 0 is what csgraph takes for no edge


def _joined(driven: np.ndarray) -> np.ndarray:
    """The zones of the largest part that pairs with miles join."""
    from scipy.sparse.csgraph import connected_components

    _, part = connected_components(_graph(driven), directed=False)
    return np.flatnonzero(part == np.bincount(part).argmax())


def _scaled(driven: np.ndarray, trips: np.ndarray) -> np.ndarray:
    """Places (zones, 2) whose distances are close to the miles driven; NaN: no trip says."""
    from scipy.sparse.csgraph import shortest_path

    known = np.isfinite(driven)
    paths = shortest_path(_graph(driven), method="D", directed=False)
    target = np.maximum(np.where(known, driven, paths), 1 / _HUNDREDTHS)
    scale = target + _ZONE
    trust = np.where(known, trips / (trips + 1), _COMPLETED)
    np.fill_diagonal(trust, 0.0)
    places = _classical(paths)
    for power, steps in _ROUNDS:  # near pairs are barriers: first each zone finds its side of them
        weight = trust / scale**power
        for _ in range(steps):
            apart = np.linalg.norm(places[:, None] - places, axis=2)
            apart = np.maximum(apart, 1 / _HUNDREDTHS)
            error = np.abs(apart - target) / scale
            places = _step(places, apart, target, weight * np.minimum(1, _TRUST / (error + 1e-9)))
    return places


def _classical(paths: np.ndarray) -> np.ndarray:
    """Classical scaling, `sklearn.manifold.ClassicalMDS`, without its 2 seconds of imports."""
    squares = paths**2
    mean = squares.mean(axis=0)
    values, vectors = np.linalg.eigh((mean + mean[:, None] - squares - mean.mean()) / 2)
    return vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0.0))


def _step(
    places: np.ndarray, apart: np.ndarray, target: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """SMACOF's next places, which have no more stress: the Guttman transform."""
    system = np.diag(weight.sum(axis=1)) - weight
    system += weight.mean()  # else singular: all places may be moved alike
    ratio = weight * target / apart
    return np.linalg.solve(system, ratio.sum(axis=1)[:, None] * places - ratio @ places)


def _turned(places: np.ndarray) -> np.ndarray:
    """The places about their middle on their principal axes, in one of the eight ways to lie."""
    places = places - places.mean(axis=0)
    _, vectors = np.linalg.eigh(places.T @ places)
    places = np.round(places @ vectors[:, ::-1], DECIMALS)
    farthest = np.abs(places).argmax(axis=0)
    return places * np.where(places[farthest, [0, 1]] < 0, -1.0, 1.0) + 0.0
