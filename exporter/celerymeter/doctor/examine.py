"""Look everywhere that was named, diagnose, print: the composition root of ``celerymeter doctor``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO, TypeVar

from celerymeter.doctor import report
from celerymeter.doctor.checks import diagnose
from celerymeter.doctor.collect import broker, control, exporter, prometheus
from celerymeter.doctor.evidence import Evidence
from celerymeter.doctor.settings import DoctorSettings
from celerymeter.prometheus import Scope
from celerymeter.urls import without_password

T = TypeVar("T")


class Progress:
    """The step that is under way, on one line of a terminal; nothing elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = stream.isatty()

    def __call__(self, step: str) -> None:
        """Show a step in place of the last; an empty one clears the line."""
        if self._shown:
            self._stream.write(f"\r\033[K{step}{' …' if step else ''}")
            self._stream.flush()


def run(settings: DoctorSettings, *, out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Examine and print; 1 when something is at fault, 0 when there are only hints or nothing."""
    out, err = out or sys.stdout, err or sys.stderr
    progress = Progress(err)
    try:
        evidence = look(settings, progress=progress)
    finally:
        progress("")
    findings = diagnose(evidence)
    write = report.as_json if settings.format == "json" else report.as_text
    print(write(findings, evidence, color=out.isatty()), file=out)
    return 1 if any(finding.severity == "fault" for finding in findings) else 0


def look(settings: DoctorSettings, *, progress: Callable[[str], None]) -> Evidence:
    """The evidence of every place that was named; raises for settings that can never work."""
    scope = Scope(settings.cluster, settings.selector)

    def ask(url: str | None, look_at: Callable[[str], T]) -> T | None:
        if url is None:
            return None
        progress(f"asking {without_password(url)}")
        return look_at(url)

    return Evidence(
        broker=broker.look(settings.broker, watch=settings.watch, progress=progress),
        exporter=ask(settings.exporter_url, exporter.look),
        prometheus=ask(settings.prometheus_url, partial(prometheus.look, scope=scope)),
        control=ask(settings.control_url, control.look),
    )
