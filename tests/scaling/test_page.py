"""The page on scaling leads to files that are there, and every file is on it."""

from __future__ import annotations

import re

from tests.scaling.shipped import PAGE, SCALING

LINKS = re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGE.read_text())


def test_every_link_leads_somewhere() -> None:
    """Into this folder, or elsewhere in the repository."""
    assert [link for link in LINKS if not (SCALING / link).exists()] == []


def test_every_file_is_explained() -> None:
    """The page has a link to each configuration."""
    files = {str(path.relative_to(SCALING)) for path in SCALING.glob("*/*")}
    assert files <= set(LINKS)
