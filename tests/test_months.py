"""Months as text."""

from datetime import datetime

import pytest

from trip_duration.errors import SettingsError
from trip_duration.months import bounds, parse_month


def test_a_month_reads_as_year_and_number() -> None:
    assert parse_month("2021-01") == (2021, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2021-13", "01 to 12"),
        ("2021-00", "01 to 12"),
        ("2021-1", "YYYY-MM"),
        ("2021-01-01", "YYYY-MM"),
        ("２０２１-01", "YYYY-MM"),
        ("2008-12", "2009-01"),
        ("9999-12", "2099-12"),
        (202101, "YYYY-MM"),
        (None, "YYYY-MM"),
    ],
)
def test_what_is_no_month_is_refused(text: object, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_month(text)


def test_bounds_reach_to_the_next_month() -> None:
    assert bounds("2020-02") == (datetime(2020, 2, 1), datetime(2020, 3, 1))
    assert bounds("2020-12") == (datetime(2020, 12, 1), datetime(2021, 1, 1))
