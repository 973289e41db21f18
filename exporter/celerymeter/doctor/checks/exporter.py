"""Does the exporter see what is there, and is its page whole."""

from __future__ import annotations

from collections.abc import Iterator

from celerymeter.doctor.evidence import Evidence, ExporterEvidence, FailureKind
from celerymeter.doctor.finding import Finding, fault, hint, listed

_MENDS: dict[FailureKind, str] = {
    "refused": "start it (celerymeter exporter --broker-url …), and compare host and port with its --listen",
    "unresolved": "check the host's name in --exporter-url",
    "password": "give user and password of its web config file in the URL (http://USER:PASSWORD@…)",
    "tls": "its web config file has TLS on: use https://, with its authority in REQUESTS_CA_BUNDLE",
    "timeout": "check firewalls, and the exporter's log",
}


DEAF = 30.0
"""Seconds without an event after which an exporter is called deaf, when there were some."""


def unreachable(evidence: Evidence) -> Iterator[Finding]:
    """No page, or one of something else."""
    if evidence.exporter is None:
        return
    failure = evidence.exporter.failure
    if failure is not None:
        mend = _MENDS.get(failure.kind, "check that the URL is that of a celerymeter exporter, without /metrics")
        yield fault("exporter-unreachable", f"no metrics from {evidence.exporter.url}: {failure.text}", mend)


def without_broker(evidence: Evidence) -> Iterator[Finding]:
    """The exporter itself is not subscribed."""
    page = _page(evidence)
    if page and page.value("celerymeter_broker_up") == 0:
        yield fault(
            "exporter-without-broker",
            f"the exporter {page.url} is not subscribed to its broker",
            f"see {page.url}/-/ready and its log; compare its broker URL with this one",
        )


def elsewhere(evidence: Evidence) -> Iterator[Finding]:
    """It knows none of the workers that are here: it reads another broker, database or key prefix."""
    page = _page(evidence)
    here = evidence.broker.workers
    if (
        page
        and here
        and page.value("celerymeter_broker_up") == 1
        and not here & page.by("hostname", "celery_worker_up").keys()
    ):
        yield fault(
            "exporter-elsewhere",
            f"the exporter {page.url} knows none of the {len(here)} workers here ({listed(here)})",
            "it reads another broker, database, virtual host or global_keyprefix: compare its settings with these",
        )


def deaf(evidence: Evidence) -> Iterator[Finding]:
    """It is subscribed, and hears nothing of what was heard here."""
    page, watch = _page(evidence), evidence.broker.watch
    heard = sum(sum(sender.events.values()) for sender in watch.senders.values())
    if not page or not heard or page.value("celerymeter_broker_up") != 1:
        return
    last = page.value("celerymeter_last_event_timestamp_seconds")
    age = page.at - (page.clock_offset or 0.0) - last if last is not None else None
    if age is None or age > DEAF + watch.seconds:
        since = "ever" if age is None else f"for {age:.0f} s"
        yield fault(
            "exporter-deaf",
            f"the exporter {page.url} has heard no event {since}; {heard} came here meanwhile",
            "compare event_exchange and fanout options (--celery-setting, --transport-option) with its own; restart it",
        )


def polls_failing(evidence: Evidence) -> Iterator[Finding]:
    """Gauges of queues or workers are absent."""
    page = _page(evidence)
    failing = [name for name, ok in page.by("collector", "celerymeter_poll_success").items() if ok == 0] if page else []
    if failing:
        yield fault(
            "polls-failing",
            f"the exporter's polls of {listed(failing)} fail: their gauges are absent",
            "see the exporter's log for the reason",
        )


def events_missed(evidence: Evidence) -> Iterator[Finding]:
    """Counters that are not complete."""
    page = _page(evidence)
    missed = (
        {host: n for host, n in page.by("hostname", "celerymeter_events_missed_total").items() if n} if page else {}
    )
    if missed:
        yield hint(
            "events-missed",
            f"{sum(missed.values()):.0f} task runs without events since the exporter's start, from {listed(missed)}",
            "counters are too low by so many; look for restarts of the broker, a slow network, and Redis' "
            "client-output-buffer-limit for pubsub",
        )


def events_invalid(evidence: Evidence) -> Iterator[Finding]:
    """Messages on the channel that are no events."""
    page = _page(evidence)
    reasons = page.by("reason", "celerymeter_events_invalid_total") if page else {}
    invalid = {**evidence.broker.watch.rejected, **{reason: int(count) for reason, count in reasons.items() if count}}
    if invalid:
        yield hint(
            "events-invalid",
            "messages on the event channel that are no events: "
            + listed(f"{reason} ({count})" for reason, count in invalid.items()),
            "let event_serializer be json everywhere, and nothing else publish there",
        )


def duplicate_names(evidence: Evidence) -> Iterator[Finding]:
    """Two workers under one node name."""
    page = _page(evidence)
    doubled = [host for host, n in page.by("hostname", "celerymeter_worker_duplicate").items() if n] if page else []
    if doubled:
        yield fault(
            "duplicate-node-name",
            f"several processes run as {listed(doubled)}",
            "give each its own name: celery worker -n NAME@%h",
        )


def caps_reached(evidence: Evidence) -> Iterator[Finding]:
    """Labels that are folded."""
    page = _page(evidence)
    folded = [label for label, n in page.by("label", "celerymeter_series_folded_total").items() if n] if page else []
    if folded:
        yield hint(
            "caps-reached",
            f"too many values of {listed(folded)}: the rest is counted as __other__",
            "raise --max-task-names, --max-queues, --max-workers, --max-exceptions or --max-task-pairs, "
            "or stop making names up at run time",
        )


def _page(evidence: Evidence) -> ExporterEvidence | None:
    """The exporter, when it gave a page."""
    return evidence.exporter if evidence.exporter and evidence.exporter.failure is None else None
