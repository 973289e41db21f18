"""Turns task events on at every worker, also at those that join later, and off again where it turned them on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from celerymeter.control.switching.remote import Remote, Reply
from celerymeter.control.switching.retries import Retries
from celerymeter.control.switching.taskevents import (
    GRACE,
    PATIENCE,
    RECENTLY,
    Joined,
    Judgement,
    Told,
    Watch,
    judge,
    unheard,
)
from celerymeter.control.switching.wishes import EventsWish, Wishes
from celerymeter.errors import BrokerUnavailable, CelerymeterError
from celerymeter.model import Event

FIRST_SWEEP, SWEEP = 2.0, 60.0
"""Seconds between two calls to all workers while task events are wanted, doubling: some cannot be seen joining."""
_STEP: Final = 0.05

log = logging.getLogger(__name__)


class Switch:
    """Holds to the wish. It is an `EventSink`; its thread tells workers until each has acknowledged."""

    def __init__(self, remote: Remote, wishes: Wishes, *, clock: Callable[[], float] = time.time) -> None:
        self._remote = remote
        self._wishes = wishes
        self._clock = clock
        self._watch = Watch()
        self._told: dict[str, Told] = {}
        self._acknowledged: dict[str, float] = {}
        self._due = Retries()
        self._lock = threading.RLock()
        self._acting = threading.Lock()
        self._stopping = threading.Event()
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None
        self._sweep_at = float("-inf")
        self._sweep_pause = FIRST_SWEEP
        self.subscribed_since: float | None = None

    # as an event sink

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Note who lives and who sends task events."""
        with self._lock:
            for joined in self._watch.take(batch, at):
                self._welcome(joined)

    def rejected(self, reason: str, count: int = 1) -> None:
        """What cannot be used is counted by the exporter."""

    def connected(self, at: float) -> None:
        """Whoever reconnected meanwhile has forgotten what it was told: tell everybody again."""
        self.subscribed_since = at
        self._sweep_soon()

    def disconnected(self, at: float, reason: str) -> None:  # noqa: ARG002 - the reader logs the reason
        """Nothing can be judged until the subscription is back."""
        self.subscribed_since = None

    # for requests

    @property
    def last_event_at(self) -> float | None:
        """When an event came last (UTC seconds)."""
        return self._watch.last_event_at

    def turn_on(self) -> tuple[Judgement, ...]:
        """Want task events, tell every worker, and judge; raises `BrokerUnavailable` with nothing changed."""
        with self._acting:
            self._say("on", self._tell_all)
            self._sweep_pause, self._sweep_at = FIRST_SWEEP, self._clock() + FIRST_SWEEP
            self._await_proof()
            return self.judgements()

    def withdraw(self) -> tuple[Judgement, ...]:
        """Turn task events off where we turned them on, and judge; raises `BrokerUnavailable` with nothing changed."""
        with self._acting:
            self._say("withdrawn", lambda: self._tell(self._ours(), wanted=False))
            self._settle()
            return self.judgements()

    def judgements(self) -> tuple[Judgement, ...]:
        """The state of every worker that was heard, or answered, of late."""
        now = self._clock()
        with self._lock:
            answered = {name for name, at in self._acknowledged.items() if now - at <= max(RECENTLY, 2 * SWEEP)}
            return tuple(self._judge(name) for name in sorted(self._watch.alive(now) | answered))

    # as a background thread

    def start(self) -> None:
        """Begin to hold to the wish."""
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._awake.wait(self._due.pause(self._clock(), longest=2.0))
            self._awake.clear()
            try:
                self._hold_to_the_wish()
            except CelerymeterError as error:
                log.warning("task events: %s", error)
                self._stopping.wait(2.0)
            except Exception:
                log.exception("task events: unexpected error")
                self._stopping.wait(2.0)

    def _hold_to_the_wish(self) -> None:
        wish = self._wishes.get().events
        now = self._clock()
        due = self._due.take(now)
        sweep = now >= self._sweep_at
        if sweep:
            self._sweep_at = now + self._sweep_pause
            self._sweep_pause = min(2 * self._sweep_pause, SWEEP)
        if wish == "on":
            if sweep:
                self._tell_all()
            self._tell(due, wanted=True)
            return
        for name in due:
            self._due.settle(name, done=True, now=now)
        if wish == "withdrawn" and (due or sweep):
            self._tell(self._ours(), wanted=False)

    # inner workings

    def _sweep_soon(self) -> None:
        self._sweep_pause = FIRST_SWEEP
        self._sweep_at = float("-inf")
        self._awake.set()

    def _welcome(self, joined: Joined) -> None:
        """A worker came: it must be told, and if it has just started it has forgotten what it was told."""
        if joined.fresh:
            self._told.pop(joined.hostname, None)
        self._due.add(joined.hostname, self._clock())
        self._awake.set()

    def _say(self, events: EventsWish, act: Callable[[], None]) -> None:
        before = self._wishes.say(events=events, feed_on=events == "on")
        try:
            act()
        except BrokerUnavailable:
            self._wishes.put(before)
            raise

    def _tell_all(self) -> None:
        replies = self._remote.tell("enable_events")
        self._note(replies, wanted=True)
        now = self._clock()
        with self._lock:
            silent = self._watch.alive(now) - replies.keys()
        for name in silent:
            self._due.add(name, now)

    def _tell(self, workers: tuple[str, ...], *, wanted: bool) -> None:
        """Tell some; those that do not acknowledge are told again, ever more rarely, while they live."""
        if not workers:
            return
        replies = self._remote.tell("enable_events" if wanted else "disable_events", workers)
        self._note(replies, wanted=wanted)
        now = self._clock()
        with self._lock:
            alive = self._watch.alive(now)
        for name in workers:
            self._due.settle(name, done=name in replies or name not in alive, now=now)

    def _ours(self) -> tuple[str, ...]:
        """Workers that send task events because of us, for all we know; one that has started since does not."""
        for name in self._wishes.ours():
            if (seen := self._watch.get(name)) and seen.fresh:
                self._wishes.drop_ours([name], before=seen.joined_at)
        return tuple(self._wishes.ours())

    def _note(self, replies: Mapping[str, Reply], *, wanted: bool) -> None:
        now = self._clock()
        ours = self._own(replies, now) if wanted else set()
        if not wanted:
            self._wishes.drop_ours(replies, before=now)
        with self._lock:
            for name, reply in replies.items():
                self._acknowledged[name] = now
                if reply == "failed" and self._watch.get(name):
                    continue  # it will be told again; only one that is never heard of is judged by its failure
                self._remember(name, Told(wanted, at=now, ours=name in ours), anew=reply == "changed")
            self._forget_the_silent(now)
        for name in replies:
            self._due.settle(name, done=True, now=now)
        self._ask_for_proof()

    def _own(self, replies: Mapping[str, Reply], now: float) -> set[str]:
        """Which of them send task events because of us: those that had to change, now or since they started."""
        before = set(self._ours())
        ours = {name for name, reply in replies.items() if reply == "changed" or name in before}
        self._wishes.add_ours(ours, at=now)
        return ours

    def _remember(self, name: str, told: Told, *, anew: bool) -> None:
        before = self._told.get(name)
        if anew or before is None or before.wanted != told.wanted:
            self._told[name] = told
            if seen := self._watch.get(name):
                seen.forget_beats()

    def _forget_the_silent(self, now: float) -> None:
        for name in [name for name, at in self._acknowledged.items() if now - at > 10 * SWEEP]:
            del self._acknowledged[name]
            self._told.pop(name, None)

    def _judge(self, name: str) -> Judgement:
        if self.subscribed_since is None:
            return Judgement(name, "unknown", confirmed=False)
        return judge(name, self._watch.get(name), self._told.get(name), now=self._clock())

    def _unheard(self) -> bool:
        """Whether a worker that acknowledged of late has sent nothing since."""
        with self._lock:
            recent = [name for name, told in self._told.items() if self._clock() - told.at < PATIENCE]
            return any(unheard(self._watch.get(name), self._told[name]) for name in recent)

    def _ask_for_proof(self) -> None:
        """Have every worker send a heartbeat now, lest one that has nothing to say look as if it could not."""
        if self.subscribed_since is not None and self._unheard():
            self._remote.provoke()

    def _await_proof(self) -> None:
        while self.subscribed_since is not None and self._unheard():
            time.sleep(_STEP)

    def _settle(self) -> None:
        """Give workers that are busy the time to show whether they stopped."""
        now = self._clock()
        with self._lock:
            busy = [seen for name in self._told if (seen := self._watch.get(name)) and now - (seen.task_at or 0) < 5]
        if busy:
            time.sleep(GRACE + _STEP)
