"""One line for each source of evidence: what it says about a task, for people."""

from __future__ import annotations

from collections.abc import Iterator

from celerymeter.control.evidence.history import TaskHistory
from celerymeter.control.evidence.task import Evidence, Note


def notes(evidence: Evidence) -> tuple[Note, ...]:
    """Return what each source that was asked says."""
    return tuple(_notes(evidence))


def _notes(evidence: Evidence) -> Iterator[Note]:
    at, broker = evidence.asked_at, evidence.broker
    yield Note("events", _history(evidence.history, evidence.listening_since), at)
    answered = sum(worker.answered for worker in evidence.workers.values())
    held = ", ".join(f"{each.worker} lists it as {each.state}" for each in evidence.held)
    if answered or evidence.held:
        yield Note("workers", held or f"{answered} answered; none lists it", at)
    if evidence.remembered:
        yield Note("worker memory", ", ".join(f"{each.worker}: {each.state}" for each in evidence.remembered), at)
    if evidence.stored is not None:
        yield Note("result backend", f"stored as {evidence.stored.state}", at)
    elif not any(note.source == "result backend" for note in (*evidence.not_asked, *evidence.unreachable)):
        yield Note("result backend", "nothing is stored", at)
    if broker.waiting is not None:
        waiting = broker.waiting
        text = f"message {waiting.position} of {waiting.total} in {waiting.queue}, priority step {waiting.priority}"
        yield Note("redis queues", text, at)
    elif broker.kind == "redis" and not _skipped(evidence):
        read = "" if broker.lists_read else "; only 10,000 messages were read, at both ends of longer lists"
        yield Note("redis queues", f"not among the messages that wait{read}", at)
    if broker.unacked is not None:
        yield Note("redis unacked", "a worker took the message and has not acknowledged it", at)
    elif broker.kind == "redis" and not _skipped(evidence):
        read = "" if broker.unacked_read else "; only 10,000 of them were read"
        yield Note("redis unacked", f"not among the unacknowledged messages{read}", at)
    if broker.kind == "rabbitmq" and broker.depth is not None:
        text = f"{broker.depth} messages wait in {evidence.history.queue}; RabbitMQ does not show which"
        yield Note("rabbitmq queues", text, at)
    if broker.delay_level is not None:
        yield Note("rabbitmq delay levels", f"level {broker.delay_level} holds messages; not shown which", at)
    if evidence.terminated is not None:
        text = "dead" if evidence.terminated.died else "alive" if evidence.terminated.alive else "not known to be dead"
        yield Note("revocations", f"terminate was sent; the process that ran it is {text}", at)


def _skipped(evidence: Evidence) -> bool:
    silent = (*evidence.not_asked, *evidence.unreachable)
    return any(note.source == "redis queues" for note in silent) or not evidence.broker.reachable


def _history(history: TaskHistory, listening_since: float | None) -> str:
    if listening_since is None:
        return "no subscription to events now"
    seen = []
    if history.sent_at is not None:
        seen.append("sent")
    if history.received is not None:
        seen.append(f"received by {history.received.worker}")
    seen += [f"{run.outcome or 'started'} at {run.worker}" for run in history.runs]
    if history.discarded is not None:
        seen.append(f"discarded by {history.discarded.worker} ({history.discarded.outcome})")
    return ", ".join(seen) or "no event of this id"
