"""``make audit``: the locks, the environment and its files held against each other.

A lock names exact versions with hashes, which the installer checks while it installs. That the
environment still is what was installed then, and that nothing is known against it, is seen here.
"""

import base64
import csv
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from commands import setup
from trip_duration.errors import TripDurationError

__all__ = ["audit", "check_environment", "check_files", "check_lock", "judge"]

SHOWN = 20  # lines of a check that are printed
CODE = {".py", ".pyc", ".pyd", ".so", ".pth"}  # what Python runs from a folder of packages
LONGEST = 900.0  # seconds that pip-audit may take
_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.!+-]+)"
    r"(?:\s*;\s*(?P<marker>.*?))?(?P<hashes>(?:\s+--hash=sha256:[0-9a-f]{64})*)"
)


@dataclass(frozen=True)
class Pin:
    """A package as a lock names it: an exact version, and where it is to be installed."""

    name: str
    version: str
    marker: str


def audit(root: Path) -> int:
    """Check the locks, the environment that runs this, and its files; ask for vulnerabilities.

    Parameters
    ----------
    root : Path
        The repository's folder.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    TripDurationError
        If a lock, the environment or a file is not as it must be, or a vulnerability is known that
        a newer version mends.
    """
    ready = Path(sys.prefix) / ".ready"
    extras = setup.chosen("", ready.read_text() if ready.exists() else "")
    locks = sorted(root.glob("requirements*.txt"))
    apart = sorted(root.glob("src/*/requirements.txt"))  # of environments of their own
    wrong: list[str] = []

    checked = {path: check_lock(path) for path in [*locks, *apart]}
    problems = [problem for _, found in checked.values() for problem in found]
    pins = sum(len(found) for found, _ in checked.values())
    said = f"{pins:,} pins in {len(checked)} files, each an exact version with its hashes"
    _say("Locks", problems or [said])
    if problems:
        wrong.append("a lock has what is no exact version with hashes (`make lock`)")

    sites = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    sites = list(dict.fromkeys(sites))
    installed = list(importlib.metadata.distributions(path=[str(site) for site in sites]))
    wanted = [pin for path in setup.locks(extras) for pin in checked[path][0]]
    problems = check_environment(wanted, installed)
    with_extras = f", with {' and '.join(extras)}" if extras else ""
    _say("Environment", problems or [f"{len(installed)} packages, as locked{with_extras}"])
    if problems:
        wrong.append("the environment is not what the locks name (`rm -r .venv`, `make setup`)")

    began = time.monotonic()
    count, problems = check_files(installed, sites)
    seconds = time.monotonic() - began
    _say("Files", problems or [f"{count:,} are as they were installed ({seconds:.0f} s)"])
    if problems:
        wrong.append("a file is not as it was installed (`rm -r .venv`, `make setup`)")

    mended, lines = _vulnerabilities(locks)
    for path in apart:  # with other versions of the same packages
        more, known = _vulnerabilities([path])
        mended += [name for name in more if name not in mended]
        lines += [f"{path.relative_to(root)}: {line}" for line in known]
    _say("Advisories", lines, limit=len(lines))
    if mended:
        wrong.append(
            f"a vulnerability is known that a newer version mends, in {', '.join(mended)} "
            "(`make lock ARGS=--upgrade`)"
        )
    if wrong:
        raise TripDurationError(f"The audit failed: {'; '.join(wrong)}.")
    return 0


def _say(name: str, lines: list[str], limit: int = SHOWN) -> None:
    """Print a check's lines beside its name."""
    shown = lines[:limit]
    if len(lines) > limit:
        shown.append(f"and {len(lines) - limit:,} more")
    for number, line in enumerate(shown):
        print(f"{'' if number else name:<12} {line}")


def check_lock(path: Path) -> tuple[list[Pin], list[str]]:
    """Read a lock; whatever is no exact version from the index with its hashes is a problem.

    Returns
    -------
    list of Pin
        The pins that are as they should be.
    list of str
        The problems: file, line, what was found.
    """
    pins, problems = [], []
    for number, text in _entries(path.read_text(encoding="utf-8")):
        found = _PIN.fullmatch(text)
        where = f"{path.name}, line {number}"
        if not found:
            short = text if len(text) <= 60 else f"{text[:60]}…"
            problems.append(f"{where}: {short!r} is no exact version from the index")
        elif not found["hashes"]:
            problems.append(f"{where}: {found['name']}=={found['version']} has no hash")
        else:
            pins.append(Pin(_normal(found["name"]), found["version"], found["marker"] or ""))
    return pins, problems


def _entries(text: str) -> Iterator[tuple[int, str]]:
    """The entries of a lock with the line each begins in; comments and line ends are left out."""
    start, waiting = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        part = re.sub(r"(^|\s)#.*", "", line).strip()
        start = start if waiting else number
        waiting = f"{waiting} {part.removesuffix(chr(92)).strip()}".strip()
        if not part.endswith("\\") and waiting:
            yield start, waiting
            waiting = ""
    if waiting:
        yield start, waiting


