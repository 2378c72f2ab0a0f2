"""What orchestration costs: `dvc repro` beside the same functions, called one after another.

Both sides run the pipeline with the settings of params.yaml, but fewer trials, in clones of their
own. The functions run in one process, without DVC, Prefect and MLflow. What `dvc repro` takes more
is the cost of the three together: starting processes and importing, hashing, the server and its
records.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import ROOT, Claim, report

CLAIMS = {"cold": 35.0, "server up": 20.0, "nothing to do": 3.0}  # seconds at most

# The stages' own functions, with decorators that change nothing and a log that logs nothing.
PLAIN = """
import contextlib, sys
sys.path.insert(0, "src")
from trip_duration import orchestration, params, tracking
orchestration.task = lambda function=None, **_: function or (lambda f: f)
orchestration.stage_flow = lambda name: (lambda function: function)
orchestration.table = orchestration.markdown = lambda *_, **__: None
class Silent:
    def trial(self, *_, **__): pass
    def finish(self, *_): pass
tracking.search_run = lambda *_, **__: contextlib.nullcontext(Silent())
tracking.tags = lambda *_, **__: {}
tracking.log_model = lambda *_, **__: None
settings = params.load()
from stages.ingest import ingest
from stages.featurize import featurize
from stages.search import search
from stages.train import train
from stages.evaluate import evaluate
for stage in (ingest, featurize, search, train, evaluate):
    stage(settings)
"""


def main() -> int:
    """Measure, print the table, and return 1 if a claim is not met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        _fewer_trials(folder, arguments.trials)
        plain = timed([sys.executable, "-c", PLAIN], folder)
        print(f"The functions, one after another: {plain:.1f} s", flush=True)
        _forget(folder, ["data", "models", "dvc.lock", ".cache", ".dvc/cache", ".dvc/tmp"])
        cold = timed(dvc("repro"), folder) - plain
        _forget(folder, ["data", "models", "dvc.lock", ".cache", ".dvc/cache", ".dvc/tmp"])
        with _server(folder):
            up = timed(dvc("repro"), folder) - plain
        nothing = statistics.median(timed(dvc("repro"), folder) for _ in range(3))
    measured = {"cold": cold, "server up": up, "nothing to do": nothing}
    details = {
        "cold": f"{plain + cold:.1f} s and {plain:.1f} s",
        "server up": f"{plain + up:.1f} s and {plain:.1f} s",
        "nothing to do": "median of 3",
    }
    claims = [
        Claim(
            f"dvc repro, {name}",
            seconds,
            "s" if name == "nothing to do" else "s more than the functions",
            CLAIMS[name],
            detail=details[name],
        )
        for name, seconds in measured.items()
    ]
    conditions = f"The settings of params.yaml with {arguments.trials} trials, in a clone."
    return report("orchestration", claims, conditions)


def _fewer_trials(folder: Path, trials: int) -> None:
    sys.path.insert(0, str(ROOT / "src"))
    from trip_duration import params

    path = folder / "params.yaml"
    path.write_text(params.override(path.read_text(), {"search.max_evals": trials})[0])


def dvc(*arguments: str) -> list[str]:
    """The command that runs DVC with this interpreter."""
    return [sys.executable, "-m", "dvc", *arguments]


def timed(command: list[str], folder: Path) -> float:
    """The seconds that a command takes there, with this environment's programs first."""
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": os.pathsep.join([programs, os.environ["PATH"]])}
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _forget(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _server(folder: Path) -> subprocess.Popen[bytes]:
    """A Prefect server for the clone, kept for this process."""
    code = (
        "import sys; sys.path.insert(0, 'src'); from trip_duration import orchestration as o; "
        f"o.begin('.', watch={os.getpid()}); o.ready(); print('up', flush=True); "
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.readline()
    return process


if __name__ == "__main__":
    sys.exit(main())
