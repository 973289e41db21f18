"""The table of the Helm chart's values, made of ``values.yaml`` and its comments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from tools.docs.markdown import CHART, table

_MARK = "# -- "


def values(_: str) -> str:
    """Return a row for each value that a comment describes; raises `ValueError` for one that none describes."""
    text = (CHART / "values.yaml").read_text()
    described = dict(_comments(text))
    defaults = dict(_leaves(yaml.safe_load(text), described))
    if forgotten := sorted(defaults.keys() - described.keys()):
        raise ValueError(f"values.yaml: a comment that begins with -- must describe {', '.join(forgotten)}")
    rows = [(f"`{name}`", f"`{json.dumps(defaults[name])}`", text) for name, text in described.items()]
    return table(("value", "default", "meaning"), rows)


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each described value with its comment, in the order of the file."""
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        depth, word = (len(line) - len(line.lstrip())) // 2, line.strip()
        if word.startswith(_MARK):
            comment = [word.removeprefix(_MARK)]
        elif word.startswith("#"):
            comment += [word.removeprefix("#").strip()] if comment else []
        elif ":" in word and not word.startswith("-"):
            path = [*path[:depth], word.partition(":")[0]]
            if comment:
                yield ".".join(path), " ".join(comment)
            comment = []


def _leaves(raw: Mapping[str, Any], described: Mapping[str, str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value with its path: a mapping that has a comment of its own is one value."""
    for key, value in raw.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and name not in described:
            yield from _leaves(value, described, f"{name}.")
        else:
            yield name, value
