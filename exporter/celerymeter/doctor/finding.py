"""What a check finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["fault", "hint"]
SHOWN = 5
"""Names that a line lists before it counts."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to mend. ``code`` never changes its meaning.

    A fault makes figures wrong or absent, or leaves alerts untold; a hint does not.
    """

    code: str
    severity: Severity
    what: str
    mend: str


def fault(code: str, what: str, mend: str) -> Finding:
    """Something that makes figures wrong or absent, or leaves alerts untold."""
    return Finding(code, "fault", what, mend)


def hint(code: str, what: str, mend: str) -> Finding:
    """Something that makes metrics poorer, or that cannot be decided from here."""
    return Finding(code, "hint", what, mend)


def listed(names: Iterable[str]) -> str:
    """Names for a line: sorted, the first few, then how many more."""
    found = sorted(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more
