"""The way from an exchange and a routing key to a queue, by the bindings that workers declare.

Pure. An event says where a task was published, which is not always a queue: with exchanges of the user's own, and with
RabbitMQ's native delayed delivery, where the routing key begins with 28 bits of delay.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

MAX_KNOWN = 5_000
MAX_KEY = 255
"""Bytes of a routing key (AMQP 0-9-1), so no more characters; a longer one leads nowhere."""
MAX_WORDS = 10_000
"""Words of all patterns of an exchange together; further patterns lead nowhere."""
_DELAYED = re.compile(r"(?:.*_)?celery_delayed_(?:\d{1,2}|delivery)")
_BITS = re.compile(r"^(?:(?:[01]\.){28})+")
"""The delay of `kombu.transport.native_delayed_delivery`; older releases put another one before it at each retry."""
_ANY = "*"
COPY = "bcast."
"""Begins the name of the queue that each process has for a broadcast; a UUID follows (`kombu.common.Broadcast`)."""


class Binding(Protocol):
    """A queue that a worker consumes, and how it is bound to its exchange; hashable."""

    @property
    def queue(self) -> str: ...
    @property
    def exchange(self) -> str: ...
    @property
    def exchange_type(self) -> str: ...
    @property
    def routing_key(self) -> str: ...


class Sent(Protocol):
    """The fields of a `task-sent` that say where it was published."""

    @property
    def queue(self) -> str | None: ...
    @property
    def exchange(self) -> str | None: ...
    @property
    def routing_key(self) -> str | None: ...


class QueueRoutes:
    """Finds the queue that a task was published to; without bindings only that of the nameless exchange."""

    def __init__(self, bindings: Iterable[Binding] = ()) -> None:
        self._bindings: frozenset[Binding] = frozenset(bindings)
        self._tables: dict[str, RoutingTable] = {}
        self._known: dict[tuple[str, str], str | None] = {}

    def update(self, bindings: Iterable[Binding]) -> None:
        """Replace the bindings."""
        found = frozenset(bindings)
        if found != self._bindings:
            self._bindings = found
            self._known.clear()
            self._tables.clear()

    @property
    def only_queue(self) -> str | None:
        """Return the queue that all bindings lead to, if there is only one."""
        return _only(binding.queue for binding in self._bindings)

    def queue_of(self, event: Sent) -> str | None:
        """Return the queue that a `task-sent` was published to.

        The exchange goes before the queue that the event names: for a retry of a task that came through an exchange
        Celery names the default queue (`Task.signature_from_request` keeps exchange and routing key only). A broadcast
        has the name of its exchange, for its queue is that of the producer's own process.
        """
        if is_broadcast(event):
            return event.exchange
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
        if len(routing_key) > MAX_KEY or len(exchange) > MAX_KEY:
            return None
        key = (exchange, routing_key)
        if key not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            table = self._table(exchange)
            self._known[key] = table.queue(routing_key)
        return self._known[key]

    def _table(self, exchange: str) -> RoutingTable:
        """Return the bindings of an exchange, `_ANY` for all but fanout exchanges, in the form that is looked up."""
        table = self._tables.get(exchange)
        if table is None:
            bound = [
                one
                for one in self._bindings
                if exchange == one.exchange or (exchange == _ANY and one.exchange_type != "fanout")
            ]
            table = RoutingTable(
                direct=[(one.routing_key, one.queue) for one in bound if one.exchange_type not in ("topic", "fanout")],
                topic=[(one.routing_key, one.queue) for one in bound if one.exchange_type == "topic"],
                fanout=[one.queue for one in bound if one.exchange_type == "fanout"],
            )
            if bound:
                self._tables[exchange] = table
        return table


class RoutingTable:
    """The bindings of one exchange: a routing key's queue in time that does not depend on what patterns there are.

    ``*`` stands for one word of a topic's routing key, ``#`` for any number of them, or for at least one where
    ``some`` is true. All patterns run at once, as the bits of one number: bit i is set when the words so far match all
    that is before word i of the patterns, which stand one behind the other.
    """

    def __init__(
        self,
        *,
        direct: Iterable[tuple[str, str]] = (),
        topic: Iterable[tuple[str, str]] = (),
        fanout: Iterable[str] = (),
        some: bool = False,
    ) -> None:
        """Bindings are pairs of routing key and queue."""
        self._always = frozenset(fanout)
        self._direct: dict[str, set[str]] = defaultdict(set)
        for key, queue in direct:
            self._direct[key].add(queue)
        self._some = some
        self._starts = self._ends = self._any = self._many = 0
        self._words: dict[str, int] = defaultdict(int)
        self._queues: dict[int, set[str]] = defaultdict(set)
        """By the bit behind the last word of a pattern."""
        by_pattern: dict[str, set[str]] = defaultdict(set)
        for pattern, queue in topic:
            if len(pattern) <= MAX_KEY:
                by_pattern[pattern].add(queue)
        bit = 1
        for pattern, queues in by_pattern.items():
            if bit.bit_length() < MAX_WORDS:
                bit = self._add(pattern, queues, bit)

    def _add(self, pattern: str, queues: set[str], bit: int) -> int:
        """Add a pattern whose words begin at ``bit``; return the next bit that is free."""
        self._starts |= bit
        before = ""
        for word in pattern.split("."):
            if word == "#" == before and not self._some:
                continue  # is the same as a single one
            if word == "#":
                self._many |= bit
            elif word == "*":
                self._any |= bit
            else:
                self._words[word] |= bit
            bit, before = bit << 1, word
        self._ends |= bit
        self._queues[bit.bit_length()] |= queues
        return bit << 1

    def queue(self, routing_key: str) -> str | None:
        """Return the queue that a key leads to, if it is exactly one."""
        found = {*self._always, *self._direct.get(routing_key, ()), *self._by_topic(routing_key)}
        return found.pop() if len(found) == 1 else None

    def _by_topic(self, routing_key: str) -> set[str]:
        if not self._starts:
            return set()
        state = self._skipped(self._starts)
        for word in routing_key.split("."):
            taken = self._words.get(word, 0) | (self._any if word else 0)
            if self._some:
                taken |= self._many
            state = self._skipped(((state & taken) << 1) | (state & self._many))
        found: set[str] = set()
        ended = state & self._ends
        while ended and len(found) < 2:
            last = ended.bit_length()
            found |= self._queues[last]
            ended ^= 1 << (last - 1)
        return found

    def _skipped(self, state: int) -> int:
        """Add the bits behind each ``#`` that may stand for no word."""
        return state if self._some else state | ((state & self._many) << 1)


def is_broadcast(event: Sent) -> bool:
    """Return True if a `task-sent` is of a task that every worker gets."""
    return bool(event.exchange) and event.queue is not None and is_copy(event.queue)


def is_copy(queue: str) -> bool:
    """Return True if the queue is one process's own, for a broadcast."""
    return queue.startswith(COPY)


def _only(queues: Iterable[str]) -> str | None:
    found = set(queues)
    return found.pop() if len(found) == 1 else None
