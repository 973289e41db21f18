"""Label values: capped, canonical, and never longer than the wire made them."""

from __future__ import annotations

import re
from collections import Counter

from celerymeter.model import OTHER, UNKNOWN

_OWN_REPR = re.compile(r"(Reject|Retry|Ignore)\b", re.IGNORECASE)
"""Celery's own control exceptions describe themselves in words: ``reject requeue=False: …``, ``Retry in 3s: …``."""
_CLASS = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w{0,99})\s*(?=[(:]|$)")


class LabelCap:
    """The values that one label may take: the first ``limit`` to come, then `OTHER`.

    The value returned is always the same object for equal input, so that a million tasks share one name.
    Every value folded adds one to ``folded[label]``.
    """

    def __init__(self, label: str, limit: int, folded: Counter[str]) -> None:
        self._label = label
        self._limit = limit
        self._folded = folded
        self._values: dict[str, str] = {UNKNOWN: UNKNOWN, OTHER: OTHER}

    def __call__(self, value: str) -> str:
        known = self._values.get(value)
        if known is not None:
            return known
        if len(self._values) - 2 >= self._limit:
            self._folded[self._label] += 1
            return OTHER
        self._values[value] = value
        return value

    def __contains__(self, value: str) -> bool:
        return value in self._values


def exception_class(representation: str | None) -> str:
    """The class name in an exception's repr (``ValueError('x')`` → ``ValueError``), without evaluating anything."""
    text = representation or ""
    if found := _CLASS.match(text):
        return found.group(1)
    own = _OWN_REPR.match(text)
    return own.group(1).capitalize() if own else UNKNOWN
