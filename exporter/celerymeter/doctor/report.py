"""Findings for people, one a line, and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from celerymeter.doctor.evidence import Evidence
from celerymeter.doctor.finding import Finding

_COLORS = {"fault": "\033[1;31m", "hint": "\033[1;33m"}
_PLAIN = "\033[0m"


def as_text(findings: Sequence[Finding], evidence: Evidence, *, color: bool = False) -> str:
    """A line a finding, then one that says what was looked at and what was not."""
    return "\n".join([*(_line(finding, color=color) for finding in findings), _summary(findings, evidence)])


def as_json(findings: Sequence[Finding], evidence: Evidence, *, color: bool = False) -> str:  # noqa: ARG001 - one signature for both
    """One object: ``findings`` as they are, how many ``faults``, the ``workers``, and which places were looked at."""
    places = dict(_places(evidence))
    return json.dumps(
        {
            "faults": sum(finding.severity == "fault" for finding in findings),
            "findings": [asdict(finding) for finding in findings],
            "workers": sorted(evidence.broker.workers),
            "looked_at": [place for place, flag in places.items() if not flag],
            "not_asked": [place for place, flag in places.items() if flag],
        },
        indent=2,
        ensure_ascii=False,
    )


def _line(finding: Finding, *, color: bool) -> str:
    label = f"{finding.severity.upper():5}"
    if color:
        label = f"{_COLORS[finding.severity]}{label}{_PLAIN}"
    return f"{label} {finding.code}: {finding.what} -> {finding.mend}"


def _summary(findings: Sequence[Finding], evidence: Evidence) -> str:
    faults = sum(finding.severity == "fault" for finding in findings)
    hints = len(findings) - faults
    verdict = f"{_count(faults, 'fault')}, {_count(hints, 'hint')}" if findings else "nothing to mend"
    places = dict(_places(evidence))
    looked = ", ".join(place for place, flag in places.items() if not flag)
    missing = ", ".join(f"{place} ({flag})" for place, flag in places.items() if flag)
    workers = _count(len(evidence.broker.workers), "worker")
    return f"{verdict}; {workers}; looked at {looked}" + (f"; not asked: {missing}" if missing else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _places(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Every place, with the option that would name it, empty when it was looked at."""
    yield "broker", ""
    yield "exporter", "" if evidence.exporter else "--exporter-url"
    yield "Prometheus", "" if evidence.prometheus else "--prometheus-url"
    yield "control API", "" if evidence.control else "--control-url"
