"""The command ``celerymeter report``: makes the report and writes the file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from celerymeter.errors import SettingsError
from celerymeter.escaping import terminal
from celerymeter.files import write_new
from celerymeter.kinds import FILE, HEADER, HTTP_URL, SWITCH, TEXT
from celerymeter.options import option, setting
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope, choose_cluster
from celerymeter.reports.render import render
from celerymeter.reports.request import Filters, ReportRequest, read_window
from celerymeter.reports.service import ReportService

QUERY_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """The settings of the command; ``out`` is ``None`` for stdout."""

    prometheus_url: str = field(
        repr=False,
        metadata=option(HTTP_URL, "Prometheus, or a server with the same API (VictoriaMetrics, Thanos, Mimir)."),
    )
    prometheus_headers: Mapping[str, str] = setting(
        {},
        HEADER,
        "HTTP header to send to Prometheus, such as a tenant or a token; may be repeated.",
        flag="--prometheus-header",
        repeated=True,
    )
    start: str = setting(
        "-24h", TEXT, "Start of the window: -24h, -7d, or ISO 8601 such as 2026-01-31T12:00:00Z.", flag="--from"
    )
    end: str = setting("now", TEXT, "End of the window: now, -1h, or ISO 8601.", flag="--to")
    cluster: str | None = setting(
        None, TEXT, "The cluster to report on, if Prometheus has metrics of several (the label cluster)."
    )
    selector: str = setting("", TEXT, "Label matchers to add to every query, such as 'env=\"prod\"'.")
    task: str | None = setting(None, TEXT, "Only tasks of this name.")
    queue: str | None = setting(None, TEXT, "Only tasks of this queue.")
    wait: bool = setting(False, SWITCH, "Wait until Prometheus has all scrapes of the window.")
    format: str = setting("json", click.Choice(["json", "html", "csv", "md"]), "Format of the report.")
    out: Path | None = setting(None, FILE, "File to write the report to. By default stdout.")
    lang: str = setting("en", click.Choice(["en", "zh-TW"]), "Language of the report.")


def run(settings: ReportSettings) -> int:
    """Write the report; the exit status is 1 when the tasks of the window cannot be counted."""
    window = read_window(settings.start, settings.end, now=time.time(), names=("--from", "--to"))
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
            sys.stderr.write(f"\rreading {terminal(step)}: {share:4.0%}{end}")
            sys.stderr.flush()


def _write(text: bytes, out: Path | None) -> None:
    if out is None:
        sys.stdout.buffer.write(text if text.endswith(b"\n") else text + b"\n")
        sys.stdout.buffer.flush()
        return
    try:
        write_new(out, text)
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be written ({error.strerror})") from error
