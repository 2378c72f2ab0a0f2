"""The whole pipeline, rerun from its commit elsewhere and compared: ``make verify``."""

import sys
from pathlib import Path

from tests.pipeline.conftest import Clone

STAGES = ["ingest", "featurize", "search", "train", "evaluate"]


def test_the_committed_pipeline_writes_the_same_bytes(trained: Clone, tmp_path: Path) -> None:
    done = trained.run(sys.executable, "src/dvc_verify", "--set", "", TMPDIR=str(tmp_path))
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("Rerun ")] == STAGES
    head = next(number for number, line in enumerate(lines) if line.startswith(" Stage "))
    table = [line for line in lines[head:] if " same bytes " in line]
    assert [line.split()[0] for line in table if not line.startswith("  ")] == STAGES
    assert len(table) == 23  # outs: folders have a row if they are the same
    assert lines[-1].startswith("All ")
    assert lines[-1].endswith(" files of 5 stages: same bytes.")
    assert trained.git("status", "--porcelain") == ""
    assert not list(tmp_path.glob("verify again*"))
    Clone(tmp_path).check_that_nothing_runs()
