"""Which queue a message was delivered from, by the bindings that kombu keeps in Redis."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from celerymeter.polling.queues import is_task_queue


@dataclass(frozen=True, slots=True)
class Binding:
    """A queue bound to an exchange; ``pattern`` is kombu's regular expression of a topic binding, else empty."""

    routing_key: str
    pattern: str
    queue: str

    def takes(self, routing_key: str) -> bool:
        """Whether a message with this routing key goes to the queue."""
        if not self.pattern:
            return self.routing_key == routing_key
        try:
            return re.match(self.pattern, routing_key) is not None
        except re.error:
            return False


def as_text(name: bytes | str) -> str:
    """A name out of Redis."""
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def parse_bindings(members: Iterable[bytes | str], separator: str) -> tuple[Binding, ...]:
    """The bindings of one exchange (members of ``_kombu.binding.EXCHANGE``); what is no binding is left out."""
    words = (as_text(member).split(separator) for member in members)
    return tuple(Binding(*parts) for parts in words if len(parts) == 3 and is_task_queue(parts[2]))


class Routes:
    """From exchange and routing key to queue."""

    def __init__(self, bindings: Mapping[str, tuple[Binding, ...]]) -> None:
        self._bindings = bindings
        self._known: dict[tuple[str, str], str | None] = {}

    @property
    def queues(self) -> set[str]:
        """Every bound queue."""
        return {binding.queue for bound in self._bindings.values() for binding in bound}

    def queue(self, exchange: str, routing_key: str) -> str | None:
        """The queue, when there is exactly one; the nameless exchange routes by the queue's own name."""
        if not exchange:
            return routing_key or None
        key = (exchange, routing_key)
        if key not in self._known:
            bound = {binding.queue for binding in self._bindings.get(exchange, ()) if binding.takes(routing_key)}
            self._known[key] = bound.pop() if len(bound) == 1 else None
        return self._known[key]
