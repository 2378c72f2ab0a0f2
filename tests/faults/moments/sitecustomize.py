"""Makes every Python process of a pipeline count what it does to files, and one of them kill all.

Python imports it at its start where this folder is on the PYTHONPATH. A moment is what a process
is about to do to a file below MOMENTS_ROOT; each is a line in MOMENTS_LOG. MOMENTS_KILL,
``<role> <number> <seconds>``, kills the process group so many seconds after that moment.
"""

import os
import sys
from pathlib import Path

ROOT = os.environ.get("MOMENTS_ROOT", "")
KILL = os.environ.get("MOMENTS_KILL", "").split()
APART = tuple(f"{ROOT}/{name}" for name in (".git/", ".prefect", ".mlflow"))
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}

_count = 0


def role() -> str:
    """The stage's name, or dvc; nothing for all else, such as servers."""
    words = sys.argv if hasattr(sys, "argv") else []
    script = Path(words[0]) if words else Path()
    if script.name == "stages" and len(words) > 1:
        return words[1]
    return "dvc" if "dvc" in (script.name, script.parent.name) else ""


def watch(event: str, arguments: tuple) -> None:
    """Count a moment; called by Python for each audit event."""
    global _count
    if event == "open":
        path, _, flags = arguments
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event in CHANGES:
        path = arguments[0]
    else:
        return
    if not isinstance(path, str | bytes):
        return
    path = str(Path(os.fsdecode(path)).absolute())
    if not path.startswith(f"{ROOT}/") or path.startswith(APART) or "__pycache__" in path:
        return
    who = role()
    if not who:
        return
    _count += 1
    number = _count
    if KILL and KILL[0] == who and int(KILL[1]) == number:
        group = os.getpgid(0)
        if float(KILL[2]):
            os.posix_spawn("/bin/sh", ["sh", "-c", f"sleep {KILL[2]}; kill -9 -{group}"], {})
        else:
            os.killpg(group, 9)
    line = f"{who} {number} {event} {path}\n".encode()
    log = os.open(os.environ["MOMENTS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line)  # outside the root, so no moment itself
    os.close(log)


if ROOT:
    sys.addaudithook(watch)
