"""The class of an exception, from its repr in an event, without evaluating anything."""

from __future__ import annotations

import re

UNKNOWN = "unknown"
MAX_REPRESENTATION = 1000
"""Characters of an exception's text that are searched for its class."""
WORKER_LOST = "WorkerLostError"
_OWN_REPR = re.compile(r"(Reject|Retry|Ignore)\b", re.IGNORECASE)
"""Celery's own control exceptions describe themselves in words: ``reject requeue=False: …``, ``Retry in 3s: …``."""
_CLASS = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w{0,99})\s*(?=[(:]|$)")
_WRAPPER = "ExceptionWithTraceback"
"""Celery 5.7 names this instead of a hard time limit or a lost process; the traceback's last line has the class."""


def exception_class(representation: str | None) -> str:
    """The class name in an exception's repr (``ValueError('x')`` → ``ValueError``)."""
    text = (representation or "")[:MAX_REPRESENTATION]
    if found := _CLASS.match(text):
        return found.group(1)
    own = _OWN_REPR.match(text)
    return own.group(1).capitalize() if own else UNKNOWN


def exception_name(representation: str | None, traceback: str | None) -> str:
    """The class name of the exception that an event reports."""
    name = exception_class(representation)
    if name == _WRAPPER and traceback:
        return exception_class(last_line(traceback))
    return name


def last_line(text: str) -> str:
    """The last line of a traceback that is not empty, cut at `MAX_REPRESENTATION`."""
    text = text.rstrip()
    return text[text.rfind("\n") + 1 :][:MAX_REPRESENTATION]
