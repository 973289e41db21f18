"""Findings are printed as text and JSON; the exit status is made of them."""

from __future__ import annotations

import io
import json

from celerymeter.doctor.checks import diagnose
from celerymeter.doctor.evidence import Evidence
from celerymeter.doctor.examine import Progress
from celerymeter.doctor.report import as_json, as_text, fault, hint

from .cases import W1, W2, WELL

FINDINGS = (fault("a-fault", "it is so", "do this"), hint("a-hint", "perhaps", "do that"))


def test_a_finding_is_one_line_with_its_fix() -> None:
    """Then a summary of what was checked, and what was not because its option is missing."""
    assert as_text(FINDINGS, Evidence(WELL.broker, prometheus=WELL.prometheus)).splitlines() == [
        "FAULT a-fault: it is so -> do this",
        "HINT  a-hint: perhaps -> do that",
        "1 fault, 1 hint; 2 workers; checked broker, Prometheus; "
        "not checked: exporter (--exporter-url), control API (--control-url)",
    ]


def test_all_well_is_said() -> None:
    """In words."""
    expected = "no problem found; 2 workers; checked broker, exporter, Prometheus, control API"
    assert as_text(diagnose(WELL), WELL) == expected


def test_colour_is_for_terminals() -> None:
    """And only for the severity."""
    line = as_text(FINDINGS, WELL, color=True).splitlines()[0]
    assert line == "\033[1;31mFAULT\033[0m a-fault: it is so -> do this"


def test_json_is_one_object() -> None:
    """With the stable codes."""
    report = json.loads(as_json(FINDINGS, Evidence(WELL.broker)))
    assert report["faults"] == 1
    assert report["findings"][1] == {"code": "a-hint", "severity": "hint", "what": "perhaps", "mend": "do that"}
    assert report["workers"] == [W1, W2]
    assert report["looked_at"] == ["broker"]
    assert report["not_asked"] == ["exporter", "Prometheus", "control API"]


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals() -> None:
    """One line that each step replaces and that is gone at the end; nothing in a pipe."""
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        progress = Progress(stream)
        progress("checking")
        progress("")
    assert terminal.getvalue() == "\r\033[Kchecking …\r\033[K"
    assert pipe.getvalue() == ""
