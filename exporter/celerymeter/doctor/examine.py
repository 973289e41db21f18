"""The command ``celerymeter doctor``: read every place that was named, check, print."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TextIO, TypeVar

from celerymeter.doctor import report
from celerymeter.doctor.checks import diagnose
from celerymeter.doctor.checks.prometheus import seconds_to_next_scrape
from celerymeter.doctor.collect import broker, http, prometheus
from celerymeter.doctor.evidence import Evidence, PrometheusEvidence
from celerymeter.doctor.settings import DoctorSettings
from celerymeter.escaping import terminal
from celerymeter.prometheus import Scope
from celerymeter.urls import without_password

T = TypeVar("T")


class Progress:
    """Shows the current step on one line of a terminal, and nothing elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = stream.isatty()

    def __call__(self, step: str) -> None:
        """Replace the step; an empty one clears the line."""
        if self._shown:
            self._stream.write(f"\r\033[K{terminal(step)}{' …' if step else ''}")
            self._stream.flush()


def run(settings: DoctorSettings, *, out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Examine and print; return 1 when there is a fault, else 0."""
    out, err = out or sys.stdout, err or sys.stderr
    progress = Progress(err)
    try:
        evidence = collect_evidence(settings, progress=progress)
    finally:
        progress("")
    findings = diagnose(evidence)
    write = report.as_json if settings.format == "json" else report.as_text
    print(write(findings, evidence, color=out.isatty()), file=out)
    return 1 if any(finding.severity == "fault" for finding in findings) else 0


def collect_evidence(settings: DoctorSettings, *, progress: Callable[[str], None]) -> Evidence:
    """Read every place that was named; raises only for settings that can never work."""
    scope = Scope(settings.cluster, settings.selector)

    def read(url: str | None, collect: Callable[[str], T]) -> T | None:
        if url is None:
            return None
        progress(f"reading {without_password(url)}")
        return collect(url)

    def read_prometheus() -> PrometheusEvidence | None:
        return read(settings.prometheus_url, partial(prometheus.collect, scope=scope))

    evidence = Evidence(
        broker=broker.collect(settings, progress=progress),
        exporter=read(settings.exporter_url, http.collect_exporter),
        prometheus=read_prometheus(),
        control=read(settings.control_url, http.collect_control),
    )
    if pause := seconds_to_next_scrape(evidence):
        progress(f"waiting {pause:.0f} s for the next scrape: metrics are missing in Prometheus, perhaps new ones")
        time.sleep(pause)
        evidence = replace(evidence, prometheus=read_prometheus())
    return evidence
