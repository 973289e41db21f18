"""Values that JSON does not know and that kombu tags (`kombu.utils.json`), and task ids that are not text.

Applications choose their ids: ``apply_async(task_id=uuid.uuid4())`` or ``task_id=order.pk``. A UUID object is written
as ``{"__type__": "uuid", "__value__": {"hex": "…"}}``. kombu's own decoder reads it, but it builds every object of a
message, needed or not.
"""

from __future__ import annotations

import math
import re
import uuid

_UUID = re.compile(
    rb'\{\s*"__type__"\s*:\s*"uuid"\s*,\s*"__value__"\s*:\s*'
    rb'(?:\{\s*"hex"\s*:\s*"([0-9a-fA-F]{32})"\s*\}|"([0-9a-fA-F]{32})")\s*\}'
)

_NUMBER = re.compile(rb'([{,\s]"(?:uuid|parent_id|correlation_id)"\s*:\s*)(-?[0-9]{1,40})(?=[\s,}])')


def untag(value: object) -> object:
    """Return a tagged value as a plain one: UUID, time or bytes as text, a decimal as a number, others as they are."""
    if not isinstance(value, dict) or value.keys() != {"__type__", "__value__"}:
        return value
    kind, tagged = value["__type__"], value["__value__"]
    try:
        if kind == "uuid":
            return str(uuid.UUID(tagged["hex"] if isinstance(tagged, dict) else tagged))
        if kind == "decimal":
            number = float(tagged)
            return number if math.isfinite(number) else value
    except (ValueError, TypeError, AttributeError, KeyError):
        return value
    return tagged if kind in ("datetime", "date", "time", "bytes") else value


def id_text(value: object) -> object:
    """Return an id that is a number as text, any other value untagged."""
    return str(value) if type(value) is int else untag(value)


def ids_as_text(body: bytes) -> bytes:
    """Return JSON with every tagged UUID, and every number that is an id, as text.

    Quotes inside of strings are escaped, so strings do not match.
    """
    plain = body if b'"__type__"' not in body else _UUID.sub(_as_text, body)
    return _NUMBER.sub(rb'\1"\2"', plain)


def _as_text(found: re.Match[bytes]) -> bytes:
    return b'"%s"' % str(uuid.UUID((found[1] or found[2]).decode())).encode()