def check_environment(
    wanted: Iterable[Pin], installed: Iterable[importlib.metadata.Distribution]
) -> list[str]:
    """What the environment lacks, has in another version, or has too much, against the locks.

    pip may be there: Python puts it into a virtual environment before anything is installed.
    """
    from packaging.markers import Marker

    locked = {
        pin.name: pin.version for pin in wanted if not pin.marker or Marker(pin.marker).evaluate()
    }
    here: dict[str, str] = {}
    problems = []
    for one in installed:
        name = _normal(one.name)
        if name in here:
            problems.append(f"{name} is installed twice: {here[name]} and {one.version}")
        here[name] = one.version
    for name in sorted({*locked, *here} - ({"pip"} - {*locked})):
        expected, found = locked.get(name), here.get(name)
        if found is None:
            problems.append(f"{name} {expected} is locked, and not installed")
        elif expected is None:
            problems.append(f"{name} {found} is installed, and in no lock")
        elif expected != found:
            problems.append(f"{name} {found} is installed, and {expected} is locked")
    return problems


def check_files(
    installed: Iterable[importlib.metadata.Distribution], sites: Iterable[Path]
) -> tuple[int, list[str]]:
    """Hash what was installed, and look for code that was not.

    Each package's RECORD has the SHA-256 of its files. Bytecode in ``__pycache__`` is left out: it
    is made where it is used, and has no hash. Data may be added: Prefect copies its pages there.

    Returns
    -------
    int
        How many files are as RECORD says.
    list of str
        The problems: the file, and what is wrong with it.
    """
    expected: dict[Path, str] = {}
    problems = []
    listed = set()
    for one in sorted(installed, key=lambda one: one.name):
        record = one.read_text("RECORD")
        if record is None:
            problems.append(f"{one.name} has no RECORD of its files")
            continue
        for name, digest, *_ in csv.reader(record.splitlines()):
            path = Path(str(one.locate_file(name))).absolute()
            path = Path(path.parent.resolve(), path.name)
            listed.add(path)
            if digest:
                expected[path] = digest
    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter to others
        for path, found in zip(expected, pool.map(_digest, expected), strict=True):
            if found != expected[path]:
                problems.append(f"{path} {'was changed' if found else 'is missing'}")
    for site in sites:
        for path in sorted(site.resolve().rglob("*")):
            if path.suffix not in CODE or path in listed or path.parent.name == "__pycache__":
                continue
            if path.name != "trip_duration.pth":  # by which set-up leads Python to src/
                problems.append(f"{path} belongs to no package")
    return len(expected), problems


def _digest(path: Path) -> str:
    """As RECORD writes it (PEP 376, PEP 427): the digest in URL-safe base 64, without padding."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        return ""
    return f"sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def _vulnerabilities(locks: list[Path]) -> tuple[list[str], list[str]]:
    """What `judge` says of the locks, or why they could not be judged."""
    if importlib.util.find_spec("pip_audit") is None:
        return [], ["skipped: pip-audit is not installed (`make setup EXTRAS=audit`)"]
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes"]
    command += ["--format", "json", "--progress-spinner", "off"]
    command += [option for path in locks for option in ("--requirement", str(path))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
        return judge(json.loads(done.stdout)["dependencies"])
    except subprocess.TimeoutExpired:
        return [], [f"skipped: pip-audit had no answer within {LONGEST:.0f} s"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return [], [f"skipped: pip-audit could not ask PyPI ({reason.partition(' (Caused')[0]})"]


def judge(found: list[dict]) -> tuple[list[str], list[str]]:
    """What pip-audit found.

    A package that the service does not know is skipped by pip-audit, which then says that no
    vulnerability is known and ends well: a mirror of the index without advisories knows none.

    Parameters
    ----------
    found : list of dict
        ``dependencies`` of its JSON.

    Returns
    -------
    list of str
        Packages with a vulnerability that a newer version mends.
    list of str
        Lines for a person, one at least.
    """
    skipped = sorted(one["name"] for one in found if "skip_reason" in one)
    asked = [one for one in found if "skip_reason" not in one]
    if not asked:
        return [], [
            f"skipped: PyPI's advisories of none of the {len(skipped)} packages can be read here"
        ]
    lines, mended = [], []
    for one in sorted(asked, key=lambda one: str(one["name"])):
        for known in one["vulns"]:
            fixes = ", ".join(known["fix_versions"])
            lines.append(
                f"{one['name']} {one['version']}: {known['id']}, "
                + (f"mended in {fixes}" if fixes else "not mended in any version")
            )
            if fixes and one["name"] not in mended:
                mended.append(one["name"])
    if skipped:
        lines.append(f"skipped, as PyPI has no advisories of them: {', '.join(skipped)}")
    count = sum(len(one["vulns"]) for one in asked)
    return mended, [f"{count or 'none'} known, in {len(asked)} packages", *lines]


def _normal(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
