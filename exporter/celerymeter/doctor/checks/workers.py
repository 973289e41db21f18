"""Checks of the workers: are there any, do they reply, and do they send their events here."""

from __future__ import annotations

import json
from collections.abc import Iterator

from celerymeter.doctor.evidence import Evidence, ExporterEvidence
from celerymeter.doctor.report import Finding, fault, hint, listed

HEARTBEATS_AFTER = 6.0
"""Seconds of watching, three heartbeats at Celery's interval of 2 s, after which a silent worker sends none."""
SKEW = 5.0
"""Seconds; the limit of the alert as well."""
ZONE_STEP, ZONE_SLACK = 1800.0, 60.0
"""Time zones differ by half hours, so an offset this close to a multiple is not drift."""
LOST_STARTS = 0.5
"""Share of received tasks that started, below which a thread pool loses events."""
RECEIVED = 10
"""Received tasks from which that share is meaningful."""
_ENABLE = "start it with -E, or set worker_send_task_events = True; `celery control enable_events` until its next start"


def none_found(evidence: Evidence) -> Iterator[Finding]:
    """No worker sends heartbeats or replies."""
    broker = evidence.broker
    if broker.failure is None and not broker.absent and not broker.workers and not broker.other_replies:
        yield fault(
            "no-workers",
            f"no worker on {broker.url} replies or sends heartbeats",
            "start one (celery -A APP worker -E); if some run, compare database number, virtual host, "
            "global_keyprefix and fanout_prefix with theirs",
        )


def elsewhere(evidence: Evidence) -> Iterator[Finding]:
    """There is no worker, but the same server has Celery queues in another place, or only results in this one."""
    broker = evidence.broker
    if broker.workers:
        return
    if broker.elsewhere:
        yield hint(
            "queues-elsewhere",
            f"Celery has queues on this Redis in {listed(broker.elsewhere)}",
            "if these are your workers', use that database in the URL (redis://HOST/DB) and that key prefix "
            "(--transport-option global_keyprefix=…)",
        )
    if broker.only_results:
        yield hint(
            "result-backend",
            f"{broker.url} holds task results and no queues",
            "this looks like the result backend: use the application's broker_url, not its result_backend",
        )


def on_another_exchange(evidence: Evidence) -> Iterator[Finding]:
    """Workers send their events to another exchange."""
    if others := _on_other_exchanges(evidence):
        exchange = min(others.values())
        yield fault(
            "event-exchange-differs",
            f"{listed(others)} sends events to the exchange {exchange}, not {evidence.broker.event_exchange}",
            f"use --celery-setting event_exchange={exchange} here and for the exporter, or the same setting everywhere",
        )


def reply_serializer(evidence: Evidence) -> Iterator[Finding]:
    """Workers reply to remote control in a format other than JSON, which is never read here."""
    for content_type, workers in sorted(evidence.broker.other_replies.items()):
        yield hint(
            "reply-serializer",
            f"{listed(workers) or 'workers'} reply to remote control in {content_type}, and only JSON is read: "
            "consumers, slots and held tasks are unknown",
            'set task_serializer = "json" in the configuration of the workers, which they use for replies as well; '
            "tasks may still be sent with another serializer (apply_async(serializer=…))",
        )


def no_replies(evidence: Evidence) -> Iterator[Finding]:
    """Workers send heartbeats but do not reply to remote control."""
    broker = evidence.broker
    other = {name for names in broker.other_replies.values() for name in names}
    if silent := broker.watch.workers.keys() - broker.replies.keys() - other:
        yield hint(
            "no-remote-control",
            f"no reply to `inspect` from {listed(silent)}",
            "a solo worker does not reply while it runs a task; else check worker_enable_remote_control, "
            "control_exchange, and that accept_content includes json: without it, on Redis, a worker logs an error for "
            "each command to anybody",
        )


