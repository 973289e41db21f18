"""The README in both languages and the reference pages say what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from tools.docs.markdown import PAGES, READMES, REFERENCE, ROOT
from tools.docs.tables import regenerated

ENGLISH, CHINESE = READMES
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODES = re.compile(r"`([a-z]+(?:-[a-z]+)+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)")
MARKDOWN = [
    path
    for path in sorted(ROOT.rglob("*.md"))
    if not any(part.startswith(".") and part != ".github" for part in path.relative_to(ROOT).parts)
]


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return FENCED.findall(path.read_text())


def page_id(path: Path) -> str:
    """Return the path from the repository's root."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_generated_parts_are_up_to_date(path: Path) -> None:
    """The generated parts equal what the code gives now."""
    assert regenerated(path) == path.read_text(), "run `make generate`"


def test_both_languages_have_the_same_parts() -> None:
    """Sections at the same depth, the same generated parts, the same commands (comments aside)."""

    def shape(path: Path) -> tuple[list[str], list[str], list[tuple[str, str]]]:
        text = path.read_text()
        commands = [(language, re.sub(r" *#.*", "", block)) for language, block in blocks(path)]
        prose = FENCED.sub("", text)
        return re.findall(r"^#+(?= )", prose, re.MULTILINE), re.findall(r"<!-- made: (\w+)", text), commands

    assert shape(CHINESE) == shape(ENGLISH)


def test_both_languages_lead_to_the_same_pages() -> None:
    """Neither language leaves out a page; the link from each to the other is not compared."""

    def links(path: Path) -> set[str]:
        found = set(re.findall(r"\]\(((?!#)[^)]+)\)", path.read_text()))
        return found - {each.name for each in READMES}

    assert links(CHINESE) == links(ENGLISH)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", MARKDOWN, ids=page_id)
def test_every_link_into_the_repository_leads_somewhere(path: Path) -> None:
    """Each relative link names a file or folder that exists, and a heading in it."""
    broken = []
    for target, anchor in LINK.findall(path.read_text()):
        page = path.parent / target if target else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


def doctors_codes() -> set[str]:
    """The code of every finding, as the source of the checks names it."""
    sources = (ROOT / "exporter" / "celerymeter" / "doctor" / "checks").glob("*.py")
    nodes = (node for source in sources for node in ast.walk(ast.parse(source.read_text())))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if re.fullmatch(r"[a-z]+(-[a-z]+)+", text) and not text.startswith("task-")}


def test_every_finding_of_the_doctor_is_explained() -> None:
    """The table in exporter/README.md explains every code, and no code that does not exist."""
    rows = REFERENCE[0].read_text().splitlines()
    explained = {code for row in rows for code in CODES.findall("".join(row.split("|")[2:3]))}
    assert explained == doctors_codes()
