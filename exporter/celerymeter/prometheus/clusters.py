"""Several clusters in one Prometheus: never added up, one must be chosen."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from celerymeter.errors import AmbiguousCluster
from celerymeter.prometheus.client import PrometheusClient
from celerymeter.prometheus.scope import Scope

RECENT = timedelta(hours=1)
CLUSTERS = "count by (cluster) (last_over_time(celerymeter_build_info{SEL}[$window]))"
"""An exporter that went away a moment ago still counts, or its neighbour would silently take its place."""


def clusters(
    client: PrometheusClient, scope: Scope, *, time: float | None = None, window: timedelta = RECENT
) -> tuple[str, ...]:
    """The clusters within the scope whose exporters were scraped in the window; ``""`` is one without a name."""
    found = client.instant(scope.render(CLUSTERS, window=window), time=time)
    return tuple(sorted({sample.label("cluster") for sample in found}))


def only_cluster(scope: Scope, names: tuple[str, ...]) -> Scope:
    """The scope narrowed to the only cluster; raises `AmbiguousCluster` when several are there and none was chosen."""
    if scope.cluster is None and len(names) > 1:
        raise AmbiguousCluster(names)
    return replace(scope, cluster=names[0]) if scope.cluster is None and names else scope


def choose_cluster(
    client: PrometheusClient, scope: Scope, *, time: float | None = None, window: timedelta = RECENT
) -> Scope:
    """`only_cluster` over those that were scraped; a scope that names its cluster costs no query."""
    if scope.cluster is not None:
        return scope
    return only_cluster(scope, clusters(client, scope, time=time, window=window))
