"""``make score``: the predictions for files of trips that nobody has taken yet, or long ago."""

import functools
import sys
from pathlib import Path

from trip_duration import ingest, params
from trip_duration.errors import SettingsError
from trip_duration.interrupts import INTERRUPTED, listen, unwrapped
from trip_duration.trips import REASONS, Locate

__all__ = ["score"]

CACHE = Path(".cache/score")  # copies of what is not on this machine, while they are read
ZONES = Path(".cache/source")  # where ingest keeps the zones' shapes


def score(root: Path, source: str, target: str) -> int:
    """Score a file, or the files of a folder, and say what came of it.

    Parameters
    ----------
    root : Path
        The repository's folder.
    source, target : str
        As in `scoring.score`.

    Returns
    -------
    int
        The exit code: 0, or 130 where it was interrupted.

    Raises
    ------
    SettingsError
        If one of them is not given.
    TripDurationError
        If there is no model, or a file cannot be scored.
    """
    if not source or not target:
        raise SettingsError(
            f"make score has no {'OUTPUT' if source else 'INPUT'}: expected a file or a folder of "
            "trips and where to write them with their predictions, like make score "
            "INPUT=trips.parquet OUTPUT=scored.parquet"
        )
    from tqdm import tqdm

    from trip_duration.registry import chosen
    from trip_duration.scoring import score as scored

    listen()
    served = chosen(root)
    locate = _locate(params.load(root / "params.yaml").data, root)
    try:
        # disable=None: no bar where nobody looks at a terminal
        bar = tqdm(unit=" rows", unit_scale=True, disable=None, leave=False)
        with unwrapped(), bar:
            done = scored(
                served, source, target, cache=root / CACHE, locate=locate, progress=bar.update
            )
    except KeyboardInterrupt:
        print(
            "Interrupted: nothing of the file that was being scored is left; the same command "
            "begins anew.",
            file=sys.stderr,
        )
        return INTERRUPTED
    for name in done.foreign:
        print(
            f"{name} has the columns of other taxis than the {served.taxi} ones that the model "
            "learned from: its predictions may be far off.",
            file=sys.stderr,
        )
    rejected = sum(done.rejected.values())
    reasons = "; ".join(f"{REASONS[reason]}: {count:,}" for reason, count in done.rejected.items())
    print(
        f"{done.rows - rejected:,} of {done.rows:,} rows scored by model {served.version} in "
        f"{done.seconds:.1f} s" + (f", {rejected:,} rejected ({reasons})" if rejected else "")
    )
    print("\n".join(f"  {name}" for name in done.files))
    return 0


def _locate(data: params.Data, root: Path) -> Locate | None:
    """Places to zones, by the shapes that the settings name; they are read at the first place."""
    if data.zones is None and data.source != "tlc":
        return None

    @functools.cache
    def zones():  # type: ignore[no-untyped-def]  # of zones.Zones
        from trip_duration.zones import load_zones

        path = ingest.fetch_zones(data, root / ZONES)
        assert path is not None
        return load_zones(path)

    return lambda longitude, latitude: zones().locate(longitude, latitude)
