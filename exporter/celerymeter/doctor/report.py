"""Findings, and how they are printed: one line each for people, one object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from celerymeter.doctor.evidence import Evidence
from celerymeter.escaping import json_text, terminal

Severity = Literal["fault", "hint"]
LISTED = 5
"""Names that a line lists; the others are counted."""
_COLORS = {"fault": "\033[1;31m", "hint": "\033[1;33m"}
_PLAIN = "\033[0m"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem and its fix; a ``code`` never changes its meaning.

    A fault makes metrics wrong or absent, or keeps alerts from being sent; a hint does not.
    """

    code: str
    severity: Severity
    problem: str
    fix: str


def fault(code: str, problem: str, fix: str) -> Finding:
    """Return a finding about metrics that are wrong or absent, or alerts that are not sent."""
    return Finding(code, "fault", problem, fix)


def hint(code: str, problem: str, fix: str) -> Finding:
    """Return a finding about metrics that could be better, or about something that cannot be decided from here."""
    return Finding(code, "hint", problem, fix)


def listed(names: Iterable[str]) -> str:
    """Return names for a line: sorted, the first few, then the number of the others."""
    found = sorted(names)
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return ", ".join(found[:LISTED]) + more


def as_text(findings: Sequence[Finding], evidence: Evidence, *, color: bool = False) -> str:
    """Return a line for each finding, then a summary of what was checked and what was not."""
    lines = []
    for finding in findings:
        label = f"{finding.severity.upper():5}"
        if color:
            label = f"{_COLORS[finding.severity]}{label}{_PLAIN}"
        lines.append(f"{label} {terminal(f'{finding.code}: {finding.problem} -> {finding.fix}')}")
    faults = sum(finding.severity == "fault" for finding in findings)
    verdict = f"{_count(faults, 'fault')}, {_count(len(findings) - faults, 'hint')}" if findings else "no problem found"
    options = _options(evidence)
    checked = ", ".join(place for place, option in options.items() if not option)
    skipped = ", ".join(f"{place} ({option})" for place, option in options.items() if option)
    workers = _count(len(evidence.broker.workers), "worker") + _modes(evidence)
    lines.append(f"{verdict}; {workers}; checked {checked}" + (f"; not checked: {skipped}" if skipped else ""))
    return "\n".join(lines)


def as_json(findings: Sequence[Finding], evidence: Evidence, *, color: bool = False) -> str:  # noqa: ARG001 - one signature for both
    """Return one object: the findings, the number of faults, the workers, and the places that were checked."""
    options = _options(evidence)
    return json_text(
        {
            "faults": sum(finding.severity == "fault" for finding in findings),
            "findings": [  # programs read these names
                {"code": finding.code, "severity": finding.severity, "what": finding.problem, "mend": finding.fix}
                for finding in findings
            ],
            "workers": sorted(evidence.broker.workers),
            "aggregating": sorted(evidence.broker.aggregating),
            "looked_at": [place for place, option in options.items() if not option],
            "not_asked": [place for place, option in options.items() if option],
        },
        indent=2,
    )


def _modes(evidence: Evidence) -> str:
    """Return which workers count their tasks themselves, if any do."""
    aggregating = evidence.broker.aggregating.keys()
    others = evidence.broker.workers - aggregating
    if not aggregating:
        return ""
    rest = f", events from {terminal(listed(others))}" if others else ""
    return f" (totals from {terminal(listed(aggregating)) if others else 'all'}{rest})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _options(evidence: Evidence) -> dict[str, str]:
    """Return the option that each place lacks, empty where it was checked."""
    return {
        "broker": "",
        "exporter": "" if evidence.exporter else "--exporter-url",
        "Prometheus": "" if evidence.prometheus else "--prometheus-url",
        "control API": "" if evidence.control else "--control-url",
    }
