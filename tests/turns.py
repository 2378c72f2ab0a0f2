"""That of two who want one thing, the second waits for the first."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest


def check_that_the_second_waits(
    hold: Callable[[Callable[[], object]], AbstractContextManager[object]],
) -> None:
    """Hold it twice at a time; ``hold`` is given what it is to call where it has to wait."""
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with hold(waits.set):
            order.append("second")

    with hold(lambda: pytest.fail("nobody holds it")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(20)
        order.append("first")
    thread.join(timeout=20)
    assert order == ["first", "second"]
