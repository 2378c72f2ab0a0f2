"""Make the environment: a virtual environment that holds the lock file's packages, and no others.

Runs under the machine's own Python, before anything is installed: the standard library only, and
syntax that an old Python still reads, so that it can say that it is too old.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.txt"


def main(folder: str) -> None:
    """Make ``folder`` hold the lock file's packages, byte-compiled, and mark it ready."""
    began = time.time()
    python = suitable_python()
    venv = Path(folder).absolute()
    ready = venv / ".ready"
    if ready.exists():
        if ready.read_text() == digest():  # the lock file is only newer, as after a checkout
            ready.touch()
            return
        ready.unlink()
    print(f"Making the environment in {folder}, once; about half a minute …", flush=True)
    run([python, "-m", "venv", "--clear", str(venv)], "the virtual environment can't be made")
    inside = str(venv / "bin" / "python")
    install(inside)
    add_source(packages(inside))
    ready.write_text(digest())
    print(f"The environment is ready after {time.time() - began:.0f} s.", flush=True)


def digest() -> str:
    """What the environment is made from."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def suitable_python() -> str:
    """This Python, or another on the PATH that is new enough."""
    if sys.version_info >= OLDEST:
        return sys.executable
    for name in ("python3.13", "python3.12", "python3.11"):
        found = shutil.which(name)
        # A name on the PATH need not run: version managers leave shims of what is not active.
        if found and subprocess.call([found, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            return found
    here = ".".join(map(str, sys.version_info[:2]))
    needed = ".".join(map(str, OLDEST))
    sys.exit(
        f"{sys.executable} is Python {here}: this repository needs {needed} or newer; install "
        "one, or name it, like `make train PYTHON=/path/to/python3`."
    )


def install(python: str) -> None:
    """Install the lock with uv, which is itself locked there; with pip where uv can't."""
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--require-hashes"]
    with tempfile.TemporaryDirectory() as scratch:
        only_uv = Path(scratch) / "uv.txt"
        only_uv.write_text(locked("uv"))
        run([*pip, "--no-deps", "-r", str(only_uv)], "uv can't be installed")
    environment = dict(os.environ)
    if "PIP_INDEX_URL" in environment:
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    sync = [python, "-m", "uv", "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode"]
    if subprocess.call([*sync, "--python", python, str(LOCK)], env=environment):
        print("uv could not install the lock; trying pip, which takes longer …", flush=True)
        run([*pip, "-r", str(LOCK)], "the packages of requirements.txt can't be installed")
        subprocess.call([python, "-m", "compileall", "-q", "-j", "0", str(packages(python))])


def add_source(site: Path) -> None:
    """Let the environment's Python import the package from src/, in a notebook for example.

    The path is relative: a repository may lie in a folder whose name not every locale can read,
    and Python would not start on such a name.
    """
    path = os.path.relpath(ROOT / "src", site)
    if path.isascii():
        (site / "trip_duration.pth").write_text(path + "\n")


def locked(name: str) -> str:
    """The lines of the lock that pin one package, with its hashes."""
    [lines] = re.findall(rf"^{name}==.*?(?=^\S)", LOCK.read_text() + "\nend", re.M | re.S)
    return str(lines)


def packages(python: str) -> Path:
    """The environment's folder of packages."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.check_output([python, "-c", code]).decode().strip())


def run(command: list, problem: str) -> None:
    """Run a command; if it fails, end with one sentence below what it printed."""
    if subprocess.call(command):
        sys.exit(f"{problem}: see the lines above, then run the same command again.")


if __name__ == "__main__":
    main(sys.argv[1])
