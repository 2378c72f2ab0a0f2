"""A model's card, and the line that makes the model again."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_gate import RULES, found

from trip_duration import cards, origins, params
from trip_duration.cards import card
from trip_duration.files import write_json
from trip_duration.gate import Slice, Verdict, decide
from trip_duration.origins import Origin
from trip_duration.params import Params

ERRORS = {"rmse": 4.0, "mae": 2.5, "p50": 1.5, "p90": 6.0, "bias": -0.25}
MADE = Origin("c0ffee", "seed=7", False, {"max_depth": 9})


@pytest.fixture(scope="session")
def text(root: Path) -> str:
    return (root / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def chosen(text: str) -> Params:
    return params.override(text, {"data.source": "tlc"})[1]


def test_a_card_has_what_one_asks_of_a_model(chosen: Params) -> None:
    verdict = decide(found(), RULES, learned=["2024-04"])
    lines = card(chosen, MADE, "0123456789ab", verdict, ERRORS, "6").splitlines()
    for line in (
        "# Trip duration, green taxis, metered",
        "**Promoted to champion**, judged against version 6 and the baselines (model "
        "`0123456789ab`):",
        "- RMSE 4.000 is 20.0% below that of the champion (5.000)",
        "Taxi trips in New York from TLC's records, 1 to 60 minutes long.",
        "| train | 2024-01, 2024-02 |",
        "| judged on | 2024-04: 1,000 trips |",
        "| this model | 4.000 |",
        "| champion, version 6 | 5.000 |",
        "| the zone pair's median | 6.000 |",
        "This model's other errors: mae 2.500, p50 1.500, p90 6.000, bias -0.250.",
        "| slice | trips | this model | champion |",
        "| hour 09 | 99 | 50.000 | 5.000 |",
        "91.0% of the trips lie in theirs (90% should); they are 10.0 minutes wide on average.",
        "- The champion learned from 2024-04, whose trips judge here: that favours it over the "
        "challenger.",
        "git checkout c0ffee && make train SET='seed=7'",
        "XGBoost: max_depth 9.",
    ):
        assert line in lines
    assert not any("simulated" in line for line in lines)


def test_a_first_models_card_speaks_of_no_champion(text: str) -> None:
    _, simulated = params.override(text, {"data.test": []})
    alone = found(champion_rmse=None, slices=(Slice("hour", "08", 9, 3.0, None),))
    said = card(simulated, Origin("", "", False, {}), "0123456789ab", decide(alone, RULES), ERRORS)
    assert "judged against the baselines (" in said
    assert "champion," not in said
    assert "| slice | trips | this model |\n|---|---:|---:|\n| hour 08 | 9 | 3.000 |\n" in said
    assert "| test | none |" in said
    assert "- Its trips are simulated: of real traffic it knows nothing." in said
    assert "To make it again" not in said


def test_a_model_that_was_kept_says_so_and_of_what_code_it_is(chosen: Params) -> None:
    verdict = decide(found(rmse=5.5), RULES)
    said = card(chosen, Origin("c0ffee", "", True, {}), "0123456789ab", verdict, ERRORS, "6")
    assert "**Kept as challenger**" in said
    assert "- The code differed from the commit below" in said


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=300),
    st.text(max_size=3000),
    st.lists(st.text(max_size=200), max_size=12),
)
@settings(max_examples=30, deadline=None)
def test_a_card_has_room_in_every_store(
    chosen: Params, trips: list[int], said: str, notes: list[str]
) -> None:
    slices = tuple(
        Slice("borough", f"{number:03}", 1 + count, 4.0 + number, 5.0)
        for number, count in enumerate(trips)
    )
    verdict = decide(found(slices=slices, notes=tuple(notes)), RULES)
    made = Origin("c0ffee", said, False, {"max_depth": 9})
    text = card(chosen, made, "0123456789ab", verdict, ERRORS, "6")
    assert len(text) <= cards.LONGEST


def test_the_worst_slices_come_first_and_those_left_out_are_counted(chosen: Params) -> None:
    slices = tuple(Slice("hour", f"{number:03}", 9, 1.0 + number, 10.0) for number in range(300))
    verdict: Verdict = decide(found(slices=slices), RULES)
    lines = card(chosen, MADE, "0123456789ab", verdict, ERRORS, "6").splitlines()
    shown = [line.split(" |")[0] for line in lines if line.startswith("| hour")]
    assert shown == [f"| hour {number:03}" for number in range(299, 299 - len(shown), -1)]
    assert f"and {300 - len(shown)} others that it is better at." in lines
    assert "## To make it again" in lines


def test_the_rows_are_those_of_the_checks() -> None:
    verdict = decide(found(), RULES)
    rows = cards.rows(verdict)
    assert [row["against"] for row in rows] == [
        "the mean",
        "the zone pair's median",
        "the champion",
        "the champion",
        "its level",
    ]
    assert rows[3] == {
        "against": "the champion",
        "trips of": "hour 08",
        "trips": 100,
        "challenger": 5.0,
        "rival": 5.0,
        "difference": 0.0,
        "bound": 0.05,
        "passed": "yes",
    }


# -- what a model was made with ------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"seed": 7},
        {"data.train": ["2023-11", "2023-12"], "data.test": []},
        {"data.source": "../a place/{taxi}_tripdata_{year}-{month}.parquet"},
        {"train.params": {"max_depth": 4, "grow_policy": "depthwise"}, "train.level_days": 3},
        {"search.space": {"max_depth": {"uniformint": [3, 4]}}, "search.points_to_evaluate": []},
        {"features.preset": "custom", "features.categorical": ["PU_DO"], "train.half_life": None},
    ],
)
def test_the_differences_make_the_settings(text: str, overrides: dict[str, Any]) -> None:
    changed, settings = params.override(text, overrides)
    said = origins.differences(plain(text), plain(changed))
    assert (said == "") == (not overrides)
    assert params.override(text, params.parse_overrides(said))[1] == settings


def plain(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)


def test_the_line_comes_through_the_shell_and_make(tmp_path: Path) -> None:
    said = 'data.source="it\'s $HOME/{taxi}" seed=7'
    line = origins.command(Origin("c0ffee", said, False, {}))
    head, _, rest = line.partition(" && ")
    assert head == "git checkout c0ffee"
    (tmp_path / "Makefile").write_text("export SET\ntrain:\n\t@printenv SET\n")
    # The tests may have been started by make themselves.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["bash", "-c", rest], cwd=tmp_path, env=plain, capture_output=True, text=True
    )
    assert done.stdout == f"{said}\n"


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_an_origin_is_the_commit_and_what_differs_from_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "search").mkdir()
    write_json({"params": {"max_depth": 9, "reg_alpha": 0.5}}, tmp_path / "search/best_params.json")
    assert origins.origin(tmp_path).commit == ""  # no clone
    (tmp_path / "src").mkdir()
    (tmp_path / "src/code.py").write_text("one = 1\n")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    booster = {"max_depth": 9, "reg_alpha": 0.5}
    assert origins.origin(tmp_path) == Origin(commit, "", False, booster)
    changed, _ = params.override(text, {"seed": 7, "train.params": {"reg_alpha": 0.25}})
    (tmp_path / "params.yaml").write_text(changed)
    (tmp_path / "src/code.py").write_text("one = 2\n")
    assert origins.origin(tmp_path) == Origin(
        commit, "seed=7 train.params={reg_alpha: 0.25}", True, booster | {"reg_alpha": 0.25}
    )
