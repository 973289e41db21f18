"""Values that JSON does not know and that kombu tags (`kombu.utils.json`), such as task ids that are UUID objects.

They are written as ``{"__type__": "uuid", "__value__": {"hex": "…"}}``. kombu's own decoder reads them, but it builds
every object of a message, needed or not.
"""

from __future__ import annotations

import math
import re
import uuid

_UUID = re.compile(
    rb'\{\s*"__type__"\s*:\s*"uuid"\s*,\s*"__value__"\s*:\s*'
    rb'(?:\{\s*"hex"\s*:\s*"([0-9a-fA-F]{32})"\s*\}|"([0-9a-fA-F]{32})")\s*\}'
)


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


def untag_uuids(body: bytes) -> bytes:
    """Return JSON with every tagged UUID as text. Quotes inside of strings are escaped, so strings do not match."""
    return _UUID.sub(lambda found: b'"%s"' % str(uuid.UUID((found[1] or found[2]).decode())).encode(), body)