def no_heartbeats(evidence: Evidence) -> Iterator[Finding]:
    """Workers reply, but sent no heartbeat in a watch that is long enough."""
    watch = evidence.broker.watch
    quiet = evidence.broker.replies.keys() - watch.workers.keys() - _on_other_exchanges(evidence).keys()
    if watch.failure is None and watch.seconds >= HEARTBEATS_AFTER and quiet:
        yield hint(
            "no-heartbeats",
            f"no heartbeat in {watch.seconds:.0f} s from {listed(quiet)}",
            "start them without --without-heartbeat; if all are silent, compare event_exchange, database and key "
            "prefix",
        )


def events_disabled(evidence: Evidence) -> Iterator[Finding]:
    """Tasks start and end in a worker, and it sends no task events."""
    watched = evidence.broker.watch.workers
    silent = {name for name, worker in watched.items() if worker.changed_tasks}
    silent |= _without_task_events(evidence.exporter) & evidence.broker.workers
    silent -= {name for name, worker in watched.items() if worker.task_events}
    if silent:
        yield fault("events-disabled", f"no task events from {listed(silent)}, although tasks run there", _ENABLE)


def events_unproven(evidence: Evidence) -> Iterator[Finding]:
    """No task started or ended in a worker, so it cannot be seen whether it sends task events."""
    broker = evidence.broker
    unseen = {
        name for name, worker in broker.watch.workers.items() if not worker.changed_tasks and not worker.task_events
    }
    configured = {name for name, reply in broker.replies.items() if reply.sends_task_events}
    if unproven := unseen - configured - _judged(evidence.exporter):
        yield hint(
            "events-unproven",
            f"cannot tell whether {listed(unproven)} sends task events: no task started or ended there "
            f"in {broker.watch.seconds:.0f} s",
            f"send a task during the check; if there are no events: {_ENABLE}",
        )


def threads_lose_events(evidence: Evidence) -> Iterator[Finding]:
    """Before 5.7, Celery's thread pool can lose its own events (Celery issue 10434)."""
    for name, sender in evidence.broker.watch.workers.items():
        reply = evidence.broker.replies.get(name)
        received, started = sender.events.get("task-received", 0), sender.events.get("task-started", 0)
        threads = reply is not None and reply.pool == "threads"
        if threads and received >= RECEIVED and started < LOST_STARTS * received:
            yield hint(
                "threads-lose-events",
                f"{name} (thread pool) sent {started} task-started for {received} task-received",
                "Celery before 5.7 loses events of thread pools (Celery issue 10434): upgrade it, let the worker count "
                "its tasks itself (celerymeter.aggregate), or use prefork",
            )


def options_differ(evidence: Evidence) -> Iterator[Finding]:
    """Workers have transport options that change how queues are read, and that were not given here."""
    ours = evidence.broker.transport_options
    theirs = {
        name: value
        for reply in evidence.broker.replies.values()
        for name, value in reply.transport_options.items()
        if ours.get(name) != value
    }
    if theirs:
        options = " ".join(f"--transport-option {name}={json.dumps(value)}" for name, value in sorted(theirs.items()))
        yield hint(
            "transport-options-differ",
            f"workers have broker_transport_options that were not given here: {listed(theirs)}",
            f"give exporter and control API the same: {options}",
        )


def visibility_timeout_differs(evidence: Evidence) -> Iterator[Finding]:
    """The exporter computes with another visibility timeout than the workers use, or they use several."""
    replies = evidence.broker.replies.items()
    theirs = {name: reply.visibility_timeout for name, reply in replies if reply.visibility_timeout is not None}
    values = sorted(set(theirs.values()))
    ours = _visibility_timeout(evidence.exporter)
    if len(values) > 1:
        shown = listed(f"{name} {value:.0f} s" for name, value in theirs.items())
        yield hint(
            "visibility-timeout-differs",
            f"workers have different visibility timeouts: {shown}",
            "set the same broker_transport_options visibility_timeout everywhere: Redis delivers a message again "
            f"after the shortest, {values[0]:.0f} s",
        )
    elif values and ours is not None and ours != values[0]:
        yield fault(
            "visibility-timeout-differs",
            f"the exporter computes with a visibility timeout of {ours:.0f} s, the workers use {values[0]:.0f} s",
            "start the exporter without --transport-option visibility_timeout, so that it takes theirs: "
            "the alert CeleryRedeliveryRisk depends on it",
        )


