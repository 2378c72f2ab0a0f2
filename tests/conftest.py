"""What all tests share: the real TLC files, where they are."""

import faulthandler
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
LAST = 60.0  # seconds that Python may take to end

# How long an example takes, or to draw one, is the machine's affair.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Have Ctrl-C heard, by the processes that tests start as well.

    A shell's background job begins with SIGINT ignored, and so would all that it starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def tlc() -> Path:
    """Real TLC months, in ``shared/tlc`` beside the repository; else the test is skipped."""
    folder = ROOT.parent / "shared" / "tlc"
    if not folder.is_dir():
        pytest.skip("needs real TLC files in ../shared/tlc")
    return folder


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """If Python does not end within a minute of the tests' end, say what it waits for, and end it.

    What runs in the tests' own process, such as a Dask client, has threads that may wait for each
    other when Python takes its modules apart. The tests have said by then whether they passed.
    """

    def end() -> None:
        time.sleep(LAST)
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        os._exit(int(exitstatus))

    session.config.add_cleanup(threading.Thread(target=end, daemon=True).start)
