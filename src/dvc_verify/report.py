"""Compare what was committed with what the rerun wrote, and print it."""

import json
import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from dvc_verify.differences import MISSING, Change, changes, compare, percent, read_tree, shown
from dvc_verify.hashes import listed, md5
from dvc_verify.lock import Out
from dvc_verify.rerun import Clone

__all__ = ["Report", "Row", "judge", "show", "write"]

SHOWN = 20  # files of a folder, and metrics, that are printed; the JSON has all
HEALTHY = ("same bytes", "within tolerance", "not compared", "not rerun")


@dataclass(frozen=True)
class Row:
    """What became of a file, or of the files of a folder that have one fate."""

    stage: str
    path: str
    result: str  # same bytes, within tolerance, differs, missing, extra, not compared, not rerun
    how: str
    files: int = 1
    relative: float | None = None  # the largest relative difference, where only numbers differ

    @property
    def healthy(self) -> bool:
        """Whether it is as it should be."""
        return self.result in HEALTHY


@dataclass
class Report:
    """All that was found."""

    rows: list[Row]
    metrics: list[tuple[str, Change]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # each a reason not to exit with 0

    @property
    def same(self) -> bool:
        """Whether the pipeline repeats."""
        return not self.notes and all(row.healthy for row in self.rows)

    @property
    def summary(self) -> str:
        """What a person wants to know, in one line."""
        total = sum(row.files for row in self.rows)
        differ = sum(row.files for row in self.rows if not row.healthy)
        if differ:
            text = f"{differ:,} of {_count(total, 'file')} {'differs' if differ == 1 else 'differ'}"
        else:
            fates: Counter[str] = Counter()
            for row in self.rows:
                fates[row.result] += row.files
            said = [fate if len(fates) == 1 else f"{n:,} {fate}" for fate, n in fates.items()]
            stages = _count(len({row.stage for row in self.rows}), "stage")
            text = f"All {_count(total, 'file')} of {stages}: {', '.join(said)}"
        numbers = [(c.relative, path, c) for path, c in self.metrics if c.relative is not None]
        if numbers:
            relative, path, change = max(numbers, key=lambda found: found[0])
            text += (
                f"; the largest difference of a metric: {path} {change.key} "
                f"{shown(change.committed)} → {shown(change.rerun)} ({percent(relative)})"
            )
        elif differ and not self.metrics:
            text += "; no metric does"
        return f"{text}."


def judge(clone: Clone, *, targets: bool, tolerance: float | None, ignore: list[str]) -> Report:
    """Compare every out of every stage.

    Parameters
    ----------
    clone : Clone
        Where the pipeline was run again.
    targets : bool
        Whether only some stages were.
    tolerance : float or None
        The relative difference that numbers may have.
    ignore : list of str
        Patterns of paths that may differ, like ``models/*.bin``.
    """
    report = Report([])
    rerun = clone.rerun()
    for stage in [*clone.committed, *(name for name in rerun if name not in clone.committed)]:
        old, new = clone.committed.get(stage, {}), rerun.get(stage)
        if new is None:
            if not targets:
                report.notes.append(f"dvc.lock has the stage {stage}, which dvc.yaml has not.")
            continue
        if stage not in clone.committed:
            report.notes.append(f"dvc.lock has no stage {stage}, which dvc.yaml has.")
        for path in [*old, *(path for path in new if path not in old)]:
            for row in _rows(clone, stage, old.get(path), new.get(path)):
                report.rows.append(_forgiven(row, tolerance, ignore))
    if any(row.result not in ("same bytes", "not rerun") for row in report.rows):
        report.metrics = list(_metrics(clone, rerun))
    return report


def _forgiven(row: Row, tolerance: float | None, ignore: list[str]) -> Row:
    if row.healthy:
        return row
    if any(fnmatch(row.path, pattern) for pattern in ignore):
        return replace(row, result="not compared")
    if tolerance is not None and row.relative is not None and row.relative <= tolerance:
        return replace(row, result="within tolerance")
    return row


def _rows(clone: Clone, stage: str, old: Out | None, new: Out | None) -> Iterator[Row]:
    if new is None:
        assert old is not None
        yield Row(stage, _name(old), "missing", "the rerun's stage has no such out", old.nfiles)
    elif old is None:
        yield Row(stage, _name(new), "extra", "dvc.lock does not have it", new.nfiles)
    elif old.frozen:
        yield Row(stage, _name(old), "not rerun", "its stage is frozen", old.nfiles)
    elif old.md5 == new.md5:
        how = old.md5[:8] + (f"  {_count(old.nfiles, 'file')}" if old.is_folder else "")
        yield Row(stage, _name(old), "same bytes", how, old.nfiles)
    elif old.is_folder != new.is_folder:
        kinds = [("file", "folder")[out.is_folder] for out in (old, new)]
        yield Row(stage, old.path, "differs", f"a {kinds[0]} → a {kinds[1]}", old.nfiles)
    elif old.is_folder:
        yield from _folder(clone, stage, old)
    else:
        files = clone.bytes.files(old)
        assert files is not None
        yield _file(stage, old.path, files[""], clone.root / old.path, old.md5, new.md5)


def _folder(clone: Clone, stage: str, old: Out) -> Iterator[Row]:
    hashes, files = clone.bytes.hashes(old), clone.bytes.files(old)
    if hashes is None or files is None:
        said = "some of its files; which, is not known: the commit's are not here (`dvc pull`)"
        yield Row(stage, _name(old), "differs", said, old.nfiles)
        return
    found = listed(clone.root / old.path)
    digests = {name: md5(path) for name, path in found.items()}
    same = sum(digests.get(name) == digest for name, digest in hashes.items())
    if same:
        yield Row(stage, _name(old), "same bytes", _count(same, "file"), same)
    for name in sorted(hashes.keys() | digests.keys()):
        path = f"{old.path}/{name}"
        if name not in digests:
            yield Row(stage, path, "missing", "the rerun did not write it")
        elif name not in hashes:
            yield Row(stage, path, "extra", "the commit does not have it")
        elif hashes[name] != digests[name]:
            yield _file(stage, path, files[name], found[name], hashes[name], digests[name])


def _file(stage: str, path: str, old: Path | None, new: Path, a: str, b: str) -> Row:
    if old is None:
        how = f"{a[:8]} → {b[:8]}; the commit's bytes are not here (`dvc pull`), so not how"
        return Row(stage, path, "differs", how)
    found = compare(old, new, path)
    return Row(stage, path, "differs", found.text, relative=found.relative)


def _metrics(clone: Clone, rerun: dict[str, dict[str, Out]]) -> Iterator[tuple[str, Change]]:
    """The values that differ in the files of metrics."""
    made = {path: out for outs in clone.committed.values() for path, out in outs.items()}
    again = {path: out for outs in rerun.values() for path, out in outs.items()}
    for path in clone.metrics():
        old, new = made.get(path), again.get(path)
        if old is None or new is None or old.md5 == new.md5 or old.is_folder or new.is_folder:
            continue
        committed = (clone.bytes.files(old) or {}).get("")
        if committed is None:
            continue
        try:
            trees = [read_tree(side, Path(path).suffix) for side in (committed, clone.root / path)]
        except ValueError:
            continue
        for change in changes(*trees):
            yield path, change


def _name(out: Out) -> str:
    return f"{out.path}/" if out.is_folder else out.path


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def show(report: Report, console: Console) -> None:
    """Print the table, the metrics and the summary."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Stage", no_wrap=True)
    table.add_column("File", overflow="fold")
    table.add_column("Rerun", no_wrap=True)
    table.add_column("How", overflow="fold")
    before = ""
    for row, hidden in _abridged(report.rows):
        if hidden:
            table.add_row("", f"… and {_count(hidden, 'file')} more", "", "all of them: --json")
            continue
        table.add_row("" if row.stage == before else row.stage, row.path, row.result, row.how)
        before = row.stage
    console.print()
    console.print(table)
    if report.metrics:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("Metrics that differ", overflow="fold")
        for column in ("Commit", "Rerun", "By"):
            table.add_column(column, justify="right")
        for path, change in report.metrics[:SHOWN]:
            by = "" if change.relative is None else percent(change.relative)
            values = shown(change.committed), shown(change.rerun)
            table.add_row(f"{path} {change.key}", *values, by)
        skipped = len(report.metrics) - SHOWN
        if skipped > 0:
            table.add_row(f"… and {skipped} more (all of them: --json)", "", "", "")
        console.print(table)
    for note in report.notes:
        console.print(note)
    console.print(report.summary)


def _abridged(rows: list[Row]) -> Iterator[tuple[Row, int]]:
    """The rows, those of one folder up to so many; then one for the rest, with their number."""
    for _, group in groupby(rows, key=lambda row: (row.stage, str(Path(row.path).parent))):
        alike = list(group)
        for row in alike[:SHOWN]:
            yield row, 0
        if len(alike) > SHOWN:
            yield alike[SHOWN], len(alike) - SHOWN


def write(report: Report, path: Path, about: dict[str, Any]) -> None:
    """Write all that was found as JSON."""
    document = about | {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "same": report.same,
        "summary": report.summary,
        "notes": report.notes,
        "files": [asdict(row) for row in report.rows],
        "metrics": [
            {
                "file": name,
                "key": change.key,
                "committed": None if change.committed is MISSING else change.committed,
                "rerun": None if change.rerun is MISSING else change.rerun,
                "relative": change.relative,
            }
            for name, change in report.metrics
        ],
    }
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
