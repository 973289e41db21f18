"""Does somebody take from every queue."""

from __future__ import annotations

from collections.abc import Iterator

from celerymeter.doctor.evidence import BrokerEvidence, Evidence
from celerymeter.doctor.finding import Finding, fault, hint, listed


def without_consumers(evidence: Evidence) -> Iterator[Finding]:
    """Messages that nobody will take; a hint only, while some worker has not said what it consumes."""
    broker = evidence.broker
    if not broker.workers or broker.queues is None:
        return
    taken = {name for answer in broker.answers.values() for name in answer.queues or ()}
    lonely = {
        queue.name: queue.length
        for queue in broker.queues
        if queue.length and queue.name not in taken and not queue.consumers
    }
    if lonely:
        what = listed(f"{name} ({length} waiting)" for name, length in lonely.items())
        yield (fault if _all_told(broker) else hint)(
            "queue-without-consumers",
            f"no worker consumes {what}",
            "start a worker with -Q and these names, or correct task_routes where they are sent from",
        )


def _all_told(broker: BrokerEvidence) -> bool:
    """Whether every worker said which queues it consumes."""
    return all(name in broker.answers and broker.answers[name].queues is not None for name in broker.workers)
