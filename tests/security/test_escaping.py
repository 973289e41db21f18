"""Text of others where it is shown: terminal, logs, Slack, mail, CSV, JSON, Markdown, HTML, PromQL."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import celerymeter
from celerymeter import escaping, log

PACKAGE = Path(celerymeter.__file__).parent

CURSOR = [
    "celery@w1\x1b[2J\x1b[1;1Hall is well",
    "a\rb",
    "a\x08\x08\x08b",
    "a\x9b2Jb",
    "a\x7fb",
    "\x1b]0;title\x07",
    "\x1b]52;c;cm0gLXJm\x07",
    "a\x0bb\x0cc",
]
LINES = ["a\nb", "a\r\n12:00:00 INFO all is well", "a\u2028b", "a\u2029b", "a\x85b"]
DIRECTION = ["a\u202egnp.exe", "a\u2066b\u2069", "\u200fa", "a\u061cb", "a\ufeffb", "a\u200bb", "a\ud800b"]
HOSTILE = [*CURSOR, *LINES, *DIRECTION]


def moves(text: str) -> list[str]:
    """Return the characters that a terminal, a log viewer or an editor would act on."""
    return [sign for sign in text if unicodedata.category(sign) in {"Cc", "Cs", "Zl", "Zp"} or sign in _DIRECTION]


_DIRECTION = set("\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


@pytest.mark.parametrize("text", HOSTILE)
def test_one_line_for_people_has_no_character_that_acts(text: str) -> None:
    """Neither at the terminal nor on a page, in a table or in a ticket."""
    for escape in (
        escaping.terminal,
        escaping.html,
        escaping.markdown,
        escaping.log_text,
        escaping.name,
    ):
        assert moves(escape(text)) == []
    assert moves(str(escaping.csv_cell(text))) == []
    assert set(moves(escaping.terminal_lines(text))) <= {"\n"}


@pytest.mark.parametrize("text", HOSTILE)
def test_json_has_no_character_that_acts_and_loses_nothing(text: str) -> None:
    """Its reader gets the very text."""
    written = escaping.json_text({"name": text, "list": [text]})
    assert moves(written) == []
    assert json.loads(written) == {"name": text, "list": [text]}
    foreign = json.dumps({"name": text}, ensure_ascii=False)
    assert json.loads(escaping.json_source(foreign)) == {"name": text}
    assert moves(escaping.json_source(foreign)) == []


@given(st.text())
def test_any_text_is_one_harmless_line(text: str) -> None:
    """Whatever Unicode has."""
    assert moves(escaping.terminal(text)) == []
    assert json.loads(escaping.json_text(text)) == text
    assert len(escaping.name(text)) <= escaping.MAX_NAME


@given(st.text(st.characters(exclude_categories=("C", "Z")), max_size=escaping.MAX_NAME))
def test_usual_names_stay_as_they_are(text: str) -> None:
    """In every script."""
    assert escaping.name(text) == text
    assert escaping.terminal(text) == text


def test_a_long_name_is_cut_with_a_mark() -> None:
    """Its beginning says most."""
    assert escaping.name("a" * 200) == "a" * 200
    assert escaping.name("a" * 201) == "a" * 199 + "…"


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("style", ["text", "json"])
def test_a_record_is_one_line_of_the_log(style: log.Format, text: str) -> None:
    """A path, an alert's text or a worker's name forges no line, as message or as extra field."""
    stream = io.StringIO()
    log.setup(format=style, stream=stream)
    logging.getLogger("x").info("request %s", text, extra={"path": text})
    assert moves(stream.getvalue()) == ["\n"]
    assert stream.getvalue().count("all is well") == 2 * text.count("all is well")


@pytest.mark.parametrize("text", HOSTILE)
def test_an_exception_begins_no_line_of_the_log(text: str) -> None:
    """Lines of a traceback are indented, so that none looks like a record."""
    stream = io.StringIO()
    log.setup(format="text", stream=stream)
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("x").exception("lost")
    first, *trace = stream.getvalue().rstrip("\n").split("\n")
    assert first.endswith("lost")
    assert all(line.startswith("    ") for line in trace)
    assert set(moves(stream.getvalue())) == {"\n"}


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "a;=HYPERLINK(1)",
        "a\t=1",
        "  =1",
        "a,@x",
        "a|+cmd",
        "\uff1d1+1",
        "\n=1",
        "=cmd|' /C calc'!A0",
        'a;"=1+1',
        'a,""=1',
        'a; "" @SUM(A1)',
        "\u00a0=1",
        "\u3000;\u2003+1",
    ],
)
def test_no_cell_is_a_formula_however_lines_are_divided(text: str) -> None:
    """Spreadsheets divide at commas, semicolons or tabs, by their language."""
    cells = re.split(r"[;,|\t\n]", str(escaping.csv_cell(text)))
    assert not [cell for cell in cells if re.match(r'[\s"]*[=+\-@\uff1d]', cell)]


def test_numbers_stay_numbers_in_csv() -> None:
    """Also negative ones."""
    assert [escaping.csv_cell(value) for value in (-1, 2.5, None)] == [-1, 2.5, None]


@pytest.mark.parametrize(
    "text",
    [
        "[a](javascript:alert(1))",
        "<img src=x>",
        "![a](http://x/)",
        "a|b",
        "&lt;b&gt;",
        "# a",
        "- a",
        "1. a",
        "123456789) a",
        "> a",
        "~~a~~",
    ],
)
def test_markdown_shows_text_as_it_is(text: str) -> None:
    """No links, pictures, headings, tables or lists of others."""
    escaped = escaping.markdown(text)
    assert re.sub(r"\\(.)", r"\1", escaped) == text
    assert not re.search(r"(?<!\\)[\[\]<>|&!#~]|^[-+=]|^\d+[.)]", escaped)


@pytest.mark.parametrize("text", ["https://example.org/x", "see http://x.example", "www.example.org"])
def test_markdown_makes_no_link_of_an_address(text: str) -> None:
    """GitHub and GitLab make links of bare addresses."""
    assert not re.search(r"://|www\.", escaping.markdown(text))


@pytest.mark.parametrize("text", ['"} or up{a="', "a\\", 'a\\"', "a\nb", "\x00", "}) or vector(1)"])
def test_promql_literals_end_where_they_should(text: str) -> None:
    """Whatever is quoted."""
    literal = escaping.promql(text)
    assert re.fullmatch(r'"(?:[^"\\\n\x00-\x1f]|\\.)*"', literal)
    assert re.fullmatch(r'"(?:[^"\\\n\x00-\x1f]|\\.)*"', escaping.promql_one_of((text, "a.b")))


@pytest.mark.parametrize("text", ["<script>", '" onload="x', "' onload='x", "a & b"])
def test_html_opens_no_element_and_leaves_no_attribute(text: str) -> None:
    """In elements and in quoted attributes."""
    assert not re.search("[<>\"']", escaping.html(text))


# Nothing writes around it


ESCAPING = frozenset({"terminal", "terminal_lines", "json_text", "json_source", "log_text"})
ELSEWHERE = {
    "json.dumps(…, ensure_ascii=False)": "escaping.json_text",
    "html.escape": "escaping.html",
    "markupsafe.escape": "Markup.format",
    "re.escape": "escaping.promql_one_of",
    "str.isprintable": "escaping.terminal",
}
ALLOWED = {
    ("cli/__init__.py", "click.echo(ctx.get_help())"): "our own help",
    ("cli/token.py", "click.echo(token)"): "base64 and dots",
    ("doctor/examine.py", "print(write(findings, evidence, color=out.isatty()), file=out)"): "escaped by line",
    ("cli/task_ids.py", "str.isprintable"): "refuses",
    ("httpd/web_config.py", "str.isprintable"): "refuses",
    ("control/revocation/service.py", "str.isprintable"): "refuses",
    ("control/tokens.py", "str.isprintable"): "refuses",
    ("kinds.py", "str.isprintable"): "refuses",
}
"""Calls that are right without a function of `escaping`, and the reason."""


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name != "escaping.py" and not name.startswith("demo/"):  # the demo shows what it started itself
            yield name, ast.parse(path.read_text())


def _prints(call: ast.Call) -> bool:
    return ast.unparse(call.func) in {
        "print",
        "click.echo",
        "click.secho",
        "sys.stdout.write",
        "sys.stderr.write",
        "self._stream.write",
    }


def _escaped(node: ast.expr) -> bool:
    """Return True if a printed value is a constant, or made by a function of `escaping` where others have a say."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.JoinedStr):
        return all(not isinstance(part, ast.FormattedValue) or _escaped_part(part) for part in node.values)
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ESCAPING


