"""``make audit``: locks, environments and files that are not as they must be."""

import base64
import hashlib
import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from commands import audit, setup
from commands.audit import Pin, check_environment, check_files, check_lock, judge
from trip_duration.errors import TripDurationError

HASH = f"--hash=sha256:{'0' * 64}"


def checked(tmp_path: Path, text: str) -> tuple[list[Pin], list[str]]:
    (tmp_path / "requirements.txt").write_text(text)
    return check_lock(tmp_path / "requirements.txt")


@pytest.mark.parametrize("name", sorted(p.name for p in setup.ROOT.glob("requirements*.txt")))
def test_the_locks_are_exact_versions_with_hashes(root: Path, name: str) -> None:
    pins, problems = check_lock(root / name)
    assert problems == []
    lines = (root / name).read_text().splitlines()
    assert len(pins) == sum("==" in line.partition(";")[0] for line in lines)


def test_a_lock_is_read_with_its_markers_and_comments(tmp_path: Path) -> None:
    text = (
        f"# by make lock\na.b==1.0 ; sys_platform == 'win32' \\\n    {HASH} \\\n    {HASH}\n"
        f"    # via c\nc==2 \\\n    {HASH}\n"
    )
    pins, problems = checked(tmp_path, text)
    assert problems == []
    assert pins == [Pin("a-b", "1.0", "sys_platform == 'win32'"), Pin("c", "2", "")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a==1.0", "a==1.0 has no hash"),
        ("a==1.0 ; sys_platform == 'linux'", "a==1.0 has no hash"),
        (f"a>=1.0 {HASH}", "no exact version"),
        (f"a {HASH}", "no exact version"),
        (f"a==1.* {HASH}", "no exact version"),
        (f"a==1.0 --hash=md5:{'0' * 32}", "no exact version"),
        ("a @ https://host/a-1.0-py3-none-any.whl", "no exact version"),
        (f"git+https://host/a@main {HASH}", "no exact version"),
        ("-e .", "no exact version"),
        ("./a-1.0.whl", "no exact version"),
        ("--extra-index-url https://host/simple", "no exact version"),
        ("--find-links /wheels", "no exact version"),
        ("-r other.txt", "no exact version"),
    ],
)
def test_what_is_no_exact_version_with_hashes_is_named(
    tmp_path: Path, line: str, said: str
) -> None:
    pins, problems = checked(tmp_path, f"b==2 {HASH}\n\n{line}\n")
    assert pins == [Pin("b", "2", "")]
    [problem] = problems
    assert problem.startswith("requirements.txt, line 3: ")
    assert said in problem


# An environment: a folder of packages


def install(site: Path, name: str, version: str = "1.0", **files: str) -> None:
    """A package of one module, with the RECORD that an installer writes."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (site / f"{name}.py").write_text(f"VERSION = {version!r}\n")
    lines = []
    for path in (site / f"{name}.py", folder / "METADATA"):
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
        relative = path.relative_to(site)
        lines.append(f"{relative},sha256={digest.decode().rstrip('=')},{path.stat().st_size}")
    lines += [f"{folder.name}/RECORD,,", f"__pycache__/{name}.cpython-311.pyc,,"]
    (folder / "RECORD").write_text("\n".join(lines) + "\n")


def found(site: Path) -> list[importlib.metadata.Distribution]:
    return list(importlib.metadata.distributions(path=[str(site)]))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with two packages, as they were installed."""
    for name in ("alpha", "beta"):
        install(tmp_path / "site", name)
    return tmp_path / "site"


LOCKED = [
    Pin("alpha", "1.0", ""),
    Pin("beta", "1.0", "python_version >= '3'"),
    Pin("beta", "0.9", "python_version < '3'"),
    Pin("gamma", "1.0", "sys_platform == 'none'"),
]


def test_an_environment_as_it_is_locked(site: Path) -> None:
    assert check_environment(LOCKED, found(site)) == []
    install(site, "pip", "99")  # the virtual environment's own
    assert check_environment(LOCKED, found(site)) == []


def test_a_package_too_much_another_version_and_one_that_is_missing(site: Path) -> None:
    install(site, "Delta_x")
    locked = [Pin("alpha", "1.1", ""), *LOCKED[1:], Pin("epsilon", "2", ""), Pin("pip", "3", "")]
    assert check_environment(locked, found(site)) == [
        "alpha 1.0 is installed, and 1.1 is locked",
        "delta-x 1.0 is installed, and in no lock",
        "epsilon 2 is locked, and not installed",
        "pip 3 is locked, and not installed",
    ]


def test_a_package_that_is_there_twice_is_said(site: Path) -> None:
    install(site, "alpha", "0.9")
    assert "twice" in check_environment(LOCKED, found(site))[0]


def test_files_as_they_were_installed(site: Path) -> None:
    (site / "__pycache__").mkdir()
    (site / "__pycache__" / "alpha.cpython-311.pyc").write_bytes(b"made here")
    (site / "trip_duration.pth").write_text("../src\n")
    (site / "pages.js").write_text("copied at the first use")
    assert check_files(found(site), [site]) == (4, [])


def test_a_file_that_was_changed_removed_or_added_is_named(site: Path) -> None:
    (site / "alpha.py").write_text("VERSION = '1.1'\n")
    (site / "beta.py").unlink()
    (site / "sitecustomize.py").write_text("import os\n")
    (site / "run.pth").write_text("import os\n")
    (site / "old.pyc").write_bytes(b"")
    (site / "beta").mkdir()
    (site / "beta" / "more.so").write_bytes(b"")
    _, problems = check_files(found(site), [site])
    assert problems == [
        f"{site}/alpha.py was changed",
        f"{site}/beta.py is missing",
        f"{site}/beta/more.so belongs to no package",
        f"{site}/old.pyc belongs to no package",
        f"{site}/run.pth belongs to no package",
        f"{site}/sitecustomize.py belongs to no package",
    ]


