"""Turns task events on and off: at every worker that runs, and at every worker that joins later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal

from celerymeter.control.desired_state import DesiredEvents, DesiredStateStore
from celerymeter.control.live_workers import MAX_WORKERS, LiveWorker, LiveWorkers, destinations
from celerymeter.control.retries import Retries
from celerymeter.control.routing import utc
from celerymeter.control.task_event_evidence import (
    FLUSH_TIME,
    PROOF_TIME,
    Acknowledgement,
    TaskEventEvidence,
    WorkerTaskEvents,
    heard_since,
    task_event_state,
)
from celerymeter.errors import BrokerUnavailable
from celerymeter.inspect_replies import Replies, mapping
from celerymeter.model import Event
from celerymeter.remote_control import Command, RemoteControl
from celerymeter.threads import PeriodicThread
from celerymeter.totals_message import TOTALS

Reply = Literal["changed", "already", "failed"]

FIRST_SWEEP, SWEEP = 2.0, 60.0
"""Seconds between two commands to all workers while task events are wanted, doubling. A worker whose dispatcher is off
joins without an event, and only such a command finds it.
"""
LISTED_FOR: Final = 120.0
"""Seconds for which a worker that only replies, and sends no event, is listed."""
REPLY_TIMEOUT: Final = 1.0
"""Seconds; a busy solo worker replies when its task is done, and is asked again."""
BUSY: Final = 5.0
"""Seconds without a task event after which a worker counts as idle."""
ERROR_PAUSE: Final = 2.0
_STEP: Final = 0.05


class TaskEventSwitch:
    """Keeps workers at the desired state. An `EventConsumer`; its thread repeats a command until it is acknowledged.

    A worker says `worker-online` before it listens for commands, so the first command to it is often lost. ``workers``
    must get each batch of events before the switch does.
    """

    def __init__(
        self,
        remote: RemoteControl,
        desired: DesiredStateStore,
        workers: LiveWorkers,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.desired = desired
        self.workers = workers
        self._remote = remote
        self._clock = clock
        self._evidence: dict[str, TaskEventEvidence] = {}
        self._acknowledged: dict[str, Acknowledgement] = {}
        self._replied_at: dict[str, float] = {}
        self._retries = Retries()
        self._lock = threading.Lock()
        self._request_lock = threading.Lock()
        self._sweep_at = float("-inf")
        self._sweep_pause = FIRST_SWEEP
        self._thread = PeriodicThread(
            "task-events",
            self._reconcile,
            interval=lambda: self._retries.pause(self._clock(), longest=FIRST_SWEEP),
            error_pause=ERROR_PAUSE,
        )
        workers.listen(self)

    def start(self) -> None:
        """Start to keep workers at the desired state."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._thread.stop()

    # for requests

    def turn_on(self) -> tuple[WorkerTaskEvents, ...]:
        """Turn task events on at every worker, now and later; raises `BrokerUnavailable` with nothing changed."""
        with self._request_lock:
            self._change("on", self._enable_all)
            self._sweep_pause, self._sweep_at = FIRST_SWEEP, self._clock() + FIRST_SWEEP
            while self._awaits_proof():
                time.sleep(_STEP)
            return self.states()

    def withdraw(self) -> tuple[WorkerTaskEvents, ...]:
        """Turn task events off where we turned them on; raises `BrokerUnavailable` with nothing changed."""
        with self._request_lock:
            self._change("withdrawn", lambda: self._tell(self._enabled_by_us(), enable=False))
            if self._sent_recently():
                time.sleep(FLUSH_TIME + _STEP)  # whether they have stopped shows only after their buffers are sent
            return self.states()

    def states(self) -> tuple[WorkerTaskEvents, ...]:
        """Return the state of every worker that was heard, or replied, recently."""
        now = self._clock()
        with self._lock:
            replied = {name for name, at in self._replied_at.items() if now - at <= LISTED_FOR}
            return tuple(self._state(name, now) for name in sorted(self.workers.alive() | replied))

    def _state(self, name: str, now: float) -> WorkerTaskEvents:
        if self.workers.connected_at is None:
            return WorkerTaskEvents(name, "unknown", confirmed=False, last_task_event=None)
        evidence = self._evidence.get(name, TaskEventEvidence())
        state, confirmed = task_event_state(
            evidence, self._acknowledged.get(name), last_seen=self._last_seen(name), now=now
        )
        last = evidence.last_task_event
        return WorkerTaskEvents(name, state, confirmed=confirmed, last_task_event=None if last is None else utc(last))

    def _change(self, events: DesiredEvents, act: Callable[[], None]) -> None:
        # Stored before the command is sent, or a worker that joins meanwhile would be left out.
        before = self.desired.change(events=events, feed_on=events == "on")
        try:
            act()
        except BrokerUnavailable:
            self.desired.put(before)
            raise

    # as a consumer of events, and as a listener of `LiveWorkers`

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Note which workers send task events."""
        with self._lock:
            for event in batch:
                worker = self.workers.get(event.hostname)
                if worker is None or event.pid not in (0, worker.pid):
                    continue  # the last events of a process that was replaced within this batch
                if event.hostname not in self._evidence and len(self._evidence) >= MAX_WORKERS:
                    continue  # invented ones fill it until the next sweep
                evidence = self._evidence.setdefault(event.hostname, TaskEventEvidence())
                if event.type == "worker-heartbeat":
                    evidence.note_heartbeat(event.processed)
                elif event.type == TOTALS or (event.type.startswith("task-") and event.type != "task-sent"):
                    evidence.note_task_event(at)  # totals tell of tasks as well, and nothing turns them off

    def connected(self, at: float) -> None:  # noqa: ARG002 - `LiveWorkers` keeps it
        """Send the setting to all workers again: one that reconnected meanwhile has forgotten it."""
        self._sweep_pause = FIRST_SWEEP
        self._sweep_at = float("-inf")
        self._thread.wake()

    def disconnected(self, at: float, reason: str) -> None:
        """Ignore it: no state is known while `LiveWorkers` has no subscription."""

    def joined(self, worker: LiveWorker) -> None:
        """Send the setting to a worker that came; one that has just started has forgotten it."""
        if worker.restarted:
            with self._lock:
                self._acknowledged.pop(worker.hostname, None)
                self._evidence.pop(worker.hostname, None)
        self._retries.add(worker.hostname, self._clock())
        self._thread.wake()

    def left(self, hostname: str) -> None:
        """Forget what a worker sent that has stopped."""
        with self._lock:
            self._evidence.pop(hostname, None)

    # the thread

    def _reconcile(self) -> None:
        now, desired = self._clock(), self.desired.get().events
        due, sweep = self._retries.take(now), now >= self._sweep_at
        if sweep:
            self._sweep_at = now + self._sweep_pause
            self._sweep_pause = min(2 * self._sweep_pause, SWEEP)
            self._forget_silent_workers(now)
        if desired == "on":
            if sweep:
                self._enable_all()
            self._tell(due, enable=True)
            return
        for name in due:
            self._retries.settle(name, done=True, now=now)
        if desired == "withdrawn" and (due or sweep):
            self._tell(self._enabled_by_us(), enable=False)

    def _forget_silent_workers(self, now: float) -> None:
        with self._lock:
            for name in [name for name in self._evidence if self.workers.get(name) is None]:
                del self._evidence[name]
            for name in [name for name, at in self._replied_at.items() if now - at > 10 * SWEEP]:
                del self._replied_at[name]
                self._acknowledged.pop(name, None)

    # commands

    def _enable_all(self) -> None:
        replies = self._send(Command("enable_events"))
        now = self._clock()
        for name in self.workers.alive() - replies.keys():
            self._retries.add(name, now)

    def _tell(self, names: tuple[str, ...], *, enable: bool) -> None:
        """Send the setting to some; those that do not acknowledge get it again, ever more rarely, while they live."""
        if not names:
            return
        to = destinations(names) if enable else names
        replies = self._send(Command("enable_events" if enable else "disable_events", destination=to))
        now, alive = self._clock(), self.workers.alive()
        for name in set(names) - replies.keys():
            self._retries.settle(name, done=name not in alive, now=now)

    def _send(self, command: Command) -> Mapping[str, Reply]:
        # Only once: to a repeated command a worker replies "already enabled", as if it had been so before us.
        asked_at = self._clock()
        answers = self._remote.ask(
            [command], expected=command.destination or (), silence=REPLY_TIMEOUT, timeout=REPLY_TIMEOUT, once=True
        )
        replies = event_replies(answers, command.method)
        enabled, now = command.method == "enable_events", self._clock()
        for name in replies:
            self._retries.settle(name, done=True, now=now)
        # After that: a worker that restarts from now on is added by `joined`.
        for name in [name for name in replies if self._restarted_since(name, asked_at)]:
            del replies[name]  # the process before may have sent it
            self._retries.add(name, now)
        self.workers.answered(replies.keys())
        by_us = self._note_owner(replies, asked_at, enabled=enabled)
        with self._lock:
            for name, reply in replies.items():
                self._replied_at[name] = now
                if self._restarted_since(name, asked_at) or (reply == "failed" and self.workers.get(name)):
                    continue  # it gets the command again; a failure counts only for a worker that is never heard
                self._acknowledge(name, Acknowledgement(enabled, at=now, by_us=name in by_us), reply)
        if self._awaits_proof():
            # A heartbeat of every worker, lest one that has nothing to say look as if it could send nothing.
            self._remote.send(Command("heartbeat"))
        return replies

    def _restarted_since(self, name: str, since: float) -> bool:
        worker = self.workers.get(name)
        return worker is not None and worker.restarted and worker.joined_at >= since

    def _note_owner(self, replies: Mapping[str, Reply], at: float, *, enabled: bool) -> Collection[str]:
        """Return the workers that send task events because of us: those that had to change, now or earlier."""
        if not enabled:
            self.desired.forget_enabled(replies, before=at)
            return ()
        before = set(self._enabled_by_us())
        by_us = {name for name, reply in replies.items() if reply == "changed" or name in before}
        self.desired.add_enabled(by_us, at=at)
        return by_us

    def _enabled_by_us(self) -> tuple[str, ...]:
        """Return the workers that send task events because of us; one that has restarted since does not."""
        for name in self.desired.enabled_by_us():
            worker = self.workers.get(name)
            if worker is not None and worker.restarted:
                self.desired.forget_enabled([name], before=worker.joined_at)
        return self.desired.enabled_by_us()

    def _acknowledge(self, name: str, acknowledgement: Acknowledgement, reply: Reply) -> None:
        before = self._acknowledged.get(name)
        if reply == "changed" or before is None or before.enabled != acknowledgement.enabled:
            self._acknowledged[name] = acknowledgement
            if evidence := self._evidence.get(name):
                evidence.start_anew()

    def _awaits_proof(self) -> bool:
        """Return whether a worker that acknowledged a moment ago has sent nothing since."""
        if self.workers.connected_at is None:
            return False
        now = self._clock()
        with self._lock:
            return any(
                setting.enabled and not heard_since(setting, self._last_seen(name))
                for name, setting in self._acknowledged.items()
                if now - setting.at < PROOF_TIME
            )

    def _sent_recently(self) -> bool:
        """Return whether a worker that acknowledged a command of ours sends task events just now."""
        since = self._clock() - BUSY
        with self._lock:
            found = [self._evidence[name] for name in self._acknowledged if name in self._evidence]
            return any((evidence.last_task_event or 0.0) > since for evidence in found)

    def _last_seen(self, name: str) -> float | None:
        worker = self.workers.get(name)
        return None if worker is None else worker.last_seen


def event_replies(replies: Replies, method: str) -> dict[str, Reply]:
    """Return what workers replied to ``enable_events`` or ``disable_events``: ``{"ok": "task events already …"}``."""
    return {hostname: _reply(replies.answer(method, hostname)) for hostname in replies.settled(method)}


def _reply(answer: object) -> Reply:
    words = mapping(answer).get("ok")
    if not isinstance(words, str):
        return "failed"
    return "already" if "already" in words else "changed"
