"""Are there workers, and do they say what they do."""

from __future__ import annotations

import json
from collections.abc import Iterator

from celerymeter.doctor.evidence import Evidence, ExporterEvidence
from celerymeter.doctor.finding import Finding, fault, hint, listed

HEARTBEATS = 3
"""Heartbeats that a watch must be long enough for, at Celery's interval of 2 s."""
SKEW = 5.0
"""Seconds; the alert's own limit."""
ZONE_STEP, ZONE_SLACK = 1800.0, 60.0
"""Time zones differ by half hours; a clock that is so near to one is not merely wrong."""
LOST_STARTS = 0.5
"""Share of starts below which a thread pool's events are called lossy."""
RECEIVED = 10
"""Received tasks from which that share means something."""

_ENABLE = "start it with -E, or set worker_send_task_events = True; `celery control enable_events` until its next start"


def none(evidence: Evidence) -> Iterator[Finding]:
    """Nobody gives a sign of life."""
    if _usable(evidence) and not evidence.broker.workers:
        yield fault(
            "no-workers",
            f"no worker on {evidence.broker.url} answers or sends heartbeats",
            "start one (celery -A APP worker -E); if some run, compare database number, virtual host, "
            "global_keyprefix and fanout_prefix with theirs",
        )


def elsewhere(evidence: Evidence) -> Iterator[Finding]:
    """Nobody is here, but the same server has queues of Celery's in another place, or only results in this one."""
    broker = evidence.broker
    if broker.workers:
        return
    if broker.elsewhere:
        yield hint(
            "queues-elsewhere",
            f"Celery has queues on this Redis in {listed(broker.elsewhere)}",
            "if they are your workers', take that database in the URL (redis://HOST/DB) and that key prefix "
            "(--transport-option global_keyprefix=…)",
        )
    if broker.only_results:
        yield hint(
            "result-backend",
            f"{broker.url} holds task results and no queues",
            "this looks like the result backend: take the application's broker_url, not its result_backend",
        )


def silent_to_inspect(evidence: Evidence) -> Iterator[Finding]:
    """Heartbeats, but no answer to remote control."""
    silent = evidence.broker.watch.workers.keys() - evidence.broker.answers.keys()
    if silent:
        yield hint(
            "no-remote-control",
            f"no answer to `inspect` from {listed(silent)}",
            "a solo worker is silent while it works; else check worker_enable_remote_control and control_exchange",
        )


def without_heartbeats(evidence: Evidence) -> Iterator[Finding]:
    """Answers, but no heartbeat in a watch that is long enough for some."""
    watch = evidence.broker.watch
    quiet = evidence.broker.answers.keys() - watch.workers.keys() - _on_other_exchanges(evidence).keys()
    if watch.failure is None and watch.seconds >= 2 * HEARTBEATS and quiet:
        yield hint(
            "no-heartbeats",
            f"no heartbeats in {watch.seconds:.0f} s from {listed(quiet)}",
            "start without --without-heartbeat; if all are silent, compare event_exchange, database and key prefix",
        )


def on_another_exchange(evidence: Evidence) -> Iterator[Finding]:
    """Their events go where nobody listens."""
    if apart := _on_other_exchanges(evidence):
        exchange = min(apart.values())
        yield fault(
            "event-exchange-differs",
            f"{listed(apart)} sends events to the exchange {exchange}, not {evidence.broker.event_exchange}",
            f"--celery-setting event_exchange={exchange} here and at the exporter, or the same setting everywhere",
        )


def options_differ(evidence: Evidence) -> Iterator[Finding]:
    """Transport options without which queues are read wrongly."""
    ours = evidence.broker.transport_options
    theirs = {
        name: value
        for answer in evidence.broker.answers.values()
        for name, value in answer.transport_options.items()
        if ours.get(name) != value
    }
    if theirs:
        given = " ".join(f"--transport-option {name}={json.dumps(value)}" for name, value in sorted(theirs.items()))
        yield hint(
            "transport-options-differ",
            f"workers have broker_transport_options that were not given here: {listed(theirs)}",
            f"give exporter and control API the same: {given}",
        )


def events_disabled(evidence: Evidence) -> Iterator[Finding]:
    """They work, as their heartbeats say, and send nothing about tasks."""
    heard = evidence.broker.watch.workers
    silent = {name for name, worker in heard.items() if worker.worked and not worker.task_events}
    silent |= _zero(evidence.exporter, "celery_worker_task_events_enabled") & evidence.broker.workers
    silent -= {name for name, worker in heard.items() if worker.task_events}
    if silent:
        yield fault("events-disabled", f"no task events from {listed(silent)}, though they work", _ENABLE)


