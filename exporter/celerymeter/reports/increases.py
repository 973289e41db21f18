"""The increases of counters in the steps of a range, by exporter. Pure.

One rule with the exact counts (`celerymeter.reports.counting`): two values of one process are subtracted, a counter
that the process did not have yet was 0, and a new process counts from 0. Where the value before is not known, because
nothing was scraped or the step is the first, the increase is not known either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from celerymeter.prometheus import Matrix, Point
from celerymeter.prometheus.counters import Target

Steps = dict[float, float]
"""The increase in each step, by the step's end (UTC seconds)."""


@dataclass(frozen=True, slots=True)
class ScrapedSteps:
    """The start of the process that Prometheus has of each exporter at each step.

    It is read in the same way as the counters, at the same steps. So where it is missing, counters are missing because
    nothing was scraped; where it is there, a missing counter is one that did not count yet.
    """

    first: float
    step: float
    started: Mapping[Target, Mapping[float, float]]

    @classmethod
    def read(cls, answer: Matrix, *, first: float, step: float) -> ScrapedSteps:
        """Return the answer to `queries.PROCESSES`, a range from ``first`` on."""
        return cls(first, step, {Target.of(series): dict(series.points) for series in answer})

    def known(self, target: Target) -> dict[float, bool]:
        """Return the steps at whose end an exporter was scraped, and whether it is known what it counted in each.

        A process counts from 0 where it began: another was there one step before, or it began at most two steps ago.
        """
        known: dict[float, bool] = {}
        seen: set[float] = set()
        started = self.started.get(target, {})
        for at, began in sorted(started.items()):
            before = started.get(at - self.step)
            is_new = before is not None or began > max(at - 2 * self.step, self.first - self.step)
            known[at] = before == began if began in seen else is_new
            seen.add(began)
        return known

    def known_steps(self) -> set[float]:
        """Return the steps of which at least one exporter knows what it counted."""
        return {at for target in self.started for at, is_known in self.known(target).items() if is_known}


def increases_by_exporter(
    matrix: Matrix, scraped: ScrapedSteps, *, label: str = "le"
) -> dict[tuple[Target, str], Steps]:
    """Return the increase of each series in each step, by its exporter and a label (``""`` where it has none)."""
    return {
        (Target.of(series), series.label(label)): step_increases(series.points, scraped, Target.of(series))
        for series in matrix
    }


def step_increases(points: Sequence[Point], scraped: ScrapedSteps, target: Target) -> Steps:
    """Return the increase of one exporter's counter in each step in which it is known."""
    values, started = dict(points), scraped.started.get(target, {})
    increases: Steps = {}
    process, newest = None, 0.0
    for at, is_known in scraped.known(target).items():
        if started[at] != process:
            process, newest = started[at], 0.0
        value = values.get(at, newest)
        if is_known:
            increases[at] = max(0.0, value - newest)
        newest = value
    return increases
