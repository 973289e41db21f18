"""Text of others, made harmless for the place where it is shown: the only module that escapes.

Names of tasks, queues and workers, texts of exceptions, paths of requests and annotations of alerts are whatever their
sender chose. `tests/security/test_escaping.py` finds what is printed, logged or formatted without a function of this
module.
"""

from __future__ import annotations

import html as _html
import json
import re
from collections.abc import Callable, Iterable

MAX_NAME = 200
"""Characters of a name that are kept."""
CUT = "…"
"""Ends a name that was cut."""
REPLACED = "\ufffd"
"""Stands in a name for a character that moves a cursor, ends a line or changes the direction of writing."""

_INVISIBLE = "\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff"
"""DEL and C1, marks of direction and of nothing, separators of lines, halves of surrogate pairs."""
_UNSAFE = re.compile(f"[\x00-\x1f{_INVISIBLE}]")
_UNSAFE_BUT_LINES = re.compile(f"[\x00-\x09\x0b-\x1f{_INVISIBLE}]")
_UNSAFE_IN_JSON = re.compile(f"[{_INVISIBLE}]")  # json itself escapes the others
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&!]|(?<=:)/(?=/)|(?<=www)\.|^[-+=](?!$))", re.IGNORECASE)
_MARKDOWN_NUMBER = re.compile(r"^(\d{1,9})(?=[.)])")
"""Begins a list, with as many digits as CommonMark allows."""
_FORMULA = re.compile(r"(^|[;,|\t])(?=[\s\"]*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_LABEL = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


# Names, where they enter


def name(text: str) -> str:
    """Return a name as it is kept: at most `MAX_NAME` characters of one line.

    >>> name("shop.pay\\x1b[2J")
    'shop.pay�[2J'
    """
    if len(text) > MAX_NAME:
        text = text[: MAX_NAME - len(CUT)] + CUT
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(REPLACED, text)


def was_changed(text: str) -> bool:
    """Return True for a name that `name` has made of another, of which nobody else knows."""
    return text.endswith(CUT) or REPLACED in text


def memory(text: str) -> int:
    """Return about how many bytes a text takes in memory, where one wide character widens all others."""
    return len(text) if text.isascii() else 4 * len(text)


# For people


def terminal(text: str) -> str:
    r"""Return one line that moves no cursor.

    >>> print(terminal("w1\x1b[2J\n12:00 all is well"))
    w1\x1b[2J\n12:00 all is well
    """
    return _UNSAFE.sub(_as_escape, text)


def terminal_lines(text: str) -> str:
    """Return text of several lines of which none moves the cursor; for text that has lines of its own, like a table."""
    return _UNSAFE_BUT_LINES.sub(_as_escape, text)


def log_text(message: str, trace: str = "") -> str:
    r"""Return a line of a text log and the lines of a traceback, indented: no text of others begins a line.

    >>> print(log_text("lost\n12:00:00 INFO all is well"))
    lost\n12:00:00 INFO all is well
    """
    lines = terminal_lines(trace).split("\n") if trace else []
    return "\n".join([terminal(message), *(f"    {line}" for line in lines)])


def html(text: str) -> str:
    """Return text for an element or a quoted attribute of a page."""
    return _html.escape(terminal(text))


def markdown(text: str) -> str:
    r"""Return text that Markdown shows as it is, on one line.

    >>> print(markdown("[here](https://example.org) *now*"))
    \[here\](https:\//example.org) \*now\*
    """
    line = _MARKDOWN.sub(r"\\\1", terminal(" ".join(text.split())))
    return _MARKDOWN_NUMBER.sub(r"\1\\", line)


def in_ascii(text: str) -> str:
    r"""Return escapes for an output whose encoding lacks these characters, which JSON reads too.

    >>> print(in_ascii("é租"))
    \u00e9\u79df
    """
    units = text.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


# For programs


def csv_cell(value: object) -> object:
    """Return the value of a cell; text in which a spreadsheet would find a formula is marked as text.

    A spreadsheet may divide cells at semicolons, so a formula may also begin inside of one.

    >>> csv_cell("a;=1+1"), csv_cell(-1)
    ("a;'=1+1", -1)
    """
    return _FORMULA.sub(r"\1'", terminal(value)) if isinstance(value, str) else value


def json_text(value: object, *, indent: int | None = None, default: Callable[[object], object] | None = None) -> str:
    r"""Return JSON that is readable, and in which nothing ends a line or moves a cursor.

    >>> print(json_text({"name": "ünï\x9b\u2028"}))
    {"name": "ünï\u009b\u2028"}
    """
    return json_source(json.dumps(value, ensure_ascii=False, indent=indent, default=default))


def json_source(text: str) -> str:
    """Return JSON that something else has written, in which nothing ends a line or moves a cursor."""
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def label_value(text: str) -> str:
    """Return the value of a label between the quotes of Prometheus' text format."""
    # Of what is not ASCII, translate() takes twenty times as long.
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def promql(text: str) -> str:
    r"""Return a PromQL string literal; what UTF-8 cannot encode (a lone surrogate) becomes ``?`` and matches nothing.

    >>> print(promql('a"b\\c'))
    "a\"b\\c"
    """
    clean = text.encode("utf-8", "replace").decode("utf-8").translate(_LABEL)
    return '"' + re.sub("[\x00-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", clean) + '"'


def promql_one_of(texts: Iterable[str]) -> str:
    """Return a literal for ``=~`` that matches exactly these texts (PromQL anchors its expressions)."""
    return promql("|".join(re.escape(text) for text in texts))


def _as_escape(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1] if not found[0].isprintable() else f"\\u{ord(found[0]):04x}"
