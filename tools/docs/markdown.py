"""The pages with generated parts, and a table in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
READMES = (ROOT / "README.md", ROOT / "README.zh-TW.md")
REFERENCE = (ROOT / "exporter" / "README.md", ROOT / "exporter" / "celerymeter" / "control" / "README.md")
CHART = ROOT / "deploy" / "helm" / "celerymeter"
PAGES = (*READMES, *REFERENCE, CHART / "README.md")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Markdown of a table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)
