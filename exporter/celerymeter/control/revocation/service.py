"""From a request to a batch: collect evidence, write the intent, flag and terminate, answer in time.

Celery's own reply to a revoke is the same whether the task ends, runs on, or never existed
(`celery.worker.control.revoke`), so everything here is about proof.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import uuid4

from celerymeter.control.audit.trail import Actor
from celerymeter.control.evidence.collector import EvidenceCollector
from celerymeter.control.evidence.events import EventCache
from celerymeter.control.evidence.models import TaskEvidence
from celerymeter.control.revocation import decide
from celerymeter.control.revocation.batches import Recorder
from celerymeter.control.revocation.followup import Followup
from celerymeter.control.revocation.models import (
    MAX_ID_LENGTH,
    MAX_IDS_BYTES,
    MAX_SHOWN,
    Acknowledgements,
    Batch,
    Outcome,
    RevokeRequest,
    Signal,
    TaskResult,
    TerminateResult,
)
from celerymeter.control.revocation.workers import FlagResult, Workers
from celerymeter.errors import BrokerUnavailable, RequestRefused, StateError

COLLECT: Final = 1.3
"""Seconds after a request came by which its evidence is collected."""
ACT: Final = 3.5
"""Seconds after a request came by which it is acted on."""
ANSWER: Final = 3.8
"""Seconds after a request came at which it is answered with what is known by then: clients give up after 5."""
CHECK_TIME: Final = 0.8
"""Seconds of `ACT` that are kept for terminating tasks and checking again."""
CHECK_PAUSE: Final = 0.15
ACTION: Final = "tasks.revoke"

log = logging.getLogger(__name__)


class RevocationService:
    """Takes requests. Its methods raise `BrokerUnavailable`, `StateError` or `RequestRefused`."""

    def __init__(
        self,
        collector: EvidenceCollector,
        workers: Workers,
        followup: Followup,
        recorder: Recorder,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._collector = collector
        self._workers = workers
        self._followup = followup
        self._store = recorder.store
        self._audit = recorder.audit
        self._clock = clock

    def find(self, batch_id: str) -> Batch | None:
        """Return the current state of a batch."""
        return self._followup.find(batch_id)

    def preview(self, request: RevokeRequest) -> Batch:
        """Return what a request would do; nothing is sent and nothing is stored."""
        evidence = self._collector.collect(request.task_ids, until=time.monotonic() + COLLECT)
        results = (
            decide.preview(task_id, decide.locate(task_id, evidence), terminate=request.terminate)
            for task_id in request.task_ids
        )
        return Batch("", self._clock(), 0, request, (*results, *_invalid(request)))

    def revoke(self, request: RevokeRequest, actor: Actor, *, batch_id: str, wait: bool = True) -> Batch:
        """Act on a request; return its batch after 3.8 s, or without ``wait`` as soon as it is stored.

        The act has a thread of its own, so that the answer comes in time whatever the broker does.
        """
        job = _Job()
        threading.Thread(target=self._run, args=(job, request, actor, batch_id), name="revoke", daemon=True).start()
        (job.ended if wait else job.answerable).wait(ANSWER)
        if job.error is not None:
            raise job.error
        # Either the batch has begun and the client gets it, or it never will: an error must not be acted on later.
        with job.lock:
            job.given_up = not job.begun
        batch = self.find(batch_id) if job.begun else None
        if batch is None:
            raise BrokerUnavailable("no answer in time")
        return batch

    def _run(self, job: _Job, request: RevokeRequest, actor: Actor, batch_id: str) -> None:
        """Run a request to its end, whether or not the client still waits."""
        started = time.monotonic()
        try:
            evidence = self.collect(request, until=started + COLLECT)
            with job.lock:
                if job.given_up:
                    raise BrokerUnavailable("no answer in time")
                batch = self.begin(request, actor, evidence, batch_id=batch_id)
                job.begun = True
            job.answerable.set()
            self.act(batch, evidence, until=started + ACT)
        except (BrokerUnavailable, RequestRefused) as error:
            job.error = error
            if not job.begun:
                self._record_refusal(error, request, actor)
        except StateError as error:
            job.error = error
            log.error("revoke: %s", error)
        except Exception as error:
            job.error = error
            log.exception("revoke: unexpected error")
        finally:
            job.answerable.set()
            job.ended.set()

    def _record_refusal(self, error: BrokerUnavailable | RequestRefused, request: RevokeRequest, actor: Actor) -> None:
        code = error.code if isinstance(error, RequestRefused) else "broker_unavailable"
        try:
            intent = self._audit.begin(actor, ACTION, target=request.task_ids, reason=request.reason)
            self._audit.finish(intent, "refused", detail={"error": code})
        except StateError as unwritten:
            log.error("revoke: %s", unwritten)

    def collect(self, request: RevokeRequest, *, until: float) -> TaskEvidence:
        """Collect the evidence (``until``: `time.monotonic`)."""
        return self._collector.collect(request.task_ids, until=until)

    def begin(self, request: RevokeRequest, actor: Actor, evidence: TaskEvidence, *, batch_id: str) -> Batch:
        """Write the intent and the batch to disk, before anything is sent."""
        intent = self._audit.begin(actor, ACTION, target=request.task_ids, reason=request.reason)
        # What is known of each task is kept with its pending status: the follow-up decides from it.
        known = (
            decide.preview(task_id, decide.locate(task_id, evidence), terminate=True) for task_id in request.task_ids
        )
        pending = (replace(result, status="pending", detail="not decided yet") for result in known)
        # After a kill -9 in the middle of the act, a restart knows from this which workers have to acknowledge.
        missing = Acknowledgements(missing=evidence.workers)
        batch = Batch(batch_id, self._clock(), intent, request, (*pending, *_invalid(request)), missing)
        self._store.add(batch)
        self._followup.follow(batch)
        return batch

    def act(self, batch: Batch, evidence: TaskEvidence, *, until: float) -> None:
        """Flag and terminate, and write the outcome; raises `RequestRefused`, also when no worker answers.

        Whatever it raises has the ``batch_id``: the batch is followed in any case.
        """
        detail: dict[str, object] = {"batch_id": batch.id}
        try:
            outcome = _Act(self._workers, self._collector.event_cache, batch.request, evidence).run(until=until)
        except BaseException as error:
            self._followup.act_failed(batch.id, evidence.workers)
            self._audit.finish(batch.intent, "failed", detail={**detail, "error": type(error).__name__})
            if isinstance(error, BrokerUnavailable):
                log.warning("revoke: %s", error)
            if not isinstance(error, (BrokerUnavailable, RequestRefused)):
                raise
            raise RequestRefused(
                error.code if isinstance(error, RequestRefused) else "broker_unavailable",
                "the workers cannot be reached now; the revoke is stored and sent again once they can",
                retry_after=5.0,
                members={"batch_id": batch.id},
            ) from error
        decided = self._followup.acted(batch.id, outcome)
        missing = outcome.workers.missing
        detail |= {
            "statuses": decide.by_status(decided.results),
            "missing": sorted(outcome.workers.shortened().missing),
        }
        detail |= {"missing_workers": len(missing)} if len(missing) > MAX_SHOWN else {}
        no_answer = outcome.no_reply and not evidence.replied
        self._audit.finish(batch.intent, "no_answer" if no_answer else "ok", detail=detail)
        if no_answer:
            raise RequestRefused(
                "no_worker_answered",
                "no worker answered in time; the revoke may still take effect, and is sent again until a worker "
                "answers",
                members={"batch_id": batch.id},
            )


@dataclass(slots=True)
class _Job:
    """One request under way. Once its batch has ``begun`` it runs to its end; before that it can be given up."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    begun: bool = False
    given_up: bool = False
    error: Exception | None = None
    answerable: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class _Act:
    """Flags the ids of one request that have not ended, and with ``terminate`` ends those that run."""

    def __init__(
        self, workers: Workers, event_cache: EventCache, request: RevokeRequest, evidence: TaskEvidence
    ) -> None:
        self._workers = workers
        self._event_cache = event_cache
        self._request = request
        self._evidence = evidence
        self._where = {task_id: decide.locate(task_id, evidence) for task_id in request.task_ids}
        self._targets = [
            task_id for task_id, where in self._where.items() if decide.leave_alone(task_id, where) is None
        ]
        self._terminated: dict[str, TerminateResult] = {}

    def run(self, *, until: float) -> Outcome:
        """Act until then (`time.monotonic`); raises `BrokerUnavailable` or `RequestRefused`."""
        flags = FlagResult()
        if self._targets:
            expected = self._evidence.workers
            flags = self._workers.flag(self._targets, expected=expected, until=until - CHECK_TIME)
            # Flag first: a task that a worker starts in between is discarded, and one that is found running ends here.
            self._terminate(until=until)
            self._check(flags.listening, until=until)
        # Workers that replied a moment ago and no longer do are busy with so many ids: those are not decided yet.
        busy = flags.no_reply and self._evidence.replied
        results = tuple(
            decide.decide(
                task_id,
                where,
                None if busy else flags.by_id.get(task_id),
                terminate=self._request.terminate,
                terminated=self._terminated.get(task_id),
            )
            for task_id, where in self._where.items()
        )
        return Outcome(results, flags.combined, no_reply=flags.no_reply)

    def _terminate(self, *, until: float) -> None:
        """Tell workers to terminate what they run, each task once."""
        running: dict[str, list[str]] = defaultdict(list)
        for task_id in self._targets if self._request.terminate else ():
            where = self._where[task_id]
            if where.location == "running" and where.worker is not None and task_id not in self._terminated:
                running[where.worker].append(task_id)
        for worker, task_ids in running.items():
            reply = self._workers.terminate(task_ids, worker=worker, signal=self._request.signal, until=until)
            self._terminated.update(dict.fromkeys(task_ids, reply))

    def _check(self, workers: frozenset[str], *, until: float) -> None:
        """See what has started meanwhile and which processes are gone, until all are or time is up."""
        self._recall()
        while workers and time.monotonic() < until:
            # Celery reports a terminated task as revoked, and drops it from `active`, when it sends the signal
            # (`celery.worker.request.Request.terminate`). Only the pool's processes tell whether it is dead.
            inspection = self._workers.recheck(self._targets, expected=workers, until=until)
            for task_id, where in inspection.held.items():
                if task_id in self._where and decide.is_later(where, self._where[task_id]):
                    self._where[task_id] = where
            self._terminate(until=until)
            alive = [task_id for task_id, reply in self._terminated.items() if reply.replied and reply.error is None]
            for task_id in alive:
                if inspection.is_gone(self._where[task_id].pid, self._where[task_id].worker):
                    self._terminated[task_id] = TerminateResult(replied=True, died=True)
            if all(self._terminated[task_id].died for task_id in alive):
                return
            time.sleep(min(CHECK_PAUSE, max(until - time.monotonic(), 0.0)))

    def _recall(self) -> None:
        """Look at the events again: a message on its way from the broker to a worker is seen at neither."""
        unknown = [task_id for task_id, where in self._where.items() if where.location == "unknown"]
        evidence = TaskEvidence(time.time(), events=self._event_cache.last_events(unknown))
        found = {task_id: decide.locate(task_id, evidence) for task_id in unknown}
        self._where.update({task_id: where for task_id, where in found.items() if where.location == "waiting"})


