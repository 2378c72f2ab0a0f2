"""From a bare clone to the printed table, twice, and the same bytes in another clone elsewhere.

Clones what is committed, with an empty home and without an environment, and runs `make train`:
once from nothing, once with nothing left to do. A second clone, in another folder, with another
locale, time zone and hash seed, must write the same dvc.lock, and both must equal the committed
one.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import ROOT, Claim, report

CLAIMS = {"set-up": 90.0, "first make train": 240.0, "second make train": 5.0}  # seconds at most
# What a machine has besides git, make and Python: a way to its package index.
KEPT = ("PATH", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "SSL_CERT_FILE", "PYENV_ROOT", "HTTPS_PROXY")


def main() -> int:
    """Measure, print the table, and return 1 if a claim is not met."""
    with tempfile.TemporaryDirectory() as scratch:
        first, second = Path(scratch) / "first", Path(scratch) / "an other ünlike place"
        first_env = _environment(Path(scratch) / "home", TZ="UTC", LANG="C")
        _clone(first)
        measured = {}
        log, measured["first make train"] = _make_train(first, first_env)
        measured["set-up"] = float(re.findall(r"ready after (\d+) s", log)[0])
        log, measured["second make train"] = _make_train(first, first_env)
        assert "Running stage" not in log, log
        _clone(second)
        _make_train(
            second,
            _environment(
                Path(scratch) / "other home", TZ="Asia/Kolkata", LC_ALL="C", PYTHONHASHSEED="77"
            ),
        )
        changed = {folder: _git(folder, "status", "--porcelain") for folder in (first, second)}
        same = (first / "dvc.lock").read_bytes() == (second / "dvc.lock").read_bytes()
    print(f"The two clones' dvc.lock: {'the same bytes' if same else 'NOT the same'}.")
    for folder, files in changed.items():
        print(f"git status in {folder.name!r}: {files.strip() or 'clean'}")
    claims = [Claim(name, measured[name], "s", claimed) for name, claimed in CLAIMS.items()]
    differing = sum(len(files.splitlines()) for files in changed.values())
    claims += [
        Claim("dvc.lock of the two clones", float(not same), "differences", 0.0),
        Claim("in the clones, against the commit", float(differing), "files that differ", 0.0),
    ]
    return report("fresh_clone", claims, "What is committed, with the settings of params.yaml.")


def _environment(home: Path, **more: str) -> dict[str, str]:
    home.mkdir()
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    # Only what a new shell would find: not the environment that runs this benchmark.
    own = str(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if p != own)
    return kept | {"HOME": str(home)} | more


def _clone(folder: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def _make_train(folder: Path, environment: dict[str, str]) -> tuple[str, float]:
    began = time.perf_counter()
    done = subprocess.run(
        ["make", "train"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"make train failed in {folder}:\n{done.stdout}{done.stderr}")
    return done.stdout, time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
