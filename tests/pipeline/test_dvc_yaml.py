"""dvc.yaml says what each stage reads and writes; these tests hold it against the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

STAGES = ("ingest", "featurize", "search", "train", "evaluate")
# What leaves no trace in what a stage writes: how it is run, tracked and spoken of.
AROUND = {
    "cluster",
    "errors",
    "interrupts",
    "locking",
    "orchestration",
    "params",
    "processes",
    "runs",
    "tracking",
}
WHO = {f"engine.{name}" for name in ("runner", "dask_scheduler", "workers", "storage")}
# What the stages know nothing of: it is for what is done with the model.
AFTER = ("monitor.", "promotion.", "retrain.", "serve.")
# Imported for people's own files, which no stage after ingest reads: features.read_dataframe.
NOT_RUN = {("features.py", "trip_duration/sources/files.py")}


@pytest.fixture(scope="module")
def pipeline(root: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(root / "dvc.yaml")


def imported(path: Path, source: Path) -> set[Path]:
    """The library's modules that a file imports, wherever in it, followed to the end."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        importer = waiting.pop()
        tree = ast.parse(importer.read_text(encoding="utf-8"))
        # What stands under `if TYPE_CHECKING` is never run.
        skipped = {
            node
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for node in ast.walk(block)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node in skipped or not node.module:
                continue
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                relative = f"{name.replace('.', '/')}.py"
                module = source / relative
                if (importer.name, relative) in NOT_RUN:
                    continue
                if module.exists() and module not in found:
                    found.add(module)
                    waiting.append(module)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_decides_its_bytes(
    root: Path, pipeline: dict[str, Any], stage: str
) -> None:
    script = root / "src" / "stages" / f"{stage}.py"
    modules = {
        module
        for module in imported(script, root / "src")
        if not (module.parent.name == "trip_duration" and module.stem in AROUND)
    }
    needed = {path.relative_to(root).as_posix() for path in {*modules, script}}
    deps = {dep for dep in pipeline["stages"][stage]["deps"] if dep.startswith("src/")}
    folders = {dep for dep in deps if (root / dep).is_dir()}
    loose = {path for path in needed if not any(path.startswith(f"{f}/") for f in folders)}
    assert deps - folders == loose


def test_the_stages_follow_one_another(pipeline: dict[str, Any]) -> None:
    assert tuple(pipeline["stages"]) == STAGES
    for stage, settings in pipeline["stages"].items():
        assert settings["cmd"] == f"python src/stages {stage}"
        assert settings["desc"]


def test_only_evaluate_reads_the_code_of_plots_and_the_test_months(
    pipeline: dict[str, Any],
) -> None:
    def readers(path: str) -> list[str]:
        return [name for name, stage in pipeline["stages"].items() if path in stage["deps"]]

    assert readers("src/trip_duration/plots.py") == ["evaluate"]
    assert readers("data/features") == ["evaluate"]
    assert readers("data/features/train") == ["search", "train"]
    assert readers("data/trips") == ["featurize", "evaluate"]


def test_every_plot_draws_a_file_that_a_stage_writes(pipeline: dict[str, Any]) -> None:
    outs = {
        path
        for stage in pipeline["stages"].values()
        for out in stage["outs"]
        for path in ([out] if isinstance(out, str) else out)
    }
    drawn = {path for plot in pipeline["plots"] for one in plot.values() for path in one["y"]}
    assert drawn <= outs
    assert {path for path in outs if path.startswith("plots/")} <= drawn


def test_every_setting_is_read_by_a_stage(root: Path, pipeline: dict[str, Any]) -> None:
    settings = YAML(typ="safe", pure=True).load(root / "params.yaml")
    read = {name for stage in pipeline["stages"].values() for name in stage["params"]}

    def leaves(node: Any, path: str = "") -> Iterator[str]:
        if not isinstance(node, dict) or path in read:
            yield path
            return
        for name, inner in node.items():
            yield from leaves(inner, f"{path}.{name}".lstrip("."))

    unread = {leaf for leaf in leaves(settings) if not leaf.startswith(AFTER)} - read
    assert unread == WHO
    for name in read:
        node = settings
        for part in name.split("."):
            node = node[part]


def test_every_target_of_the_makefile_is_explained(root: Path) -> None:
    text = (root / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.*)$", text, re.M)
    assert set(re.findall(r"^([a-z-]+):.*## \S", text, re.M)) == set(phony.split())
