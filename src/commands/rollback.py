"""``make rollback``: make the champion before the present one champion again."""

from pathlib import Path

from trip_duration import registry

__all__ = ["rollback"]


def rollback(root: Path) -> int:
    """Go back one champion, and say so in a line.

    Parameters
    ----------
    root : Path
        The repository's folder.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    TripDurationError
        If there is none to go back to.
    """
    done = registry.rollback(root)
    print(f"Version {done.version} is champion again; version {done.previous} no longer is.")
    return 0
