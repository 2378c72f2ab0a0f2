"""Set-up, as far as it can be tested without a package index; `.ci/run` does the rest."""

import re
import sys
from pathlib import Path

import pytest

from commands import setup


def test_uv_is_installed_from_the_lock_with_its_hashes() -> None:
    lines = setup.locked("uv").splitlines()
    assert re.match(r"uv==\d", lines[0])
    assert sum("==" in line for line in lines) == 1
    assert sum("--hash=sha256:" in line for line in lines) > 1


LEAST = {"": 200, "-audit": 20, "-dask": 30, "-gs": 90, "-s3": 90, "-ssh": 90, "-webtest": 10}


def test_the_extras_are_those_that_are_tested(root: Path) -> None:
    assert {f.stem.removeprefix("requirements") for f in root.glob("requirements*.in")} == {*LEAST}


@pytest.mark.parametrize(("extra", "least"), LEAST.items())
def test_every_package_is_locked_with_a_hash(root: Path, extra: str, least: int) -> None:
    name = f"requirements{extra}"
    text = (root / f"{name}.txt").read_text()
    blocks = re.findall(r"^\S+==.*?(?=^\S|\Z)", text, re.M | re.S)
    assert len(blocks) > least
    assert all("--hash=sha256:" in block for block in blocks)
    chosen = re.findall(r"^([\w.-]+)==([^\s;]+)", (root / f"{name}.in").read_text(), re.M)
    for name, version in chosen:
        assert f"{name.replace('.', '-')}=={version}" in text
    assert not re.search(r"^--", text, re.M)  # no index of its own


def test_an_extra_changes_no_package_of_another_lock(root: Path) -> None:
    def locked(extra: str) -> dict[str, str]:
        text = (root / f"requirements{extra}.txt").read_text()
        return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M))

    together: dict[str, str] = {}
    for extra in sorted(LEAST):  # the pipeline's own lock is the first
        found = locked(extra)
        shared = together.keys() & found.keys()
        assert {name: found[name] for name in shared} == {name: together[name] for name in shared}
        together |= found
    assert {"dask", "distributed", "prefect-dask"} <= locked("-dask").keys() - locked("").keys()


@pytest.mark.parametrize("extras", [[], ["dask"]])
def test_an_environment_that_is_ready_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extras: list[str]
) -> None:
    monkeypatch.delenv("EXTRAS", raising=False)
    (tmp_path / ".ready").write_text(setup.digest(extras))
    (tmp_path / "kept").touch()
    setup.main(str(tmp_path))
    assert (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("asked", "there", "extras"),
    [
        ("", "", []),
        ("", "digest", []),
        ("", "digest dask", ["dask"]),
        ("dask", "digest", ["dask"]),
        ("dask,dask", "", ["dask"]),
        ("none", "digest dask", []),
    ],
)
def test_extras_stay_and_are_added(asked: str, there: str, extras: list[str]) -> None:
    assert setup.chosen(asked, there) == extras


def test_an_unknown_extra_is_said() -> None:
    with pytest.raises(
        SystemExit, match=r"EXTRAS is 'dusk': expected audit, dask, .*, or none to remove"
    ):
        setup.chosen("dusk", "")


def test_the_package_is_found_from_any_folder(tmp_path: Path) -> None:
    root = tmp_path / "ünlike"
    site = root / ".venv" / "lib" / "python3" / "site-packages"
    site.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "ROOT", root)
        setup.add_source(site)
        setup.add_source(tmp_path)  # from where no plain path leads there
    line = (site / "trip_duration.pth").read_text("ascii").strip()
    assert (site / line).resolve() == root / "src"
    assert not (tmp_path / "trip_duration.pth").exists()


def test_an_old_python_without_a_newer_one_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"is Python 3\.9: .* 3\.11 or newer"):
        setup.suitable_python()


def test_an_old_python_finds_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    found = {"python3.12": "/broken/shim", "python3.11": sys.executable}
    monkeypatch.setattr(setup.shutil, "which", found.get)
    calls = []

    def call(command: list[str], **_: object) -> int:
        calls.append(command[0])
        return 0 if command[0] == sys.executable else 127

    monkeypatch.setattr(setup.subprocess, "call", call)
    assert setup.suitable_python() == sys.executable
    assert calls == ["/broken/shim", sys.executable]
