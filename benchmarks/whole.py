"""`make train` with 50 trials, from raw months to the evaluated model, beside the course's one fit.

Ours is the whole pipeline on green taxi's January and February 2021 in a scratch clone of what is
committed, whose environment is ready and whose pages have been opened once; the course's is the
fit alone, features ready (benchmarks/course.py). The settings that differ from params.yaml are in
`SETTINGS`: trials learn from a sample, and the model takes fewer and larger steps.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from course import EXPECTED, month
from report import ROOT, Claim, Run, child, in_turns, median, report

LOWER = 1.2  # minutes below the course's RMSE
SETTINGS = {
    "data.taxi": "green",
    "data.train": "[2021-01]",
    "data.validation": "[2021-02]",
    "data.test": "[]",
    "search.max_evals": "50",
    "search.sample_rows": "15000",
    "train.params": "{learning_rate: 0.12}",
    "train.max_bin": "128",
    "train.num_parallel_tree": "1",
}


def ours(scratch: Path, number: int) -> tuple[Run, float]:
    """A whole run in a clone of its own, and the validation RMSE."""
    clone = scratch / str(number)
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    folder = month("2021-01").parent
    source = f"{folder}/{{taxi}}_tripdata_{{year}}-{{month}}.parquet"
    text = " ".join(f"{key}={value}" for key, value in SETTINGS.items())
    run = child(
        [sys.executable, clone / "src/commands", "train"], SET=f"data.source={source} {text}"
    )
    found = json.loads((clone / "metrics/evaluation.json").read_text(encoding="utf-8"))
    return run, found["validation"]["model"]["rmse"]


def theirs() -> float:
    """The seconds of the course's fit."""
    said = child([sys.executable, ROOT / "benchmarks/course.py"]).output
    return float(re.findall(r"rounds, (\d+) s", said)[0])


def main() -> int:
    """Run both in turns, and say whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        numbers = iter(range(chosen.rounds))
        sides = {"ours": lambda: ours(Path(scratch), next(numbers)), "course": theirs}
        found = in_turns(sides, chosen.rounds)
    errors = {error for _, error in found["ours"]}
    if len(errors) > 1:
        print(f"The runs do not repeat: RMSE {sorted(errors)}.", file=sys.stderr)
        return 1
    seconds = median([run for run, _ in found["ours"]])
    fit = sorted(found["course"])[chosen.rounds // 2]
    claims = [
        Claim(
            "make train, 50 trials",
            seconds / fit,
            "times one fit of the course's",
            1.0,
            detail=f"{seconds:.1f} and {fit:.0f} s",
        ),
        Claim(
            "validation RMSE below the course's",
            EXPECTED - errors.pop(),
            "minutes",
            LOWER,
            at_least=True,
        ),
    ]
    conditions = f"Green taxi 2021-01 and 2021-02, median of {chosen.rounds} runs in turns."
    return report("whole", claims, conditions)


if __name__ == "__main__":
    sys.exit(main())
