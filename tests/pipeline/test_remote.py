"""Data versioning: what one clone pushed, another pulls, and then computes nothing."""

import fcntl
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.pipeline.conftest import Clone


@pytest.fixture(scope="module")
def store(trained: Clone) -> Path:
    """A folder that is the default remote, as committed in .dvc/config; the run is pushed."""
    folder = trained.folder.parent / "store"
    trained.run("dvc", "remote", "add", "--default", "storage", str(folder))
    trained.git("commit", "--quiet", "--all", "--message=A remote")
    said = trained.command("push").stdout
    assert "Sent 3" in said  # thirty files and some
    assert f"storage ({folder})" in said
    assert said.count("\n") == 1
    return folder


@pytest.fixture
def other(trained: Clone, store: Path, tmp_path: Path) -> Clone:
    """A fresh clone, which has nothing that git does not have."""
    trained.git("clone", "--quiet", str(trained.folder), str(tmp_path / "other"))
    return Clone(tmp_path / "other")


def add_remote(clone: Clone, name: str, url: str) -> None:
    """What `dvc remote add --local` writes."""
    text = f"['remote \"{name}\"']\n    url = {url}\n"
    (clone.folder / ".dvc/config.local").write_text(text)


def says(clone: Clone, command: str, **environment: str) -> str:
    """The one sentence that a command ends with, where it can't do what is asked."""
    done = clone.command(command, check=False, **environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_fresh_clone_pulls_and_computes_nothing(trained: Clone, other: Clone) -> None:
    said = other.command("pull").stdout
    assert "Fetched 3" in said
    assert "Nothing is left to compute" in said
    for done in (other.run("dvc", "repro"), other.command("train")):
        assert "Running stage" not in done.stdout + done.stderr
    assert "up to date" in other.run("dvc", "status").stdout
    assert other.git("status", "--porcelain") == ""
    for name in ("models/model.ubj", "data/trips/green-2024-04.parquet", "data/zones.parquet"):
        assert (other.folder / name).read_bytes() == (trained.folder / name).read_bytes()
    assert "is in its place" in other.command("pull").stdout
    assert "distance" in other.command("explain").stdout  # the model is whole


def test_pushing_again_sends_nothing(trained: Clone, store: Path) -> None:
    assert "Nothing to send" in trained.command("push").stdout


def test_a_pull_into_other_settings_says_what_is_left(other: Clone) -> None:
    other.change({"search.max_evals": 5})
    said = other.command("pull").stdout
    assert "Left to compute" in said
    assert "search" in said
    assert "search" in other.command("push").stdout


def test_a_lock_that_is_not_committed_is_said(trained: Clone, store: Path) -> None:
    with (trained.folder / "dvc.lock").open("a") as file:
        file.write("# changed\n")
    try:
        assert "dvc.lock is not committed" in trained.command("push").stdout
    finally:
        trained.git("checkout", "dvc.lock")


def test_nothing_to_push_is_an_error_though_dvc_succeeds(other: Clone, tmp_path: Path) -> None:
    add_remote(other, "empty", str(tmp_path / "empty"))
    assert "make train" in says(other, "push", REMOTE="empty")
    assert other.command("pull").returncode == 0
    other.command("push", REMOTE="empty")
    assert any((tmp_path / "empty").rglob("*"))


def test_a_file_that_the_remote_lost_is_counted(other: Clone, store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "copy")
    add_remote(other, "copy", str(tmp_path / "copy"))
    largest = max((tmp_path / "copy").rglob("*"), key=lambda path: path.stat().st_size)
    largest.unlink()
    said = says(other, "pull", REMOTE="copy")
    assert "lacks 1 of the files" in said
    assert "make push" in said
    other.command("pull")


def test_a_file_that_would_be_lost_is_not_replaced(other: Clone) -> None:
    (other.folder / "data/zones.parquet").write_text("my own")
    assert says(other, "pull").startswith("data/zones.parquet differs from dvc.lock")
    assert other.read("data/zones.parquet") == "my own"


@pytest.mark.parametrize(
    ("url", "command", "words"),
    [
        ("s3://bucket/folder", "push", ["needs DVC's package for s3", "make setup EXTRAS=s3"]),
        ("ssh://me:secret@127.0.0.1/x", "push", ["ssh://127.0.0.1/x", "make setup EXTRAS=ssh"]),
        ("azure://container/x", "push", ["dvc-azure", "requirements-….in"]),
        ("http://me:secret@127.0.0.1:9/x?key=secret", "push", ["127.0.0.1:9/x", "the network"]),
        ("{tmp}/file", "pull", ["no folder on this machine"]),
        ("{tmp}/file", "push", ["Not a directory"]),
    ],
)
def test_a_remote_that_cannot_be_used(
    trained: Clone, store: Path, tmp_path: Path, url: str, command: str, words: list[str]
) -> None:
    (tmp_path / "file").touch()
    url = url.format(tmp=tmp_path)
    add_remote(trained, "bad", url)
    kind = url.partition(":")[0]
    if f"EXTRAS={kind}" in words[-1] and find_spec(f"dvc_{kind}"):
        pytest.skip(f"DVC's package for {kind} is installed here")
    said = says(trained, command, REMOTE="bad", NO_PROXY="127.0.0.1")
    for word in ["bad", *words]:
        assert word in said
    assert "secret" not in said


def test_it_waits_for_no_other_command(trained: Clone, store: Path) -> None:
    lock = trained.folder / ".cache/pipeline.lock"
    with lock.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for command in ("push", "pull", "refresh"):
            assert "is running in" in says(trained, command)


def test_a_remote_that_is_not_known(trained: Clone, store: Path) -> None:
    said = says(trained, "push", REMOTE="nowhere")
    assert "no remote 'nowhere'" in said
    assert "storage" in said


def test_without_a_default_remote_it_says_how_to_have_one(other: Clone) -> None:
    config = other.folder / ".dvc/config"
    config.write_text(config.read_text().replace("remote = storage", ""))
    said = says(other, "push")
    assert "remote add --default" in said
    assert "REMOTE=storage" in said
    config.write_text(config.read_text().partition("['remote")[0])
    assert "remote add --default" in says(other, "pull")


def test_without_a_lock_there_is_nothing_to_share(other: Clone) -> None:
    (other.folder / "dvc.lock").unlink()
    assert "make train" in says(other, "push")
