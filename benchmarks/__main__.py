"""Run every benchmark, one after another: ``make bench``; or those named, like ``course``.

Then write docs/benchmarks.md from what they have kept; one that did not run keeps its last figures.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from report import PAGE, ROOT, page

HERE = Path(__file__).resolve().parent
ALL = (
    "ingest",
    "featurize",
    "scoring",
    "featurize_stage",
    "search",
    "whole",
    "beyond_memory",
    "startup",
    "orchestration",
    "fresh_clone",
    "course",
    "accuracy",
    "drift",
    "serving",
    "automl",
)


def main(names: list[str]) -> int:
    """Run them, and return how many did not meet what they claim."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    unknown = sorted(set(names) - set(ALL))
    if unknown:
        print(f"there is no benchmark {unknown[0]}: expected {', '.join(ALL)}.", file=sys.stderr)
        return 2
    missed = []
    for name in names or ALL:
        began = time.perf_counter()
        print(f"── {name}", flush=True)
        if subprocess.call([sys.executable, str(HERE / f"{name}.py")]):
            missed.append(name)
        print(f"   ({time.perf_counter() - began:.0f} s)\n", flush=True)
    PAGE.write_text(page(ALL), encoding="utf-8")
    print(f"All figures are in {PAGE.relative_to(ROOT)}.")
    print(f"Not met: {', '.join(missed)}." if missed else "All claims are met.")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
