"""How a process ends before its time: on Ctrl-C or SIGTERM, or when whoever started it is gone.

Python runs a signal's handler between two steps of its own, so a signal waits for as long as
another library computes. A thread sees to it that this takes no longer than it should: all that is
written is written under another name first, so the process may be ended at any moment.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from trip_duration.processes import lives

if TYPE_CHECKING:
    import psutil

__all__ = ["INTERRUPTED", "end_in_time", "end_with", "listen", "unwrapped"]

INTERRUPTED = 130  # the exit code of what Ctrl-C has ended, in every shell
POLL = 0.5  # seconds between two looks at a process
NOTICE = 10.0  # seconds within which the end of a process is noticed, however busy the machine is
AGAIN = 0.05  # seconds until an interruption comes that Python would have ignored
_came = threading.Event()
_ignored: "list[Callable[[sys.UnraisableHookArgs], object]]" = [sys.__unraisablehook__]
_above: "list[psutil.Process]" = []  # those with which this process ends


def listen() -> None:
    """Have SIGTERM do what Ctrl-C does, and `unwrapped` know of either.

    One that comes while Python runs what nobody can catch an exception of, as a finalizer while
    modules are imported, comes again a moment later. A Ctrl-C that the process was started to
    ignore is ignored: that of a shell's background job.
    """
    _came.clear()
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    if sys.unraisablehook is not _come_again:
        _ignored.append(sys.unraisablehook)
        sys.unraisablehook = _come_again


@contextmanager
def unwrapped() -> Iterator[None]:
    """Make KeyboardInterrupt again of what an interruption became on its way.

    A library whose C or Rust calls back into Python raises an exception of its own in place of
    whatever came out of there, as Pydantic does. And what fails once the process of `end_with` is
    gone may fail because of it, as a call to a server that ended with that process as well, before
    the interruption came. The exception is the cause of what is raised here.
    """
    try:
        yield
    except Exception as error:
        if not _came.is_set() and not all(map(lives, _above)):
            time.sleep(NOTICE)  # until it comes: a second one would find this process at its end
        if _came.is_set():
            raise KeyboardInterrupt from error
        raise


def end_in_time(seconds: float, say: Callable[[], object]) -> None:
    """Listen, and end this process in time once it is interrupted.

    Parameters
    ----------
    seconds : float
        How long the process may take to end by itself.
    say : callable
        Called before it is ended where it did not; what it returns does not matter.
    """
    listen()
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

    Otherwise a stage whose DVC was killed would go on alone, and write beside the next run. One
    that is gone already interrupts it here.
    """
    import psutil

    def wait() -> None:
        while lives(other):
            time.sleep(POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        other = psutil.Process(pid)
    except psutil.NoSuchProcess:
        _interrupt()
    _above.append(other)
    threading.Thread(target=wait, name="end with", daemon=True).start()


def _interrupt(*_: object) -> NoReturn:
    _came.set()
    raise KeyboardInterrupt


def _come_again(what: "sys.UnraisableHookArgs") -> None:
    try:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            _ignored[-1](what)
            return
    except KeyboardInterrupt:  # it came just now
        pass
    again = threading.Timer(AGAIN, os.kill, (os.getpid(), signal.SIGTERM))
    again.daemon = True
    again.start()
