"""Totals of one worker process since it started. Pure: clocks and what Celery knows are arguments.

Counts as the exporter counts events (`celerymeter.tracking.tasks`), but never has to find a name or a queue later: the
worker knows both from the message itself. Thread-safe, because pools of threads report the steps of a run from the
thread that runs it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from celerymeter.aggregate.runs import Run, Runs
from celerymeter.aggregate.series import Series, SeriesTable
from celerymeter.exception_names import UNKNOWN, WORKER_LOST, exception_name

GRACE = 2.0
"""Seconds after which a rejection was the end: in some cases a failure of the same run follows."""
VANISHED = 5.0
"""Seconds after which a run that Celery no longer lists has ended without an event (`Ignore`)."""
TOLERANCE = 0.05
"""Seconds below 0 that a wait may come out from measurement error alone."""

Fields = Mapping[str, Any]
"""The fields of an event as Celery gives them, hence Any."""


class RunCounter:
    """All totals of one worker process, and the runs that are not over; ``now`` is of a clock that is never set."""

    def __init__(self, *, runtime_buckets: tuple[float, ...], wait_buckets: tuple[float, ...]) -> None:
        self.series = SeriesTable(runtime_buckets=runtime_buckets, wait_buckets=wait_buckets)
        self._lock = threading.RLock()
        """Reentrant: Celery cancels runs in its signal handlers (`celery.apps.worker.on_cold_shutdown`)."""
        self._runs = Runs()
        self._rejected: list[Run] = []
        self._killed: list[Run] = []
        self._requeued: list[Run] = []
        """Runs whose process died, unless their failure is on the way."""
        """Greenlets (`celery.concurrency.gevent.TaskPool._make_killable_target`)."""
        self._unnamed: dict[str, tuple[float, str]] = {}
        """Revoked before they were received: when, and which total; a signal tells name and queue."""
        self.messages = 0
        self.started_total = 0
        self.unmeasured: Counter[str] = Counter()
        self.duplicates: Counter[str] = Counter()

    # Steps of a run

    def received(self, uuid: str, name: str, queue: str, *, now: float, retries: int = 0) -> Run:
        """The worker has a message of a task."""
        with self._lock:
            series = self.series.find(name, queue)
            series.received += 1
            series.changed = self.messages
            run = Run(uuid, series, received=now, retries=retries)
            self._runs.receive(run)
            return run

    def started(self, uuid: str, now: float) -> None:
        """A run begins."""
        with self._lock:
            run = self._runs.take_waiting(uuid) or self._unheard(uuid)
            series = run.series
            series.started += 1
            self.started_total += 1
            series.changed = self.messages
            before = self._runs.ended(uuid)
            if before is not None and before.retries == run.retries and before.state in ("succeeded", "failed"):
                series.add("redelivered")
            run.started, run.state = now, "started"
            first = self._runs.start(run)
            if first is not None and first.retries == run.retries:
                series.add("redelivered")
            self._observe_wait(run, now)

    def succeeded(self, uuid: str, fields: Fields, now: float) -> None:
        """A run returned. Without a run time its greenlet was killed, and Celery says why, before or after."""
        with self._lock:
            if fields.get("runtime", 0.0) is None:
                self._kill(uuid, now)
                return
            if (run := self._end(uuid, "task-succeeded", "succeeded", now)) is None:
                return
            series = run.series
            series.succeeded += 1
            series.last_success = now
            if (runtime := fields.get("runtime")) is not None:
                self.series.observe_runtime(series, float(runtime))

    def _kill(self, uuid: str, now: float) -> None:
        if (run := self._take(uuid, now)) is None:
            self.duplicates["task-succeeded"] += 1
            return
        run.ended, run.state = now, "vanished"
        self._runs.remember(run)
        self._killed.append(run)

    def failed(self, uuid: str, fields: Fields, now: float) -> None:
        """A run raised an exception, or its process died."""
        with self._lock:
            if (run := self._end(uuid, "task-failed", "failed", now)) is None:
                return
            if run in self._requeued:  # a time limit: Celery sends both
                self._requeued.remove(run)
            series, name = run.series, exception_name(fields.get("exception"), fields.get("traceback"))
            series.failed += 1
            series.add_exception("exceptions", self.series.exception(name))
            if name == WORKER_LOST:
                series.add("process_lost")
            if run.started:
                series.add("failed_runtime_count")
                series.add("failed_runtime_sum", max(0.0, now - run.started))

    def retried(self, uuid: str, fields: Fields, now: float) -> None:
        """A run asked to be tried again."""
        with self._lock:
            if (run := self._end(uuid, "task-retried", "retried", now)) is None:
                return
            name = exception_name(fields.get("exception"), fields.get("traceback"))
            run.series.retried += 1
            run.series.add_exception("retry_exceptions", self.series.exception(name))
            if fields.get("exception") in (None, "None"):
                run.series.add("polled")
            if name == WORKER_LOST:
                run.series.add("process_lost")

    def revoked(self, uuid: str, fields: Fields, now: float) -> None:
        """A task was revoked, perhaps before it was received: then `name_revoked` says more about it."""
        reason = "expired" if fields.get("expired") else "terminated" if fields.get("terminated") else "revoked"
        with self._lock:
            if not self._runs.is_known(uuid):
                self._unnamed[uuid] = (now, reason)
            elif (run := self._end(uuid, "task-revoked", _state(reason), now)) is not None:
                run.series.add(f"revoked_{reason}")

    def name_revoked(self, uuid: str, name: str, queue: str) -> None:
        """Celery's signal about a revoked task: count it if it was revoked before it was received."""
        with self._lock:
            if (unnamed := self._unnamed.pop(uuid, None)) is not None:
                self._count_unnamed(uuid, *unnamed, series=self.series.find(name, queue))

    def rejected(self, uuid: str, fields: Fields, now: float) -> None:
        """A run rejected its message. Without ``requeue`` that is its end, unless a failure comes with it."""
        with self._lock:
            if fields.get("requeue"):
                self._requeue(uuid, now)
                return
            run = self._take(uuid, now)
            if run is None and self._runs.ended(uuid) is not None:
                self.duplicates["task-rejected"] += 1
                return
            run = run or self._unheard(uuid)
            run.rejected, run.ended, run.state = True, now, "rejected"
            self._runs.remember(run)
            self._rejected.append(run)

    def cancelled(self, uuid: str, _: Fields, now: float) -> None:
        """A run was ended because the connection was lost; its message is with the broker again."""
        with self._lock:
            run = self._take(uuid, now)
            if run is None and (before := self._runs.ended(uuid)) in self._killed:
                run = before
            if run is not None:
                run.state, run.ended = "cancelled", now
                self._runs.remember(run)

    def _requeue(self, uuid: str, now: float) -> None:
        run = self._take(uuid, now) or self._unheard(uuid)
        run.series.add("requeued")
        if run.started:
            self._requeued.append(run)
        run.series.changed = self.messages
        run.state, run.ended = "requeued", now
        self._runs.remember(run)

    # Which run

    def _take(self, uuid: str, now: float) -> Run | None:
        """Take the run that ends, and count the time for which it took a slot."""
        run = self._runs.take(uuid)
        if run is not None:
            if run.started:
                run.series.busy += max(0.0, now - run.started)
            run.series.changed = self.messages
        return run

    def _unheard(self, uuid: str) -> Run:
        """Return a run of a task that was never received here, as far as is known."""
        return Run(uuid, self.series.find(UNKNOWN, UNKNOWN))

    def _end(self, uuid: str, event: str, state: str, now: float) -> Run | None:
        """Return the run that ends, or ``None`` for what comes after the run's one end."""
        run = self._take(uuid, now)
        if run is None:
            run = self._runs.ended(uuid)
            if run is not None and run.rejected:
                run.rejected = False
                self.duplicates["task-rejected"] += 1  # it was not the end after all
            elif run is not None and run.state not in ("retried", "requeued", "cancelled", "vanished"):
                self.duplicates[event] += 1
                return None
            run = run or self._unheard(uuid)
            run.series.changed = self.messages
        run.ended, run.state = now, state
        self._runs.remember(run)
        return run

    def _count_unnamed(self, uuid: str, at: float, reason: str, *, series: Series) -> None:
        run = Run(uuid, series)
        run.ended, run.state = at, _state(reason)
        self._runs.remember(run)
        series.received += 1  # and discarded at once, for which Celery sends no `task-received`
        series.add(f"revoked_{reason}")
        series.changed = self.messages

    # Waits

    def _observe_wait(self, run: Run, now: float) -> None:
        if run.sent is None:
            self.unmeasured["not_sent"] += 1
            return
        wait = now - (run.sent if run.eta is None else max(run.sent, run.eta))
        if wait < -TOLERANCE:
            self.unmeasured["negative"] += 1
            return
        self.series.observe_wait(run.series, wait)

    # From time to time

    def reconnected(self) -> None:
        """The broker has a new connection."""
        with self._lock:
            self._runs.lost_connection()

    def rows(
        self, now: float, *, active: Collection[str] | None, full: bool, final: bool = False, to_utc: float = 0.0
    ) -> dict[str, list[Any]]:
        """Return the series for the next message by their index: all, or what changed since the last but one.

        ``active`` has the uuids that Celery runs, ``None`` if it cannot say. ``final``: nothing more will come.
        ``to_utc`` makes times of this clock UTC.
        """
        with self._lock:
            self._settle(now, active, final=final)
            busy: dict[Series, float] = {}
            for series in self.series:
                if series.running:
                    series.running, series.oldest, series.changed = 0, 0.0, self.messages
            for run in self._runs.in_progress():
                series = run.series
                series.running += 1
                series.oldest = min(series.oldest or run.started, run.started)
                series.changed = self.messages
                busy[series] = busy.get(series, 0.0) + max(0.0, (run.missing or now) - run.started)
            since = self.messages - 1
            self.messages += 1
            chosen = [series for series in self.series if full or series.changed >= since]
            return {series.index: series.row(busy.get(series, 0.0), to_utc) for series in chosen}

    @property
    def has_news(self) -> bool:
        """True if a series has changed since the last message."""
        with self._lock:
            return any(series.changed >= self.messages for series in self.series)

    def _settle(self, now: float, active: Collection[str] | None, *, final: bool) -> None:
        """Count what waited for something that did not come."""
        for run in [run for run in self._rejected if final or now - run.ended >= GRACE]:
            self._rejected.remove(run)
            if run.rejected:
                run.rejected = False
                run.series.add("rejected")
                run.series.changed = self.messages
        for run in [run for run in self._requeued if final or now - run.ended >= GRACE]:
            # with task_reject_on_worker_lost no other event tells of a killed process (`Request.on_failure`)
            self._requeued.remove(run)
            run.series.add("process_lost")
            run.series.changed = self.messages
        for run in [run for run in self._killed if final or now - run.ended >= GRACE]:
            self._killed.remove(run)
            if run.state == "vanished":
                run.series.add("without_result")
                run.series.changed = self.messages
        for uuid, (at, reason) in list(self._unnamed.items()):
            if final or now - at >= GRACE:
                del self._unnamed[uuid]
                self._count_unnamed(uuid, at, reason, series=self.series.find(UNKNOWN, UNKNOWN))
        for run in self._runs.in_progress() if active is not None else ():
            self._check(run, now, listed=run.uuid in (active or ()), final=final)

    def _check(self, run: Run, now: float, *, listed: bool, final: bool) -> None:
        if listed:
            run.missing = 0.0
            return
        run.missing = run.missing or now
        if final or now - run.missing >= VANISHED:
            self._take(run.uuid, run.missing)
            run.ended, run.state = run.missing, "vanished"
            run.series.add("without_result")
            self._runs.remember(run)

    def unstarted(self, active: Collection[str]) -> int:
        """Return how many of these runs Celery has counted, and not yet reported: in pools of greenlets it waits there.

        Between the two it acknowledges the message (`celery.worker.request.Request.on_accepted`).
        """
        with self._lock:
            return sum(not self._runs.is_running(uuid) for uuid in active)

    def lookup(self, uuid: str) -> Run | None:
        """Return what is known of a task: its unfinished run, or else the one that ended last."""
        with self._lock:
            return self._runs.find(uuid)


def _state(reason: str) -> str:
    """Return the state of a revoked run; the process of a terminated one may still live."""
    return "terminated" if reason == "terminated" else "revoked"
