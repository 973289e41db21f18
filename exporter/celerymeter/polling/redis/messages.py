"""What the end of a message in Redis tells: kombu writes the body first, headers and properties last.

Only the end is ever fetched, so that a message of many megabytes costs no more than a small one, and a task's
arguments stay where they are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import msgspec

from celerymeter.stamp import HEADER

HEAD_TAIL = 8192
"""Bytes that hold the headers and properties of nearly any task (Celery cuts its `argsrepr` at 1024)."""
UNACKED_TAIL = 1024
"""Bytes that hold the exchange and routing key at the end of an unacknowledged message."""


@dataclass(frozen=True, slots=True)
class Head:
    """Who the message at the head of a list is; ``delivery_tag`` is its own also when a retry repeats the ``uuid``."""

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
# Inside a JSON string a quote is escaped, so these match keys alone, wherever the cut went through.
_UUID = re.compile(rb'"correlation_id": ?"([^"\\]{1,255})"')
_TAG = re.compile(rb'"delivery_tag": ?"([^"\\]{1,255})"')
_STAMP = re.compile(rb'"%s": ?([0-9.eE+]{1,32})[,}]' % HEADER.encode())


def parse_head(tail: bytes) -> Head:
    """Read a whole message, or as much as a cut one still tells; never raises."""
    try:
        message = _MESSAGE.decode(tail)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Head(_found(_UUID, tail), _found(_TAG, tail), _seconds(_found(_STAMP, tail)))
    headers, properties = message.headers, message.properties
    uuid = _text(headers.id) or _text(properties.correlation_id)
    return Head(uuid, _text(properties.delivery_tag), _seconds(headers.stamp))


def parse_destination(tail: bytes) -> tuple[str, str] | None:
    """Exchange and routing key of an unacknowledged message, stored as ``[message, exchange, routing key]``."""
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


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(value: object) -> float | None:
    """A plausible time in UTC seconds, from whatever a producer wrote."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and 0 < seconds < 1e10 else None
