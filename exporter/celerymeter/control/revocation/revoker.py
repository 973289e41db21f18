"""One round over some ids: look, flag, end what runs, look again. Keeps nothing but who answered of late."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from celerymeter.control.revocation.lookups import QueueLists, States
from celerymeter.control.revocation.memory import EventMemory
from celerymeter.control.revocation.models import Acknowledgements, Order, Result, Sighting
from celerymeter.control.revocation.replies import Replies
from celerymeter.control.revocation.verdict import Evidence, Killing, preview, sighting, untouched, verdict
from celerymeter.control.revocation.workers import Workers
from celerymeter.errors import RequestRefused

LOOKING, ACTING = 1.3, 3.5
"""Seconds after a request came by which its evidence is gathered, and by which it is acted on."""
AFTERWARDS: Final = 0.8
"""Seconds of these that are kept for ending tasks and looking again."""
_REMEMBERED: Final = 60.0
_PAUSE: Final = 0.15


@dataclass(frozen=True, slots=True)
class Looked:
    """What is known before the act: the live workers, and where each id is."""

    expected: frozenset[str]
    seen: Mapping[str, Sighting]
    answering: bool = True
    """Whether any worker answered, so that they are alive by more than hearsay."""


@dataclass(frozen=True, slots=True)
class Acted:
    """What came of it."""

    results: tuple[Result, ...]
    workers: Acknowledgements = field(default_factory=Acknowledgements)
    unheard: bool = False
    """Whether ids were sent and no worker answered at all."""


@dataclass(slots=True)
class _Kills:
    """What came of ending tasks, by id."""

    by_id: dict[str, Killing] = field(default_factory=dict)

    def answered(self, task_ids: Sequence[str], worker: str, replies: Replies) -> None:
        error = replies.errors.get(worker)
        heard = error is not None or worker in replies.answered("revoke")
        self.by_id.update(dict.fromkeys(task_ids, Killing(answered=heard, error=error)))


class Revoker:
    """Thread-safe. Its methods raise `BrokerUnavailable`; times are of `time.monotonic`."""

    def __init__(
        self,
        workers: Workers,
        memory: EventMemory,
        *,
        states: States,
        lists: QueueLists,
        told_to_die: Callable[[Sequence[str]], Mapping[str, Result]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._workers = workers
        self._memory = memory
        self._states = states
        self._lists = lists
        self._told_to_die = told_to_die
        self._clock = clock
        self._heard: dict[str, float] = {}

    def look(self, task_ids: Sequence[str], *, until: float) -> Looked:
        """Find the live workers and the ids; raises `RequestRefused` when no worker lives."""
        states = self._states.states(task_ids)
        asked_at = self._clock()
        replies = self._workers.look(task_ids, expected=self._awaited(), until=until)
        expected = self._note(replies.answered("stats")) | self._memory.alive()
        if not expected:
            raise RequestRefused("no_workers", "no worker is alive: a revoke would be lost", retry_after=5.0)
        held, traces = replies.held(), self._memory.traces(task_ids)
        lost = [task_id for task_id in task_ids if task_id not in held and task_id not in states]
        queues = replies.queues() | {trace.queue for trace in traces.values() if trace.queue}
        evidence = Evidence(
            asked_at,
            traces=traces,
            states=states,
            at_workers=held,
            queued=self._lists.find(lost, queues) if lost else {},
            answered=replies.answered("query_task"),
            told_to_die=self._told_to_die([task_id for task_id, trace in traces.items() if trace.announced]),
        )
        seen = {task_id: sighting(task_id, evidence) for task_id in task_ids}
        return Looked(expected, seen, answering=bool(replies.answered("stats")))

    def preview(self, order: Order, looked: Looked) -> tuple[Result, ...]:
        """What an act would meet."""
        return tuple(preview(task_id, seen, terminate=order.terminate) for task_id, seen in looked.seen.items())

    def act(self, order: Order, looked: Looked, *, until: float) -> Acted:
        """Flag everything that has not ended, and with ``terminate`` end what runs."""
        seen = dict(looked.seen)
        targets = [task_id for task_id in seen if untouched(task_id, seen[task_id]) is None]
        if not targets:
            return Acted(tuple(verdict(task_id, where, Acknowledgements()) for task_id, where in seen.items()))
        told = self._workers.flag(targets, expected=looked.expected, until=until - AFTERWARDS)
        flags, kills = told.together, _Kills()
        self._end(order, seen, targets, kills, until=until)
        self._look_again(order, seen, targets, kills, listening=told.listening, until=until)
        results = (
            verdict(
                task_id,
                where,
                told.by_id.get(task_id, flags),
                terminate=order.terminate,
                killing=kills.by_id.get(task_id),
            )
            for task_id, where in seen.items()
        )
        busy = told.unheard and looked.answering
        decided = (_later(each) if busy or each.task_id not in told.by_id else each for each in results)
        return Acted(tuple(decided), flags, unheard=told.unheard)

    def _end(
        self, order: Order, seen: Mapping[str, Sighting], targets: Sequence[str], kills: _Kills, *, until: float
    ) -> None:
        """Tell workers to end what they run, each once."""
        for worker, task_ids in _running(seen, targets).items() if order.terminate else ():
            todo = [task_id for task_id in task_ids if task_id not in kills.by_id]
            if todo:
                replies = self._workers.kill(todo, worker=worker, signal=order.signal, until=until)
                kills.answered(todo, worker, replies)

    def _look_again(
        self,
        order: Order,
        seen: dict[str, Sighting],
        targets: Sequence[str],
        kills: _Kills,
        *,
        listening: frozenset[str],
        until: float,
    ) -> None:
        """See what has begun meanwhile, and whether what was told to die is dead; until it is or time is up."""
        self._recall(seen)
        while listening and time.monotonic() < until:
            replies = self._workers.recheck(targets, expected=listening, until=until)
            for task_id, where in replies.held().items():
                if task_id in seen and _tells_more(where, seen[task_id]):
                    seen[task_id] = where
            self._end(order, seen, targets, kills, until=until)
            note_deaths(seen, kills.by_id, replies)
            if all(killing.died or not killing.answered or killing.error for killing in kills.by_id.values()):
                return
            time.sleep(min(_PAUSE, max(until - time.monotonic(), 0.0)))

    def _recall(self, seen: dict[str, Sighting]) -> None:
        """A message on its way from the broker to a worker is seen at neither; events tell of it a moment later."""
        unknown = [task_id for task_id, where in seen.items() if where.place == "unknown"]
        evidence = Evidence(self._clock(), traces=self._memory.traces(unknown))
        found = ((task_id, sighting(task_id, evidence)) for task_id in unknown)
        seen.update({task_id: where for task_id, where in found if where.place == "waiting"})

    def _awaited(self) -> frozenset[str]:
        """Whom to wait for; nobody in particular until heartbeats have told who is there."""
        since = self._clock() - _REMEMBERED
        heard = frozenset(name for name, at in list(self._heard.items()) if at >= since)
        return self._memory.alive() | heard if self._memory.informed else frozenset()

    def _note(self, answered: frozenset[str]) -> frozenset[str]:
        now = self._clock()
        self._heard = {name: at for name, at in self._heard.items() if now - at < _REMEMBERED}
        self._heard.update(dict.fromkeys(answered, now))
        return answered


def _later(result: Result) -> Result:
    """Workers that answered a moment ago are busy with so many ids: nothing is decided yet."""
    if result.status != "partial":
        return result
    return replace(result, status="pending", detail="no worker has acknowledged it yet")


def _tells_more(now: Sighting, before: Sighting) -> bool:
    order = ("unknown", "waiting", "taken", "running")
    return before.place in order and order.index(now.place) > order.index(before.place)


def note_deaths(seen: Mapping[str, Sighting], kills: dict[str, Killing], replies: Replies) -> None:
    """Whose process is gone from its worker's pool."""
    for task_id, killing in kills.items():
        where = seen[task_id]
        if killing.answered and killing.error is None and gone(where.pid, where.worker, replies):
            kills[task_id] = Killing(answered=True, died=True)


def gone(pid: int | None, worker: str | None, replies: Replies) -> bool:
    """Whether a worker says that this process of its pool is no more."""
    processes = replies.processes(worker) if worker is not None else None
    return pid is not None and processes is not None and pid not in processes


def _running(seen: Mapping[str, Sighting], targets: Sequence[str]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for task_id in targets:
        where = seen[task_id]
        if where.place == "running" and where.worker is not None:
            found[where.worker].append(task_id)
    return found
