"""All checks, in the order of the report: functions from the evidence to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from celerymeter.doctor.checks import (
    aggregation,
    alerting,
    broker,
    configuration,
    exporter,
    prometheus,
    schedules,
    workers,
)
from celerymeter.doctor.evidence import Evidence
from celerymeter.doctor.report import Finding

Check = Callable[[Evidence], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    broker.unreachable,
    broker.events_unreadable,
    workers.none_found,
    workers.elsewhere,
    workers.on_another_exchange,
    workers.reply_serializer,
    workers.no_replies,
    workers.no_heartbeats,
    workers.events_disabled,
    workers.events_unproven,
    workers.threads_lose_events,
    workers.options_differ,
    workers.visibility_timeout_differs,
    configuration.serializers_differ,
    configuration.acks_late_differs,
    configuration.prefetch_differs,
    configuration.queue_arguments_differ,
    workers.clock_skew,
    workers.time_zones_differ,
    workers.no_sent_events,
    aggregation.failed,
    aggregation.bounds_differ,
    aggregation.without_broker,
    broker.queues_without_consumers,
    broker.queues_incomplete,
    broker.orphaned_lists,
    broker.orphaned_queues,
    exporter.unreachable,
    exporter.without_broker,
    exporter.elsewhere,
    exporter.without_events,
    exporter.polls_failing,
    exporter.without_management,
    exporter.events_missed,
    exporter.events_invalid,
    exporter.duplicate_names,
    exporter.caps_reached,
    schedules.no_beat,
    schedules.two_beats,
    schedules.late,
    schedules.failing,
    schedules.unregistered,
    schedules.expires_too_soon,
    schedules.overlapping,
    prometheus.unreachable,
    prometheus.not_scraped,
    prometheus.wrong_target,
    prometheus.incomplete,
    prometheus.labels_changed,
    prometheus.rarely_or_slowly,
    prometheus.clocks,
    prometheus.scraped_twice,
    prometheus.clusters_mixed,
    prometheus.one_behind,
    prometheus.other_exporter,
    alerting.rules_not_loaded,
    alerting.rules_failing,
    alerting.no_alertmanager,
    alerting.alertmanager_unreachable,
    alerting.control_unreachable,
    alerting.control_unhealthy,
)


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """Return the findings of all checks: faults first, otherwise in the order of `CHECKS`."""
    found = [finding for check in CHECKS for finding in check(evidence)]
    return tuple(sorted(found, key=lambda finding: finding.severity != "fault"))
