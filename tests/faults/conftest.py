"""Faults: what is tried, and the page that says what became of it.

Each module is a section of ``docs/reliability.md``; the first line of its docstring is the title,
the rest the text below it. A test that passed is a fault survived. With ``record_property``, a
test says more of itself: ``tried``, how many faults it stood for (1 unless it says otherwise);
``fault`` and ``said``, a fault and the sentence that a person got, for the page's table.

`make test` tries a few of each kind; ``FAULTS=all`` (`make test-faults`) tries them all, and
writes the page where nothing was left out.
"""

import os
from collections import defaultdict
from dataclasses import dataclass, field
from inspect import cleandoc
from pathlib import Path

import pytest
from tests.pipeline.conftest import make_clone, trained  # noqa: F401  (fixtures of these tests too)

ALL = os.environ.get("FAULTS") == "all"
PAGE = Path(__file__).resolve().parents[2] / "docs/reliability.md"
HEAD = """# What was broken on purpose, and what became of it

`make test-faults` breaks the pipeline in the ways below and writes this page; `make test` tries a
few of each kind. A fault is survived if the test that made it passed: nothing half-written, the
last good state still there, and one sentence for the person, or the very bytes of an undisturbed
run.

"""


@dataclass
class Section:
    """One module's count."""

    tried: int = 0
    survived: int = 0
    skipped: int = 0
    said: list[tuple[str, str]] = field(default_factory=list)


_sections: dict[str, Section] = defaultdict(Section)
_all_there = True


@pytest.fixture(scope="session")
def all_faults() -> bool:
    """Whether every fault is to be tried, or a few of each kind."""
    return ALL


def pytest_deselected() -> None:
    global _all_there
    _all_there = False


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    section = _sections[report.nodeid.partition("::")[0]]
    properties = dict(report.user_properties)
    tried = int(properties.get("tried", 1))
    if report.skipped:
        section.skipped += tried
    elif report.when == "call" or report.failed:
        section.tried += tried
        section.survived += tried if report.passed else 0
        if report.passed and "said" in properties:
            section.said.append((str(properties["fault"]), str(properties["said"])))


def pytest_sessionfinish(session: pytest.Session) -> None:
    files = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    if ALL and _all_there and files == {Path(name).name for name in _sections}:
        PAGE.write_text(page(session), encoding="utf-8")


def page(session: pytest.Session) -> str:
    """The whole page, as Markdown."""
    modules = {item.nodeid.partition("::")[0]: item.module for item in session.items}
    rows, parts = [], []
    for name, section in sorted(_sections.items()):
        title, _, text = cleandoc(modules[name].__doc__).partition("\n")
        title = title.rstrip(".")
        skipped = f"{section.skipped:,}" if section.skipped else ""
        rows.append(f"| {title} | {section.tried:,} | {section.survived:,} | {skipped} |")
        parts.append(f"\n## {title}\n\n{text.strip()}\n\n`{name}`\n")
        if section.said:
            lines = [f"| {_cell(fault)} | {_cell(said)} |" for fault, said in section.said]
            parts.append("\n".join(["", "| fault | what is said |", "|---|---|", *lines, ""]))
    tried = sum(section.tried for section in _sections.values())
    survived = sum(section.survived for section in _sections.values())
    total = f"| **all** | **{tried:,}** | **{survived:,}** | |"
    head = ["| faults | tried | survived | skipped here |", "|---|---|---|---|"]
    return HEAD + "\n".join([*head, *rows, total, ""]) + "".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<")
