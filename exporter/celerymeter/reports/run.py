"""The command ``celerymeter report``: asks, waits if wanted, writes the file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from celerymeter.errors import SettingsError
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope, choose_cluster
from celerymeter.reports.formats import written
from celerymeter.reports.performance import Performance, Question, wait_until_settled
from celerymeter.reports.report import Filters
from celerymeter.reports.window import read_window

QUERY_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """What the command was told; ``out`` is ``None`` for stdout."""

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
    """Write the report; the status is 1 when it holds no counts, because the window cannot be known."""
    window = read_window(settings.start, settings.end, now=time.time())
    scope = Scope(settings.cluster, settings.selector)
    chosen = PrometheusSettings(settings.prometheus_url, headers=settings.prometheus_headers, timeout=QUERY_TIMEOUT)
    question = Question(window, Filters(settings.task, settings.queue), settings.lang)
    with PrometheusClient(chosen) as client:
        scope = choose_cluster(client, scope, time=window.end)
        if settings.wait:
            wait_until_settled(client, scope, window)
        report = Performance(client, scope, progress=_progress()).report(question)
    _write(written(report, settings.format), settings.out)
    return 1 if report.total_tasks is None else 0


class _Bar:
    """One line on a terminal that says what is being read; it appears when that takes more than a second."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, what: str, share: float) -> None:
        if time.monotonic() - self._begun > 1.0:
            end = "\r" if share < 1 else "\r\x1b[K"
            sys.stderr.write(f"\rreading {what}: {share:4.0%}{end}")
            sys.stderr.flush()


def _progress() -> _Bar | None:
    return _Bar() if sys.stderr.isatty() else None


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
