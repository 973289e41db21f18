"""Several exporters in one Prometheus: does one count for another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from celerymeter.doctor.evidence import Evidence, Scraped
from celerymeter.doctor.finding import Finding, fault, hint, listed

BEHIND = 60.0
"""Seconds by which one exporter of a cluster may have heard its last event before another."""


def twice(evidence: Evidence) -> Iterator[Finding]:
    """One process under two targets."""
    found: dict[float, list[Scraped]] = defaultdict(list)
    for one in _exporters(evidence):
        if one.started is not None:
            found[one.started].append(one)
    for same in found.values():
        if len(same) > 1:
            yield fault(
                "exporter-scraped-twice",
                f"one exporter is scraped as {listed(map(str, same))}: sums count every task twice",
                "leave it in one job only (annotations and a ServiceMonitor may both find it)",
            )


def mixed(evidence: Evidence) -> Iterator[Finding]:
    """Exporters of different brokers under one cluster's name."""
    for one, other in combinations(_exporters(evidence), 2):
        apart = one.workers and other.workers and not one.workers & other.workers
        if one.cluster == other.cluster and one.started != other.started and apart:
            yield fault(
                "clusters-mixed",
                f"{one} and {other} know no worker in common, and both are cluster {one.cluster!r}",
                "give the targets of each broker a label `cluster` of its own: rules keep them apart by it",
            )
            return


def behind(evidence: Evidence) -> Iterator[Finding]:
    """One of several exporters of a cluster that no longer hears what another hears."""
    by_cluster: dict[str, list[Scraped]] = defaultdict(list)
    for one in _exporters(evidence):
        by_cluster[one.cluster].append(one)
    for together in by_cluster.values():
        newest = max((one.last_event or 0.0 for one in together if one.broker_up), default=0.0)
        late = [one for one in together if newest and (not one.broker_up or newest - (one.last_event or 0.0) > BEHIND)]
        if late:
            yield fault(
                "exporter-behind",
                f"{listed(map(str, late))} hears no events, while another exporter of its cluster does",
                "see its /-/ready and its log; if it reads another broker, its target needs another label `cluster`",
            )


def foreign(evidence: Evidence) -> Iterator[Finding]:
    """Another program's series under names of ours."""
    others = evidence.prometheus.others if evidence.prometheus else frozenset()
    if others:
        yield hint(
            "other-exporter",
            f"{listed(others)} also serves celery_… series, and is no celerymeter exporter",
            "while both are scraped, give one of them a label `cluster` of its own: sums over both count twice",
        )


def _exporters(evidence: Evidence) -> tuple[Scraped, ...]:
    return evidence.prometheus.exporters if evidence.prometheus else ()
