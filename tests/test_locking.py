"""One at a time."""

import threading
from pathlib import Path

import pytest

from trip_duration.locking import locked


def test_a_second_one_is_told_once_and_waits(tmp_path: Path) -> None:
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with locked(tmp_path / "new/lock", waits.set):
            order.append("second")

    with locked(tmp_path / "new/lock", lambda: pytest.fail("nobody holds it")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(20)
        order.append("first")
    thread.join(timeout=20)
    assert order == ["first", "second"]


def test_an_error_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="within"), locked(tmp_path / "lock"):
        raise ValueError("within")
    with locked(tmp_path / "lock", lambda: pytest.fail("it was given back")):
        pass
