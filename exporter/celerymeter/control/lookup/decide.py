"""Pure decision: from the evidence about one task to a verdict. Never more than is proven; `unknown` has a reason.

What exists now goes before what was: a worker that lists the task, then a message in a queue, then ends by events, then
what is known of the worker that had it last, then a stored result, then where it was sent.

============  ==============================================================================================
verdict       condition
============  ==============================================================================================
running       a worker lists it as active; or its start was seen, no end, and its live worker does not answer
reserved      a worker holds it; or received it, and runs tasks of its name at a limited rate
scheduled     a worker or a delay level holds it until its ETA
queued        its message is in a list; or (RabbitMQ) it was sent, nobody took it, and its queue is not empty
retrying      its last run was retried, and it waits at any of those places
lost          its worker is proven gone: another process has its name, or the broker has no connection of it
ran_twice     two workers run it, or a run succeeded or failed and another one did or runs
succeeded …   the event of its end, or a stored result that is not older than its last start
revoked       a worker discarded it, or the process that was terminated is gone
unknown       anything else
============  ==============================================================================================
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from celerymeter.control.evidence.history import PastRun
from celerymeter.control.evidence.task import Evidence, HeldTask, WorkerFacts
from celerymeter.control.lookup.models import Decision, Position, Run, Verdict

_ENDED: Final[dict[str, Verdict]] = {"succeeded": "succeeded", "failed": "failed", "rejected": "rejected"}
_STORED: Final[dict[str, Verdict]] = {"SUCCESS": "succeeded", "FAILURE": "failed"}
CLOCKS: Final = 2.0
"""Seconds by which two clocks may differ before one time counts as later than another."""


def decide(evidence: Evidence) -> Decision:
    """Return what the evidence shows; see the table at the top."""
    decision = _Case(evidence).decide()
    held = evidence.held[0] if evidence.held else None
    history, waiting, stored = evidence.history, evidence.broker.waiting, evidence.stored
    name = (held.name if held else None) or history.name or (stored.name if stored else None)
    queue = (waiting.queue if waiting else None) or history.queue or (held.queue if held else None)
    return replace(decision, name=name, queue=queue, runs=_Case(evidence).runs(decision))


class _Case:
    """The evidence about one task, and the questions that a decision asks."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.history = evidence.history
        self.run = evidence.history.runs[-1] if evidence.history.runs else None
        self.active = tuple(held for held in evidence.held if held.state == "active")

    def decide(self) -> Decision:
        if self._ended_meanwhile():
            return self._end() or self._unknown("ended_unseen")
        if self.active:
            return self._running()
        if self.evidence.held:
            return self._held(self.evidence.held[0])
        if self.evidence.broker.waiting is not None:
            return self._queued_in_list()
        return self._end() or self._at_last_worker() or self._stored() or self._sent()

    # What exists now

    def _ended_meanwhile(self) -> bool:
        """True when the end came after the workers were asked: their answers are older."""
        run, history = self.run, self.history
        discarded = history.discarded is not None and history.discarded.at >= self.evidence.asked_at
        ended = run is not None and not run.open and run.seen_at >= self.evidence.asked_at
        return not history.new_message and (discarded or ended)

    def _running(self) -> Decision:
        held = self.active[0]
        worker = ", ".join(sorted({each.worker for each in self.active}))
        since = held.started_at or (self.run.started_at if self.run is not None else None)
        decision = Decision("running", "active", since=since, worker=held.worker)
        decision = replace(decision, usual_seconds=self.evidence.usual.runtime_p95)
        if len({each.worker for each in self.active}) > 1:
            return replace(decision, verdict="ran_twice", reason="at_once", worker=worker)
        if self._completed():
            return replace(decision, verdict="ran_twice", reason="again")
        return decision

    def _held(self, held: HeldTask) -> Decision:
        eta = held.eta or (self.history.eta if held.state == "scheduled" else None)
        received = self.history.received
        since = received.at if received is not None and received.worker == held.worker else None
        if held.state == "scheduled":
            decision = Decision("scheduled", "worker", since=since, worker=held.worker, eta=eta)
        else:
            decision = replace(self._reserved(held.worker), since=since)
        return replace(decision, verdict="retrying", reason="held") if self._is_retry() else decision

    def _reserved(self, worker: str) -> Decision:
        facts = self.evidence.workers.get(worker, WorkerFacts(worker))
        behind = None if facts.active is None else facts.active + max((facts.reserved or 0) - 1, 0)
        return Decision("reserved", "held", worker=worker, behind=behind, slots=facts.slots)

    def _queued_in_list(self) -> Decision:
        waiting = self.evidence.broker.waiting
        assert waiting is not None  # noqa: S101 - the caller has checked it
        decision = self._queued(waiting.queue, Position(waiting.position, waiting.total, waiting.priority))
        return replace(decision, verdict="retrying", reason="queued") if self._is_retry() else decision

    def _queued(self, queue: str | None, position: Position) -> Decision:
        consumers = [w for w in self.evidence.workers.values() if queue is not None and queue in (w.queues or ())]
        free = [max(w.slots - w.active, 0) for w in consumers if w.slots is not None and w.active is not None]
        unasked = any(w.queues is None and w.alive for w in self.evidence.workers.values())
        return Decision(
            "queued",
            "list" if position.number is not None else "depth",
            since=self.history.sent_at,
            position=position,
            eta=self.history.eta,
            consumers=None if unasked and not consumers else tuple(sorted(w.hostname for w in consumers)),
            free_slots=sum(free) if free else None,
            drain_seconds=self.evidence.usual.drain_seconds,
        )

    def _is_retry(self) -> bool:
        if self.run is not None:
            return self.run.outcome == "retried"
        stored = self.evidence.stored is not None and self.evidence.stored.state == "RETRY"
        return stored or self.history.retries > 0

    def _completed(self) -> list[PastRun]:
        return [run for run in self.history.runs if run.outcome in ("succeeded", "failed")]

    # What was

    def _end(self) -> Decision | None:
        """Return the end that events show, unless another message came after it."""
        if self.history.new_message:
            return None
        if (discarded := self.history.discarded) is not None:
            return Decision(discarded.outcome, "discarded", since=discarded.at, worker=discarded.worker)
        if self.run is None:
            return None
        if self.run.outcome == "terminate_sent":
            return self._terminated(self.run)
        verdict = _ENDED.get(self.run.outcome or "")
        if verdict is None:
            return None
        decision = Decision(verdict, "event", since=self.run.ended_at, worker=self.run.worker)
        return replace(decision, verdict="ran_twice", reason="ended_twice") if len(self._completed()) > 1 else decision

    def _terminated(self, run: PastRun) -> Decision:
        """Celery announces a termination when it sends the signal; only a process that is gone is an end."""
        if (stored := self._stored()) is not None:
            return stored  # it ended before the signal, or in spite of it
        decision = Decision("revoked", "terminated", since=run.seen_at, worker=run.worker)
        termination = self.evidence.terminated
        if (termination is not None and termination.died) or self._gone(run.worker, run.pid, run.seen_at):
            return decision
        if termination is not None and termination.alive:
            return replace(decision, verdict="running", reason="survives", since=run.started_at)
        return replace(decision, verdict="unknown", reason="terminate_sent")

    def _at_last_worker(self) -> Decision | None:
        """Return what became of it at the worker that had it last, none of which lists it now."""
        received, run = self.history.received, self.run
        if run is not None and run.open and not self.history.new_message:
            return self._after_start(run)
        if received is None or (run is not None and not self.history.received_again):
            return None
        return self._after_reception(received.worker, received.pid, received.at)

    def _after_start(self, run: PastRun) -> Decision | None:
        # Times of receipt are compared with each other: workers' clocks may differ from ours.
        worker, facts, since = run.worker, self.evidence.workers.get(run.worker), run.started_at or run.seen_at
        if (stored := self._stored()) is not None and stored.verdict != "unknown":
            return stored
        if self._gone(worker, run.pid, run.seen_at):
            return self._lost(worker, started=True)
        if facts is None or facts.ambiguous or (facts.left_at or 0.0) > run.seen_at:
            return self._unknown("left" if facts and facts.left_at else "worker_silent", worker=worker, since=since)
        if facts.answered and run.seen_at < self.evidence.asked_at:
            return self._unknown("ended_unseen", worker=worker, since=since)
        listening_since = self.evidence.listening_since
        if facts.alive and listening_since is not None and listening_since <= run.seen_at:
            usual = self.evidence.usual.runtime_p95
            return Decision("running", "by_event", since=since, worker=worker, usual_seconds=usual)
        return self._unknown("worker_silent", worker=worker, since=since)

    def _after_reception(self, worker: str, pid: int, since: float) -> Decision | None:
        facts, eta = self.evidence.workers.get(worker), self.history.eta
        if (stored := self._stored()) is not None and stored.verdict != "unknown":
            return stored
        if self._gone(worker, pid, since):
            return self._lost(worker, started=False)
        if facts is None or facts.ambiguous or (facts.left_at or 0.0) > since:
            return self._unknown("left" if facts and facts.left_at else "worker_silent", worker=worker, since=since)
        held = self.evidence.broker.unacked is not None or self.evidence.broker.kind != "redis"
        waits = eta is not None and eta > self.evidence.asked_at
        fresh = since >= self.evidence.asked_at
        if facts.answered and not fresh and not (held and (waits or self._rate_limit())):
            return self._unknown("ended_unseen", worker=worker, since=since)
        if not facts.alive:
            return self._unknown("worker_silent", worker=worker, since=since)
        if waits:
            decision = Decision("scheduled", "by_event", since=since, worker=worker, eta=eta)
        else:
            reason = "rate_limited" if facts.answered and not fresh else "by_event"
            decision = replace(self._reserved(worker), reason=reason, since=since, words=self._rate_words())
        return replace(decision, verdict="retrying", reason="held") if self._is_retry() else decision

    def _rate_limit(self) -> str | None:
        return self.evidence.facts.rate_limit if self.evidence.facts is not None else None

    def _rate_words(self) -> tuple[tuple[str, str], ...]:
        return (("rate", limit),) if (limit := self._rate_limit()) else ()

    def _gone(self, worker: str, pid: int, since: float) -> bool:
        """Return True when the process that had the task when that was received is proven gone."""
        facts = self.evidence.workers.get(worker)
        remembers = any(each.worker == worker for each in self.evidence.remembered)
        if facts is None or facts.ambiguous or remembers or (facts.left_at or 0.0) > since:
            return False
        other = bool(facts.pid and pid and facts.pid != pid)
        restarted = facts.started_at is not None and facts.started_at > since + CLOCKS
        return other or restarted or facts.gone

    def _lost(self, worker: str, *, started: bool) -> Decision:
        broker, facts = self.evidence.broker, self.evidence.facts
        decision = Decision("lost", "unknown", worker=worker, since=self._last_seen(worker))
        if broker.unacked is not None:
            return replace(decision, reason="redelivered", redelivered_at=broker.unacked.redelivered_at)
        if broker.kind == "redis":
            return replace(decision, reason="never" if broker.unacked_read and broker.lists_read else "unknown")
        if not started or (facts is not None and facts.acks_late):
            return replace(decision, reason="requeued")
        return replace(decision, reason="never" if facts is not None and facts.acks_late is False else "unknown")

    def _last_seen(self, worker: str) -> float | None:
        facts = self.evidence.workers.get(worker)
        if facts is None or facts.alive:
            return self.run.seen_at if self.run is not None else None
        return facts.last_seen

    def _stored(self) -> Decision | None:
        """Return what the result backend proves: REVOKED nothing, since Celery stores it for ids that never existed."""
        stored, run = self.evidence.stored, self.run
        if stored is None:
            return None
        begun = max(run.started_at or 0.0 if run else 0.0, 0.0)
        verdict = _STORED.get(stored.state)
        if verdict is not None and (stored.ended_at is None or stored.ended_at >= begun - CLOCKS):
            rejected = verdict == "failed" and stored.exception == "Reject"
            return Decision("rejected" if rejected else verdict, "stored", since=stored.ended_at, worker=stored.worker)
        if stored.state == "STARTED" and stored.worker is not None and run is None:
            return self._after_stored_start(stored.worker)
        return None

    def _after_stored_start(self, worker: str) -> Decision:
        facts = self.evidence.workers.get(worker)
        if facts is not None and facts.gone:
            return self._lost(worker, started=True)
        silent = facts is None or not facts.answered
        return self._unknown("worker_silent" if silent else "ended_unseen", worker=worker)

    # Where it was sent

    def _sent(self) -> Decision:
        """Return what is known of a message that no worker lists or is known to have received."""
        history, broker = self.history, self.evidence.broker
        silent = sorted(w.hostname for w in self.evidence.workers.values() if w.alive and not w.answered)
        if not broker.reachable:
            return self._unknown("broker")
        if broker.unacked is not None:
            return self._unknown("held_by_silent" if silent else "held_by_nobody", since=broker.unacked.delivered_at)
        if history.sent_at is None and not history.new_message:
            return self._unseen(silent)
        if history.delayed_by_broker and (history.eta or 0.0) > self.evidence.asked_at:
            place = "delay_level" if broker.delay_level is not None else "delayed"
            decision = Decision("scheduled", place, since=history.sent_at, eta=history.eta)
            decision = replace(decision, words=(("level", str(broker.delay_level)),))
            return replace(decision, verdict="retrying", reason="delayed") if self._is_retry() else decision
        if broker.kind == "redis":
            if silent:
                return self._unknown("silent")
            return self._unknown("gone" if broker.lists_read and broker.unacked_read else "not_read")
        return self._in_closed_queue(silent)

    def _in_closed_queue(self, silent: list[str]) -> Decision:
        """Return what is known where the broker shows only how many messages a queue has."""
        broker, queue = self.evidence.broker, self.history.queue
        depth = broker.depth
        if silent:
            return self._unknown("silent")
        consumers = [w for w in self.evidence.workers.values() if queue in (w.queues or ())]
        if any(w.sends_task_events is False for w in consumers):
            return self._unknown("mute")
        expires = self.history.expires
        if broker.kind == "rabbitmq" and expires is not None and expires < self.evidence.asked_at - CLOCKS:
            return Decision("expired", "in_queue", since=expires)
        if not depth:
            return self._unknown("gone" if depth == 0 else "not_read")
        decision = self._queued(queue, Position(None, depth))
        return replace(decision, verdict="retrying", reason="queued") if self._is_retry() else decision

    def _unseen(self, silent: list[str]) -> Decision:
        stored, broker = self.evidence.stored, self.evidence.broker
        if stored is not None:
            return self._unknown("stored_revoked" if stored.state == "REVOKED" else "stored_other")
        if silent:
            return self._unknown("silent")
        if broker.kind == "redis" and not (broker.lists_read and broker.unacked_read):
            return self._unknown("not_read")
        return self._unknown("never_seen" if broker.kind == "redis" else "never_seen_closed")

    def _unknown(self, reason: str, *, worker: str | None = None, since: float | None = None) -> Decision:
        unacked = self.evidence.broker.unacked
        return Decision(
            "unknown",
            reason,
            since=since,
            worker=worker,
            redelivered_at=unacked.redelivered_at if unacked is not None else None,
        )

    # All runs

    def runs(self, decision: Decision) -> tuple[Run, ...]:
        """Return every run, each with what is proven of its end."""
        runs = [self._shown(run, last=run is self.run, decision=decision) for run in self.history.runs]
        shown = {run.worker for run in runs if run.outcome == "running"}
        unseen = [held for held in self.active if held.worker not in shown and not self._ended_meanwhile()]
        runs += [Run(held.worker, held.started_at) for held in unseen]
        stored = self.evidence.stored
        if not runs and decision.reason == "stored" and stored is not None and stored.worker is not None:
            runs = [Run(stored.worker, None, stored.ended_at, decision.verdict, stored.exception)]
        return tuple(runs)

    def _shown(self, run: PastRun, *, last: bool, decision: Decision) -> Run:
        shown = Run(run.worker, run.started_at, run.ended_at, run.outcome or "running", run.exception)
        if not run.open or any(held.worker == run.worker for held in self.active):
            return shown if not run.open else replace(shown, outcome="running")
        if last and decision.verdict in ("succeeded", "failed", "rejected") and decision.reason == "stored":
            stored = self.evidence.stored
            exception = stored.exception if stored is not None else None
            return replace(shown, outcome=decision.verdict, ended=decision.since, exception=exception)
        if last and decision.verdict in ("running", "lost", "revoked", "unknown") and run.worker == decision.worker:
            return replace(shown, outcome=decision.verdict if decision.verdict != "revoked" else "terminated")
        if self.history.replaced and last:
            return replace(shown, outcome="replaced")
        gone = self._gone(run.worker, run.pid, run.seen_at)
        return replace(shown, outcome="lost" if gone else "unknown")
