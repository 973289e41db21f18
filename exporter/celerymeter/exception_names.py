"""The class of an exception, from its repr and its traceback in an event, without evaluating anything.

A repr may be any text: that of an exception of a library or of the application is often its message. The traceback is
written by Python itself, class before message, so it decides wherever there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

UNKNOWN = "unknown"
MAX_REPRESENTATION = 1000
"""Characters of an exception's text that are searched for its class."""
MAX_TRACEBACK = 256 * 1024
"""Characters of a traceback, at either end, that are searched for it."""
MAX_CHAINED = 10
"""Exceptions of one traceback that are looked at, the last ones."""
WORKER_LOST = "WorkerLostError"
_RETRY = "Retry"
_OWN_REPR = re.compile(r"(Reject|Retry|Ignore)\b", re.IGNORECASE)
"""Celery's own control exceptions describe themselves in words: ``reject requeue=False: …``, ``Retry in 3s: …``."""
_REPR = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w{0,99})\(")
_HEAD = "Traceback (most recent call last):\n"
_GROUP_HEAD = "  + Exception Group " + _HEAD
_HEADS = (_HEAD, _GROUP_HEAD)
_LINKS = (
    "\n\nDuring handling of the above exception, another exception occurred:\n\n",
    "\n\nThe above exception was the direct cause of the following exception:\n\n",
)
"""What Python writes between an exception and the one that was raised after it (`traceback.TracebackException`)."""
_CHAINED = tuple((link, head) for link in _LINKS for head in _HEADS)
_RAISED = re.compile(r"(?:[\w<>]+\.)*([A-Za-z_]\w{0,99})(?=[:\n]|$)")
_AFTER_FRAMES = {_HEAD: re.compile(r"\n(?=\S)"), _GROUP_HEAD: re.compile(r"\n  \| (?=\S)")}
"""Where the line with the class begins: those of the frames are indented, below the margin of a group too."""


def exception_class(representation: str | None) -> str:
    """The class name in an exception's repr (``ValueError('x')`` → ``ValueError``)."""
    text = (representation or "")[:MAX_REPRESENTATION]
    if found := _REPR.match(text):
        return found.group(1)
    own = _OWN_REPR.match(text)
    return own.group(1).capitalize() if own else UNKNOWN


def exception_name(representation: str | None, traceback: str | None) -> str:
    """The class name of the exception that an event reports.

    The traceback's last exception is the one, unless the repr names one before it: a message may quote tracebacks, and
    a retry ends in `celery.exceptions.Retry` and reports what was raised before. A repr that names another class is
    a message, or Celery 5.7's ``ExceptionWithTraceback()`` instead of a hard time limit or a lost process.
    """
    reported = exception_class(representation)
    raised = list(_raised(traceback or ""))
    if not raised or reported in raised:
        return reported
    if raised[0] == _RETRY:
        return raised[1] if raised[1:] else reported
    return raised[0]


def brief_traceback(representation: str | None, traceback: str) -> str:
    """Return the least traceback of which `exception_name` makes the same."""
    return f"{_HEAD}{exception_name(representation, traceback)}"


def _raised(traceback: str) -> Iterator[str]:
    """Yield the classes of a traceback's exceptions, the last one first."""
    end, lowest = len(traceback), max(0, len(traceback) - MAX_TRACEBACK)
    for _ in range(MAX_CHAINED if "\n\n" in traceback else 0):  # most are of one exception, and have no empty line
        begin, link, head = max((traceback.rfind(link + head, lowest, end), link, head) for link, head in _CHAINED)
        if begin < 0:
            break
        yield from _class_after(traceback, begin + len(link), head)
        end = begin
    for head in _HEADS:
        if traceback.startswith(head):
            yield from _class_after(traceback, 0, head)


def _class_after(traceback: str, begin: int, head: str) -> Iterator[str]:
    """Yield the class of the exception whose part of the traceback begins with this head, if it can be one."""
    frames = begin + len(head) - 1
    line = _AFTER_FRAMES[head].search(traceback, frames, frames + MAX_TRACEBACK)
    found = _RAISED.match(traceback, line.end(), line.end() + MAX_REPRESENTATION) if line else None
    if found is not None:
        yield found.group(1)
