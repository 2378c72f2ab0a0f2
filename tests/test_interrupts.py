"""Ends before their time, each in a process of its own."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trip_duration import interrupts
from trip_duration.interrupts import end_with, unwrapped

BUSY = """
import hashlib, sys
from trip_duration.interrupts import end_in_time, end_with
{before}
print("begun", flush=True)
{work}
print("ended", flush=True)
"""
LONG = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # C that looks at no signal for minutes
SHORT = "import time; time.sleep(60)"


def started(root: Path, before: str, work: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(before=before, work=work)],
        env={"PYTHONPATH": str(root / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    try:
        said, complaint = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, said, complaint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_work_that_does_not_listen_is_ended_in_time(root: Path, number: signal.Signals) -> None:
    process = started(root, "end_in_time(0.5, lambda: print('said'))", LONG)
    time.sleep(1)  # it has begun its long work
    process.send_signal(number)
    assert ended(process) == (130, "said\n", "")


def test_sigterm_is_an_interrupt_for_work_that_listens(root: Path) -> None:
    process = started(root, "end_in_time(20, lambda: print('said'))", SHORT)
    process.send_signal(signal.SIGTERM)
    code, said, complaint = ended(process)
    assert (code, said) == (-signal.SIGINT, "")  # Python's own end of an interrupt nobody caught
    assert complaint.endswith("KeyboardInterrupt\n")


WRAPPED = """
import os, signal
import pydantic

class Table(pydantic.BaseModel):
    @pydantic.model_serializer
    def rows(self) -> dict:
        os.kill(os.getpid(), signal.{signal})
        return {{}}

{before}
try:
    {context}
        Table().model_dump()
except Exception as error:
    print("another:", error)
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_an_interrupt_that_a_library_wraps_is_one_again(root: Path, number: str) -> None:
    before = "from trip_duration.interrupts import listen, unwrapped; listen()"
    said = []
    for context in ("with unwrapped():", "if True:"):
        code = WRAPPED.format(signal=number, before=before, context=context)
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(root / "src")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said.append((done.returncode, done.stdout))
    assert said[0] == (-signal.SIGINT, "")
    assert said[1][0] == 0  # what it would be otherwise
    assert "another: Error calling function `rows`: KeyboardInterrupt" in said[1][1]


DYING = """
import os, signal, time
from trip_duration.interrupts import listen

class Dying:
    def __del__(self) -> None:
        {what}

listen()
Dying()
time.sleep(60)
"""


def dying(root: Path, what: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", DYING.format(what=what)],
        env={"PYTHONPATH": str(root / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_that_nobody_can_catch_comes_again(root: Path, number: signal.Signals) -> None:
    process = dying(root, f"[os.kill(os.getpid(), {number:d}) for _ in range(2)]")
    code, _, complaint = ended(process)
    assert code == -signal.SIGINT
    assert "Exception ignored" not in complaint


def test_what_else_nobody_can_catch_is_said(root: Path) -> None:
    process = dying(root, "raise ValueError('a reason')")
    assert process.stderr is not None
    assert "ValueError: a reason\n" in iter(process.stderr.readline, "")
    process.send_signal(signal.SIGTERM)  # which may come before the saying is over
    code, _, _ = ended(process)
    assert code == -signal.SIGINT


def test_what_is_no_interrupt_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="a reason"), unwrapped():
        raise ValueError("a reason")


def test_a_process_ends_with_the_one_it_was_started_by(root: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = started(root, f"end_in_time(20, str); end_with({other.pid})", SHORT)
    other.kill()  # and nobody waits for it: it stays as a zombie
    code, said, _ = ended(process)
    other.communicate()
    assert (code, said) == (-signal.SIGINT, "")


def test_one_that_is_gone_already_interrupts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_came", threading.Event())
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        other.wait()
    with pytest.raises(KeyboardInterrupt):
        end_with(other.pid)


def test_a_failure_after_the_end_of_the_one_it_was_started_by_is_that_end(root: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    work = """
with unwrapped():
    while lives(psutil.Process(int(sys.argv[1]))):
        pass
    raise ValueError("a server that ends with it as well was gone")
"""
    before = f"import psutil; from trip_duration.interrupts import *; sys.argv.append({other.pid})"
    before += "; from trip_duration.processes import lives"
    process = started(root, f"{before}; listen(); end_with({other.pid})", work)
    other.kill()
    code, said, complaint = ended(process)
    other.communicate()
    assert (code, said) == (-signal.SIGINT, ""), complaint
    assert complaint.endswith("KeyboardInterrupt\n")


def test_a_failure_beside_the_one_it_was_started_by_stays_what_it_is(root: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        before = "from trip_duration.interrupts import *; listen()"
        work = "with unwrapped():\n    raise ValueError('a reason')"
        process = started(root, f"{before}; end_with({other.pid})", work)
        code, _, complaint = ended(process)
        other.kill()
    assert (code, complaint.splitlines()[-1]) == (1, "ValueError: a reason")
