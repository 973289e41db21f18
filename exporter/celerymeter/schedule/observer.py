"""Observes one beat: wraps its scheduler's ``tick``, ``apply_async`` and ``close``, whatever class it is of."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from celery.utils.log import get_logger

from celerymeter.schedule.entries import MAX_ENTRIES, Plan, entries_of, following, missed_since, plan_of, version_of
from celerymeter.schedule.publisher import Publisher

SNAPSHOT = 60.0
"""Seconds between two reports of the whole schedule."""
STEPPED = 5.0
"""Seconds by which the clock must be changed between two ticks for lateness to mean nothing."""
_ATTRIBUTE = "_celerymeter_observer"

log = get_logger(__name__)


def observe(service: Any) -> None:
    """Observe a `celery.beat.Service`, once."""
    if not hasattr(service, _ATTRIBUTE):
        setattr(service, _ATTRIBUTE, Observer(service))


def node_name(hostname: str | None) -> str:
    """Return the name that beat has in remote control (`celery.beat.beat_nodename`, since Celery 5.7)."""
    try:
        from celery.beat import beat_nodename
    except ImportError:
        return f"celerybeat@{socket.gethostname()}"
    return str(beat_nodename(hostname))


@dataclass(slots=True)
class _Counts:
    """Of one entry, since this beat began; they make up for events that get lost."""

    due: int = 0
    sent: int = 0
    failed: int = 0


class Observer:
    """Reports what a scheduler does, from its first tick on: a RedBeat that waits for its lock is no beat yet."""

    def __init__(
        self, service: Any, *, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._scheduler = service.scheduler
        self._clock, self._monotonic = clock, monotonic
        self._identity = {"instance": uuid.uuid4().hex, "started_at": clock()}
        self._publisher = Publisher(
            service.app, hostname=node_name(getattr(service, "hostname", None)), heartbeat=self._heartbeat
        )
        self._counts: dict[str, _Counts] = {}
        self._due: dict[str, tuple[float | None, float, float]] = {}
        """Of intervals: last run, interval, and when it is due by the monotonic clock, which nobody sets."""
        self._pid: int | None = None
        self._tick_began: float | None = None
        self._tick_expected: float | None = None
        self._late = 0.0
        self._skew: float | None = None
        self._stepped = False
        self._seen: object = None
        self._next_snapshot = monotonic()
        self._entries = self._left_out = 0
        self._wrap()

    def _wrap(self) -> None:
        scheduler = self._scheduler
        tick, apply_async, close = scheduler.tick, scheduler.apply_async, scheduler.close

        def observed_tick(*args: Any, **kwargs: Any) -> Any:
            self._guarded(self._begin_tick)
            interval = tick(*args, **kwargs)
            if isinstance(interval, int | float):
                interval = min(interval, SNAPSHOT)  # beat would sleep for up to 5 minutes
            self._guarded(self._end_tick, interval)
            return interval

        def observed_apply(entry: Any, *args: Any, **kwargs: Any) -> Any:
            plan = self._guarded(self._plan, entry)
            try:
                result = apply_async(entry, *args, **kwargs)
            except Exception as error:
                self._guarded(self._applied, entry, plan, error)
                raise
            self._guarded(self._applied, entry, plan, result)
            return result

        def observed_close(*args: Any, **kwargs: Any) -> Any:
            self._guarded(self._publisher.stop, self._identity)
            return close(*args, **kwargs)

        scheduler.tick, scheduler.apply_async, scheduler.close = observed_tick, observed_apply, observed_close

    def _guarded(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of ours; beat must go on whatever comes of it."""
        try:
            return function(*args)
        except Exception:  # an entry, schedule or database of any kind
            log.exception("celerymeter: beat could not be observed")
            return None

    # Ticks

    def _begin_tick(self) -> None:
        now = self._monotonic()
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._publisher.start()
        skew = self._clock() - now
        self._stepped = self._skew is not None and abs(skew - self._skew) > STEPPED
        self._skew = skew
        self._late = max(0.0, now - self._tick_expected) if self._tick_expected is not None else 0.0
        self._tick_began = now

    def _end_tick(self, interval: Any) -> None:
        now, pause = self._monotonic(), max(0.0, float(interval or 0.0))
        self._tick_expected, self._tick_began = now + pause, None
        # While entries are due each tick sends one: the schedule is reported when all are sent.
        if not pause and now < self._next_snapshot + SNAPSHOT:
            return
        version = version_of(self._scheduler)
        changed = version is not self._seen and not (isinstance(version, int) and version == self._seen)
        if changed or self._stepped or now >= self._next_snapshot:
            self._seen, self._next_snapshot = version, now + SNAPSHOT
            self._report_schedule()

    def _lag(self) -> float:
        """Return how late the last tick was; of one that is late or hangs, how late it is so far."""
        now, began, expected = self._monotonic(), self._tick_began, self._tick_expected
        since = began if began is not None else expected
        return max(self._late, now - since, 0.0) if since is not None else self._late

    def _who(self) -> dict[str, Any]:
        """Return what every report says: ``skew`` changes when somebody sets this host's clock."""
        return {**self._identity, "skew": round(self._clock() - self._monotonic(), 3)}

    def _heartbeat(self) -> dict[str, Any]:
        return {
            **self._who(),
            "lag": round(self._lag(), 3),
            "count": self._entries,
            "left_out": self._left_out,
            "dropped": self._publisher.dropped,
        }

    # Entries

    def _plan(self, entry: Any) -> Plan:
        """Return what an entry says, an interval's due time by the monotonic clock."""
        now = self._clock()
        plan = plan_of(entry, now=now)
        if plan.every is None or plan.next_due_at is None:
            return plan
        known, monotonic = self._due.get(plan.schedule), self._monotonic()
        if known is None or known[:2] != (plan.last_run_at, plan.every):
            known = plan.last_run_at, plan.every, monotonic + plan.next_due_at - now
            if len(self._due) < MAX_ENTRIES or plan.schedule in self._due:
                self._due[plan.schedule] = known
        return Plan(**{**asdict(plan), "next_due_at": now + known[2] - monotonic})

    def _applied(self, entry: Any, plan: Plan | None, outcome: Any) -> None:
        """Report an entry that was sent, or raised."""
        if plan is None:
            return
        now = self._clock()
        counts = self._counts.get(plan.schedule)
        if counts is None:
            counts = _Counts()
            if len(self._counts) < MAX_ENTRIES:
                self._counts[plan.schedule] = counts
        failed = isinstance(outcome, Exception)
        counts.sent += not failed
        counts.failed += failed
        due_at = plan.next_due_at
        if due_at is None or due_at > now or self._stepped:
            due_at = now
        counts.due += 1 + missed_since(entry.schedule, due_at, now=now)
        # What this says of its next time holds until the schedule is reported again.
        ahead = {"last_run_at": now, "next_due_at": following(entry, now=now)}
        report = {
            **self._who(),
            "schedule": [{**asdict(plan), **ahead, **asdict(counts)}],
            "due_at": due_at,
            "uuid": str(outcome.id) if hasattr(outcome, "id") else None,
            "error": type(outcome).__name__ if failed else None,
        }
        self._publisher.put("beat-failed" if failed else "beat-sent", report)

    def _report_schedule(self) -> None:
        found, self._left_out = entries_of(self._scheduler)
        self._entries = len(found) + self._left_out
        plans = [plan for plan in (self._guarded(self._plan, entry) for entry in found) if plan is not None]
        names = {plan.schedule for plan in plans}
        for table in (self._counts, self._due):
            for name in table.keys() - names:
                del table[name]
        none = asdict(_Counts())
        rows = [
            {**asdict(plan), **(asdict(self._counts[plan.schedule]) if plan.schedule in self._counts else none)}
            for plan in plans
        ]
        self._publisher.put("beat-schedule", {**self._heartbeat(), "schedule": rows})
