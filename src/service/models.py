"""Which model answers: the registry's champion, followed while requests go on.

A process of its own asks the registry, so that MLflow is neither imported nor waited for here:
``python -m trip_duration.registry follow`` prints a line for each champion. A thread reads them,
loads the model, checks it, and then sets one reference. A request takes the reference once, so it
ends with the model that it began with.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from service.predictor import Predictor, load
from trip_duration.errors import TripDurationError, redacted, shown
from trip_duration.registry import Served

__all__ = ["Models", "command"]

SHORTEST, LONGEST = 1.0, 300.0  # seconds until a process that ended is started again
PATIENCE = 5.0  # seconds that it may take to end by itself

_log = logging.getLogger(__name__)


def command(root: Path, seconds: float) -> list[str]:
    """The command that follows the registry's champion."""
    module = ["-P", "-m", "trip_duration.registry", "follow"]
    return [sys.executable, *module, str(root), f"{seconds:g}"]


class Models:
    """Follows the champion, from `start` to `stop`.

    Parameters
    ----------
    follow : sequence of str
        The command that prints the champion, as `command` makes it: `Served` as JSON lines, and
        ``trouble`` between them, which end when its stdin is closed.

    Attributes
    ----------
    current : Predictor or None
        The model that answers; None until the first is loaded.
    trouble : str or None
        A sentence, while the champion is not known or can't be loaded.
    followed, failures : int
        Models that took the place of another, and how often one could not be asked for or loaded.
    changed : callable or None
        Called with each model that begins to answer, in the thread that follows.
    """

    def __init__(self, follow: Sequence[str]) -> None:
        self.current: Predictor | None = None
        self.trouble: str | None = None
        self.followed = self.failures = 0
        self.changed: Callable[[Predictor], object] | None = None
        self._follow = list(follow)
        self._ended = threading.Event()
        self._tried = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="models", daemon=True)

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until a model answers or the first one could not be had; whether there is one."""
        self._tried.wait(timeout)
        return self.current is not None

    def stop(self) -> None:
        """End the process that follows, and wait for both."""
        self._ended.set()
        self._end_child()
        if self._thread.is_alive():
            self._thread.join(2 * PATIENCE)

    def _work(self) -> None:
        wait = SHORTEST
        while not self._ended.is_set():
            before = self.current
            try:
                self._read()
            except Exception as error:  # whatever it is, it must not end the following
                if self._ended.is_set():
                    break
                self._fail(error)
            self._tried.set()
            if self.current is not before:
                wait = SHORTEST
            self._ended.wait(wait)
            wait = min(2 * wait, LONGEST)

    def _fail(self, error: Exception) -> None:
        said = str(error)
        if not isinstance(error, TripDurationError):
            _log.exception("Following the champion failed unexpectedly.")
            said = f"The champion can't be followed: {type(error).__name__}: {redacted(error)}"
        elif self.current is not None and self.trouble != said:
            name = self.current.served.version
            _log.warning("%s Until then model %s answers.", said, name)
        self.trouble = said
        self.failures += 1

    def _read(self) -> None:
        """Start the process, and take its lines until it ends.

        Raises
        ------
        TripDurationError
            If it ended by itself, or a model that it named can't be loaded.
        """
        with tempfile.TemporaryFile() as words:
            child = self._spawn(words)
            if child is None:
                return
            assert child.stdout is not None
            with child.stdout as lines:
                try:
                    for line in lines:
                        self._take(line)
                finally:
                    self._end_child()
            words.seek(0)
            said = words.read().decode(errors="replace").strip().splitlines()
        reason = shown(redacted(said[-1]))[:300] if said else "it said nothing"
        raise TripDurationError(
            f"The process that follows the registry ended with exit code {child.returncode}: "
            f"{reason}"
        )

    def _spawn(self, words: IO[bytes]) -> "subprocess.Popen[str] | None":
        source = str(Path(__file__).resolve().parents[1])
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._lock:
            if self._ended.is_set():
                return None
            self._child = subprocess.Popen(
                self._follow,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C is for the service, which ends it
            )
            return self._child

    def _end_child(self) -> None:
        with self._lock:
            child = self._child
        if child is None:
            return
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _take(self, line: str) -> None:
        served = _parsed(line)
        if isinstance(served, str):
            if served:
                _log.warning("%s", served)
                self.failures += 1
            self.trouble = served or None
            return
        now = self.current
        if now and (now.served.version, now.served.digest) == (served.version, served.digest):
            self.trouble = None
            return
        new = load(served)
        self.followed += now is not None
        self.current, self.trouble = new, None
        if self.changed:
            self.changed(new)
        self._tried.set()


def _parsed(line: str) -> Served | str:
    """The model that a line names, or the trouble, which is over where it is empty."""
    try:
        said = json.loads(line)
        if "trouble" in said:
            return str(said["trouble"])
        return Served.from_json(said)
    except (ValueError, KeyError, TypeError):
        raise TripDurationError(
            f"The process that follows the registry said {shown(line.strip())[:200]!r}: expected "
            "JSON with a model's version, folder and digest."
        ) from None
