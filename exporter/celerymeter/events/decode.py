"""Decodes events off the wire, or counts why it cannot. One bad event never costs its neighbours, and nothing raises.

On Redis a message is kombu's envelope (`kombu.transport.virtual`): JSON with the body as base64 text. Parsing the
envelope costs four times what it costs to cut the body out of it, so that is done where the bytes around the body are
exactly those that kombu writes.
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Callable, Iterable
from typing import Literal, get_args

import msgspec
from pybase64 import b64decode

from celerymeter.json_values import count_values
from celerymeter.model import CELERY_EVENTS, MAX_TEXT, MAX_TYPE, UNKNOWN, Event
from celerymeter.tagged import ids_as_text, untag

Reason = Literal["envelope", "content_type", "encoding", "body", "fields", "too_large"]

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes. Celery cuts arguments and results to 1 KiB and a batch to 24 events; only tracebacks may be longer. One wide
character makes a text four times as large in memory."""
LARGE = 256 * 1024
MAX_EVENTS = 1000
"""Events of a large message."""
MAX_VALUES = 250_000
"""Values in a large message: as objects they take some fifty times the memory of their text."""
REASONS: tuple[Reason, ...] = get_args(Reason)

HEAD = b'{"body": "'
START = len(HEAD)
TAIL = b'", "content-encoding": "utf-8", "content-type": "application/json", "headers": {'
"""The bytes that kombu 5.3 to 5.7 write before and after the body. A body cut out between them is base64, or else it is
refused as JSON: then, as for anything that looks different, the envelope is parsed."""

_NAMES = ("hostname", "name", "queue", "exchange", "routing_key", "sw_ver")
_PROSE = ("exception", "traceback")
"""Texts that may quote a file name which is not UTF-8: `os.fsdecode` makes lone surrogates of it."""
_REQUIRED_FIELDS = ("type", "hostname", "timestamp")
_COMMON_FIELDS = (*_REQUIRED_FIELDS, "clock", "pid")


class Rejected(Exception):
    """A message cannot be used, for one of the reasons that metrics show; never leaves this module."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class _Properties(msgspec.Struct):
    body_encoding: str | None = None


class _Envelope(msgspec.Struct):
    body: str
    content_type: str = msgspec.field(name="content-type")
    content_encoding: str | None = msgspec.field(name="content-encoding", default=None)
    headers: dict[str, object] | None = None
    properties: _Properties | None = None


_typed = msgspec.json.Decoder(Event | list[Event]).decode
_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_envelope = msgspec.json.Decoder(_Envelope).decode


class Decoder:
    """Decodes messages and calls ``rejected(reason, count)`` for what it could not use."""

    def __init__(self, rejected: Callable[[Reason, int], None]) -> None:
        self._rejected = rejected

    def messages(self, messages: Iterable[bytes]) -> list[Event]:
        """Return the events of messages in kombu's envelope, in order."""
        events: list[Event] = []
        for message in messages:
            try:
                end = message.find(b'"', START)
                if message.startswith(HEAD) and message.startswith(TAIL, end) and len(message) <= LARGE:
                    decoded = _typed(b64decode(message[START:end]))
                else:
                    decoded = self._carefully(message)
            except (ValueError, RecursionError):
                decoded = self._carefully(message)
            if type(decoded) is list:
                events += decoded
            else:
                events.append(decoded)
        return self._identified(events)

    def bare(self, body: bytes, *, content_type: str | None, content_encoding: str | None) -> list[Event]:
        """Return the events of one body that came without an envelope, as AMQP carries it."""
        try:
            check_size(body)
            check_content(content_type, content_encoding or "utf-8")
        except Rejected as rejection:
            self._rejected(rejection.reason, 1)
            return []
        return self._identified(self._body(body))

    def _carefully(self, message: bytes) -> list[Event]:
        try:
            body = unwrap(message)
        except Rejected as rejection:
            self._rejected(rejection.reason, 1)
            return []
        return self._body(body)

    def _body(self, body: bytes) -> list[Event]:
        if len(body) > LARGE and (count_values(body, most=MAX_VALUES) > MAX_VALUES or _count(body) > MAX_EVENTS):
            self._rejected("too_large", 1)
            return []
        try:
            decoded = _typed(body)
        except (ValueError, RecursionError):
            if (plain := ids_as_text(body)) != body:
                return self._body(plain)
            return self._one_by_one(body)
        return decoded if isinstance(decoded, list) else [decoded]

    def _one_by_one(self, body: bytes) -> list[Event]:
        """Return the usable events of a body that as a whole is not usable.

        This is slow, and lenient where only an unused field is bad.
        """
        try:
            parsed = json.loads(
                body.decode("utf-8", "surrogateescape"), parse_constant=str, parse_float=_finite, object_hook=untag
            )
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict | list):
            self._rejected("body", 1)
            return []
        events = [_event(item) for item in (parsed if isinstance(parsed, list) else [parsed])]
        if bad := events.count(None):
            self._rejected("fields", bad)
        return [event for event in events if event is not None]

    def _identified(self, events: list[Event]) -> list[Event]:
        """Return the events without Celery's task events that do not say which task."""
        return [event for event in events if event.uuid is not None or self._needs_no_uuid(event)]

    def _needs_no_uuid(self, event: Event) -> bool:
        if event.type.startswith("task-") and event.type in CELERY_EVENTS:
            self._rejected("fields", 1)
            return False
        return True


