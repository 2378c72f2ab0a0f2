"""A small pipeline in a repository of its own, rerun from its commit and compared."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from rich.console import Console

from dvc_verify import __main__ as command
from dvc_verify import processes, rerun
from dvc_verify.committed import Committed
from dvc_verify.errors import VerifyError
from dvc_verify.lock import Out, read_locks
from dvc_verify.report import Report, Row, judge, show, write

TOOL = Path(__file__).resolve().parents[2] / "src" / "dvc_verify"

# With DRIFT, what it writes depends on all that is to be found out.
STEPS = """
import json, os, sys, time
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq

drift = "DRIFT" in os.environ
if sys.argv[1] == "make":
    if "FAIL" in os.environ:
        sys.exit("no such luck")
    if "WAIT" in os.environ:
        Path("waits").touch()
        time.sleep(60)
    made = Path("made")
    (made / "deep").mkdir(parents=True)
    numbers = [float(number) for number in range(int(Path("raw.txt").read_text()))]
    pq.write_table(pa.table({"n": numbers}), made / "steady.parquet")
    numbers[3] += time.localtime().tm_gmtoff * 1e-9 if drift else 0.0
    pq.write_table(pa.table({"i": range(len(numbers)), "n": numbers}), made / "deep/zone.parquet")
    (made / ("more.txt" if drift else "less.txt")).write_text("some")
elif sys.argv[1] == "part":
    word = os.environ["LC_ALL"] if drift else "any"
    word += chr(228) if drift else ""
    Path("part.csv").write_text(f"name,word\\nx,{word}\\n", encoding="latin-1")
else:
    hashing = int(os.environ["PYTHONHASHSEED"]) if drift else 4000
    seed = int(Path("../params.yaml").read_text().split()[1])
    Path("metrics.json").write_text(json.dumps({"model": {"rmse": hashing / 1000, "mae": seed}}))
    Path("chance.bin").write_bytes(b"abc" + (os.urandom(8) if drift else b""))
"""

PIPELINE = """
stages:
  make:
    cmd: python steps.py make
    deps: [raw.txt, steps.py]
    outs: [made]
  part:
    foreach: [one, two]
    do:
      cmd: python ../../steps.py part
      wdir: parts/${item}
      deps: [../../made, ../../steps.py]
      outs: [part.csv]
"""

LAST = """
stages:
  judge:
    cmd: python ../steps.py judge
    deps: [../parts/one/part.csv, ../parts/two/part.csv]
    params: [../params.yaml: [seed]]
    outs: [chance.bin]
    metrics: [metrics.json: {cache: false}]
