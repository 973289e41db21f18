"""``celerymeter report``: make a report and write it to a file."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from celerymeter.cli.command import settings_command
from celerymeter.cli.prometheus_source import PrometheusSource
from celerymeter.errors import SettingsError
from celerymeter.escaping import terminal
from celerymeter.files import write_result
from celerymeter.kinds import FILE, SWITCH, TEXT
from celerymeter.options import group, setting

STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """Settings of `report`; ``out`` is ``None`` for stdout."""

    source: PrometheusSource = field(metadata=group(PrometheusSource))
    start: str = setting(
        "-24h", TEXT, "Start of the window: -24h, -7d, or ISO 8601 such as 2026-01-31T12:00:00Z.", flag="--from"
    )
    end: str = setting("now", TEXT, "End of the window: now, -1h, or ISO 8601.", flag="--to")
    task: str | None = setting(None, TEXT, "Only tasks of this name.")
    queue: str | None = setting(None, TEXT, "Only tasks of this queue.")
    wait: bool = setting(False, SWITCH, "Wait until Prometheus has all scrapes of the window.")
    format: str = setting("json", click.Choice(["json", "html", "csv", "md"]), "Format of the report.")
    out: Path | None = setting(None, FILE, "File to write the report to. By default, or with -, stdout.")
    lang: str = setting("en", click.Choice(["en", "zh-TW"]), "Language of the report.")


@settings_command("report", ReportSettings)
def command(settings: ReportSettings) -> int:
    """Write a performance report from Prometheus.

    Counts are exact: they cover the tasks that Prometheus scraped after --from, up to and including --to. A value that
    cannot be known is null, and the report says why. Exit status 1 if Prometheus does not answer or the tasks cannot be
    counted.
    """
    from celerymeter.reports.render import render
    from celerymeter.reports.request import Filters, ReportRequest, read_window
    from celerymeter.reports.service import ReportService

    window = read_window(settings.start, settings.end, now=time.time(), names=("--from", "--to"))
    with settings.source.client() as client:
        progress = _ProgressLine() if sys.stderr.isatty() else None
        service = ReportService(client, settings.source.scope, progress=progress)
        if settings.wait:
            service.wait_until_settled(window)
        report = service.report(ReportRequest(window, Filters(settings.task, settings.queue), settings.lang))
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
    if out is None or out == STDOUT:
        _print(text if text.endswith(b"\n") else text + b"\n")
        return
    try:
        if _is_stdout(out):  # such as /dev/stdout: opened again, a file to which the shell appends would be cut
            _print(text)
        else:
            write_result(out, text)
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be written ({error.strerror})") from error


def _print(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def _is_stdout(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    except OSError:  # also where stdout is no file, as in a test
        return False
