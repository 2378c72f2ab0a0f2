"""Whole runs, each in a small clone of its own."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from trip_duration import params

# Small enough for a run of a few seconds, large enough for every stage to have work.
SMALL = {
    "data.simulated.trips_per_month": 1_500,
    "search.max_evals": 4,
    "search.startup_trials": 2,
    "search.num_boost_round": 20,
    "train.num_boost_round": 30,
}


@dataclass
class Clone:
    """A git clone of the working tree, with small settings, committed."""

    folder: Path

    def run(
        self, *command: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there, with the tests' own environment first on the PATH."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def environment(self, **others: str) -> dict[str, str]:
        """The environment of what runs there."""
        programs = str(Path(sys.executable).parent)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
        inherited["PATH"] = os.pathsep.join([programs, inherited["PATH"]])
        return inherited | {"HOME": str(self.folder.parent)} | others

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command there, in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def command(
        self, name: str, *, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run what ``make <name>`` runs once the environment is there."""
        return self.run(sys.executable, "src/commands", name, check=check, **environment)

    def git(self, *arguments: str) -> str:
        """Run git and return what it printed."""
        identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
        return self.run("git", *identity, *arguments).stdout

    def read(self, path: str) -> str:
        """A file's text."""
        return (self.folder / path).read_text(encoding="utf-8")

    def change(self, overrides: dict[str, object]) -> None:
        """Change settings in params.yaml."""
        text, _ = params.override(self.read("params.yaml"), overrides)
        (self.folder / "params.yaml").write_text(text, encoding="utf-8")

    def processes(self) -> list[str]:
        """Command lines of processes that work in the clone or were started for it."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            line = " ".join(process.info["cmdline"] or [])
            if str(self.folder) in line or (process.info["cwd"] or "").startswith(str(self.folder)):
                found.append(line)
        return found

    def check_that_nothing_runs(self) -> None:
        """Fail if a process, such as a server, outlives the pipeline by more than ten seconds."""
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, f"processes are left behind: {left}"


@pytest.fixture(scope="session")
def make_clone(root: Path) -> Callable[[Path], Clone]:
    """Copies what git tracks, and what it would, into a repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")

    def make(folder: Path) -> Clone:
        for name in filter(None, listed):
            if (root / name).is_file():  # not one that is deleted but still in the index
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)
        (folder / "dvc.lock").unlink(missing_ok=True)
        clone = Clone(folder)
        clone.change(SMALL)
        clone.git("init", "--quiet", "--initial-branch=main")
        clone.git("add", "--all")
        clone.git("commit", "--quiet", "--message=As in the working tree, but small")
        return clone

    return make


@pytest.fixture(scope="module")
def trained(
    make_clone: Callable[[Path], Clone], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Clone]:
    """A clone in which ``make train`` has run, committed; the run's output is in train.log."""
    clone = make_clone(tmp_path_factory.mktemp("trained") / "clone")
    done = clone.command("train")
    (clone.folder.parent / "train.log").write_text(done.stdout + done.stderr)
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "--message=Train")
    yield clone
    clone.check_that_nothing_runs()
