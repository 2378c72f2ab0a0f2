"""Settings that are changed for one run."""

import difflib
import json
import re
from pathlib import Path
from typing import Any

from dvc_verify.errors import VerifyError

__all__ = ["change", "parse"]


def parse(texts: list[str]) -> dict[str, str]:
    """Read ``key=value``, several in one text if need be: a value ends where ``key=`` comes next.

    Parameters
    ----------
    texts : list of str
        What the options say.

    Returns
    -------
    dict
        The values, as they are written, by key.

    Raises
    ------
    VerifyError
        If a text does not read as that, or a key comes twice.
    """
    found: dict[str, str] = {}
    for text in map(str.strip, texts):
        starts = list(re.finditer(r"(?:^|\s+)((?:[^\s=:]+:)?[A-Za-z_][\w.-]*)=", text))
        if text and (not starts or starts[0].start() != 0):
            raise VerifyError(f"--set has {text.split()[0]!r}: expected key=value, like seed=7.")
        ends = [*(start.start() for start in starts[1:]), len(text)]
        for start, end in zip(starts, ends, strict=False):
            if start[1] in found:
                raise VerifyError(f"--set has {start[1]} twice: give it once.")
            found[start[1]] = text[start.end() : end].strip()
    return found


def change(root: Path, given: str, text: str) -> None:
    """Change a setting in ``params.yaml``, or in the file that the key begins with: ``file:key``.

    Parameters
    ----------
    root : Path
        The folder of the file.
    given : str
        The key, with dots between its parts.
    text : str
        The value, as YAML.

    Raises
    ------
    VerifyError
        If there is no such key, or the value is no YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    name, _, key = given.rpartition(":")
    path = root / (name or "params.yaml")
    if not path.is_file() or path.suffix not in (".yaml", ".yml", ".json"):
        raise VerifyError(
            f"--set {given}: the commit has no {name or path.name} in YAML or JSON to change."
        )
    yaml = YAML()
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError):
        raise VerifyError(f"--set {given} is {text!r}: that is no valid YAML.") from None
    tree = yaml.load(path)
    _assign(tree, key, value, path.name)
    with path.open("w", encoding="utf-8") as file:
        if path.suffix == ".json":
            json.dump(tree, file)
        else:
            yaml.dump(tree, file)


def _assign(tree: Any, key: str, value: Any, file: str) -> None:
    node = tree
    *groups, last = key.split(".")
    for group in groups:
        node = node.get(group) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        near = difflib.get_close_matches(key, _keys(tree), n=1)
        hint = f"did you mean {near[0]}?" if near else "look for its name there."
        raise VerifyError(f"--set {key}: {file} has no such key; {hint}")
    node[last] = value


def _keys(tree: Any, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return []
    return [
        key
        for name, inner in tree.items()
        for key in (f"{prefix}{name}", *_keys(inner, f"{prefix}{name}."))
    ]
