"""Wire format → events, or a counted rejection. One bad event never costs its neighbours, and nothing raises."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import get_args

import msgspec
from pybase64 import b64decode

from celerymeter.events.envelope import (
    HEAD,
    MAX_MESSAGE,
    START,
    TAIL,
    Reason,
    Rejected,
    check_content,
    check_size,
    unwrap,
)
from celerymeter.model import Event

REASONS: tuple[Reason, ...] = get_args(Reason)

_COMMON_FIELDS = ("type", "hostname", "timestamp", "clock", "pid")
_typed = msgspec.json.Decoder(Event | list[Event]).decode


class Decoder:
    """Decodes messages and tells ``rejected(reason, count)`` what it could not use."""

    def __init__(self, rejected: Callable[[Reason, int], None]) -> None:
        self._rejected = rejected

    def messages(self, messages: Iterable[bytes]) -> list[Event]:
        """The events of messages in kombu's envelope, in order."""
        events: list[Event] = []
        for message in messages:
            try:
                end = message.find(b'"', START)
                if message.startswith(HEAD) and message.startswith(TAIL, end) and len(message) <= MAX_MESSAGE:
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
        """The events of one body that came without an envelope, as AMQP carries it."""
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
        try:
            decoded = _typed(body)
        except (ValueError, RecursionError):
            return self._one_by_one(body)
        return decoded if isinstance(decoded, list) else [decoded]

    def _one_by_one(self, body: bytes) -> list[Event]:
        """The usable events of a body that as a whole is not: slow, and lenient where only an unused field is bad."""
        try:
            parsed = json.loads(body.decode("utf-8", "surrogateescape"), parse_constant=str, parse_float=_finite)
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
        """Without the task events that do not say of which task."""
        return [event for event in events if event.uuid is not None or self._needs_no_uuid(event)]

    def _needs_no_uuid(self, event: Event) -> bool:
        if event.type.startswith("task-"):
            self._rejected("fields", 1)
            return False
        return True


def _event(item: object) -> Event | None:
    """One parsed object as an event; a custom one keeps the common fields alone where its own clash with ours."""
    event = _convert(item)
    if event is not None or not isinstance(item, dict):
        return event
    if str(item.get("type", "")).startswith(("task-", "worker-")):
        return None
    return _convert({key: item[key] for key in _COMMON_FIELDS if key in item})


def _convert(item: object) -> Event | None:
    try:
        event = msgspec.convert(item, Event)
        msgspec.json.encode(event)  # refuses lone surrogates, which no exposition could write
    except (ValueError, RecursionError):
        return None
    return event


def _finite(text: str) -> float | str:
    """A number, or its text where no float can hold it: a text is then refused as any other wrong type."""
    number = float(text)
    return number if math.isfinite(number) else text