"""


def run(
    folder: Path, *command: str, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": programs, "DVC_NO_ANALYTICS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def commit(folder: Path) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    run(folder, "git", "add", "--all")
    run(folder, "git", *identity, "commit", "--quiet", "--allow-empty", "--message=All")


def verify(
    folder: Path, *arguments: str, check: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, str(TOOL), *arguments, check=check, **environment)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project in a folder of a git repository, whose pipeline has run and is committed."""
    top = tmp_path_factory.mktemp("projects")
    folder = top / "project"
    for name, text in {
        "steps.py": STEPS,
        "dvc.yaml": PIPELINE,
        "raw.txt": "9",
        "params.yaml": "seed: 1\nmodel: {depth: 3}\n",
        "last/dvc.yaml": LAST,
        "parts/one/.keep": "",
        "parts/two/.keep": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    run(top, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "dvc", "init", "--quiet", "--subdir")
    run(folder, "dvc", "add", "--quiet", "raw.txt")
    run(folder, "dvc", "repro", "--quiet", "--all-pipelines")
    commit(top)
    return folder


@pytest.fixture(scope="module")
def drifted(project: Path, tmp_path_factory: pytest.TempPathFactory) -> rerun.Clone:
    """A clone in which the pipeline was rerun, and wrote something else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIFT", "1")
        patch.setenv("GIT_INDEX_FILE", "/not/there")  # as in a hook of git's
        patch.setenv("MAKEFLAGS", "--jobs=2")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(project / "lib"), "/elsewhere"]))
        changed = {"LC_ALL": "C", "TZ": "Pacific/Chatham", "PYTHONHASHSEED": "4021"}
        folder = tmp_path_factory.mktemp("drifted")
        clone = rerun.Clone(rerun.find(project, "HEAD"), folder, changed)
    assert clone.stale() == []
    clone.clear()
    clone.repro([], lambda stage, took: None)
    return clone


# What is the same


def test_a_steady_pipeline_is_the_same(project: Path, tmp_path: Path) -> None:
    done = verify(project, "--json", str(tmp_path / "found.json"), TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "All 7 files of 4 stages: same bytes."
    stages = [line.split()[1] for line in lines if line.startswith("Rerun ")]
    assert sorted(stages) == ["last/dvc.yaml:judge", "make", "part@one", "part@two"]
    assert stages[0] == "make"
    assert stages[-1] == "last/dvc.yaml:judge"
    for path in ("made/", "parts/two/part.csv", "last/metrics.json", "last/chance.bin"):
        assert sum(f" {path} " in line and "same bytes" in line for line in lines) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["same"]
    assert sum(row["files"] for row in found["files"]) == 7
    assert set(found["changed"]) == {"LC_ALL", "TZ", "PYTHONHASHSEED"}
    assert list(tmp_path.iterdir()) == [tmp_path / "found.json"]  # the clone is gone
    assert run(project, "git", "status", "--porcelain").stdout == ""
    assert "Running stage 'make'" in (project / ".dvc/tmp/verify.log").read_text()


# What differs


def rows(report: Report) -> dict[str, Row]:
    return {row.path: row for row in report.rows}


def test_each_file_that_differs_is_named_with_how(drifted: rerun.Clone) -> None:
    found = rows(judge(drifted, targets=False, tolerance=None, ignore=[]))
    results = {path: row.result for path, row in found.items()}
    assert results == {
        "made/": "same bytes",
        "made/deep/zone.parquet": "differs",
        "made/less.txt": "missing",
        "made/more.txt": "extra",
        "parts/one/part.csv": "differs",
        "parts/two/part.csv": "differs",
        "last/chance.bin": "differs",
        "last/metrics.json": "differs",
    }
    assert found["made/"].how == "1 file"  # steady.parquet
    zone = found["made/deep/zone.parquet"]
    assert zone.how.startswith("column n, row 3: 3.0 → 3.0000")
    assert "(1 of 9 rows, 1 of 2 columns; numbers by at most " in zone.how
    assert found["parts/one/part.csv"].how.startswith('line 2, column word: "any" → "C\udce4" ')
    assert found["last/chance.bin"].how == "from byte 3 on; 3 → 11 bytes"
    assert found["last/metrics.json"].how.startswith("model.rmse: 4.0 → 4.021 (1 of 2 values; ")


def test_the_summary_names_the_metric_that_differs_most(drifted: rerun.Clone) -> None:
    report = judge(drifted, targets=False, tolerance=None, ignore=[])
    assert not report.same
    assert report.summary == (
        "7 of 8 files differ; the largest difference of a metric: last/metrics.json model.rmse "
        "4.0 → 4.021 (0.52 %)."
    )


def test_numbers_within_a_tolerance_and_files_to_ignore_are_forgiven(drifted: rerun.Clone) -> None:
    ignore = ["made/*.txt", "*/part.csv", "last/chance.bin"]
    report = judge(drifted, targets=False, tolerance=0.01, ignore=ignore)
    assert report.same
    assert rows(report)["made/deep/zone.parquet"].result == "within tolerance"
    assert report.summary.startswith(
        "All 8 files of 4 stages: 1 same bytes, 2 within tolerance, 5 not compared; the largest "
    )
    assert not judge(drifted, targets=False, tolerance=0.001, ignore=ignore).same


def test_what_differs_is_known_without_the_commits_bytes_where_git_or_the_lock_have_them(
    drifted: rerun.Clone, tmp_path: Path
) -> None:
    kept = drifted.bytes
    cache = tmp_path / "cache"
    drifted.bytes = Committed(tmp_path, drifted.root, tmp_path / "blobs", lambda *_: str(cache))
    try:
        found = rows(judge(drifted, targets=False, tolerance=None, ignore=[]))
    finally:
        drifted.bytes = kept
    assert "which, is not known: the commit's are not here (`dvc pull`)" in found["made/"].how
    assert found["made/"].files == 3
    assert "the commit's bytes are not here (`dvc pull`)" in found["last/chance.bin"].how
    assert found["last/metrics.json"].how.startswith("model.rmse: ")  # git has it


def test_the_commits_bytes_are_found_in_the_cache_when_the_workspace_has_others(
    drifted: rerun.Clone, project: Path, tmp_path: Path
) -> None:
    cache = project / ".dvc" / "cache"
    found = Committed(tmp_path, drifted.root, tmp_path / "blobs", lambda *_: f"{cache}\n")
    out = drifted.committed["make"]["made"]
    files = found.files(out)
    assert files is not None
    assert sorted(files) == ["deep/zone.parquet", "less.txt", "steady.parquet"]
    assert all(path and path.is_relative_to(cache) for path in files.values())
    shutil.copytree(project / "made", tmp_path / "made")
    workspace = Committed(tmp_path, drifted.root, tmp_path / "blobs", lambda *_: "/not/there")
    assert workspace.files(out) == {name: tmp_path / "made" / name for name in files}


def test_the_environment_is_that_of_the_shell_but_for_what_is_true_only_there(
    drifted: rerun.Clone,
) -> None:
    found = drifted.environment
    assert found["DRIFT"] == "1"
    assert not {"GIT_INDEX_FILE", "MAKEFLAGS"} & found.keys()
    assert found["PYTHONPATH"] == os.pathsep.join([str(drifted.root / "lib"), "/elsewhere"])
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert found["TZ"] == "Pacific/Chatham"


def test_all_that_was_found_can_be_printed_and_written(
    drifted: rerun.Clone, tmp_path: Path
) -> None:
    report = judge(drifted, targets=False, tolerance=None, ignore=[])
    report.notes.append("a note")
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    command.say_all(stream)
    show(report, Console(file=stream, width=200))
    stream.seek(0)
    lines = stream.read().splitlines()
    assert any('word: "any" \\u2192 "C\\udce4" (1 of 2' in line for line in lines)
    assert lines[-2] == "a note"
    assert lines[-1].startswith("7 of 8 files differ; ")
    write(report, tmp_path / "found.json", {"commit": "x"})
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert (found["commit"], found["same"], found["summary"]) == ("x", False, report.summary)
    [metric] = found["metrics"]
    assert (metric["key"], metric["committed"], metric["rerun"]) == ("model.rmse", 4.0, 4.021)


def test_many_files_of_a_folder_are_abridged() -> None:
    report = Report([Row("s", f"d/{number:02}", "differs", "so") for number in range(25)])
    stream = io.StringIO()
    show(report, Console(file=stream, width=100))
    assert " d/19 " in stream.getvalue()
    assert " d/20 " not in stream.getvalue()
    assert "… and 5 files more" in stream.getvalue()
    assert stream.getvalue().endswith("25 of 25 files differ; no metric does.\n")


# What else there is to say


def test_a_lock_of_another_commit_is_said_and_settings_reach_the_stages(
    project: Path, tmp_path: Path
) -> None:
    top = tmp_path / "copy"
    shutil.copytree(project.parent, top, symlinks=True)
    copy = top / "project"
    with (copy / "steps.py").open("a") as file:
        file.write("# changed\n")
    (copy / "params.yaml").write_text("seed: 3\nmodel: {depth: 3}\n")
    commit(top)
    (copy / "loose.txt").write_text("")
    done = verify(copy, "--same-conditions", "--set", "model.depth=[4, 5] seed=4")
    assert (done.returncode, done.stderr) == (1, "")
    words = " ".join(done.stdout.split())
    assert "without what is not committed: project/loose.txt Clone" in words
    assert " With " not in words
    assert "Set model.depth=[4, 5] seed=4 Rerun" in words
    sha = run(top, "git", "rev-parse", "HEAD").stdout[:7]
    assert f"dvc.lock does not belong to commit {sha} (" in words
    assert "make: steps.py is modified" in words
    assert "last/dvc.yaml:judge: params.yaml seed is modified" in words
    assert words.endswith(
        "1 of 7 files differs; the largest difference of a metric: last/metrics.json model.mae "
        "1 → 4 (75 %)."
    )


def test_only_what_leads_to_a_target_is_run_and_the_clone_can_be_kept(
    project: Path, tmp_path: Path
) -> None:
    done = verify(project, "make", "--keep", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "All 3 files of 1 stage: same bytes." in done.stdout
    kept = Path(done.stdout.splitlines()[-1].removeprefix("Kept     "))
    assert (kept / "project/made/steady.parquet").exists()
    assert not (kept / "project/last/metrics.json").exists()


def test_a_stage_that_fails_shows_the_end_of_the_log(project: Path, tmp_path: Path) -> None:
    done = verify(project, FAIL="1", TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert "no such luck" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("the rerun failed, as the end of its log above says")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(
    project: Path, tmp_path: Path, number: signal.Signals
) -> None:
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$0" "$1"', sys.executable, str(TOOL)],  # as a script's "&"
        cwd=project,
        env=os.environ | {"PATH": programs, "WAIT": "1", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("With"):
        assert process.poll() is None
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("waits")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.strip() == "Interrupted: the rerun was ended, nothing was verified."
    # By SIGINT, not in any harder way.
    assert "failed to reproduce 'make'" in (project / ".dvc/tmp/verify.log").read_text()
    assert running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def running(folder: Path) -> list[str]:
    """The command lines of processes that work below a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if (process.info["cwd"] or "").startswith(str(folder)):
            found.append(" ".join(process.info["cmdline"] or []))
    return found


# What can't be verified


def repository(folder: Path, files: dict[str, str]) -> Path:
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    commit(folder)
    return folder


DVC = {".dvc/config": ""}
STAGE = {"dvc.yaml": "stages: {s: {cmd: 'true', outs: [o]}}"}
OUT = "outs: [{path: PATH, hash: md5, md5: 0cc175b9c0f1b6a831c399e269772661, size: 1}]"
LOCK = f"schema: '2.0'\nstages: {{s: {{cmd: 'true', {OUT}}}}}\n"
SOURCE = OUT.replace("PATH", "x")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a": ""}, "belongs to no DVC project (no folder .dvc): run `dvc init`."),
        (DVC, "the commit has no dvc.yaml, so there is no pipeline to verify."),
        (DVC | STAGE, "the commit has no dvc.lock to compare with: run `dvc repro`, and commit"),
        (
            DVC | STAGE | {"dvc.lock": LOCK.replace("PATH", "../o")},
            "s writes ../o, outside of the repository, where a rerun would overwrite it",
        ),
        (
            DVC | STAGE | {"dvc.lock": LOCK.replace("PATH", "s3://bucket/o")},
            "s writes s3://bucket/o, outside of the repository",
        ),
        (
            DVC | STAGE | {"dvc.lock": LOCK.replace("PATH", "o").replace("hash: md5, ", "")},
            "dvc.lock has no MD5 of DVC 3 for o: run `dvc cache migrate --dvc-files`",
        ),
        (DVC | {"dvc.yaml": "stages: [", "dvc.lock": ""}, "dvc.yaml is no valid YAML ("),
        (
            DVC
            | STAGE
            | {"dvc.lock": LOCK.replace("PATH", "o"), "x.dvc": OUT.replace("PATH", "x")},
            "x, which x.dvc tracks, is not here as the commit has it: run `dvc pull`.",
        ),
    ],
)
def test_what_cannot_be_verified_is_one_sentence(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    done = verify(repository(tmp_path, files))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert words in line


def test_no_repository_no_commit_and_unknown_keys_are_one_sentence(
    project: Path, tmp_path: Path
) -> None:
    for folder, arguments, words in (
        (tmp_path, [], "is in no git repository: run this in the clone of a DVC project."),
        (project, ["--rev", "nowhere"], "has no commit nowhere: what is verified is a commit."),
        (project, ["--set", "depth"], "--set has 'depth': expected key=value, like seed=7."),
    ):
        done = verify(folder, *arguments)
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert words in line
    run(tmp_path, "git", "init", "--quiet")
    assert "has no commit yet" in verify(tmp_path).stderr


def test_a_full_disk_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/somewhere")

    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(command, "_verify", full)
    try:
        assert command.main([]) == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    said = "No room is left for /tmp/somewhere: set TMPDIR to a larger disk.\n"
    assert capsys.readouterr().err == said


def test_a_missing_dvc_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(processes.shutil, "which", lambda name: "/usr/bin/dvc")
    assert processes.dvc() == ["/usr/bin/dvc"]
    monkeypatch.setattr(processes.shutil, "which", lambda name: None)
    with pytest.raises(VerifyError, match="DVC is not installed here"):
        processes.dvc()


def test_the_words_of_this_project_do_not_appear() -> None:
    text = "".join(path.read_text("utf-8") for path in TOOL.glob("*.py")).lower()
    for word in ("trip_duration", "trip-duration", "prefect", "mlflow", "nthread", "taxi"):
        assert word not in text


# Parts


def test_frozen_stages_and_nested_names_are_read_from_the_lock(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/dvc.yaml").write_text(
        "stages: {s@a: {cmd: x, frozen: true, wdir: ../other, outs: [o]}}"
    )
    (tmp_path / "sub/dvc.lock").write_text(LOCK.replace("PATH", "o").replace("{s:", "{s@a:"))
    found = read_locks(tmp_path, ["sub/dvc.yaml"])
    digest = "0cc175b9c0f1b6a831c399e269772661"
    out = Out("sub/dvc.yaml:s@a", "other/o", digest, frozen=True)
    assert found == {"sub/dvc.yaml:s@a": {"other/o": out}}


@pytest.mark.parametrize(
    ("present", "locale", "seed"),
    [
        ({}, "C.UTF-8", "4021"),
        ({"LANG": "de_DE.UTF-8", "PYTHONHASHSEED": "4021"}, "C", "4022"),
        ({"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, "C.UTF-8", "4021"),
        ({"LC_ALL": "C.UTF-8"}, "C", "4021"),
    ],
)
def test_the_conditions_are_others(present: dict[str, str], locale: str, seed: str) -> None:
    found = rerun.conditions(present)
    assert (found["LC_ALL"], found["PYTHONHASHSEED"]) == (locale, seed)
    assert found["TZ"]


@pytest.mark.parametrize("offset", [0, 45_900, 49_500])
def test_the_time_zone_is_another(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    here = SimpleNamespace(localtime=lambda: SimpleNamespace(tm_gmtoff=offset))
    monkeypatch.setattr(rerun, "time", here)
    assert ("Chatham" in rerun.conditions({})["TZ"]) == (offset == 0)
    monkeypatch.setattr(rerun.zoneinfo, "TZPATH", ())
    zone = rerun.conditions({})["TZ"]
    assert zone == ("<+1245>-12:45" if offset == 0 else "<-0330>3:30")
