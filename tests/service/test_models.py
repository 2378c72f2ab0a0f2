"""Following the champion: promotions, models that can't be loaded, processes that die."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.service.conftest import Registry

from service import models as module
from service.models import Models
from service.predictor import Predictor
from trip_duration.processes import lives
from trip_duration.registry import Served

Start = Callable[[], Models]


def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _without_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORTEST", 0.05)
    monkeypatch.setattr(module, "LONGEST", 0.2)


def version(models: Models) -> str | None:
    return models.current and models.current.served.version


def follower(command: list[str]) -> psutil.Process | None:
    """The process that a command has started here."""
    mine = filter(lives, psutil.Process().children())
    return next((one for one in mine if one.cmdline()[1:] == command[1:]), None)


def test_a_promotion_is_followed(
    registry: Registry, following: Start, first: Served, second: Served
) -> None:
    registry.promote(first)
    models = following()
    assert models.wait(30)
    assert (version(models), models.followed, models.trouble) == ("1", 0, None)
    told: list[str] = []
    models.changed = lambda new: told.append(new.served.version)
    registry.promote(second)
    until(lambda: version(models) == "2")
    until(lambda: told == ["2"])
    assert (models.followed, models.failures) == (1, 0)


def test_a_broken_champion_leaves_the_old_one(
    registry: Registry, following: Start, first: Served, second: Served
) -> None:
    registry.promote(first)
    models = following()
    assert models.wait(30)
    registry.promote(second, digest="0" * 12)
    until(lambda: models.failures >= 2)  # it is tried again
    assert version(models) == "1"
    assert models.trouble
    assert "expected 000000000000" in models.trouble
    registry.promote(second)
    until(lambda: version(models) == "2")
    assert models.trouble is None


def test_a_rollback_of_a_broken_champion_ends_the_trouble(
    registry: Registry, following: Start, first: Served, second: Served
) -> None:
    registry.promote(first)
    models = following()
    assert models.wait(30)
    registry.promote(second, digest="0" * 12)
    until(lambda: models.trouble)
    registry.promote(first)
    until(lambda: models.trouble is None)
    assert (version(models), models.followed) == ("1", 0)


@pytest.mark.parametrize("line", ["{}", "champion", '{"version": "1", "folder": 3}', "[1]"])
def test_a_line_that_names_no_model_is_said(
    registry: Registry, following: Start, first: Served, line: str
) -> None:
    registry.say(line)
    models = following()
    assert not models.wait(30)
    assert models.trouble
    assert "expected JSON with a model's version, folder and digest" in models.trouble
    registry.promote(first)
    until(lambda: version(models) == "1")


def test_trouble_that_is_told_stands_until_it_is_over(
    registry: Registry, following: Start, first: Served, second: Served
) -> None:
    registry.promote(first)
    models = following()
    assert models.wait(30)
    registry.say(json.dumps({"trouble": "The registry failed."}))
    until(lambda: models.trouble == "The registry failed.")
    assert (version(models), models.failures) == ("1", 1)
    registry.say(json.dumps({"trouble": ""}))
    until(lambda: models.trouble is None)
    registry.say(json.dumps({"trouble": "The registry failed."}))
    registry.promote(second)
    until(lambda: version(models) == "2")
    assert models.trouble is None


@pytest.mark.parametrize("at_first", [True, False])
def test_what_nobody_expected_does_not_end_the_following(
    registry: Registry,
    following: Start,
    first: Served,
    second: Served,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    at_first: bool,
) -> None:
    def fails(served: Served) -> Predictor:
        raise IndexError("of no trees")

    if not at_first:
        registry.promote(first)
    models = None if at_first else following()
    assert models is None or models.wait(30)
    with monkeypatch.context() as patch:
        patch.setattr(module, "load", fails)
        registry.promote(second)
        models = models or following()
        assert models.wait(30) is not at_first
        until(lambda: models.trouble)
        assert models.trouble == "The champion can't be followed: IndexError: of no trees"
        assert "Traceback" in caplog.text
    until(lambda: version(models) == "2")
    assert models.trouble is None
    assert models.failures > 0


def test_a_process_that_dies_is_started_again(
    registry: Registry,
    following: Start,
    first: Served,
    second: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SHORTEST", 1.0)  # for as long it is seen what the trouble is
    registry.promote(first)
    models = following()
    assert models.wait(30)
    child = follower(registry.command)
    assert child
    child.kill()
    until(lambda: "ended with exit code -9" in (models.trouble or ""))
    assert version(models) == "1"
    registry.promote(second)
    until(lambda: version(models) == "2")
    assert models.trouble is None


def test_a_process_that_fails_is_quoted() -> None:
    models = Models([sys.executable, "-c", "raise SystemExit('no model: run `make train`')"])
    models.start()
    assert not models.wait(30)
    assert models.trouble == (
        "The process that follows the registry ended with exit code 1: no model: run `make train`"
    )
    models.stop()


def test_the_process_ends_with_the_service(
    registry: Registry, following: Start, first: Served
) -> None:
    registry.promote(first)
    models = following()
    assert models.wait(30)
    child = follower(registry.command)
    assert child
    models.stop()
    assert not child.is_running()
    models.stop()  # twice is no harm


def test_a_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    command = [sys.executable, "-c", "import time\nwhile True: time.sleep(1)"]
    stubborn = Models(command)
    stubborn.start()
    until(lambda: follower(command))
    child = follower(command)
    assert child
    stubborn.stop()
    assert not child.is_running()


def test_the_registrys_own_process_names_the_local_model(tmp_path: Path, first: Served) -> None:
    """The command that `make serve` follows, in a repository without a registry."""
    from shutil import copytree

    root = Path(__file__).resolve().parents[2]
    copytree(first.folder, tmp_path / "models")
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text(encoding="utf-8"))
    models = Models(module.command(tmp_path, 1.0))
    models.start()
    try:
        assert models.wait(60), models.trouble
        assert version(models) == f"local-{first.digest}"
        assert models.current
        assert models.current.served.train_months == ("2024-01", "2024-02")
    finally:
        models.stop()


def test_the_registrys_own_process_says_that_there_is_no_model(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text(encoding="utf-8"))
    command = module.command(tmp_path, 1.0)
    models = Models(command)
    models.start()
    try:
        assert not models.wait(60)
        assert models.trouble
        assert "run `make train`" in models.trouble
    finally:
        models.stop()
    assert subprocess.list2cmdline(command).endswith(f"follow {tmp_path} 1")
