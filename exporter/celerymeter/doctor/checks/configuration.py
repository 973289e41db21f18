"""Checks of the workers' own configuration: settings that must agree, and do not."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from celerymeter.doctor.evidence import Evidence
from celerymeter.doctor.report import Finding, hint, listed
from celerymeter.worker_configuration import WorkerConfiguration

_CONTENT_TYPES = {
    "application/json": "json",
    "application/x-python-serialize": "pickle",
    "application/x-yaml": "yaml",
    "application/x-msgpack": "msgpack",
}


def serializers_differ(evidence: Evidence) -> Iterator[Finding]:
    """Of workers of one queue some send tasks that others refuse to read."""
    known = _known(evidence)
    queues = {name: evidence.broker.replies[name].queues or frozenset() for name in known}
    refusing = [
        (serializer, sender, reader)
        for sender, serializer in ((name, configuration.task_serializer) for name, configuration in known.items())
        for reader, configuration in known.items()
        if queues[sender] & queues[reader]
        and serializer not in {_CONTENT_TYPES.get(kind, kind) for kind in configuration.accept_content}
    ]
    for serializer in sorted({serializer for serializer, _, _ in refusing}):
        senders = sorted({sender for found, sender, _ in refusing if found == serializer})
        readers = sorted({reader for found, _, reader in refusing if found == serializer})
        yield hint(
            "serializers-differ",
            f"{listed(senders)} sends tasks in {serializer}, which {listed(readers)} does not accept",
            f"add {serializer} to accept_content everywhere first, or set the same task_serializer everywhere",
        )


def acks_late_differs(evidence: Evidence) -> Iterator[Finding]:
    """Of workers of one queue some acknowledge early and some late."""
    for queue, shown in _differing(evidence, lambda configuration: str(configuration.acks_late)):
        yield hint(
            "acks-late-differs",
            f"workers of queue {queue} have different task_acks_late: {shown}",
            "set the same everywhere: it decides whether a task is lost or repeated when its worker dies",
        )


def prefetch_differs(evidence: Evidence) -> Iterator[Finding]:
    """Of workers of one queue and one pool some take far more messages in advance than others."""
    for queue, shown in _differing(evidence, lambda configuration: str(configuration.prefetch_multiplier)):
        yield hint(
            "prefetch-differs",
            f"workers of queue {queue} have different worker_prefetch_multiplier: {shown}",
            "set the same everywhere: the worker with the largest holds messages while others are idle",
        )


def queue_arguments_differ(evidence: Evidence) -> Iterator[Finding]:
    """Workers declare the same queue with different arguments."""
    declared: dict[str, dict[str, str]] = defaultdict(dict)
    for name, configuration in _known(evidence).items():
        for queue in evidence.broker.replies[name].queues or ():
            arguments = configuration.queue_arguments.get(queue, {})
            declared[queue][name] = json.dumps(arguments, sort_keys=True)
    for queue, by_worker in sorted(declared.items()):
        if len(set(by_worker.values())) > 1:
            yield hint(
                "queue-arguments-differ",
                f"workers declare queue {queue} with different arguments: {_shown(by_worker)}",
                "set the same task_queues everywhere: RabbitMQ refuses the second declaration (PRECONDITION_FAILED)",
            )


def _known(evidence: Evidence) -> dict[str, WorkerConfiguration]:
    replies = evidence.broker.replies.items()
    return {name: reply.configuration for name, reply in replies if reply.configuration is not None}


def _differing(evidence: Evidence, value: Callable[[WorkerConfiguration], str]) -> Iterator[tuple[str, str]]:
    """Yield each queue whose workers, of the same pool, differ, and what each of them has."""
    values: dict[tuple[str, str | None], dict[str, str]] = defaultdict(dict)
    for name, configuration in _known(evidence).items():
        reply = evidence.broker.replies[name]
        for queue in reply.queues or ():
            values[queue, reply.pool][name] = value(configuration)
    for (queue, _), by_worker in sorted(values.items(), key=str):
        if len(set(by_worker.values())) > 1:
            yield queue, _shown(by_worker)


def _shown(by_worker: Mapping[str, str]) -> str:
    return listed(f"{name} {value}" for name, value in by_worker.items())
