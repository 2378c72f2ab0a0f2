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
    """Make ``folder`` hold the locked packages, byte-compiled, and mark it ready.

    Extras that are there stay, and those that ``EXTRAS`` names are added: ``EXTRAS=dask`` has
    requirements-dask.txt installed with requirements.txt, and ``EXTRAS=none`` takes extras away.
    """
    began = time.time()
    python = suitable_python()
    venv = Path(folder).absolute()
    ready = venv / ".ready"
    there = ready.read_text() if ready.exists() else ""
    extras = chosen(os.environ.get("EXTRAS", ""), there)
    if there:
        if there == digest(extras):  # the lock file is only newer, as after a checkout
            ready.touch()
            return
        ready.unlink()
    print(f"Making the environment in {folder}, once; about half a minute …", flush=True)
    run([python, "-m", "venv", "--clear", str(venv)], "the virtual environment can't be made")
    inside = str(venv / "bin" / "python")
    install(inside, extras)
    add_source(packages(inside))
    ready.write_text(digest(extras))
    print(f"The environment is ready after {time.time() - began:.0f} s.", flush=True)


def chosen(asked: str, there: str) -> list:
    """The extras to install: those asked for and those that are there, or none.

    ``there`` is the text that `digest` gave for the environment as it is, or nothing.
    """
    named = [name for name in re.split(r"[\s,]+", asked) if name]
    known = sorted(path.stem.split("-", 1)[1] for path in ROOT.glob("requirements-*.txt"))
    for name in named:
        if name not in [*known, "none"]:
            sys.exit(f"EXTRAS is {asked!r}: expected {', '.join(known)}, or none to remove them.")
    if "none" in named:
        return []
    return [name for name in known if name in [*named, *there.split()[1:]]]


def digest(extras: list) -> str:
    """What the environment is made from: a digest of the locks, then the names of the extras."""
    content = b"".join(path.read_bytes() for path in locks(extras))
    return " ".join([hashlib.sha256(content).hexdigest(), *extras])


def locks(extras: list) -> list:
    """The lock files of an environment with these extras."""
    return [LOCK, *(LOCK.with_name(f"requirements-{name}.txt") for name in extras)]


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


def install(python: str, extras: list) -> None:
    """Install the locks with uv, which is itself locked there; with pip where uv can't."""
    files = [str(path) for path in locks(extras)]
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
    if subprocess.call([*sync, "--python", python, *files], env=environment):
        print("uv could not install the lock; trying pip, which takes longer …", flush=True)
        named = [option for file in files for option in ("-r", file)]
        run([*pip, *named], "the packages of requirements.txt can't be installed")
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
