"""Answers look-ups: one question to the cluster at a time, about all tasks that are asked for meanwhile.

So the workers' cost does not depend on the number of clients, and a task that was looked up within a second is not
looked up again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from celerymeter.control.evidence.task import Evidence, Note, Usual
from celerymeter.control.lookup.decide import decide
from celerymeter.control.lookup.models import FINAL, Silent, Source, TaskReply
from celerymeter.control.lookup.sentences import sentence
from celerymeter.errors import RequestRefused

TIMEOUT: Final = 3.0
"""Seconds for one question to the cluster."""
PAUSE: Final = 0.15
"""Seconds between the starts of two questions: a worker spends a few milliseconds on each."""
KEPT: Final = 1.0
MOST: Final = 100
"""Tasks in one question; the others are refused."""
_NEEDS_USUAL: Final = frozenset({"running", "queued", "retrying", "ran_twice"})


@dataclass(slots=True)
class _Question:
    """One question to the cluster; tasks are added to it until it is asked."""

    task_ids: set[str] = field(default_factory=set)
    answered: threading.Event = field(default_factory=threading.Event)
    replies: dict[str, TaskReply] = field(default_factory=dict)
    error: Exception | None = None


class LookupService:
    """Looks up tasks; thread-safe. ``look`` collects evidence, ``usual`` asks Prometheus; times are monotonic."""

    def __init__(
        self,
        look: Callable[..., Sequence[Evidence]],
        usual: Callable[[str | None, str | None], Usual | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._usual = usual
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._next: _Question | None = None
        self._asked_at = float("-inf")
        self._recent: OrderedDict[str, tuple[float, TaskReply]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Return how many tasks the next question is about."""
        with self._lock:
            return len(self._next.task_ids) if self._next is not None else 0

    def look_up(self, task_id: str) -> TaskReply:
        """Return where a task is; raises `RequestRefused` when too many are looked up."""
        with self._lock:
            at, recent = self._recent.get(task_id, (float("-inf"), None))
            if recent is not None and self._clock() - at < KEPT:
                return recent
            asks = self._next is None
            question = self._next = self._next or _Question()
            if len(question.task_ids) >= MOST and task_id not in question.task_ids:
                raise RequestRefused("too_many_requests", "too many look-ups at once; try again", retry_after=1.0)
            question.task_ids.add(task_id)
        if asks:
            self._ask(question)
        elif not question.answered.wait(3 * TIMEOUT):
            raise RequestRefused("too_many_requests", "other look-ups take too long; try again", retry_after=2.0)
        if question.error is not None:
            raise question.error
        return question.replies[task_id]

    def _ask(self, question: _Question) -> None:
        """Wait for the question before, then ask this one, with all tasks that have joined it by then."""
        with self._turn:
            time.sleep(max(0.0, min(PAUSE, self._asked_at + PAUSE - self._clock())))
            with self._lock:
                self._next = None
                self._asked_at = self._clock()
            try:
                found = self._look(sorted(question.task_ids), until=self._asked_at + TIMEOUT)
                question.replies = {evidence.task_id: self._reply(evidence) for evidence in found}
                self._remember(question)
            except Exception as error:  # noqa: BLE001 - everybody who waits must get it
                question.error = error
            finally:
                question.answered.set()

    def _reply(self, evidence: Evidence) -> TaskReply:
        decision = decide(evidence)
        if decision.verdict in _NEEDS_USUAL:
            usual = self._usual(decision.name, decision.queue)
            if usual is None:
                missing = Note("prometheus", "it does not answer: the usual run time and the drain time are unknown")
                evidence = replace(evidence, unreachable=(*evidence.unreachable, missing))
            else:
                evidence = replace(evidence, usual=usual)
            decision = decide(evidence)
        return TaskReply(
            task_id=evidence.task_id,
            verdict=decision.verdict,
            final=decision.verdict in FINAL or decision.reason == "never",
            since=decision.since,
            name=decision.name,
            queue=decision.queue,
            worker=decision.worker,
            position=decision.position,
            eta=decision.eta,
            redelivered_at=decision.redelivered_at,
            behind=decision.behind,
            consumers=decision.consumers,
            free_slots=decision.free_slots,
            drain_seconds=decision.drain_seconds,
            usual_seconds=decision.usual_seconds,
            runs=decision.runs,
            evidence=tuple(Source(note.source, note.text, note.at) for note in evidence.says),
            not_asked=tuple(Silent(note.source, note.text) for note in evidence.not_asked),
            unreachable=tuple(Silent(note.source, note.text) for note in evidence.unreachable),
            sentence=sentence(decision, evidence),
            timestamp=evidence.asked_at,
        )

    def _remember(self, question: _Question) -> None:
        with self._lock:
            now = self._clock()
            for task_id, reply in question.replies.items():
                self._recent[task_id] = now, reply
                self._recent.move_to_end(task_id)
            while self._recent and now - next(iter(self._recent.values()))[0] >= KEPT:
                self._recent.popitem(last=False)
