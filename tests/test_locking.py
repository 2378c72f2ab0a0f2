"""One at a time."""

from functools import partial
from pathlib import Path

import pytest
from tests.turns import check_that_the_second_waits

from trip_duration.locking import locked


def test_a_second_one_is_told_once_and_waits(tmp_path: Path) -> None:
    check_that_the_second_waits(partial(locked, tmp_path / "new/lock"))


def test_an_error_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="within"), locked(tmp_path / "lock"):
        raise ValueError("within")
    with locked(tmp_path / "lock", lambda: pytest.fail("it was given back")):
        pass
