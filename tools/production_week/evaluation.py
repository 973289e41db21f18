"""Evaluates the shipped rules over a history, as Prometheus would have done minute by minute."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from tools.production_week.history import History, Labels
from tools.production_week.series import Value

RULES = sorted((Path(__file__).parents[2] / "alerts" / "rules").glob("*.yml"))
CHUNK = 360
"""Minutes that a query looks at: six hours."""
_RECORDED = re.compile(r"\w+:\w+:\w+")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A rule; ``step`` is how many minutes apart it is evaluated, ``lasting`` its ``for`` in seconds."""

    name: str
    expr: str
    labels: Mapping[str, str]
    step: int
    lasting: int
    alerts: bool


def rules_of(groups: Iterable[Mapping[str, Any]]) -> list[Rule]:
    """Read groups of rules."""
    return [
        Rule(
            name=rule.get("record") or rule["alert"],
            expr=str(rule["expr"]),
            labels=rule.get("labels", {}),
            step=_step(rule, group),
            lasting=_seconds(rule.get("for", "0s")),
            alerts="alert" in rule,
        )
        for group in groups
        for rule in group["rules"]
    ]


def _step(rule: Mapping[str, Any], group: Mapping[str, Any]) -> int:
    """Return how many minutes apart a rule is evaluated; what hardly changes, as seldom as its values last."""
    return 4 if ":effective" in rule.get("record", "") else max(1, _seconds(group.get("interval", "1m")) // 60)


def shipped() -> list[Rule]:
    """Return the shipped rules."""
    return rules_of(group for path in RULES for group in yaml.safe_load(path.read_text())["groups"])


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * _UNITS[duration[-1]]


def needed(rules: Sequence[Rule]) -> list[Rule]:
    """Return the alerts, and the recording rules without which they would not be the same."""
    needs = _needs(rules)
    found = {name for rule in rules if rule.alerts for name in (rule.name, *_reached(rule.name, needs))}
    return [rule for rule in rules if rule.name in found]


def _needs(rules: Sequence[Rule]) -> dict[str, set[str]]:
    """Return the recorded series that the rules of each name look at."""
    needs: dict[str, set[str]] = {rule.name: set() for rule in rules}
    for rule in rules:
        needs[rule.name] |= needs.keys() & set(_RECORDED.findall(rule.expr))
    return needs


def in_order(rules: Sequence[Rule]) -> Iterator[list[Rule]]:
    """Yield recording rules after all that they need; those that need one another, or their own past, together."""
    needs = _needs(rules)
    reached = {name: _reached(name, needs) for name in needs}
    cycle = {
        name: min(other for other in (found | {name}) if other == name or name in reached[other])
        for name, found in reached.items()
    }
    order = TopologicalSorter({first: set[str]() for first in cycle.values()})
    for name, others in needs.items():
        order.add(cycle[name], *({cycle[other] for other in others} - {cycle[name]}))
    for first in order.static_order():
        yield [rule for rule in rules if cycle[rule.name] == first]


def _reached(name: str, needs: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    rest = [name]
    while rest:
        new = needs[rest.pop()] - found
        found |= new
        rest += new
    return found


@dataclass
class Evaluation:
    """Rules over a history, and the minutes in which each alert fired so far."""

    history: History
    rules: Sequence[Rule]
    fired: dict[Labels, list[int]] = field(default_factory=dict)
    _live: dict[Rule, set[Labels]] = field(default_factory=dict)
    """The series of each recording rule's last evaluation: one that is gone in the next is marked as stale."""
    _pending: dict[Rule, dict[Labels, int]] = field(default_factory=dict)
    """Since which minute each alert has been true."""

    def run(self, start: int, end: int) -> None:
        """Evaluate all rules in the minutes from ``start`` until before ``end``."""
        records = list(in_order([rule for rule in self.rules if not rule.alerts]))
        for begin in range(start, end, CHUNK):
            until = min(end, begin + CHUNK)
            for rules in records:
                if _recursive(rules):
                    self._step_by_step(rules, begin, until)
                else:
                    for rule in rules:
                        self._record(rule, begin, until)
            for rule in self.rules:
                if rule.alerts:
                    self._alert(rule, begin, until)

    def _record(self, rule: Rule, start: int, end: int) -> None:
        self._write(rule, self._results(rule, start, end, step=rule.step), start)

    def _results(self, rule: Rule, start: int, end: int, *, step: int = 1) -> dict[Labels, list[Value]]:
        """Return what a rule gives; the series of both sides of an ``or`` differ by name, which a rule replaces."""
        found: dict[Labels, list[Value]] = {}
        for metric, values in self.history.range(rule.expr, start=start, end=end, step=step):
            key = _key(rule, metric)
            before = found.get(key)
            found[key] = [a if b is None else b for a, b in zip(before, values, strict=True)] if before else values
        return found

    def _step_by_step(self, rules: Sequence[Rule], start: int, end: int) -> None:
        """Evaluate rules that need their own past, or one another, as Prometheus does."""
        for minute in range(start, end):
            for rule in rules:
                if minute % rule.step == 0:
                    found = self.history.instant(rule.expr, minute)
                    self._write(rule, {_key(rule, metric): [value] for metric, value in found}, minute)

    def _write(self, rule: Rule, found: Mapping[Labels, list[Value]], start: int) -> None:
        live = self._live.get(rule, set())
        gone: dict[Labels, list[Value]] = {labels: [None] for labels in live - found.keys()}
        self.history.write([*found.items(), *gone.items()], start=start, step=rule.step, live=live)
        self._live[rule] = {labels for labels, values in found.items() if values[-1] is not None}

    def _alert(self, rule: Rule, start: int, end: int) -> None:
        found = self._results(rule, start, end)
        before = self._pending.get(rule, {})
        pending = self._pending[rule] = {labels: since for labels, since in before.items() if labels in found}
        for labels, values in found.items():
            for minute, value in enumerate(values, start):
                if value is None:
                    pending.pop(labels, None)
                elif 60 * (minute - pending.setdefault(labels, minute)) >= rule.lasting:
                    self.fired.setdefault(labels, []).append(minute)


def _recursive(rules: Sequence[Rule]) -> bool:
    names = {rule.name for rule in rules}
    return any(names & set(_RECORDED.findall(rule.expr)) for rule in rules)


def _key(rule: Rule, metric: Mapping[str, str]) -> Labels:
    """Return the labels of a result."""
    own = {"alertname" if rule.alerts else "__name__": rule.name}
    rest = {name: value for name, value in metric.items() if name != "__name__"}
    return tuple(sorted({**rest, **rule.labels, **own}.items()))
