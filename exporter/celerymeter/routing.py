"""The way from an exchange and a routing key to a queue, by the bindings that workers declare.

Pure. An event says where a task was published, which is not always a queue: with exchanges of the user's own, and with
RabbitMQ's native delayed delivery, where the routing key begins with 28 bits of delay.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from celerymeter.model import Event, QueueBinding

MAX_KNOWN = 10_000
_DELAYED = re.compile(r"(?:.*_)?celery_delayed_(?:\d{1,2}|delivery)")
_BITS = re.compile(r"^(?:(?:[01]\.){28})+")
"""The delay of `kombu.transport.native_delayed_delivery`; older releases put another one before it at each retry."""
_ANY = "*"


class QueueRoutes:
    """Finds the queue that a task was published to; without bindings only that of the nameless exchange."""

    def __init__(self, bindings: Iterable[QueueBinding] = ()) -> None:
        self._bindings: frozenset[QueueBinding] = frozenset(bindings)
        self._known: dict[tuple[str, str], str | None] = {}

    def update(self, bindings: Iterable[QueueBinding]) -> None:
        """Replace the bindings."""
        found = frozenset(bindings)
        if found != self._bindings:
            self._bindings = found
            self._known.clear()

    @property
    def only_queue(self) -> str | None:
        """Return the queue that all bindings lead to, if there is only one."""
        return _only(binding.queue for binding in self._bindings)

    def queue_of(self, event: Event) -> str | None:
        """Return the queue that a `task-sent` was published to.

        The exchange goes before the queue that the event names: for a retry of a task that came through an exchange
        Celery names the default queue (`Task.signature_from_request` keeps exchange and routing key only).
        """
        if event.exchange is None or not event.routing_key or (event.queue and not event.exchange):
            return event.queue or None
        return self.queue(event.exchange, event.routing_key) or event.queue or None

    def queue(self, exchange: str, routing_key: str) -> str | None:
        """Return the queue if there is exactly one; the nameless exchange routes by the queue's own name."""
        if not exchange:
            return routing_key
        if _DELAYED.fullmatch(exchange):
            # A delayed message has lost the name of its exchange: all queues are bound to that of delayed delivery.
            exchange, routing_key = _ANY, _BITS.sub("", routing_key)
            if not self._bindings:
                return None if "." in routing_key else routing_key
        key = (exchange, routing_key)
        if key not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[key] = _only(one.queue for one in self._bindings if _takes(one, exchange, routing_key))
        return self._known[key]


def _takes(binding: QueueBinding, exchange: str, routing_key: str) -> bool:
    if exchange not in (binding.exchange, _ANY):
        return False
    if binding.exchange_type == "fanout":
        return exchange != _ANY
    if binding.exchange_type != "topic":
        return binding.routing_key == routing_key
    return _matches(binding.routing_key.split("."), routing_key.split("."))


def _matches(pattern: list[str], words: list[str]) -> bool:
    """``*`` stands for one word of a topic's routing key, ``#`` for any number of them."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_matches(pattern[1:], words[taken:]) for taken in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _matches(pattern[1:], words[1:])


def _only(queues: Iterable[str]) -> str | None:
    found: Collection[str] = set(queues)
    return next(iter(found)) if len(found) == 1 else None
