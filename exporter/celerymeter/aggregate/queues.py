"""The queue of a request, from the message itself and the queues that the worker consumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from celerymeter.exception_names import UNKNOWN
from celerymeter.routing import QueueRoutes, is_copy

MAX_KNOWN = 10_000


@dataclass(frozen=True)
class ConsumedQueue:
    """One way into a queue that the worker consumes."""

    queue: str
    exchange: str
    exchange_type: str
    routing_key: str


class MessageQueues:
    """Finds the queue of a message; `refresh` when the worker may consume others than before."""

    def __init__(self) -> None:
        self._routes = QueueRoutes()
        self._broadcasts: frozenset[str] = frozenset()
        self._known: dict[tuple[str, str], str] = {}

    def refresh(self, queues: Iterable[Any]) -> None:
        """Take the queues that the worker consumes (`kombu.Queue`, untyped)."""
        queues = list(queues)
        self._routes = QueueRoutes(way for queue in queues for way in _ways(queue))
        self._broadcasts = frozenset(queue.exchange.name for queue in queues if is_copy(queue.name))
        self._known = {}

    def find(self, delivery_info: Mapping[str, Any]) -> str:
        """Return the queue: by the routing key on the default exchange, by a binding, or the only one.

        A broadcast has the name of its exchange, as in `QueueRoutes.queue_of`.
        """
        key = (delivery_info.get("exchange") or "", delivery_info.get("routing_key") or "")
        queue = self._known.get(key)
        if queue is None:
            found = self._routes.queue(*key) if key[1] else None
            found = key[0] if key[0] in self._broadcasts else found
            queue = found or self._routes.only_queue or UNKNOWN
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[key] = queue
        return queue


def _ways(queue: Any) -> Iterable[ConsumedQueue]:
    """Yield the bindings of a queue; that of a broadcast is each worker's own, and no task waits there."""
    bindings = queue.bindings or [queue]
    for binding in bindings:
        exchange = binding.exchange
        if exchange is not None and exchange.type != "fanout":
            key = binding.routing_key or ""
            yield ConsumedQueue(queue.name, exchange.name or "", exchange.type or "direct", key)
