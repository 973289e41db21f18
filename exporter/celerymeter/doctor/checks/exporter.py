"""Checks of the exporter: does it see the cluster, and is its page complete."""

from __future__ import annotations

from collections.abc import Iterator

from celerymeter.doctor.evidence import Evidence, ExporterEvidence, FailureKind
from celerymeter.doctor.report import Finding, fault, hint, listed

SILENT = 30.0
"""Seconds without an event, beyond the watch, after which an exporter is considered to receive none."""
_FIXES: dict[FailureKind, str] = {
    "refused": "start it (celerymeter exporter --broker-url …), and compare host and port with its --listen",
    "unresolved": "check the host name in --exporter-url",
    "password": "put user and password of its web config file into the URL (http://USER:PASSWORD@…)",
    "timeout": "check firewalls and the log of the exporter",
}


def unreachable(evidence: Evidence) -> Iterator[Finding]:
    """There is no metrics page, or that of another program."""
    exporter = evidence.exporter
    if exporter is not None and exporter.failure is not None:
        fix = exporter.failure.fix or _FIXES.get(
            exporter.failure.kind, "use the URL of a celerymeter exporter, without /metrics"
        )
        yield fault("exporter-unreachable", f"no metrics from {exporter.url}: {exporter.failure.text}", fix)


def without_broker(evidence: Evidence) -> Iterator[Finding]:
    """The exporter is not subscribed to its broker."""
    page = _page(evidence)
    if page and page.value("celerymeter_broker_up") == 0:
        yield fault(
            "exporter-without-broker",
            f"the exporter {page.url} is not subscribed to its broker",
            f"read {page.url}/-/ready and its log; compare its broker URL with this one",
        )


def elsewhere(evidence: Evidence) -> Iterator[Finding]:
    """The exporter knows none of the workers, so it reads another broker, database or key prefix."""
    page, here = _page(evidence), evidence.broker.workers
    if not page or not here or page.value("celerymeter_broker_up") != 1:
        return
    if not here & page.by("hostname", "celery_worker_up").keys():
        yield fault(
            "exporter-elsewhere",
            f"the exporter {page.url} knows none of the {len(here)} workers here ({listed(here)})",
            "it reads another broker, database, virtual host or global_keyprefix: compare its settings with these",
        )


def without_events(evidence: Evidence) -> Iterator[Finding]:
    """The exporter is subscribed, but received none of the events that were received here."""
    page, watch = _page(evidence), evidence.broker.watch
    received = sum(sum(sender.events.values()) for sender in watch.senders.values())
    if not page or not received or page.value("celerymeter_broker_up") != 1:
        return
    last = page.value("celerymeter_last_event_timestamp_seconds")
    age = page.at - (page.clock_offset or 0.0) - last if last is not None else None
    if age is None or age > SILENT + watch.seconds:
        since = "since its start" if age is None else f"for {age:.0f} s"
        yield fault(
            "exporter-deaf",
            f"the exporter {page.url} has received no event {since}, but {received} arrived here",
            "compare event_exchange and fanout options (--celery-setting, --transport-option) with its own; restart it",
        )


def polls_failing(evidence: Evidence) -> Iterator[Finding]:
    """The exporter cannot poll queues or workers, so their gauges are absent."""
    page = _page(evidence)
    results = page.by("collector", "celerymeter_poll_success") if page else {}
    if failing := [name for name, success in results.items() if success == 0]:
        yield fault(
            "polls-failing",
            f"the exporter cannot poll {listed(failing)}, so their gauges are absent",
            "the log of the exporter has the reason",
        )


def without_management(evidence: Evidence) -> Iterator[Finding]:
    """On RabbitMQ the exporter has queues but no unacknowledged messages: no management URL, or one that fails."""
    page = _page(evidence)
    rabbitmq = evidence.broker.url.startswith(("amqp", "pyamqp"))
    if page and rabbitmq and "celery_queue_length" in page.page and "celery_queue_unacked" not in page.page:
        yield hint(
            "no-management-url",
            f"the exporter {page.url} has no metrics from RabbitMQ's management API: unacknowledged messages, "
            "and queues that no worker or event has named since its start, are unknown",
            "give it --rabbitmq-management-url http://USER:PASSWORD@HOST:15672 (not the port "
            "of the broker; its log says why a given URL fails); else --queues, or --state-file to keep their names",
        )


def events_missed(evidence: Evidence) -> Iterator[Finding]:
    """Events were lost, so counters are too low."""
    page = _page(evidence)
    if missed := page.nonzero("hostname", "celerymeter_events_missed_total") if page else {}:
        yield hint(
            "events-missed",
            f"the events of {sum(missed.values()):.0f} task runs were lost since the exporter started, "
            f"from {listed(missed)}",
            "counters are too low by that number; check for restarts of the broker, a slow network, and on Redis "
            "client-output-buffer-limit for pubsub",
        )


def events_invalid(evidence: Evidence) -> Iterator[Finding]:
    """Messages on the event channel are not events."""
    page = _page(evidence)
    invalid: dict[str, float] = {**evidence.broker.watch.rejected}
    invalid |= page.nonzero("reason", "celerymeter_events_invalid_total") if page else {}
    if invalid:
        counts = listed(f"{reason} ({count:.0f})" for reason, count in invalid.items())
        yield hint(
            "events-invalid",
            f"messages on the event channel are not events: {counts}",
            "set event_serializer to json in all workers and producers, and let no other program publish there",
        )


def duplicate_names(evidence: Evidence) -> Iterator[Finding]:
    """Two workers have one node name."""
    page = _page(evidence)
    if duplicates := page.nonzero("hostname", "celerymeter_worker_duplicate") if page else {}:
        yield fault(
            "duplicate-node-name",
            f"several processes run as {listed(duplicates)}",
            "give each its own name: celery worker -n NAME@%h",
        )


def caps_reached(evidence: Evidence) -> Iterator[Finding]:
    """There are more names than the exporter keeps."""
    page = _page(evidence)
    folded = page.nonzero("label", "celerymeter_series_folded_total") if page else {}
    if folded.pop("shadow", 0):
        yield hint(
            "shadow-names",
            "tasks have shadow names, under which events without a task-sent do not show which task they are of; "
            "they are counted as __other__",
            "set task_send_sent_event = True in the producers: that event has the task's own name",
        )
    if folded:
        yield hint(
            "caps-reached",
            f"there are too many values of {listed(folded)}: the rest is counted as __other__",
            "raise --max-task-names, --max-queues, --max-workers, --max-exceptions or --max-task-pairs, "
            "or do not create names at run time",
        )


def _page(evidence: Evidence) -> ExporterEvidence | None:
    """Return the exporter when its page could be read."""
    return evidence.exporter if evidence.exporter and evidence.exporter.failure is None else None
