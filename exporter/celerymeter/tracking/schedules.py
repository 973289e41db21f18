"""Schedules: which beats live, what each of their entries was due for, and what became of what it sent."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

from celerymeter import escaping
from celerymeter.model import BeatReport, Event, ScheduleRow
from celerymeter.tracking.beats import SHARED, Beat, Schedule
from celerymeter.tracking.clocks import ClockOffset

T = TypeVar("T")

HEARTBEAT = 5.0
MISSED_HEARTBEATS = 3
RECONNECT_GRACE = 30.0
SET = 1.0
"""Seconds by which a beat's clock must change at once to be believed at once."""
PING_TIMEOUT = 3
"""Polls without a reply after which a beat that only answers pings is down."""
MAX_SCHEDULES = 2000
MAX_BEATS = 100
MAX_ENTRIES = 3 * MAX_SCHEDULES
"""Entries of all beats together: those of several beats may be the same."""
MAX_TIDIED = 10
"""Schedules that are compared with those of other beats at once; further ones at the next `ScheduleTable.judge`."""
MAX_PASSED = 1_000_000
MAX_AWAITED = 10_000
"""Tasks whose end is awaited, and ends that came before the entry was reported as sent."""
FORGOTTEN = 7 * 86400.0
"""Seconds after which even the last beat of a cluster is forgotten with its schedule."""
BEAT_EVENTS = ("beat-heartbeat", "beat-schedule", "beat-sent", "beat-failed", "beat-offline")
RUN_ENDS = ("task-succeeded", "task-failed", "task-revoked", "task-rejected")


