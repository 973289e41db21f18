"""Parses what kombu stores in Redis: the end of a message, and the bindings of queues. Pure.

kombu writes a message's body first, headers and properties last. Only the end is ever fetched, so that a message of
many megabytes costs no more than a small one, and a task's arguments stay where they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from celerymeter.inspect_replies import text
from celerymeter.polling.queues import is_task_queue
from celerymeter.routing import MAX_KEY, RoutingTable
from celerymeter.stamp import HEADER
from celerymeter.tagged import id_text, ids_as_text

HEAD_TAIL = 8192
"""Bytes that hold the headers and properties of nearly any task (Celery cuts its `argsrepr` at 1024)."""
UNACKED_TAIL = 1024
"""Bytes that hold the exchange and routing key at the end of an unacknowledged message."""


@dataclass(frozen=True, slots=True)
class HeadMessage:
    """The message at the head of a list; a retry repeats the ``uuid``, but never the ``delivery_tag``."""

    uuid: str | None = None
    delivery_tag: str | None = None
    stamped_at: float | None = None


class _Headers(msgspec.Struct):
    id: object = None
    stamp: object = msgspec.field(default=None, name=HEADER)


class _Properties(msgspec.Struct):
    correlation_id: object = None
    delivery_tag: object = None


class _Message(msgspec.Struct):
    headers: _Headers
    properties: _Properties


_MESSAGE = msgspec.json.Decoder(_Message)
_DESTINATION = msgspec.json.Decoder(tuple[str, str | None])
# Inside a JSON string a quote is escaped, so these match keys only, wherever the cut went through.
_UUID = re.compile(rb'"correlation_id": ?"((?:[^"\\]|\\.){1,1530})"')
_TAG = re.compile(rb'"delivery_tag": ?"([^"\\]{1,255})"')
_STAMP = re.compile(rb'"%s": ?([0-9.eE+]{1,32})[,}]' % HEADER.encode())


def parse_head(tail: bytes) -> HeadMessage:
    """Return what a whole message says, or as much as a cut one still does; never raises."""
    try:
        message = _MESSAGE.decode(tail)
    except (msgspec.DecodeError, UnicodeDecodeError):
        uuid = _unescaped(_found(_UUID, ids_as_text(tail)))
        return HeadMessage(uuid, _found(_TAG, tail), _seconds(_found(_STAMP, tail)))
    headers, properties = message.headers, message.properties
    uuid = text(id_text(headers.id)) or text(id_text(properties.correlation_id))
    return HeadMessage(uuid, text(properties.delivery_tag), _seconds(headers.stamp))


def parse_destination(tail: bytes) -> tuple[str, str] | None:
    """Return exchange and routing key of an unacknowledged message, stored as ``[message, exchange, routing key]``."""
    start = tail.rfind(b'}, "')
    if start < 0:
        return None
    try:
        exchange, routing_key = _DESTINATION.decode(b"[" + tail[start + 3 :])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return exchange, routing_key or ""


def _found(pattern: re.Pattern[bytes], tail: bytes) -> str | None:
    match = pattern.search(tail)
    return match.group(1).decode(errors="replace") if match else None


def _unescaped(word: str | None) -> str | None:
    """Return what JSON means by the inside of a string; an id may be any text."""
    if word is None or "\\" not in word:
        return word
    try:
        return text(msgspec.json.decode(f'"{word}"'))
    except msgspec.DecodeError:
        return None


def _seconds(value: object) -> float | None:
    """Return a plausible time in UTC seconds, from whatever a producer wrote."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and 0 < seconds < 1e10 else None


@dataclass(frozen=True, slots=True)
class Binding:
    """A queue bound to an exchange; ``pattern`` is kombu's regular expression of a topic binding, else empty.

    The expression is never run: it backtracks, and it says no more than the routing key.
    """

    routing_key: str
    pattern: str
    queue: str

    @property
    def is_topic(self) -> bool:
        """True if the routing key is a pattern (`kombu.transport.virtual.exchange.TopicExchange.key_to_pattern`)."""
        return self.pattern.startswith("^") and self.pattern.endswith("$")


def as_text(name: bytes | str) -> str:
    """Return a name out of Redis as text."""
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def parse_bindings(members: Iterable[bytes | str], separator: str) -> tuple[Binding, ...]:
    """Return the bindings of one exchange (members of ``_kombu.binding.EXCHANGE``), without malformed ones."""
    words = (as_text(member).split(separator) for member in members)
    return tuple(Binding(*parts) for parts in words if len(parts) == 3 and is_task_queue(parts[2]))


class Routes:
    """The way from exchange and routing key to queue."""

    def __init__(self, bindings: Mapping[str, tuple[Binding, ...]]) -> None:
        self._bindings = bindings
        self._tables = {exchange: _table(bound) for exchange, bound in bindings.items()}
        self._known: dict[tuple[str, str], str | None] = {}

    @property
    def queues(self) -> set[str]:
        """Return every bound queue."""
        return {binding.queue for bound in self._bindings.values() for binding in bound}

    def queue(self, exchange: str, routing_key: str) -> str | None:
        """Return the queue if there is exactly one; the nameless exchange routes by the queue's own name."""
        if not exchange:
            return routing_key or None
        if len(routing_key) > MAX_KEY:
            return None
        key = (exchange, routing_key)
        if key not in self._known:
            table = self._tables.get(exchange)
            self._known[key] = None if table is None else table.queue(routing_key)
        return self._known[key]


def _table(bound: Iterable[Binding]) -> RoutingTable:
    """In Redis ``#`` stands for at least one word: kombu's expression for it needs the dots on both sides."""
    return RoutingTable(
        direct=[(one.routing_key, one.queue) for one in bound if not one.pattern],
        topic=[(one.routing_key, one.queue) for one in bound if one.is_topic],
        some=True,
    )