def _escaped_part(part: ast.FormattedValue) -> bool:
    number = part.format_spec is not None and re.search(r"[%dfg]'?$", ast.unparse(part.format_spec))
    constants = isinstance(part.value, ast.IfExp) and all(
        isinstance(value, ast.Constant) for value in (part.value.body, part.value.orelse)
    )
    return bool(number) or constants or _escaped(part.value) or ast.unparse(part.value) in {"end", "'\\r'"}


def _around(tree: ast.Module) -> Iterator[str]:
    """Yield the calls that print or escape without `escaping`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module, "escape") in {
            ("html", node.names[0].name),
            ("markupsafe", node.names[0].name),
        }:
            yield f"{node.module}.escape"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if _prints(node) and node.args and not _escaped(node.args[0]):
            yield ast.unparse(node)
        if called.endswith("json.dumps") and any(key.arg == "ensure_ascii" for key in node.keywords):
            yield "json.dumps(…, ensure_ascii=False)"
        if called in {"html.escape", "markupsafe.escape", "re.escape"}:
            yield called
        if called.endswith(".isprintable"):
            yield "str.isprintable"


def test_nothing_prints_or_escapes_around_the_module() -> None:
    """Every print has a function of `escaping` around what it shows, and nobody else has one of its own."""
    found = [(name, call) for name, tree in _sources() for call in _around(tree)]
    assert {
        (name, call, ELSEWHERE.get(call, "a function of escaping"))
        for name, call in found
        if (name, call) not in ALLOWED
    } == set()
    assert set(ALLOWED) <= set(found), "allowed, but not there any more"


@pytest.mark.parametrize(
    "code",
    [
        "click.echo(name)",
        "print(f'{name}')",
        "sys.stderr.write(step)",
        "click.echo(f'{terminal(a)} {b}')",
        "json.dumps(row, ensure_ascii=False)",
        "html.escape(name)",
        "from markupsafe import escape",
        "text.isprintable()",
        "re.escape(name)",
    ],
)
def test_the_check_finds_what_it_is_for(code: str) -> None:
    """A check that finds nothing proves nothing."""
    assert len(list(_around(ast.parse(code)))) == 1
