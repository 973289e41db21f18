"""kombu's wrapping around a message on Redis (`kombu.transport.virtual`): JSON with the body as base64 text.

Parsing the envelope costs four times what it costs to cut the body out of it; `celerymeter.events.decode` does that
where the bytes around the body are exactly those that kombu writes, and comes here for the rest.
"""

from __future__ import annotations

import binascii
from typing import Literal

import msgspec
from pybase64 import b64decode

Reason = Literal["envelope", "content_type", "encoding", "body", "fields", "too_large"]

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes. Celery cuts arguments and results to 1 KiB and a batch to 24 events; only tracebacks may be longer."""


class Rejected(Exception):
    """A message cannot be used, for one of the reasons that metrics show; never leaves this room."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


HEAD = b'{"body": "'
START = len(HEAD)
TAIL = b'", "content-encoding": "utf-8", "content-type": "application/json", "headers": {'
"""What kombu 5.3 to 5.7 write before and after the body. A body that is cut out between them is base64, or else it is
refused as JSON: then, as for anything that looks different, the envelope is parsed."""


class _Properties(msgspec.Struct):
    body_encoding: str | None = None


class _Envelope(msgspec.Struct):
    body: str
    content_type: str = msgspec.field(name="content-type")
    content_encoding: str | None = msgspec.field(name="content-encoding", default=None)
    headers: dict[str, object] | None = None
    properties: _Properties | None = None


_parse = msgspec.json.Decoder(_Envelope).decode


def unwrap(message: bytes) -> bytes:
    """The body of any message in kombu's envelope, whatever its order of keys; raises `Rejected`."""
    check_size(message)
    try:
        envelope = _parse(message)
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
    """A body as it was before `kombu.transport.virtual.Channel.encode_body`; without an encoding it is the text."""
    if encoding is None:
        return body.encode()
    if encoding != "base64":
        raise Rejected("encoding")
    try:
        return b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected("encoding") from error
