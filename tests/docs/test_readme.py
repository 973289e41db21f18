"""The two READMEs say what the code says, and the same as each other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from tools.docs.markdown import READMES, ROOT
from tools.docs.tables import made_anew

ENGLISH, CHINESE = READMES
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODES = re.compile(r"`([a-z]+(?:-[a-z]+)+)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return FENCED.findall(path.read_text())


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_what_is_made_of_the_code_is_up_to_date(path: Path) -> None:
    """Otherwise `make generate` has to be run."""
    text = path.read_text()
    assert made_anew(text, path.name) == text


def test_both_languages_have_the_same_parts() -> None:
    """Sections at the same depth, the same generated parts, the same commands (comments aside)."""

    def shape(path: Path) -> tuple[list[str], list[str], list[tuple[str, str]]]:
        text = path.read_text()
        commands = [(language, re.sub(r" *#.*", "", block)) for language, block in blocks(path)]
        prose = FENCED.sub("", text)
        return re.findall(r"^#+(?= )", prose, re.MULTILINE), re.findall(r"<!-- made: .* -->", text), commands

    assert shape(CHINESE) == shape(ENGLISH)


def test_both_languages_lead_to_the_same_pages() -> None:
    """What one tells, the other does too; each names the other, which is left out."""

    def links(path: Path) -> set[str]:
        found = set(re.findall(r"\]\(((?!#)[^)]+)\)", path.read_text()))
        return found - {each.name for each in READMES}

    assert links(CHINESE) == links(ENGLISH)


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_every_link_into_the_repository_leads_somewhere(path: Path) -> None:
    """A file or folder that is there."""
    links = LINK.findall(path.read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def doctors_codes() -> set[str]:
    """The code of every finding, as the source of the checks names it."""
    sources = (ROOT / "exporter" / "celerymeter" / "doctor" / "checks").glob("*.py")
    nodes = (node for source in sources for node in ast.walk(ast.parse(source.read_text())))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if re.fullmatch(r"[a-z]+(-[a-z]+)+", text) and not text.startswith("task-")}


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_every_finding_of_the_doctor_is_explained(path: Path) -> None:
    """Whoever looks up a code finds it, and none is explained that there is not."""
    explained = {code for row in path.read_text().splitlines() for code in CODES.findall("".join(row.split("|")[2:3]))}
    assert explained == doctors_codes()
