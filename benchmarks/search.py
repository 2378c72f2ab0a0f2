"""The time to a given validation RMSE: our search, the course's loop, and Optuna with its pruner.

All sides have the same features (`metered`, green 2021-01 to learn from and 2021-02 to judge on),
the same space, rounds at most and cores, and begin with nothing. The course's loop makes a matrix
and fits to the last round for every trial, one after another. Optuna has its TPE, its pruner, early
stops, matrices that its trials share, the bins of our trials, and its trials side by side. A side
has reached an RMSE when a trial that has it ends; each side runs once for each seed, in turns.

Two RMSEs are looked at: what the course's loop has after some trials (the median of the seeds), and
the lowest that ours and Optuna's both reach with every seed within the budget.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from report import ROOT, Claim, child, report

sys.path.insert(0, str(ROOT / "src"))

LOCK = ROOT / "benchmarks" / "engines.txt"
VENV = ROOT / ".cache" / "bench-venv"
CHILD = ROOT / "benchmarks" / "search_child.py"
CORES = 2
Reached = list[tuple[float, float]]  # (seconds, RMSE) of each trial


def main() -> int:
    """Run the sides and print when each reached what."""
    from course import month

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=120, help="seconds of ours and Optuna's")
    parser.add_argument("--course-trials", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--pruners", nargs="+", default=["median"], help="the best of them counts")
    parser.add_argument("--jobs", type=int, default=CORES, help="Optuna's trials side by side")
    parser.add_argument("--bins", type=int, help="Optuna's; default: those of our trials")
    parser.add_argument("--python", type=Path, help="has Optuna; default: of engines.txt")
    arguments = parser.parse_args()

    if arguments.python is None:
        from trip_duration.environments import environment

        if not environment(VENV, LOCK, "the engines'"):
            print("The environment with Optuna can't be made: see above.")
            return 1
        arguments.python = VENV / "bin" / "python"
    sides: dict[str, list[str | Path]] = {"ours": [sys.executable, CHILD, "ours"]}
    sides["the course's loop"] = [sys.executable, CHILD, "course"]
    more = ["--jobs", str(arguments.jobs)]
    more += ["--bins", str(arguments.bins)] if arguments.bins else []
    for pruner in arguments.pruners:
        sides[f"Optuna, {pruner}"] = [arguments.python, CHILD, "optuna", "--pruner", pruner, *more]
    reached: dict[str, list[Reached]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), month("2021-01"), month("2021-02"))
        for seed in arguments.seeds:
            for name, command in sides.items():
                given = ["--seed", str(seed), "--budget", str(arguments.budget)]
                if name == "the course's loop":
                    given = ["--seed", str(seed), "--budget", "1e6"]
                    given += ["--trials", str(arguments.course_trials)]
                run = child([*command[:3], folder, *command[3:], *given])
                lines = [json.loads(line) for line in run.output.splitlines()]
                trials = [(line["seconds"], line["rmse"]) for line in lines]
                if name != "the course's loop":  # a trial that ends late is over the budget
                    trials = [trial for trial in trials if trial[0] <= arguments.budget]
                reached[name].append(trials)
                best = min((rmse for _, rmse in trials), default=np.inf)
                last = max((seconds for seconds, _ in trials), default=np.inf)
                print(f"  seed {seed}, {name}: {len(trials)} whole trials in {last:.0f} s,")
                print(f"    the best {best:.3f}; ever better at {steps(trials)}", flush=True)
    return told(reached, arguments)


def told(reached: dict[str, list[Reached]], arguments: argparse.Namespace) -> int:
    """Make claims of what was reached."""
    ours, course = reached["ours"], reached["the course's loop"]
    others = {name: runs for name, runs in reached.items() if name.startswith("Optuna")}
    easy = statistics.median_high(min(rmse for _, rmse in trials) for trials in course)
    hard = max(
        min((rmse for _, rmse in trials), default=np.inf)
        for runs in [ours, *others.values()]
        for trials in runs
    )
    claims = []
    mine, theirs = seconds_to(easy, ours), seconds_to(easy, course)
    claims.append(
        Claim(
            what=f"the course's loop, to {easy:.3f} minutes",
            value=theirs / mine,
            unit="times our time",
            bound=5.0,
            at_least=True,
            detail=f"{theirs:.1f} s and {mine:.1f} s",
        )
    )
    for target in sorted({easy, hard}, reverse=True):
        times = {name: seconds_to(target, runs) for name, runs in others.items()}
        best = min(times, key=lambda name: times[name])
        mine = seconds_to(target, ours)
        late = times[best] > arguments.budget  # then it takes the budget at least
        theirs = arguments.budget if late else times[best]
        claims.append(
            Claim(
                what=f"ours, to {target:.3f} minutes",
                value=mine / theirs,
                unit=f"times the time of {best}",
                bound=1.0,
                detail=f"{mine:.1f} s and {'more than ' if late else ''}{theirs:.1f} s",
            )
        )
    return report(
        "search",
        claims,
        f"green 2021-01 → 2021-02, metered, {CORES} cores, medians of {len(arguments.seeds)} seeds,"
        f" {arguments.budget:g} s each and {arguments.course_trials} trials of the course's loop.",
    )


def seconds_to(target: float, runs: Sequence[Reached]) -> float:
    """The median over the seeds of the seconds to an RMSE; one never reached is infinite."""
    return statistics.median(
        min((seconds for seconds, rmse in trials if rmse <= target), default=np.inf)
        for trials in runs
    )


def steps(trials: Reached) -> str:
    """Each trial that was better than all before it, as text."""
    best, said = np.inf, []
    for seconds, rmse in trials:
        if rmse < best:
            best = rmse
            said.append(f"{seconds:.0f} s: {rmse:.3f}")
    return ", ".join(said)


def write(folder: Path, learned: Path, judged: Path) -> None:
    """The features, answers and settings that all sides get."""
    from accuracy import places, trips_of
    from trip_duration import params
    from trip_duration.features import FeatureBuilder

    chosen = params.load(ROOT / "params.yaml")
    months = [trips_of(path) for path in (learned, judged)]
    builder = FeatureBuilder.fit([months[0]], preset="metered", seed=chosen.seed, places=places())
    made = [builder.transform_training(months[0]), builder.transform(months[1])]
    for features, names in zip(made, (("X", "y"), ("V", "v")), strict=True):
        np.save(folder / f"{names[0]}.npy", builder.matrix(features))
        np.save(folder / f"{names[1]}.npy", features["duration"].to_numpy())
    settings: dict[str, Any] = chosen.search.model_dump(exclude={"sample_rows"})
    settings["max_bin"] = chosen.search.max_bin or chosen.train.max_bin
    given: dict[str, Any] = {"names": builder.columns, "types": builder.feature_types}
    given |= {"settings": settings, "cores": CORES}
    (folder / "given.json").write_text(json.dumps(given))


if __name__ == "__main__":
    sys.exit(main())
