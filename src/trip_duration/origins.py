"""What a model was made with, and the line for a shell that makes it again."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trip_duration import params
from trip_duration.errors import SettingsError
from trip_duration.files import read_json
from trip_duration.git import said

__all__ = ["Origin", "booster", "command", "differences", "origin"]

CODE = ("src", "dvc.yaml", "requirements.txt")  # what decides over a model, beside the settings

_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")


@dataclass(frozen=True)
class Origin:
    """What a model was made with.

    Attributes
    ----------
    commit : str
        Git's, of the code; empty outside of a clone.
    settings : str
        What ``SET`` must be for the commit to make the model; empty if its own settings do.
    changed : bool
        Whether the code differed from the commit.
    booster : mapping
        XGBoost's parameters: what the search found, and what ``train.params`` sets over it.
    """

    commit: str
    settings: str
    changed: bool
    booster: Mapping[str, Any]


def origin(workspace: str | Path) -> Origin:
    """What the model in a workspace was made with, as git and its files have it."""
    folder = Path(workspace)
    commit = said(folder, "rev-parse", "HEAD")
    if not commit:
        return Origin("", "", False, booster(folder))
    before = _plain(said(folder, "show", "HEAD:./params.yaml"))
    after = _plain((folder / "params.yaml").read_text(encoding="utf-8"))
    changed = said(folder, "status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return Origin(commit, differences(before, after), bool(changed), booster(folder))


def booster(workspace: str | Path) -> dict[str, Any]:
    """XGBoost's parameters: what the search found, and what ``train.params`` sets over it."""
    folder = Path(workspace)
    found = read_json(folder / "search/best_params.json")["params"]
    return {**found, **params.load(folder / "params.yaml").train.params}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What ``SET`` must be to make the settings ``after`` of ``before``, both as plain data.

    `params.parse_overrides` reads it.
    """
    return " ".join(f"{key}={_flow(value)}" for key, value in _changed(before, after).items())


def command(made: Origin) -> str:
    """The line for a shell that makes the model again; empty where no commit is known."""
    if not made.commit:
        return ""
    value = made.settings.replace("$", "$$").replace("'", "'\\''")  # make's own, and the shell's
    return f"git checkout {made.commit} && make train" + (f" SET='{value}'" if value else "")


def _changed(before: Mapping[str, Any], after: Mapping[str, Any], above: str = "") -> dict:
    found: dict[str, Any] = {}
    for name, value in after.items():
        old, key = before.get(name), f"{above}{name}"
        if isinstance(value, dict) and isinstance(old, dict) and value.keys() == old.keys():
            found |= _changed(old, value, f"{key}.")
        elif name not in before or value != old or type(value) is not type(old):
            found[key] = value
    return found


def _flow(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_flow(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return value if _is_plain(value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _is_plain(text: str) -> bool:
    """Whether YAML reads a text without quotes as that text."""
    if not _PLAIN.fullmatch(text):
        return False
    try:
        return params.parse_overrides(f"key={text}") == {"key": text}
    except SettingsError:
        return False


def _plain(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text) or {}
