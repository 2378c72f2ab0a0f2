"""No room.

A disk (a small tmpfs, in a mount namespace of the test's own) that is filled until so many bytes
are free, and folders that are mounted read-only, under a pipeline that has run before and has a
new setting to run with. Each run ends in a sentence, and with room again the committed state is
back, to the byte.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.faults.conftest import ALL
from tests.pipeline.conftest import Clone

TRAIN = (sys.executable, "src/commands", "train")
DISK = "200m"
BACK = "git checkout params.yaml dvc.lock metrics plots search"


@dataclass
class Disk(Clone):
    """A clone on a small disk of its own, seen through the process that holds its namespace."""

    holder: int
    seen: Path  # from here; `folder` is its name inside

    def run(
        self, *command: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "--mount", f"--target={self.holder}"]
        if os.geteuid():
            enter += ["--user", "--preserve-credentials"]
        there = ["sh", "-c", 'cd "$0" && exec "$@"', str(self.folder)]
        done = subprocess.run(
            [*enter, *there, *command],
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}: {done}")
        return done

    def read(self, path: str) -> str:
        return (self.seen / path).read_text(encoding="utf-8")

    def change(self, overrides: dict[str, object]) -> None:
        outside = Clone(self.seen)
        outside.change(overrides)


@pytest.fixture(scope="module")
def disk(
    make_clone: Callable[[Path], Clone], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Disk]:
    """A disk with a pipeline that has run, all committed."""
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("needs unshare and nsenter, of Linux")
    folder = tmp_path_factory.mktemp("disk")
    own = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])]
    mount = f"mount -t tmpfs -o size={DISK} tmpfs '{folder}' && echo mounted && exec cat"
    holder = subprocess.Popen(
        [*own, "sh", "-c", mount],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        if (said := holder.stdout.readline()) != "mounted\n":
            pytest.skip(f"needs a mount namespace: {said.strip()}")
        seen = Path(f"/proc/{holder.pid}/root{folder}")
        outside = make_clone(tmp_path_factory.mktemp("made") / "clone")
        shutil.copytree(outside.folder, seen / "clone", symlinks=True)
        disk = Disk(folder / "clone", holder.pid, seen / "clone")
        disk.run(*TRAIN)
        disk.git("add", "--all")
        disk.git("commit", "--quiet", "--message=Train")
        yield disk
        disk.check_that_nothing_runs()
    finally:
        holder.stdin.close()
        holder.wait(20)
        holder.stdout.close()


@pytest.fixture
def changed(disk: Disk) -> Iterator[Disk]:
    """The disk, with a setting for which every stage must run; as committed again afterwards."""
    disk.change({"data.simulated.trips_per_month": 1_600})
    before = disk.read(".git/HEAD"), disk.git("show", "HEAD:dvc.lock")
    yield disk
    disk.run("sh", "-c", BACK)
    done = disk.run(*TRAIN)
    assert "Traceback" not in done.stdout + done.stderr
    assert (disk.read(".git/HEAD"), disk.read("dvc.lock")) == before
    assert disk.git("status", "--porcelain") == ""
    assert not [path for path in disk.seen.rglob(".*.partial") if ".prefect" not in path.parts]


def sentence(said: str, disk: Disk) -> str:
    """What names the trouble, as on any machine."""
    assert "Traceback" not in said
    [*_, line] = [
        line
        for line in said.splitlines()
        if re.search("no room|not allowed|No space left|Read-only", line)
        and " | WARNING | " not in line  # Prefect's, with the time
    ]
    line = re.sub(r"[0-9a-f]{30,}", "…", line.replace(str(disk.folder), "…"))
    return re.sub(r"…/\.dvc/cache/\S+", "….dvc/cache/…", line)


@pytest.mark.parametrize("kilobytes", [0, 50, 100, 250, 500, 1000] if ALL else [0])
def test_a_full_disk(
    changed: Disk, kilobytes: int, record_property: Callable[[str, object], None]
) -> None:
    ballast = changed.seen.parent / "ballast"
    changed.check_that_nothing_runs()  # the last run's server would free some room yet
    free = shutil.disk_usage(changed.seen).free
    try:
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - 1024 * kilobytes)
        done = changed.run(*TRAIN, check=False)
    finally:
        ballast.unlink(missing_ok=True)
    assert done.returncode == 1
    record_property("fault", f"a disk with {kilobytes} kB free")
    record_property("said", sentence(done.stdout + done.stderr, changed))


FOLDERS = ("data", "data/trips", "models", "metrics", ".prefect", ".dvc", ".cache", ".")


@pytest.mark.parametrize("name", FOLDERS if ALL else (".cache",))
def test_a_folder_that_may_not_be_written(
    changed: Disk, name: str, record_property: Callable[[str, object], None]
) -> None:
    folder = changed.folder / name
    shut = f"mount --bind '{folder}' '{folder}' && mount -o remount,ro,bind '{folder}'"
    changed.run("sh", "-c", shut)
    try:
        done = changed.run(*TRAIN, check=False)
    finally:
        changed.run("sh", "-c", f"cd / && umount '{folder}'")
    assert done.returncode == 1
    record_property("fault", f"`{name}` is read-only")
    record_property("said", sentence(done.stdout + done.stderr, changed))


@pytest.mark.skipif(not ALL, reason="make test-faults")
def test_mlflow_that_cannot_write_costs_a_line_and_no_result(changed: Disk) -> None:
    folder = changed.folder / ".mlflow"
    shut = f"mount --bind '{folder}' '{folder}' && mount -o remount,ro,bind '{folder}'"
    changed.run("sh", "-c", shut)
    try:
        done = changed.run(*TRAIN)
    finally:
        changed.run("umount", str(folder))
    assert "Traceback" not in done.stdout + done.stderr
    assert "MLflow does not record" in done.stdout + done.stderr
