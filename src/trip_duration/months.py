"""Months, written ``YYYY-MM``: what the pipeline counts time in."""

import re
from datetime import datetime

from trip_duration.errors import SettingsError

__all__ = ["bounds", "parse_month"]

FIRST_YEAR = 2009  # TLC's records begin in January 2009
LAST_YEAR = 2099


def parse_month(text: object) -> tuple[int, int]:
    """Read ``"2021-01"`` as ``(2021, 1)``.

    Raises
    ------
    SettingsError
        If the text is no month, one before TLC's first, or one of another century.
    """
    found = re.fullmatch(r"([0-9]{4})-([0-9]{2})", text) if isinstance(text, str) else None
    if not found:
        raise SettingsError(f"{text!r} is not a month: write it as YYYY-MM, like 2021-01.")
    year, month = int(found[1]), int(found[2])
    if not 1 <= month <= 12:
        raise SettingsError(f"{text} is not a month: the part after the dash must be 01 to 12.")
    if year < FIRST_YEAR:
        raise SettingsError(f"{text} is too early: TLC's records begin in {FIRST_YEAR}-01.")
    if year > LAST_YEAR:
        raise SettingsError(f"{text} is too late: expected a month up to {LAST_YEAR}-12.")
    return year, month


def bounds(month: str) -> tuple[datetime, datetime]:
    """First moment of the month and first moment of the next, as naive New York wall times."""
    year, number = parse_month(month)
    start = datetime(year, number, 1)
    end = datetime(year + number // 12, number % 12 + 1, 1)
    return start, end