def _count(body: bytes) -> int:
    try:
        return len(_raw(body))
    except (ValueError, RecursionError):
        return 1


def _event(item: object) -> Event | None:
    """Return a parsed object as an event; names that are too long are cut, which the tracker counts.

    An event of an application's own keeps what is as usual: the common fields, or else its type alone.
    """
    if isinstance(item, dict):
        item |= {key: text[:MAX_TEXT] for key in _NAMES if isinstance(text := item.get(key), str)}
        item |= {key: _encodable(text) for key in _PROSE if isinstance(text := item.get(key), str)}
        if isinstance(kind := item.get("type"), str):
            item["type"] = kind[:MAX_TYPE]
    event = _convert(item)
    if event is not None or not isinstance(item, dict) or str(item.get("type")) in CELERY_EVENTS:
        return event
    event = _convert({key: item[key] for key in _COMMON_FIELDS if key in item})
    if event is None and all(key in item for key in _REQUIRED_FIELDS):
        event = _convert({"type": item["type"], "hostname": UNKNOWN, "timestamp": 1.0})
    return event


def _convert(item: object) -> Event | None:
    try:
        event = msgspec.convert(item, Event)
        msgspec.json.encode(event)  # refuses lone surrogates, which no exposition could write
    except (ValueError, RecursionError):
        return None
    return event


def _encodable(text: str) -> str:
    """Return a text with a question mark for each lone surrogate."""
    return text.encode(errors="replace").decode()


def _finite(text: str) -> float | str:
    """Return a number, or its text where no float can hold it: a text is then refused as any other wrong type."""
    number = float(text)
    return number if math.isfinite(number) else text


def unwrap(message: bytes) -> bytes:
    """Return the body of any message in kombu's envelope, whatever its order of keys; raises `Rejected`."""
    check_size(message)
    try:
        envelope = _envelope(message)
    except (ValueError, RecursionError) as error:
        raise Rejected("envelope") from error
    check_content(envelope.content_type, envelope.content_encoding or "utf-8")
    if "compression" in (envelope.headers or ()):
        raise Rejected("encoding")
    return _decode(envelope.body, envelope.properties.body_encoding if envelope.properties else None)


def check_size(message: bytes) -> None:
    """Raise `Rejected` for what is larger than any message that Celery writes."""
    if len(message) > MAX_MESSAGE:
        raise Rejected("too_large")


def check_content(content_type: str | None, content_encoding: str) -> None:
    """Raise `Rejected` for all but JSON in UTF-8: nothing that needs unpickling or decompressing is opened."""
    if content_type != "application/json":
        raise Rejected("content_type")
    if content_encoding.lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise Rejected("encoding")


def _decode(body: str, encoding: str | None) -> bytes:
    """Return a body as it was before `kombu.transport.virtual.Channel.encode_body` (without an encoding it is text)."""
    if encoding is None:
        return body.encode()
    if encoding != "base64":
        raise Rejected("encoding")
    try:
        return b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected("encoding") from error
