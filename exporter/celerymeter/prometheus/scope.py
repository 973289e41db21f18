"""The scope of queries (cluster and selector), and safe insertion of values into PromQL.

Expressions are constants with slots. ``{SEL}`` or ``{SEL, …}`` takes the scope's matchers; ``$name`` takes a
value: a string becomes a quoted literal, a tuple of strings a regular expression that matches exactly these, a number
itself, a `timedelta` a duration. All slots are filled in one pass, so nothing inside a value is ever read as a slot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta

from celerymeter.errors import AmbiguousCluster, SettingsError
from celerymeter.escaping import promql, promql_one_of
from celerymeter.prometheus.client import PrometheusClient

Value = str | int | float | timedelta | tuple[str, ...]

_SLOT = re.compile(r"\{SEL(?P<end>\}|,)|\$(?P<name>[a-z_]+)")
_MATCHER = re.compile(r"""\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')\s*""", re.ASCII)


def literal(value: Value) -> str:
    """Return a value as PromQL; durations in milliseconds, so that fractions of a second survive, but never 0."""
    match value:
        case str():
            return promql(value)
        case tuple():
            return promql_one_of(value)
        case timedelta():
            return f"{max(1, round(value.total_seconds() * 1000))}ms"  # Prometheus refuses a range of 0
    return repr(value)


def matchers(selector: str) -> tuple[str, ...]:
    """Return the matchers of a ``--selector`` such as ``team="a", zone=~"b|c"``; raises `SettingsError`."""
    found: list[str] = []
    at = 0
    while at < len(selector.rstrip(", \t")):
        match = _MATCHER.match(selector, at)
        if match is None or selector[match.end() : match.end() + 1] not in ("", ","):
            raise SettingsError('--selector must be a list of matchers such as team="a", zone=~"b|c"')
        found.append("".join(match.groups()))
        at = match.end() + 1
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Scope:
    """The matchers that go into every selector; ``cluster`` is ``None`` for any, ``""`` for one without a name."""

    cluster: str | None = None
    selector: str = ""

    def __post_init__(self) -> None:
        matchers(self.selector)

    @property
    def matchers(self) -> str:
        """The text between the braces of a selector."""
        chosen = () if self.cluster is None else (f"cluster={promql(self.cluster)}",)
        return ", ".join((*chosen, *matchers(self.selector)))

    def render(self, template: str, **values: Value) -> str:
        """Return the template with every slot filled; a slot without a value raises `KeyError`."""
        ours = self.matchers

        def fill(slot: re.Match[str]) -> str:
            if slot["name"]:
                return literal(values[slot["name"]])
            if slot["end"] == "}":
                return f"{{{ours}}}"
            return f"{{{ours}," if ours else "{"

        return _SLOT.sub(fill, template)


# Several clusters in one Prometheus are never added up: one must be chosen.

RECENT = timedelta(hours=1)
CLUSTERS = "count by (cluster) (last_over_time(celerymeter_build_info{SEL}[$window]))"
"""An exporter that just disappeared still counts; otherwise the only other cluster would silently be chosen."""
LIVE = timedelta(minutes=5)
"""The window for live values. After the label ``cluster`` was added to the only exporter, they come back so soon."""


def clusters(
    client: PrometheusClient, scope: Scope, *, time: float | None = None, window: timedelta = RECENT
) -> tuple[str, ...]:
    """Return the clusters whose exporters were scraped in the window; ``""`` is one without a name."""
    found = client.instant(scope.render(CLUSTERS, window=window), time=time)
    return tuple(sorted({sample.label("cluster") for sample in found}))


def only_cluster(scope: Scope, names: tuple[str, ...]) -> Scope:
    """Return the scope narrowed to the only cluster; raises `AmbiguousCluster` when there are several."""
    if scope.cluster is None and len(names) > 1:
        raise AmbiguousCluster(names)
    return replace(scope, cluster=names[0]) if scope.cluster is None and names else scope


def choose_cluster(
    client: PrometheusClient, scope: Scope, *, time: float | None = None, window: timedelta = RECENT
) -> Scope:
    """Return the scope narrowed to the only scraped cluster; a scope that names its cluster costs no query."""
    if scope.cluster is not None:
        return scope
    return only_cluster(scope, clusters(client, scope, time=time, window=window))
