"""The command ``celerymeter report``: makes the report and writes the file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from celerymeter.errors import SettingsError
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope, choose_cluster
from celerymeter.reports.render import render
from celerymeter.reports.request import Filters, ReportRequest, read_window
from celerymeter.reports.service import ReportService

QUERY_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """Options of the command; ``out`` is ``None`` for stdout."""

    prometheus_url: str
    start: str = "-24h"
    end: str = "now"
    cluster: str | None = None
    selector: str = ""
    task: str | None = None
    queue: str | None = None
    wait: bool = False
    format: str = "json"
    out: Path | None = None
    lang: str = "en"
    prometheus_headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def run(settings: ReportSettings) -> int:
    """Write the report; the exit status is 1 when the tasks of the window cannot be counted."""
    window = read_window(settings.start, settings.end, now=time.time())
    scope = Scope(settings.cluster, settings.selector)
    prometheus = PrometheusSettings(settings.prometheus_url, headers=settings.prometheus_headers, timeout=QUERY_TIMEOUT)
    request = ReportRequest(window, Filters(settings.task, settings.queue), settings.lang)
    with PrometheusClient(prometheus) as client:
        scope = choose_cluster(client, scope, time=window.end)
        service = ReportService(client, scope, progress=_ProgressLine() if sys.stderr.isatty() else None)
        if settings.wait:
            service.wait_until_settled(window)
        report = service.report(request)
    _write(render(report, settings.format), settings.out)
    return 1 if report.total_tasks is None else 0


class _ProgressLine:
    """A line on the terminal about what is being read, shown when that takes more than a second."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, step: str, share: float) -> None:
        if time.monotonic() - self._begun > 1.0:
            end = "\r" if share < 1 else "\r\x1b[K"
            sys.stderr.write(f"\rreading {step}: {share:4.0%}{end}")
            sys.stderr.flush()


def _write(text: bytes, out: Path | None) -> None:
    if out is None:
        sys.stdout.buffer.write(text if text.endswith(b"\n") else text + b"\n")
        sys.stdout.buffer.flush()
        return
    draft = out.with_name(f".{out.name}.part")
    try:
        draft.write_bytes(text)
        draft.replace(out)
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be written ({error.strerror})") from error