class ScheduleTable:
    """Every schedule and beat; both are bounded, what is beyond is counted as folded."""

    def __init__(
        self, *, retention: float, poll_interval: float, folded: Counter[str], last_success: Mapping[str, float]
    ) -> None:
        """``last_success`` is kept by task name, also of workers that send no event for a success."""
        self.answered: dict[str, float] = {}
        """The time of each beat's last answer to a ping (Celery 5.7, `beat_enable_remote_control`), by node name."""
        self._pinged_at = 0.0
        """The time of the last ping to beats: while polls fail nothing is known anew."""
        self._retention = retention
        self._ping_timeout = PING_TIMEOUT * poll_interval
        self._folded = folded
        self._last_success = last_success
        self.by_instance: dict[str, Beat] = {}
        """The beats with the hook, by the id of their process."""
        self._schedules: dict[tuple[str, str], Schedule] = {}
        self._entries = 0
        """At least as many as all beats have together; `judge` counts them anew."""
        self._tidied = 0
        self._untidy: dict[Beat, None] = {}
        self._awaited: OrderedDict[str, Schedule] = OrderedDict()
        self._ended: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __iter__(self) -> Iterator[Schedule]:
        return iter(self._schedules.values())

    @property
    def beats(self) -> Collection[Beat]:
        """Return the beats with the hook, dead ones too until they are forgotten."""
        return self.by_instance.values()

    # From the stream

    def event(self, event: Event, report: BeatReport, at: float, *, connected_at: float | None) -> None:
        """Take one event of a beat."""
        beat = self._beat(event, report, at, connected_at)
        if beat is None:
            return
        beat.last_seen = at
        beat.offline = event.type == "beat-offline"
        if beat.offset is None or _was_set(beat.skew, report.skew):
            beat.offset = ClockOffset(timestamp=event.timestamp, at=at)
        beat.skew = report.skew
        offset = beat.offset.observe(timestamp=event.timestamp, at=at)
        if event.type in ("beat-heartbeat", "beat-schedule"):
            beat.lag, beat.count = report.lag, report.count
        if event.type == "beat-schedule":
            self._replace(beat, report.schedule, offset)
        elif event.type in ("beat-sent", "beat-failed"):
            for row in report.schedule[:1]:
                self._applied(beat, row, report, at, offset, failed=event.type == "beat-failed")

    def _beat(self, event: Event, report: BeatReport, at: float, connected_at: float | None) -> Beat | None:
        beat = self.by_instance.get(report.instance)
        if beat is None:
            if len(self.by_instance) >= MAX_BEATS and not self._forget_oldest():
                self._folded["hostname"] += 1
                return None
            began = report.started_at + at - event.timestamp
            fresh = connected_at is not None and began > connected_at
            beat = self.by_instance[report.instance] = Beat(escaping.name(event.hostname), fresh=fresh, at=at)
        return beat

    def _replace(self, beat: Beat, rows: list[ScheduleRow], offset: float) -> None:
        """Take the whole schedule of a beat: what it no longer has is gone, unless another beat has it."""
        for row in rows:
            self._count(beat, row, offset)
        beat.fresh = True
        listed = {_labels(row) for row in rows}
        for labels in beat.counts.keys() - listed:
            del beat.counts[labels]
        self._untidy[beat] = None
        if self._tidied < MAX_TIDIED:
            self._tidied += 1
            self._tidy()

    def _tidy(self) -> None:
        """Forget the beats that were replaced, and the entries that no beat has any more."""
        for beat in self._untidy:
            for instance, other in list(self.by_instance.items()):
                if other is not beat and (other.offline or not other.up) and _replaced(other, beat):
                    del self.by_instance[instance]
        self._untidy.clear()
        self._drop_unowned()

    def _applied(
        self, beat: Beat, row: ScheduleRow, report: BeatReport, at: float, offset: float, *, failed: bool
    ) -> None:
        schedule = self._count(beat, row, offset, new=(1, 0, 1) if failed else (1, 1, 0))
        if schedule is None:
            return
        if row.last_run_at is not None and report.due_at is not None:
            schedule.lateness.observe(row.last_run_at - report.due_at)
        if failed:
            return
        schedule.last_sent_at = min(at, row.last_run_at + offset) if row.last_run_at is not None else at
        if report.uuid is None:
            return
        if (ended := self._ended.pop(report.uuid, None)) is not None:
            self._take_end(schedule, *ended)
        else:
            _remember(self._awaited, report.uuid, schedule)

    def _count(
        self, beat: Beat, row: ScheduleRow, offset: float, *, new: tuple[int, int, int] = (0, 0, 0)
    ) -> Schedule | None:
        """Add what a beat counted since it last said; of one that we meet in its midst only what is ``new``."""
        labels = _labels(row)
        if labels not in beat.counts:
            if self._entries >= MAX_ENTRIES:
                self._folded["schedule"] += 1
                return None
            self._entries += 1
        schedule = self.add(labels)
        if schedule is None:
            return None
        counts = row.due, row.sent, row.failed
        known = beat.counts.get(labels)
        if known is None:
            known = (0, 0, 0) if beat.fresh else (row.due - new[0], row.sent - new[1], row.failed - new[2])
        schedule.due += max(0, row.due - known[0])
        schedule.sent += max(0, row.sent - known[1])
        schedule.failed += max(0, row.failed - known[2])
        if labels not in beat.counts and not row.due:
            passed = _passed(schedule.next_due_at, row, beat.last_seen)
            schedule.due += passed
            if passed and row.every is None and schedule.left_out_at is None:
                schedule.left_out_at = schedule.next_due_at
        beat.counts[labels] = counts
        schedule.every = row.every
        schedule.next_due_at = row.next_due_at + offset if row.enabled and row.next_due_at is not None else None
        if row.sent or schedule.next_due_at is None:
            schedule.left_out_at = None
        return schedule

    def add(self, labels: tuple[str, str]) -> Schedule | None:
        """Return the entry of these labels, made at 0 when it is new; ``None`` beyond the limit."""
        schedule = self._schedules.get(labels)
        if schedule is None and len(self._schedules) >= MAX_SCHEDULES:
            self._folded["schedule"] += 1
        elif schedule is None:
            schedule = self._schedules[labels] = Schedule(labels)
        return schedule

    def ended(self, event: Event, at: float) -> None:
        """Take the end of a task, which an entry may have sent."""
        uuid = event.uuid or ""
        if event.requeue:
            return
        schedule = self._awaited.pop(uuid, None)
        if schedule is None:
            _remember(self._ended, uuid, (event.type, at))
        else:
            self._take_end(schedule, event.type, at)

    def _take_end(self, schedule: Schedule, kind: str, at: float) -> None:
        if kind == "task-succeeded":
            schedule.runs_succeeded += 1
            schedule.failures = 0
            schedule.last_success_at = at
            return
        if self._last_success.get(schedule.labels[1], 0.0) > schedule.failed_at:
            schedule.failures = 0
        schedule.runs_failed += 1
        schedule.failures += 1
        schedule.failed_at = at

    # From the poller

    def pinged(self, hostnames: Collection[str], at: float) -> None:
        """Take the node names of the beats that answered a ping."""
        self._pinged_at = at
        for hostname in map(escaping.name, hostnames):
            if hostname in self.answered or len(self.answered) < MAX_BEATS:
                self.answered[hostname] = at

    # Time

    def judge(self, now: float, *, connected_at: float | None) -> None:
        """Decide which beats are up, and forget those long gone."""
        if connected_at is None:
            return
        for beat in self.by_instance.values():
            silent = now - beat.last_seen > MISSED_HEARTBEATS * HEARTBEAT
            unheard = beat.last_seen < connected_at and now - connected_at < RECONNECT_GRACE
            beat.up = not beat.offline and (beat.up if unheard else not silent)
            beat.down_since = None if beat.up else beat.down_since or now
        any_up = any(beat.up for beat in self.by_instance.values())
        kept = self._retention if any_up else FORGOTTEN
        gone = [key for key, beat in self.by_instance.items() if beat.down_since and now - beat.down_since > kept]
        for instance in gone:
            del self.by_instance[instance]
        for hostname in [name for name, at in self.answered.items() if self._pinged_at - at > self._retention]:
            del self.answered[hostname]
        self._tidied = 0
        if gone or self._untidy:
            self._tidy()
        self._entries = sum(len(beat.counts) for beat in self.by_instance.values())

    def _forget_oldest(self) -> bool:
        """Make room for a beat, if one is down."""
        down = {beat.last_seen: instance for instance, beat in self.by_instance.items() if not beat.up}
        if down:
            del self.by_instance[down[min(down)]]
        return bool(down)

    def _drop_unowned(self) -> None:
        owned = {labels for beat in self.by_instance.values() for labels in beat.counts}
        for labels in self._schedules.keys() - owned:
            del self._schedules[labels]

    # What others read

    def up(self, now: float) -> dict[str, bool]:
        """Return whether each beat is up, by its node name; the hook knows better than a ping."""
        up = {hostname: self._pinged_at - at <= self._ping_timeout for hostname, at in self.answered.items()}
        hooked: dict[str, bool] = {}
        for beat in self.by_instance.values():
            if beat.up or now - beat.last_seen <= self._retention:
                hooked[beat.hostname] = hooked.get(beat.hostname, False) or beat.up
        return up | hooked

    def newest(self) -> dict[str, Beat]:
        """Return the live beat of each node name that began last."""
        return {beat.hostname: beat for beat in self.by_instance.values() if beat.up}

    def duplicates(self, now: float) -> dict[str, bool]:
        """Return whether another live beat sends the same as each one, by node name; two unknown schedules may be."""
        live = [beat for beat in self.by_instance.values() if beat.up]
        owners = Counter(labels for beat in live for labels in beat.own)
        doubled = {beat.hostname for beat in live if any(owners[labels] > 1 for labels in beat.own)}
        up = self.up(now)
        unknown = {name for name in self.answered if up.get(name)} - {beat.hostname for beat in live}
        if len(unknown) > 1:
            doubled |= unknown
        return {name: name in doubled for name, alive in up.items() if alive}


def _replaced(one: Beat, other: Beat) -> bool:
    """Return whether two beats are of one place, or have an entry in common that Celery does not give to every beat."""
    shared = one.counts.keys() & other.counts.keys()
    return one.hostname == other.hostname or any(labels[0] not in SHARED for labels in shared)


def _was_set(before: float | None, skew: float | None) -> bool:
    """Return whether a beat's clock was set: slewing changes it by less between two reports."""
    return before is not None and skew is not None and abs(skew - before) > SET


def _labels(row: ScheduleRow) -> tuple[str, str]:
    return escaping.name(row.schedule), escaping.name(row.name)


def _passed(due_at: float | None, row: ScheduleRow, now: float) -> int:
    """Return how many times passed before a new beat came that does not make up for them: it has no memory of its own.

    One that has sends what is late before it reports its schedule.
    """
    if due_at is None or due_at > now or row.next_due_at is None:
        return 0
    return 1 + int(min((now - due_at) / row.every, MAX_PASSED)) if row.every else 1


def _remember(table: OrderedDict[str, T], uuid: str, value: T) -> None:
    table[uuid] = value
    if len(table) > MAX_AWAITED:
        table.popitem(last=False)
