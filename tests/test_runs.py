"""Notes of who does a run."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trip_duration import runs


def test_this_process_does_its_run_until_the_end(tmp_path: Path) -> None:
    assert runs.lives_on(tmp_path, "one") is None
    with runs.noted(tmp_path, "one"):
        assert runs.lives_on(tmp_path, "one") is True
        assert runs.lives_on(tmp_path, "other") is None
    assert runs.lives_on(tmp_path, "one") is None


def test_an_error_ends_it_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="within"), runs.noted(tmp_path, "one"):
        raise ValueError("within")
    assert runs.lives_on(tmp_path, "one") is None


def test_a_killed_process_leaves_a_note_of_the_dead(tmp_path: Path) -> None:
    script = (
        "import os, pathlib\n"
        "from trip_duration import runs\n"
        f"with runs.noted(pathlib.Path({str(tmp_path)!r}), 'one'):\n"
        "    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert runs.lives_on(tmp_path, "one") is False
    runs.note(tmp_path, "third", runs.STAGE)
    with runs.noted(tmp_path, "other"):
        assert runs.killed(tmp_path, runs.SCHEDULED) == ["one"]
        assert runs.killed(tmp_path, runs.STAGE) == []
    runs.forget(tmp_path, "one")
    assert runs.lives_on(tmp_path, "one") is None
    assert runs.killed(tmp_path, runs.SCHEDULED) == []


def test_what_a_kill_left_of_a_note_is_removed(tmp_path: Path) -> None:
    script = (
        "import os, pathlib\n"
        "from trip_duration import runs\n"
        "pathlib.Path.replace = lambda *_: os._exit(9)\n"
        f"runs.note(pathlib.Path({str(tmp_path)!r}), 'one', runs.STAGE)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    [half] = (tmp_path / runs.FOLDER).glob(".*")
    runs.tidy(tmp_path)
    assert not half.exists()


def test_what_a_living_process_writes_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidying = threading.Thread(target=runs.tidy, args=(tmp_path,))
    replace = Path.replace

    def replace_while_another_tidies(path: Path, target: Path) -> Path:
        tidying.start()
        tidying.join(0.5)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_while_another_tidies)
    runs.note(tmp_path, "one", runs.STAGE)
    tidying.join(20)
    assert runs.lives_on(tmp_path, "one")


def test_nothing_is_made_where_no_run_was_noted(tmp_path: Path) -> None:
    runs.tidy(tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1, "kind": "scheduled"}'])
def test_a_note_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    with runs.noted(tmp_path, "one"):
        (tmp_path / runs.FOLDER / "one.json").write_text(text)
        assert runs.lives_on(tmp_path, "one") is None
        assert runs.killed(tmp_path, runs.SCHEDULED) == []


def test_another_process_of_the_same_number_is_not_it(tmp_path: Path) -> None:
    with runs.noted(tmp_path, "one"):
        note = tmp_path / runs.FOLDER / "one.json"
        note.write_text(note.read_text().replace('"created": ', '"created": 1'))
        assert runs.lives_on(tmp_path, "one") is False


@pytest.mark.parametrize("run", ["", "../one", "a/b"])
def test_only_ids_are_names_of_notes(tmp_path: Path, run: str) -> None:
    with pytest.raises(ValueError, match="no run's id"):
        runs.lives_on(tmp_path, run)