def events_unproven(evidence: Evidence) -> Iterator[Finding]:
    """Idle ones: whether they would send events cannot be seen."""
    broker = evidence.broker
    idle = {name for name, heard in broker.watch.workers.items() if not heard.worked and not heard.task_events}
    told = {name for name, answer in broker.answers.items() if answer.sends_task_events}
    if unproven := idle - told - _judged(evidence.exporter):
        yield hint(
            "events-unproven",
            f"cannot tell whether {listed(unproven)} send task events: they were idle for {broker.watch.seconds:.0f} s",
            f"send a task while this looks; if they do not: {_ENABLE}",
        )


def threads_lose_events(evidence: Evidence) -> Iterator[Finding]:
    """Celery's thread pool can lose its own events (celery issue 10434)."""
    for name, heard in evidence.broker.watch.workers.items():
        answer = evidence.broker.answers.get(name)
        received, started = heard.events.get("task-received", 0), heard.events.get("task-started", 0)
        threads = answer is not None and answer.pool == "threads"
        if threads and received >= RECEIVED and started < LOST_STARTS * received:
            yield hint(
                "threads-lose-events",
                f"{name} (thread pool) sent {started} task-started for {received} task-received",
                "Celery loses events of thread pools (celery issue 10434): use prefork, or count by heartbeats "
                "(celery_worker_tasks_processed_total)",
            )


def clock_skew(evidence: Evidence) -> Iterator[Finding]:
    """Clocks that differ; by whole time zones it is no drift."""
    skewed = {name: offset for name, offset in _offsets(evidence).items() if abs(offset) > SKEW}
    zones = {name: offset for name, offset in skewed.items() if _is_zone(offset)}
    if zones:
        yield hint(
            "clock-in-local-time",
            f"clocks are off by whole time zones, up to {max(zones.values(), key=abs) / 3600:+.1f} h: {listed(zones)}",
            "the clock itself shows local time: set it to UTC (timedatectl set-local-rtc 0) and name the zone in TZ",
        )
    if drifted := {name: offset for name, offset in skewed.items() if name not in zones}:
        worst = max(drifted.values(), key=abs)
        yield hint(
            "clock-skew",
            f"clocks differ from this machine's by up to {worst:+.0f} s: {listed(drifted)}",
            "synchronise them (NTP, chrony): ETA, expiry and heartbeats depend on it; waits are corrected",
        )


def time_zones_differ(evidence: Evidence) -> Iterator[Finding]:
    """Workers that read a time without zone differently, or that write local time."""
    zones = {name: answer.time_zone for name, answer in evidence.broker.answers.items()}
    if len(set(zones.values())) > 1 or any(zone.startswith("local time") for zone in zones.values()):
        yield hint(
            "time-zones-differ",
            f"workers' timezone and enable_utc: {listed(f'{name} {zone}' for name, zone in zones.items())}",
            "set the same timezone everywhere and leave enable_utc on: else an ETA or a crontab means another hour",
        )


def without_sent_events(evidence: Evidence) -> Iterator[Finding]:
    """Tasks that arrive though nobody said that they were sent."""
    unsent = {*evidence.broker.watch.unsent}
    if evidence.exporter:
        sent = evidence.exporter.by("name", "celery_task_sent_total")
        received = evidence.exporter.by("name", "celery_task_received_total")
        unsent |= {name for name, count in received.items() if count and not sent.get(name)}
    if unsent:
        yield hint(
            "no-sent-events",
            f"no task-sent events for {listed(unsent)}",
            "set task_send_sent_event = True where they are sent from: without it waits are unmeasured, "
            "and queues are unknown for workers with several",
        )


def _judged(exporter: ExporterEvidence | None) -> set[str]:
    """Workers that the exporter has seen at work: its own verdict on their events stands."""
    processed = exporter.by("hostname", "celery_worker_tasks_processed_total") if exporter else {}
    return {host for host, count in processed.items() if count} | _zero(exporter, "celery_worker_task_events_enabled")


def _on_other_exchanges(evidence: Evidence) -> dict[str, str]:
    ours = evidence.broker.event_exchange
    answers = evidence.broker.answers.items()
    return {name: answer.event_exchange for name, answer in answers if answer.event_exchange != ours}


def _offsets(evidence: Evidence) -> dict[str, float]:
    """Our clock minus each worker's, the exporter's measurement before our own."""
    offsets = {name: heard.clock_offset or 0.0 for name, heard in evidence.broker.watch.workers.items()}
    if evidence.exporter:
        offsets |= evidence.exporter.by("hostname", "celery_worker_clock_offset_seconds")
    return offsets


def _is_zone(offset: float) -> bool:
    steps = round(abs(offset) / ZONE_STEP)
    return 1 <= steps <= 28 and abs(abs(offset) - steps * ZONE_STEP) <= ZONE_SLACK


def _usable(evidence: Evidence) -> bool:
    return evidence.broker.failure is None


def _zero(exporter: ExporterEvidence | None, name: str) -> set[str]:
    return {host for host, value in exporter.by("hostname", name).items() if value == 0} if exporter else set()
