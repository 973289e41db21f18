"""Every check: a function from the evidence to what it finds. The order is that of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from celerymeter.doctor.checks import alerting, broker, control, exporter, prometheus, queues, several, workers
from celerymeter.doctor.evidence import Evidence
from celerymeter.doctor.finding import Finding

Check = Callable[[Evidence], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    broker.unreachable,
    broker.events_unreadable,
    workers.none,
    workers.elsewhere,
    workers.on_another_exchange,
    workers.silent_to_inspect,
    workers.without_heartbeats,
    workers.events_disabled,
    workers.events_unproven,
    workers.threads_lose_events,
    workers.options_differ,
    workers.clock_skew,
    workers.time_zones_differ,
    workers.without_sent_events,
    queues.without_consumers,
    exporter.unreachable,
    exporter.without_broker,
    exporter.elsewhere,
    exporter.deaf,
    exporter.polls_failing,
    exporter.events_missed,
    exporter.events_invalid,
    exporter.duplicate_names,
    exporter.caps_reached,
    prometheus.unreachable,
    prometheus.not_scraped,
    prometheus.wrong_target,
    prometheus.incomplete,
    prometheus.labels_changed,
    prometheus.scraped_badly,
    prometheus.clocks,
    several.twice,
    several.mixed,
    several.behind,
    several.foreign,
    alerting.not_loaded,
    alerting.failing,
    alerting.nobody_to_tell,
    alerting.unreachable,
    control.unreachable,
    control.unhealthy,
)


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """What every check finds: faults first, each kind in the order of `CHECKS`."""
    found = [finding for check in CHECKS for finding in check(evidence)]
    return tuple(sorted(found, key=lambda finding: finding.severity != "fault"))
