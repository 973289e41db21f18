"""Checks of schedules: does beat live, is anything late, and can what it sends succeed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from celerymeter.doctor.evidence import Evidence, ExporterEvidence
from celerymeter.doctor.report import Finding, fault, hint, listed
from celerymeter.worker_configuration import ScheduledTask

LATE = 60.0
"""Seconds; the limit of the alert as well."""
EXPIRED, EXPIRED_RUNS = 0.05, 3
"""Share of a scheduled task's runs that may expire, and the number from which it is meaningful."""
BUILT_IN = "celery."
"""Begins the names of tasks that every worker has and `inspect registered` leaves out."""
_HOOK = (
    "call celerymeter.schedule.install(app) where the app is defined, or set beat_enable_remote_control (Celery 5.7)"
)


def no_beat(evidence: Evidence) -> Iterator[Finding]:
    """There is a schedule, and no beat that lives."""
    entries, page = _entries(evidence), _page(evidence)
    up = page.by("hostname", "celery_beat_up") if page else {}
    if evidence.broker.failure is not None or evidence.broker.beats or any(up.values()):
        return
    if up:
        yield fault(
            "beat-down",
            f"no beat is alive (it was {listed(up)}), so nothing of the schedule is sent",
            "start it (celery -A APP beat), or restart it if it hangs",
        )
    elif entries:
        yield hint(
            "beat-unknown",
            f"there is a schedule ({listed(entries)}), and no beat reports itself: whether one is alive is not known",
            f"if beat runs: {_HOOK}",
        )


def two_beats(evidence: Evidence) -> Iterator[Finding]:
    """Two live beats have the same schedule."""
    page = _page(evidence)
    if doubled := page.nonzero("hostname", "celery_beat_duplicate") if page else {}:
        yield fault(
            "beat-duplicate",
            f"more than one beat sends the same schedule, on {listed(doubled)}: its tasks run twice",
            "stop all but one, or use a scheduler with a lock (RedBeat)",
        )


def late(evidence: Evidence) -> Iterator[Finding]:
    """Entries were due and are not sent."""
    page = _page(evidence)
    if not page or page.value("celerymeter_broker_up") != 1:
        return
    now = page.at - (page.clock_offset or 0.0)
    due = page.by("schedule", "celery_schedule_next_due_timestamp_seconds")
    if overdue := {name: now - at for name, at in due.items() if now - at > LATE}:
        yield fault(
            "schedule-late",
            f"{listed(overdue)} should have been sent {max(overdue.values()):.0f} s ago",
            "look at beat's log: it may be down, wait for its database, or its clock was set back",
        )


def failing(evidence: Evidence) -> Iterator[Finding]:
    """Entries are sent, and their runs do not succeed."""
    page = _page(evidence)
    failures = page.by("schedule", "celery_schedule_consecutive_failures") if page else {}
    if bad := [name for name, number in failures.items() if number >= 2]:
        yield hint(
            "schedule-failing",
            f"the last runs of {listed(bad)} did not succeed",
            "the dashboard Tasks and the workers' log have the exceptions",
        )


def unregistered(evidence: Evidence) -> Iterator[Finding]:
    """No worker knows the task of an entry. A worker that did not say may."""
    registered = [reply.registered for reply in evidence.broker.replies.values()]
    if not registered or any(names is None for names in registered):
        return
    known = frozenset[str]().union(*filter(None, registered))
    own = {name: entry.name for name, entry in _entries(evidence).items() if not entry.name.startswith(BUILT_IN)}
    if missing := {name: task for name, task in own.items() if task not in known}:
        yield fault(
            "schedule-unregistered",
            f"no worker has registered the task of {listed(f'{name} ({task})' for name, task in missing.items())}",
            "correct its name, or start a worker that imports it: workers discard messages of tasks that they lack",
        )


def expires_too_soon(evidence: Evidence) -> Iterator[Finding]:
    """Tasks of an entry expire before they can start, and are discarded without any error."""
    page = _page(evidence)
    if not page:
        return
    ages = {
        queue: page.at - at for queue, at in page.by("queue_name", "celery_queue_oldest_task_timestamp_seconds").items()
    }
    revoked = page.page.get("celery_task_revoked_total", ())
    started = page.by("name", "celery_task_started_total")
    expired: dict[str, float] = {}
    for sample in revoked:
        if sample.labels.get("reason") == "expired":
            expired[sample.labels["name"]] = expired.get(sample.labels["name"], 0.0) + sample.value
    bad = []
    for name, entry in _entries(evidence).items():
        number = expired.get(entry.name, 0.0)
        often = number >= EXPIRED_RUNS and number > EXPIRED * (number + started.get(entry.name, 0.0))
        if often or (entry.expires is not None and ages.get(entry.queue_name or "celery", 0.0) > entry.expires):
            bad.append(name)
    if bad:
        yield hint(
            "schedule-expires",
            f"tasks of {listed(bad)} expire before a worker starts them, and are discarded without an error",
            "raise expires above the wait in their queue, give them a queue of their own, or add workers",
        )


def overlapping(evidence: Evidence) -> Iterator[Finding]:
    """An entry is sent again before its last run can have ended."""
    page = _page(evidence)
    if not page:
        return
    total = page.by("name", "celery_task_runtime_seconds_sum")
    count = page.nonzero("name", "celery_task_runtime_seconds_count")
    bad = [
        f"{name} (every {entry.every:.0f} s, takes {total[entry.name] / count[entry.name]:.0f} s)"
        for name, entry in _entries(evidence).items()
        if entry.every and entry.name in count and total.get(entry.name, 0.0) / count[entry.name] > entry.every
    ]
    if bad:
        yield hint(
            "schedule-overlaps",
            f"runs take longer than the interval between them: {listed(bad)}",
            "raise the interval, make the task quicker, or let it end at once while another run of it holds a lock",
        )


def _entries(evidence: Evidence) -> Mapping[str, ScheduledTask]:
    """Return what should be sent: by the workers' configuration, and by beats with the hook, which know better."""
    found = {
        entry.schedule: entry
        for reply in evidence.broker.replies.values()
        if reply.configuration is not None
        for entry in reply.configuration.scheduled
    }
    page = _page(evidence)
    if page:
        every = page.by("schedule", "celery_schedule_interval_seconds")
        for sample in page.page.get("celery_schedule_due_total", ()):
            name, task = sample.labels["schedule"], sample.labels["name"]
            if name not in found or found[name].name != task:
                found[name] = ScheduledTask(name, task, every=every.get(name))
    return found


def _page(evidence: Evidence) -> ExporterEvidence | None:
    """Return the exporter when its page could be read."""
    return evidence.exporter if evidence.exporter and evidence.exporter.failure is None else None
