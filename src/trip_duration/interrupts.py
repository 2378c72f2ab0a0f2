"""How a stage ends before its time: on Ctrl-C or SIGTERM, and when whoever started it is gone.

Python runs a signal's handler between two steps of its own, so a signal waits for as long as
another library computes. A thread sees to it that this takes no longer than it should: all that is
written is written under another name first, so the process may be ended at any moment.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from trip_duration.orchestration import interrupt, lives

__all__ = ["INTERRUPTED", "end_in_time", "end_with"]

INTERRUPTED = 130  # the exit code of what Ctrl-C has ended, in every shell
POLL = 0.5  # seconds between two looks at a process


def end_in_time(seconds: float, say: Callable[[], object]) -> None:
    """Have SIGTERM do what Ctrl-C does, and either of them end this process in time.

    Parameters
    ----------
    seconds : float
        How long the process may take to end by itself.
    say : callable
        Called before it is ended where it did not; what it returns does not matter.
    """
    signal.signal(signal.SIGTERM, interrupt)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait() -> None:
        while os.read(reader, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
            pass
        time.sleep(seconds)
        say()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)

    threading.Thread(target=wait, name="end in time", daemon=True).start()


def end_with(pid: int) -> None:
    """Have this process interrupted when the process ``pid`` is gone.

    Otherwise a stage whose DVC was killed would go on alone, and write beside the next run.
    """
    import psutil

    def wait() -> None:
        while lives(other):
            time.sleep(POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    other = psutil.Process(pid)
    threading.Thread(target=wait, name="end with", daemon=True).start()
