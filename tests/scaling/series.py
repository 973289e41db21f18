"""The series that an engine holds, as values to compare."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import requests

from celerymeter.demo.processes import wait_until

Labels = frozenset[tuple[str, str]]
Series = dict[Labels, float]
_RUNNING = re.compile(r"celery:(queue_age|queue_unacked_age|task_oldest):seconds")
"""Grow while nobody looks: alike within 10 s."""
_RATE = re.compile(r"celery:(pool_busy:sum|task_busy:rate10m|\w+_busy:ratio|(pool|worker)_saturation:ratio)")
"""Rates, whose windows begin with a scrape: alike within a twentieth of a slot, or of the value."""
_MEASURED = "celery:queue_(wait|wait_good|unknown)"
"""Waits span two hosts: each exporter measures the clocks for itself, and leaves out what it cannot measure."""
_WINDOWED = re.compile(
    r"celery:.*(burn|:sum(30m|1h|6h|3d)|:limit|:effective|exporter_watched|control_watched|queue_slots:wanted).*"
)
"""Limits, which are the same for all; sums over aligned windows, which keep a moment's difference for days; and the
highest number of slots that were needed, which keeps it for minutes."""


def query(url: str, expr: str) -> list[dict[str, Any]]:
    """An instant query's result; ``nocache`` lets VictoriaMetrics show the newest half minute."""
    answer = requests.get(f"{url}/api/v1/query", params={"query": expr, "nocache": "1"}, timeout=30)
    answer.raise_for_status()
    return list(answer.json()["data"]["result"])


def value(url: str, expr: str) -> float | None:
    """The value of an expression that has at most one series."""
    found = query(url, expr)
    return float(found[0]["value"][1]) if found else None


def series(url: str, expr: str) -> Series:
    """Values by labels, without the cluster."""
    return {_labels(one["metric"]): float(one["value"][1]) for one in query(url, expr)}


def recorded(url: str, cluster: str) -> Series:
    """Every recorded series of a cluster that can be compared."""
    found = series(url, f'{{__name__=~"celery:.+",__name__!~"{_MEASURED}:.+",cluster="{cluster}"}}')
    return {labels: number for labels, number in found.items() if not _WINDOWED.fullmatch(dict(labels)["__name__"])}


def alerts(url: str, cluster: str, *, ever: bool = False, state: str = "pending|firing") -> set[Labels]:
    """Every alert of a cluster that is in this state, or was within the last hour."""
    found = f'ALERTS{{cluster="{cluster}",alertstate=~"{state}"}}'
    expr = f"group without (alertstate) ({f'last_over_time({found}[1h])' if ever else found})"
    return {_labels(one["metric"]) for one in query(url, expr)}


def names(found: set[Labels]) -> set[str]:
    """Of alerts."""
    return {dict(labels)["alertname"] for labels in found}


def differences(one: Series, other: Series) -> dict[str, tuple[float | None, float | None]]:
    """By series: the two values, where they differ by more than the time between two looks."""
    return {
        _shown(labels): (one.get(labels), other.get(labels))
        for labels in one.keys() | other.keys()
        if not _alike(dict(labels)["__name__"], one.get(labels), other.get(labels))
    }


def await_equal(read: Mapping[str, Any]) -> Series:
    """Wait until two readings agree, and give it; on time-out say where they differ."""
    first, second = read.values()
    try:
        wait_until(lambda: (found := first()) and not differences(found, second()), interval=0.5)
    except TimeoutError as late:
        if found := differences(first(), second()):
            raise AssertionError(f"{' and '.join(read)} differ: {found}") from late
    return dict(first())


def _alike(name: str, one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return False
    if _RATE.fullmatch(name):
        return math.isclose(one, other, rel_tol=0.05, abs_tol=0.05)
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=10.0 if _RUNNING.fullmatch(name) else 1e-9)


def _labels(metric: Mapping[str, str]) -> Labels:
    return frozenset((key, text) for key, text in metric.items() if key != "cluster")


def _shown(labels: Labels) -> str:
    return ",".join(f"{key}={text}" for key, text in sorted(labels))