def clock_skew(evidence: Evidence) -> Iterator[Finding]:
    """Clocks differ; an offset of whole time zones is not drift."""
    skewed = {name: offset for name, offset in _clock_offsets(evidence).items() if abs(offset) > SKEW}
    zones = {name: offset for name, offset in skewed.items() if _is_time_zone(offset)}
    if zones:
        yield hint(
            "clock-in-local-time",
            f"clocks are off by whole time zones, up to {max(zones.values(), key=abs) / 3600:+.1f} h: {listed(zones)}",
            "the clock itself shows local time: set it to UTC (timedatectl set-local-rtc 0) and put the zone into TZ",
        )
    if drifted := {name: offset for name, offset in skewed.items() if name not in zones}:
        worst = max(drifted.values(), key=abs)
        yield hint(
            "clock-skew",
            f"clocks differ from this machine's by up to {worst:+.0f} s: {listed(drifted)}",
            "synchronise them (NTP, chrony): ETA, expiry and heartbeats depend on them; waiting times are corrected",
        )


def time_zones_differ(evidence: Evidence) -> Iterator[Finding]:
    """Workers read times without a zone differently, or write local time."""
    zones = {name: reply.time_zone for name, reply in evidence.broker.replies.items()}
    if len(set(zones.values())) > 1 or any(zone.startswith("local time") for zone in zones.values()):
        yield hint(
            "time-zones-differ",
            f"timezone and enable_utc of the workers: {listed(f'{name} {zone}' for name, zone in zones.items())}",
            "set the same timezone everywhere and leave enable_utc on; otherwise ETAs and crontabs are off by hours",
        )


def no_sent_events(evidence: Evidence) -> Iterator[Finding]:
    """Tasks arrive for which no producer sent a task-sent event."""
    unsent = set(evidence.broker.watch.unsent)
    if evidence.exporter:
        sent = evidence.exporter.by("name", "celery_task_sent_total")
        received = evidence.exporter.by("name", "celery_task_received_total")
        unsent |= {name for name, count in received.items() if count and not sent.get(name)}
    if unsent and not evidence.broker.workers <= evidence.broker.aggregating.keys():  # whose waits come from stamps
        yield hint(
            "no-sent-events",
            f"no task-sent events for {listed(unsent)}",
            "set task_send_sent_event = True in the producers: without it there are no waiting times, "
            "and no queue names for workers with several queues",
        )


def _judged(exporter: ExporterEvidence | None) -> set[str]:
    """Return the workers about whose task events the exporter has decided, because it has seen them run tasks."""
    processed = exporter.nonzero("hostname", "celery_worker_tasks_processed_total") if exporter else {}
    return set(processed) | _without_task_events(exporter)


def _without_task_events(exporter: ExporterEvidence | None) -> set[str]:
    """Return the workers that the exporter has seen run tasks without task events."""
    enabled = exporter.by("hostname", "celery_worker_task_events_enabled") if exporter else {}
    return {name for name, value in enabled.items() if value == 0}


def _visibility_timeout(exporter: ExporterEvidence | None) -> float | None:
    return exporter.value("celery_queue_visibility_timeout_seconds") if exporter else None


def _on_other_exchanges(evidence: Evidence) -> dict[str, str]:
    ours = evidence.broker.event_exchange
    replies = evidence.broker.replies.items()
    return {name: reply.event_exchange for name, reply in replies if reply.event_exchange != ours}


def _clock_offsets(evidence: Evidence) -> dict[str, float]:
    """Return our clock minus each worker's; the exporter has measured for longer than the doctor."""
    offsets = {name: sender.clock_offset or 0.0 for name, sender in evidence.broker.watch.workers.items()}
    return offsets | (
        evidence.exporter.by("hostname", "celery_worker_clock_offset_seconds") if evidence.exporter else {}
    )


def _is_time_zone(offset: float) -> bool:
    steps = round(abs(offset) / ZONE_STEP)
    return 1 <= steps <= 28 and abs(abs(offset) - steps * ZONE_STEP) <= ZONE_SLACK
