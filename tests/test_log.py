"""Logging: one JSON object a line, no secrets, quiet libraries."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from typing import Any

import pytest

from celerymeter import log
from celerymeter.log import redact


@pytest.fixture
def stream() -> io.StringIO:
    """Return the stream to which the log is written."""
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """The JSON lines written so far."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_json_object(stream: io.StringIO) -> None:
    """With time in UTC, level, logger, message and the extra fields, on one line whatever is in it."""
    log.setup(stream=stream)
    logging.getLogger("celerymeter.x").info("two\nlines of %s", "ünïcode", extra={"queue": "a", "depth": 3})
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "celerymeter.x",
        "message": "two\nlines of ünïcode",
        "queue": "a",
        "depth": 3,
    }


def test_secrets_are_masked_wherever_they_stand(stream: io.StringIO) -> None:
    """In the message, its arguments, extra fields and the text of exceptions."""
    url = "redis://:hush@h:6379/0"
    for style in ("json", "text"):
        log.setup(format=style, stream=stream)
        try:
            raise ValueError(f"cannot reach {url}")
        except ValueError:
            extra = {"url": url, "deep": {"list": [url]}, "odd": ValueError(url)}
            logging.getLogger("x").exception("lost %s", url, extra=extra)
    assert "hush" not in stream.getvalue()
    assert stream.getvalue().count("redis://:***@h:6379/0") >= 8


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("GET /ws?access_token=abc.def&x=1", "GET /ws?access_token=***&x=1"),
        ("{'password': 'hush', 'db': 0}", "{'password': '***', 'db': 0}"),
        ('{"password": "a \\\\"hush", "db": 0}', '{"password": "***", "db": 0}'),
        (r'{"line": "{\"password\": \"a hush\"}"}', r'{"line": "{\"password\": \"***\"}"}'),
        ("Connection(host='h', password='a hush')", "Connection(host='h', password='***')"),
        ("redis://h/0?password=hush", "redis://h/0?password=***"),
        ("redis://:a@h said no to me@example.org", "redis://:***@h said no to me@example.org"),
        ("see http://host:9090 or mail me@host", "see http://host:9090 or mail me@host"),
        ("give redis://:PASSWORD@HOST:6379/0, please", "give redis://:PASSWORD@HOST:6379/0, please"),
        ("the bearer of bad news", "the bearer of bad news"),
        ("a wrong password: try again", "a wrong password: try again"),
    ],
)
def test_redaction(text: str, masked: str) -> None:
    """Tokens and passwords go, prose stays."""
    assert redact(text) == masked


def test_text_is_for_people(stream: io.StringIO) -> None:
    """The clock, the level, the message and the extra fields."""
    log.setup(format="text", stream=stream)
    logging.getLogger("x").warning("slow", extra={"seconds": 3})
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING slow \(seconds=3\)\n", stream.getvalue())


def test_libraries_are_quiet_and_levels_hold(stream: io.StringIO) -> None:
    """kombu speaks from WARNING up, we from the chosen level up."""
    log.setup(stream=stream, level="INFO")
    logging.getLogger("kombu.transport").info("chatter")
    logging.getLogger("kombu.transport").warning("trouble")
    logging.getLogger("celerymeter").debug("detail")
    logging.getLogger("celerymeter").info("news")
    assert [line["message"] for line in lines(stream)] == ["trouble", "news"]


def test_a_second_setup_replaces_the_first(stream: io.StringIO) -> None:
    """No line is written twice; Python's warnings are lines as well."""
    log.setup(stream=io.StringIO())
    log.setup(stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old age", UserWarning, stacklevel=1)
    (line,) = lines(stream)
    assert "old age" in line["message"]
