"""The shipped rules and their promtool tests, parsed into values that the checks ask questions of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "alerts"
RULES = sorted((ALERTS / "rules").glob("*.yml"))
TESTS = sorted(Path(__file__).parent.glob("*_test.yml"))

Yaml: TypeAlias = "dict[str, Yaml] | list[Yaml] | str | int | float | None"
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded series; its ``labels`` are those that the rule adds."""

    name: str
    expr: str
    labels: Mapping[str, str]
    file: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert; one name may have several, told apart by their labels. ``keeps``: seconds, of ``keep_firing_for``."""

    name: str
    expr: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    has_for: bool
    keeps: int
    file: str

    def __str__(self) -> str:
        return "-".join((self.name, *(value for key, value in self.labels.items() if key != "area")))


@dataclass(frozen=True, slots=True)
class Check:
    """The expectation of one test for one alert name at one moment (seconds): the labels of those that fire."""

    test: str
    at: int
    alert: str
    firing: tuple[Mapping[str, str], ...]


def seconds(duration: str) -> int:
    """``1h30m`` in seconds."""
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([dhms])", duration))


def load(path: Path) -> Any:
    """Return a YAML file's content, by the parser in C: ours are long, and every test process reads them."""
    return yaml.load(path.read_text(), Loader=yaml.CSafeLoader)


def _rules() -> Iterator[tuple[str, dict[str, dict[str, str]]]]:
    for path in RULES:
        for group in load(path)["groups"]:
            for rule in group["rules"]:
                yield path.name, rule


@cache
def recordings() -> tuple[Recording, ...]:
    """Every recording rule, in file order."""
    return tuple(
        Recording(str(rule["record"]), str(rule["expr"]), rule.get("labels", {}), file)
        for file, rule in _rules()
        if "record" in rule
    )


@cache
def alerts() -> tuple[Alert, ...]:
    """Every alert rule, in file order."""
    return tuple(
        Alert(
            name=str(rule["alert"]),
            expr=str(rule["expr"]),
            labels=rule["labels"],
            annotations=rule["annotations"],
            has_for="for" in rule,
            keeps=seconds(str(rule.get("keep_firing_for", ""))),
            file=file,
        )
        for file, rule in _rules()
        if "alert" in rule
    )


@cache
def checks() -> tuple[Check, ...]:
    """Every expectation of the promtool tests."""
    return tuple(
        Check(
            test=f"{path.stem}: {test['name']}",
            at=seconds(check["eval_time"]),
            alert=check["alertname"],
            firing=tuple(alert["exp_labels"] for alert in check["exp_alerts"]),
        )
        for path in TESTS
        for test in load(path)["tests"]
        for check in test.get("alert_rule_test", [])
    )