def test_a_package_without_a_record_is_said(site: Path) -> None:
    (site / "alpha-1.0.dist-info" / "RECORD").unlink()
    _, problems = check_files(found(site), [site])
    assert problems[0] == "alpha has no RECORD of its files"


# Known vulnerabilities

KNOWN = {"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"]}
UNMENDED = {"id": "PYSEC-2", "fix_versions": []}


def one(name: str, *known: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": list(known)}


def test_vulnerabilities_are_listed_and_those_that_are_mended_named() -> None:
    mended, lines = judge([one("b", UNMENDED), one("a", KNOWN, UNMENDED), one("c")])
    assert mended == ["a"]
    assert lines == [
        "3 known, in 3 packages",
        "a 1.0: PYSEC-1, mended in 1.1, 2.0",
        "a 1.0: PYSEC-2, not mended in any version",
        "b 1.0: PYSEC-2, not mended in any version",
    ]
    assert judge([one("c")]) == ([], ["none known, in 1 packages"])


def test_a_service_that_knows_no_package_is_no_clean_bill() -> None:
    unknown = [{"name": name, "skip_reason": "not found"} for name in ("b", "a")]
    assert judge(unknown)[1][0].startswith("skipped: PyPI's advisories of none of the 2 packages")
    assert judge([*unknown, one("c")])[1] == [
        "none known, in 1 packages",
        "skipped, as PyPI has no advisories of them: a, b",
    ]


# All of it


@pytest.fixture
def house(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose environment is the folder ``site``; pip-audit finds nothing."""
    (tmp_path / "requirements.txt").write_text(f"alpha==1.0 {HASH}\n")
    (tmp_path / "requirements-more.txt").write_text(f"beta==1.0 {HASH}\n")
    (tmp_path / ".ready").write_text("digest more")
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "LOCK", tmp_path / "requirements.txt")
    monkeypatch.setattr(audit.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(audit.sysconfig, "get_path", lambda name: str(site))
    monkeypatch.setattr(audit.importlib.util, "find_spec", lambda name: name)
    answers(monkeypatch, {"dependencies": [one("alpha"), one("beta")]})
    return tmp_path


def answers(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | None, error: str = ""
) -> None:
    """Have pip-audit answer so, or fail as it does without a network."""
    text = json.dumps(answer) if answer else ""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert "--require-hashes" in command
        return subprocess.CompletedProcess(command, 1, text, error)

    monkeypatch.setattr(audit.subprocess, "run", run)


def test_all_is_well(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.audit(house) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "Locks        2 pins in 2 files, each an exact version with its hashes",
        "Environment  2 packages, as locked, with more",
    ]
    assert said[2].startswith("Files        4 are as they were installed (")
    assert said[3:] == ["Advisories   none known, in 2 packages"]


def test_the_lock_of_an_environment_apart_is_judged_for_itself(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apart = house / "src" / "drift_report" / "requirements.txt"
    apart.parent.mkdir(parents=True)
    apart.write_text(f"alpha==0.9 {HASH}\n")  # another version than ours
    assert audit.audit(house) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Locks        3 pins in 3 files")
    assert said[1] == "Environment  2 packages, as locked, with more"
    assert "src/drift_report/requirements.txt: none known, in 2 packages" in said[4]
    apart.write_text("alpha>=0.9\n")
    with pytest.raises(TripDurationError, match="no exact version with hashes"):
        audit.audit(house)


def test_an_extra_that_is_not_installed_does_not_count(house: Path) -> None:
    (house / ".ready").write_text("digest")
    with pytest.raises(TripDurationError, match="the environment is not what the locks name"):
        audit.audit(house)


def test_each_failure_is_in_the_sentence(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (house / "requirements-more.txt").write_text("beta==1.0\n")
    (house / "site" / "alpha.py").write_text("changed\n")
    answers(monkeypatch, {"dependencies": [one("alpha", KNOWN)]})
    with pytest.raises(TripDurationError) as caught:
        audit.audit(house)
    said = str(caught.value)
    for words in ("hashes (`make lock`)", "the environment", "a file is not", "mends, in alpha"):
        assert words in said
    assert "\n" not in said
    assert "requirements-more.txt, line 1: beta==1.0 has no hash" in capsys.readouterr().out


def test_many_problems_are_cut_short(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        (house / "site" / f"added{number}.py").touch()
    with pytest.raises(TripDurationError):
        audit.audit(house)
    assert "and 10 more" in capsys.readouterr().out


def test_a_vulnerability_that_nothing_mends_is_listed(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, {"dependencies": [one("alpha", UNMENDED)]})
    assert audit.audit(house) == 0
    assert "alpha 1.0: PYSEC-2, not mended in any version" in capsys.readouterr().out


def test_a_service_that_cannot_be_reached_is_skipped_visibly(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = "requests.ConnectionError: Max retries exceeded (Caused by NameResolutionError())"
    answers(monkeypatch, None, f"Traceback\n{last}\n")
    assert audit.audit(house) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == (
        "Advisories   skipped: pip-audit could not ask PyPI "
        "(requests.ConnectionError: Max retries exceeded)"
    )


def test_without_pip_audit_it_says_how_to_have_it(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit.importlib.util, "find_spec", lambda name: None)
    assert audit.audit(house) == 0
    assert "skipped: pip-audit is not installed (`make setup EXTRAS=audit`)" in (
        capsys.readouterr().out
    )


def test_a_service_that_does_not_answer_is_given_up(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(audit.subprocess, "run", run)
    assert audit.audit(house) == 0
    assert "no answer within 900 s" in capsys.readouterr().out