def new_batch_id() -> str:
    """Return an id for a batch."""
    return uuid4().hex


def revoke_request(
    task_ids: Iterable[str],
    *,
    terminate: bool = False,
    signal: Signal = "SIGTERM",
    reason: str = "",
    dry_run: bool = False,
) -> RevokeRequest:
    """Return the request for ids as a client sent them; raises `RequestRefused` for too many bytes of them.

    Invalid ids are cut to a length that can be shown.
    """
    given = [task_id[: MAX_ID_LENGTH + 1] for task_id in task_ids]
    if (size := len(json.dumps(given))) > MAX_IDS_BYTES:
        raise RequestRefused(
            "too_large", f"the ids take {size} bytes as JSON, of at most {MAX_IDS_BYTES}: send fewer at a time"
        )
    unique = tuple(dict.fromkeys(given))
    return RevokeRequest(
        task_ids=tuple(task_id for task_id in unique if is_task_id(task_id)),
        invalid=tuple(dict.fromkeys(task_id[:MAX_ID_LENGTH] for task_id in unique if not is_task_id(task_id))),
        merged=len(given) - len(unique),
        terminate=terminate,
        signal=signal,
        reason=reason,
        dry_run=dry_run,
    )


def is_task_id(text: str) -> bool:
    """Return True for 1 to 255 characters, none of them blank or invisible."""
    return 0 < len(text) <= MAX_ID_LENGTH and text.isprintable() and " " not in text


def _invalid(request: RevokeRequest) -> tuple[TaskResult, ...]:
    detail = f"not a task id: it must have 1 to {MAX_ID_LENGTH} visible characters, none of them a space"
    return tuple(TaskResult(task_id, "invalid", detail) for task_id in request.invalid)
