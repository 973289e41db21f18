"""The part of the shipped rules that a promtool test asks for: promtool takes longer with every rule it evaluates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from tests.rules.bundle import load

Group: TypeAlias = dict[str, Any]
_NAME = re.compile(r"[a-zA-Z_:][\w:]*", re.ASCII)
_PATTERN = re.compile(r'__name__=~"([^"]+)"')
_ALERTS = re.compile(r"ALERTS(?:\{[^}]*alertname=\"(\w+)\"|)")


def part_of(groups: Iterable[Group], *, alerts: Iterable[str] = (), queries: Iterable[str] = ()) -> list[Group]:
    """Groups without the rules on which neither these alerts nor the results of these queries depend."""
    groups = list(groups)
    texts: dict[str, str] = {}
    for rule in (rule for group in groups for rule in group["rules"]):
        texts[_name(rule)] = " ".join(
            (texts.get(_name(rule), ""), str(rule["expr"]), *rule.get("annotations", {}).values())
        )
    every_alert = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    asked = [*alerts, *(alert for query in queries for alert in _ALERTS.findall(query))]
    needed = set(asked) & texts.keys() | (every_alert if "" in asked else set())
    new = needed | {name for query in queries for name in _read(query, texts.keys())}
    while new:
        needed |= new
        new = {name for one in new for name in _read(texts[one], texts.keys())} - needed
    kept = ({**group, "rules": [rule for rule in group["rules"] if _name(rule) in needed]} for group in groups)
    return [group for group in kept if group["rules"]]


def _name(rule: dict[str, Any]) -> str:
    return str(rule.get("record") or rule["alert"])


def _read(text: str, names: Iterable[str]) -> set[str]:
    """Which of these a query, or a rule with the queries in its texts, names or selects by a pattern."""
    return {*_NAME.findall(text)} & {*names} | {
        name for pattern in _PATTERN.findall(text) for name in names if re.fullmatch(pattern, name)
    }


def write_parts(path: Path, folder: Path) -> list[Path]:
    """A promtool test file taken apart: one of each of its tests, with the rules that it asks for."""
    content = load(path)
    groups = [group for file in content["rule_files"] for group in load(path.parent / file)["groups"]]
    written = []
    for number, test in enumerate(content["tests"]):
        part = part_of(
            groups,
            alerts=[check["alertname"] for check in test.get("alert_rule_test", ())],
            queries=[check["expr"] for check in test.get("promql_expr_test", ())],
        )
        written.append(write_test(folder / f"{number}.yml", {**content, "tests": [test]}, part))
    return written


def write_test(path: Path, content: dict[str, Any], groups: list[Group]) -> Path:
    """A promtool test file of such content, with these rules in a file beside it."""
    rules = path.with_suffix(".rules.yml")
    rules.write_text(yaml.dump({"groups": groups}, Dumper=yaml.CSafeDumper, sort_keys=False))
    path.write_text(yaml.dump({**content, "rule_files": [rules.name]}, Dumper=yaml.CSafeDumper, sort_keys=False))
    return path
