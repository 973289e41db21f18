"""Logging to stderr as one JSON object a line, or as text for people; secrets are masked, also in library messages."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import IO, Literal

from celerymeter.escaping import json_text, log_text
from celerymeter.urls import PLACEHOLDER, mask_text

Format = Literal["json", "text"]

_NAME = r"(?i)\b(?:access_token|password|passwd|secret)"
_QUOTED = r"(?P<quote>\\*[\"'])(?P<secret>.*?)(?:(?<!\\)(?P=quote)|$)"
_SECRETS = (
    re.compile(r"(?i)\b(?:bearer|authorization\W+basic)\s+(?P<secret>[\w.~+/=-]{6,})"),
    re.compile(_NAME + r"=(?P<secret>[^\s&\"',;}]+)"),
    # In quotes, as Python and JSON have it, also JSON inside a string of JSON.
    re.compile(_NAME + r"(?:\\*[\"']\s*:\s*|=)b?" + _QUOTED, re.MULTILINE),
    # urllib and urllib3 quote what they take for the port: a password up to a ``/``, ``?`` or ``#`` in it.
    re.compile(r"(?:integer value as|Failed to parse:) " + _QUOTED, re.MULTILINE),
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET = ("celery", "kombu", "amqp", "redis", "urllib3", "asyncio", "flask", "werkzeug", "gunicorn")


def redact(text: str) -> str:
    """Return the text with the passwords of URLs, bearer tokens and ``access_token=…`` masked."""
    text = mask_text(text)
    for pattern in _SECRETS:
        text = pattern.sub(_masked, text)
    return text


def _masked(found: re.Match[str]) -> str:
    if found["secret"] == PLACEHOLDER:
        return found[0]
    start, end = (place - found.start() for place in found.span("secret"))
    return f"{found[0][:start]}***{found[0][end:]}"


def setup(*, format: Format = "json", level: str = "INFO", stream: IO[str] | None = None) -> None:
    """Send all log records to ``stream`` (stderr), those of libraries from WARNING up; replaces earlier handlers."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """Writes ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message`` and the ``extra`` fields as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        line: dict[str, object] = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
            **{name: _clean(value) for name, value in _extra(record).items()},
        }
        if trace := _trace(self, record):
            line["exception"] = redact(trace)
        return json_text(line, default=lambda value: redact(str(value)))


class TextFormatter(logging.Formatter):
    """Writes ``12:30:05 WARNING message (key=value)``, with tracebacks below, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and the lines of a traceback."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        extra = " ".join(f"{name}={value}" for name, value in _extra(record).items())
        text = f"{clock} {record.levelname} {record.getMessage()}" + (f" ({extra})" if extra else "")
        return log_text(redact(text), redact(_trace(self, record)))


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    return "\n".join([*parts, record.stack_info] if record.stack_info else parts)


def _clean(value: object) -> object:
    """Mask secrets in the strings inside a value, before json escapes them."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {str(name): _clean(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(item) for item in value]
    return value
