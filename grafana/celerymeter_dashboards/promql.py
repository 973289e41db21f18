"""PromQL that is right with several clusters, two exporters of one broker, and variables with several values."""

from __future__ import annotations

from dataclasses import dataclass

from celerymeter.metrics import Family

WINDOW = "$__rate_interval"
"""Follows the zoom level, and contains at least four scrapes."""

VARIABLES = {"queue_name": "queue", "name": "task", "hostname": "worker", "schedule": "schedule"}
"""The label that each variable beside ``job`` and ``cluster`` narrows."""

_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


@dataclass(frozen=True, slots=True)
class VariableScope:
    """The labels that a dashboard has variables for: every selector is narrowed by those that its family carries."""

    labels: tuple[str, ...] = ()

    def of(self, family: Family, *, part: str = "", **exact: str) -> str:
        """A selector. ``part`` is ``_bucket``, ``_sum`` or ``_count``; ``exact`` are more labels and their values."""
        if part not in _SUFFIXES.get(family.kind, ("",)) or not exact.keys() <= set(family.labels):
            raise ValueError(f"{family.name} is a {family.kind} with {family.labels}: no {part!r}, no {exact}")
        # The control API is another job than the exporters, which are what $job chooses from.
        matchers = ['cluster=~"$cluster"'] if family.area == "control" else ['job=~"$job"', 'cluster=~"$cluster"']
        matchers += self._narrowing(family.labels) + [f'{label}="{value}"' for label, value in exact.items()]
        return f"{family.name}{part}{{{', '.join(matchers)}}}"

    def recorded(self, name: str, *labels: str, **exact: str) -> str:
        """A recorded series. It has no job, so the chosen jobs narrow it through the clusters that they scrape."""
        return f'({self.stored(name, *labels, **exact)} and on (cluster) up{{job=~"$job"}})'

    def stored(self, name: str, *labels: str, **exact: str) -> str:
        """The plain selector of a recorded series, for functions over time."""
        matchers = ['cluster=~"$cluster"', *self._narrowing(labels)]
        matchers += [f'{label}="{value}"' for label, value in exact.items()]
        return f"{name}{{{', '.join(matchers)}}}"

    def _narrowing(self, labels: tuple[str, ...]) -> list[str]:
        return [f'{label}=~"${VARIABLES[label]}"' for label in labels if label in self.labels]


def once(call: str, *by: str) -> str:
    """A sum of ``call`` by cluster and these labels in which two exporters of one cluster count once."""
    inner = ", ".join(("cluster", "instance", *by))
    return f"max by ({', '.join(('cluster', *by))}) (sum by ({inner}) ({call}))"


def rate(selector: str, *by: str, window: str = WINDOW) -> str:
    """Per-second increase of a counter by cluster and these labels."""
    return once(f"rate({selector}[{window}])", *by)


def latest(selector: str, *by: str) -> str:
    """A gauge by cluster and these labels; every exporter says the same of it."""
    return f"max by ({', '.join(('cluster', *by))}) ({selector})"


def quantile(share: float, buckets: str, *by: str, window: str = WINDOW) -> str:
    """A quantile of a histogram's ``_bucket`` by these labels; nothing where nothing was observed."""
    keep = ", ".join(("le", *by))
    within = [label for label in by if label != "cluster"]
    return f"(histogram_quantile({share:g}, sum by ({keep}) ({rate(buckets, 'le', *within, window=window)})) >= 0)"


def most(expr: str, by: str, *, call: str, selector: str, above: str = "") -> str:
    """The five series of ``expr`` for which ``call`` over the whole shown time is highest: legends stay readable.

    With ``above`` only those for which it is higher than that.
    """
    ranked = f"max by (cluster, {by}) ({call}({selector}[$__range] @ end()))"
    return f"{expr}\nand on (cluster, {by}) topk(5, {ranked}{f' > {above}' if above else ''})"


def first_of(*exprs: str) -> str:
    """The first expression that gives anything, all of them without labels to match on."""
    return "\nor on () ".join(exprs)
