"""The page that an exporter, or the control API, would serve at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from tests.dashboards.scenario_state import ScenarioState
from tests.dashboards.series import BY_LABELS, DISTRIBUTIONS, SAMPLES

from celerymeter.metrics import CATALOGUE, Family

BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, math.inf)
Sample = tuple[str, str, float]
"""Series name, labels in braces, value."""


def page(at: ScenarioState, *, control: bool = False) -> Iterator[Sample]:
    """Every sample of the exporter's page, or of the control API's."""
    for family in CATALOGUE:
        if (family.area == "control") == control:
            yield from _family(family, at)
    yield "process_cpu_seconds_total", "", 0.02 * (at.now - at.started)
    yield "process_resident_memory_bytes", "", 48e6 + at.wobble("memory", 2e6)


def text(at: ScenarioState, *, control: bool = False) -> str:
    """The page as a scrape gets it, without types and help, which dashboards have no use for."""
    return "".join(f"{name}{labels} {value!r}\n" for name, labels, value in page(at, control=control))


def _family(family: Family, at: ScenarioState) -> Iterator[Sample]:
    if family not in DISTRIBUTIONS:
        samples = SAMPLES.get(family) or BY_LABELS.get(family.labels)
        if samples is None or family.kind == "histogram":
            raise LookupError(f"{family.name}: add samples to SAMPLES or DISTRIBUTIONS in tests/dashboards/series.py")
        for values, number in samples(at):
            yield family.name, _braces(family.labels, values), float(number)
        return
    for values, count, mean in DISTRIBUTIONS[family](at):
        if family.kind == "histogram":
            for edge in BUCKETS:
                le = "+Inf" if edge == math.inf else repr(edge)
                within = float(math.floor(count * (1 - math.exp(-edge / mean))))
                yield f"{family.name}_bucket", _braces((*family.labels, "le"), (*values, le)), within
        yield f"{family.name}_sum", _braces(family.labels, values), count * mean
        yield f"{family.name}_count", _braces(family.labels, values), float(count)


def _braces(names: Iterable[str], values: Iterable[str]) -> str:
    inside = ",".join(f'{name}="{value}"' for name, value in zip(names, values, strict=True))
    return f"{{{inside}}}" if inside else ""
