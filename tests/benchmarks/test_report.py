"""What the benchmarks share: claims, processes that are measured, turns, and the page."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import report
from report import Claim


@pytest.mark.parametrize(
    ("value", "bound", "at_least", "met"),
    [
        (1.4, 1.5, False, True),
        (1.5, 1.5, False, True),
        (1.6, 1.5, False, False),
        (7.9, 8.0, True, False),
        (8.0, 8.0, True, True),
        (1e9, None, False, True),
        (float("nan"), 1.0, False, False),
        (float("nan"), 1.0, True, False),
    ],
)
def test_a_claim_is_met_up_to_its_bound(
    value: float, bound: float | None, at_least: bool, met: bool
) -> None:
    assert Claim("it", value, "s", bound, at_least).met is met


def test_a_childs_peak_memory_and_words() -> None:
    ballast = bytearray(b"1") * 300_000_000  # of this process, which counts for nothing
    used = "x = bytearray(b'1') * 200_000_000; print('done', len(x))"
    run = report.child([sys.executable, "-c", used])
    idle = report.child([sys.executable, "-c", "print('idle')"])
    assert run.output == "done 200000000\n"
    assert run.peak > 150 > idle.peak
    assert len(ballast) > 0
    assert run.seconds > 0


def test_a_child_gets_its_environment() -> None:
    said = report.child([sys.executable, "-c", "import os; print(os.environ['A_B'])"], A_B="1")
    assert said.output == "1\n"


def test_a_child_that_fails_ends_the_benchmark_with_its_words() -> None:
    with pytest.raises(SystemExit, match=r"failed:\nbefore the end"):
        report.child([sys.executable, "-c", "print('before the end'); raise SystemExit(3)"])


def test_sides_are_called_in_turns() -> None:
    called: list[str] = []

    def side(name: str) -> int:
        called.append(name)
        return len(called)

    found = report.in_turns({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=3)
    assert called == ["a", "b", "a", "b", "a", "b"]
    assert found == {"a": [1, 3, 5], "b": [2, 4, 6]}


def test_the_median_is_of_the_seconds() -> None:
    assert report.median([report.Run(s, 0.0, "") for s in (3.0, 1.0, 2.0)]) == 2.0


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with two benchmarks, of which one has kept its figures."""
    (tmp_path / "fast.py").write_text('"""Ours beside theirs.\n\nAnd more.\n"""\n')
    (tmp_path / "later.py").write_text('"""Not run so far."""\n')
    claims = [
        Claim("ours", 1.25, "times theirs", 1.5, detail="1 s and 0.8 s"),
        Claim("rows | a second", 1234.5, "rows", 2000.0, at_least=True),
        Claim("modules", 12.0, "modules"),
    ]
    found = {
        "conditions": "A thousand rows, median of 3.",
        "claims": [asdict(claim) for claim in claims],
        "machine": {
            "cpu": "A processor",
            "cores": "2",
            "memory": "8 GiB",
            "system": "A system",
            "python": "3.11.9",
        },
        "date": "2024-05-06",
        "commit": "0123456789",
        "versions": {"numpy": "2.0"},
    }
    (tmp_path / "fast.json").write_text(json.dumps(found))
    return tmp_path


def test_the_page_shows_what_is_kept(kept: Path) -> None:
    page = report.page(["fast", "later"], kept, kept)
    assert (
        page
        == report.INTRO
        + """
## fast

Ours beside theirs.

A thousand rows, median of 3.

| what             | figure            | asked   | met    | measured      |
|------------------|-------------------|---------|--------|---------------|
| ours             | 1.25 times theirs | ≤ 1.5   | yes    | 1 s and 0.8 s |
| rows \\| a second | 1,234 rows        | ≥ 2,000 | **no** |               |
| modules          | 12 modules        | –       | –      |               |

A processor, 2 cores, 8 GiB, A system, Python 3.11.9; 2024-05-06, commit 0123456789, numpy 2.0.

## later

Not run so far.

Not measured yet.
"""
    )


def test_the_page_has_the_order_that_is_asked_for(kept: Path) -> None:
    page = report.page(["later", "fast"], kept, kept)
    assert page.index("## later") < page.index("## fast")


def test_what_is_reported_is_kept_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "KEPT", tmp_path)
    (tmp_path / "it.py").write_text('"""It."""\n')
    missed = Claim("it", 2.0, "s", 1.0)
    assert report.report("it", [missed], "Once.") == 1
    assert "NOT MET" in capsys.readouterr().out
    page = report.page(["it"], tmp_path, tmp_path)
    assert "| it   | 2 s    | ≤ 1   | **no** |" in page
    assert f"{report.machine()['cores']} cores" in page
    assert report.report("it", [Claim("it", 1.0, "s", 1.0)], "Once.") == 0


def test_every_benchmark_says_what_it_measures(root: Path) -> None:
    for path in (root / "benchmarks").glob("*.py"):
        assert report.description(path).rstrip(".:`"), path
