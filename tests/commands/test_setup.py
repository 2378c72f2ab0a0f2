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


def test_every_package_is_locked_with_a_hash(root: Path) -> None:
    text = (root / "requirements.txt").read_text()
    blocks = re.findall(r"^\S+==.*?(?=^\S|\Z)", text, re.M | re.S)
    assert len(blocks) > 200
    assert all("--hash=sha256:" in block for block in blocks)
    chosen = re.findall(r"^([\w.-]+)==(\S+)", (root / "requirements.in").read_text(), re.M)
    for name, version in chosen:
        assert f"{name.replace('.', '-')}=={version}" in text
    assert not re.search(r"^--", text, re.M)  # no index of its own


def test_an_environment_that_is_ready_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".ready").write_text(setup.digest())
    (tmp_path / "kept").touch()
    setup.main(str(tmp_path))
    assert (tmp_path / "kept").exists()


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
