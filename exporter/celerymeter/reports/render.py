"""A report as a file: JSON, one HTML page, CSV for spreadsheets, Markdown for tickets."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

import msgspec

from celerymeter.escaping import csv_cell, json_source, markdown, terminal
from celerymeter.reports import formatting
from celerymeter.reports.formatting import amount, count, decimal, label, ms, percent, rate, signed, timestamp
from celerymeter.reports.metrics import largest
from celerymeter.reports.report import (
    AlertRow,
    AlertSpan,
    CapacityRow,
    Ends,
    History,
    Quantiles,
    QueueRow,
    Report,
    ScheduleRow,
    TaskRow,
)

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

CONTENT_TYPES = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
}
"""By format."""
HTML_ROWS = 50
MARKDOWN_ROWS = 20
"""Rows of a table; the other formats have all of them."""
DRAWN_QUEUES = 8
"""Queues in the chart: the longest."""
CSV_COLUMNS = (
    *("start", "end", "kind", "name", "total", "successful", "failed", "retried", "revoked", "rejected"),
    *("error_rate_percent", "avg_execution_ms", "execution_p50_ms", "execution_p95_ms", "execution_p99_ms"),
    *("wait_p50_ms", "wait_p95_ms", "wait_p99_ms", "avg_length", "max_length", "runs_begun", "avg_busy_percent"),
    *("expired", "redelivered", "slot_seconds", "severity", "subject", "firing_seconds"),
    *("due", "sent", "missed", "unsent", "lateness_p95_ms"),
    *("wait_target_ms", "slots", "slots_at_least", "slots_at_most", "present_slots", "saved_slot_hours"),
)


def render(report: Report, form: str) -> bytes:
    """Return the report in one of the formats of `CONTENT_TYPES`."""
    return {"json": to_json, "html": to_html, "csv": to_csv, "md": to_markdown}[form](report)


def to_json(report: Report) -> bytes:
    """Return the report as it is sent and stored."""
    return json_source(msgspec.json.encode(report).decode()).encode()


def from_json(text: bytes) -> Report:
    """Return the report that `to_json` wrote."""
    return msgspec.json.decode(text, type=Report)


def to_html(report: Report) -> bytes:
    """Return a page that loads nothing: style, charts and tables are inside."""
    page = _template().render(
        report=report,
        say=partial(label, report),
        charts=_charts(report),
        amount=amount,
        rows=HTML_ROWS,
        show=formatting,
    )
    return page.encode()


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("celerymeter.reports"),
        autoescape=True,
        finalize=_one_line,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _one_line(value: object) -> object:
    """Return a value of the page, text without what turns the direction of writing; Jinja escapes the rest."""
    return terminal(value) if type(value) is str else value


def _charts(report: Report) -> list[tuple[str, Markup, list[str]]]:
    """Return headings, drawings and the names of the lines in the order of their colours."""
    from celerymeter.reports.charts import chart, drawable

    say, history = partial(label, report), report.history
    quantiles = {"p50": history.execution_p50, "p95": history.execution_p95, "p99": history.execution_p99}
    curves = {
        say("throughput_chart"): {say("ended_rate"): history.throughput, say("failed_rate"): history.failures},
        say("execution_chart"): quantiles,
        say("queue_chart"): {name: history.queue_lengths[name] for name in _longest(history)},
    }
    return [(heading, chart(lines), list(drawable(lines))) for heading, lines in curves.items()]


def _longest(history: History) -> list[str]:
    longest = sorted(history.queue_lengths, key=lambda name: -(largest(history.queue_lengths[name]) or 0.0))
    return sorted(longest[:DRAWN_QUEUES])


def to_csv(report: Report) -> bytes:
    """Return one table: a row for everything, and one for each task, queue and worker; unknown cells are empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    window = {"start": report.time_range.start.isoformat(), "end": report.time_range.end.isoformat()}
    for row in _csv_rows(report):
        writer.writerow({**window, **{name: csv_cell(value) for name, value in row.items() if value is not None}})
    return out.getvalue().encode()


def _csv_rows(report: Report) -> Iterator[dict[str, object]]:
    yield {"kind": "all", **_csv_all(report)}
    yield from ({"kind": "task", "name": row.name, **_csv_task(row)} for row in report.tasks)
    yield from ({"kind": "queue", "name": row.queue_name, **_csv_queue(row)} for row in report.queues)
    for worker in report.workers:
        cells = {"runs_begun": worker.runs_begun, "avg_busy_percent": worker.avg_busy_percent}
        yield {"kind": "worker", "name": worker.hostname, **cells}
    for need in report.capacity:
        cells = {name: getattr(need, name) for name in CapacityRow.__dataclass_fields__ if name in CSV_COLUMNS}
        yield {"kind": "capacity", "name": need.queue_name, **cells}
    yield from ({"kind": "schedule", "name": row.schedule, **_csv_schedule(row)} for row in report.schedules)
    for alert in report.alerts:
        yield from ({"kind": "alert", "name": alert.alert, **_csv_alert(alert, span)} for span in alert.spans)


def _csv_all(report: Report) -> dict[str, object]:
    return {
        "total": report.total_tasks,
        "successful": report.successful_tasks,
        "failed": report.failed_tasks,
        "retried": report.retried_tasks,
        "revoked": report.revoked_tasks,
        "rejected": report.rejected_tasks,
        "expired": report.expired_tasks,
        "redelivered": report.redelivered_runs,
        "error_rate_percent": report.error_rate_percent,
        "avg_execution_ms": report.avg_execution_time_ms,
        "avg_busy_percent": report.avg_busy_percent,
        **_quantile_cells("execution", report.execution_time_ms),
        **_quantile_cells("wait", report.wait_time_ms),
    }


def _csv_task(task: TaskRow) -> dict[str, object]:
    return {
        **_end_cells(task.ends),
        "avg_execution_ms": task.avg_execution_time_ms,
        "slot_seconds": task.execution_seconds,
        **_quantile_cells("execution", task.execution_time_ms),
        **_quantile_cells("wait", task.wait_time_ms),
    }


def _csv_queue(queue: QueueRow) -> dict[str, object]:
    lengths = {"avg_length": queue.avg_length, "max_length": queue.max_length}
    return {**_end_cells(queue.ends), **lengths, **_quantile_cells("wait", queue.wait_time_ms)}


def _csv_schedule(entry: ScheduleRow) -> dict[str, object]:
    return {
        "subject": entry.name,
        "successful": entry.succeeded,
        "failed": entry.failed,
        "due": entry.due,
        "sent": entry.sent,
        "missed": entry.missed,
        "unsent": entry.unsent,
        "lateness_p95_ms": entry.lateness_p95_ms,
    }


def _csv_alert(alert: AlertRow, span: AlertSpan) -> dict[str, object]:
    return {
        "start": span.start.isoformat(),
        "end": span.end.isoformat() if span.end else "",
        "severity": alert.severity,
        "subject": alert.subject,
        "firing_seconds": alert.firing_seconds,
    }


def _end_cells(ends: Ends) -> dict[str, object]:
    return {name: getattr(ends, name) for name in Ends.__dataclass_fields__}


def _quantile_cells(what: str, quantiles: Quantiles) -> dict[str, object]:
    return {f"{what}_{name}_ms": getattr(quantiles, name) for name in Quantiles.__dataclass_fields__}


def to_markdown(report: Report) -> bytes:
    """Return the report's main metrics, advice, tables and limits."""
    say = partial(label, report)
    parts = (_markdown_head, _markdown_metrics, _markdown_advice, _markdown_alerts, _markdown_tables, _markdown_quality)
    return "\n".join([*(line for part in parts for line in part(report, say)), ""]).encode()


Say = Callable[[str], str]
"""Returns a heading in the report's language."""


def _markdown_head(report: Report, say: Say) -> Iterator[str]:
    yield from (f"# {say('title')}", "")
    yield f"{say('window')}: {timestamp(report.time_range.start)} to {timestamp(report.time_range.end)}  "
    for key, value in (("cluster", report.cluster), ("task", report.filters.task), ("queue", report.filters.queue)):
        if value:
            yield f"{say(key)}: {markdown(value)}  "
    if not report.settled:
        yield f"**{say('unsettled')}**"
    yield ""


def _markdown_metrics(report: Report, say: Say) -> Iterator[str]:
    change = report.previous_window
    compared = "" if change is None else f" ({signed(change.total_change_percent)} {say('before')})"
    peak_at = f", {timestamp(report.peak.at)}" if report.peak else ""
    rows = [
        (say("total"), count(report.total_tasks) + compared),
        (say("successful"), count(report.successful_tasks)),
        (say("failed"), f"{count(report.failed_tasks)} ({percent(report.error_rate_percent)})"),
        (say("retried"), count(report.retried_tasks)),
        (say("expired"), count(report.expired_tasks)),
        (say("redelivered"), count(report.redelivered_runs)),
        (formatting.busy_label(report), percent(report.avg_busy_percent)),
        (say("avg_execution"), ms(report.avg_execution_time_ms)),
        (f"{say('execution')} p50 / p95 / p99", _quantiles(report.execution_time_ms)),
        (f"{say('wait')} p50 / p95 / p99", _quantiles(report.wait_time_ms)),
        (say("throughput"), rate(report.average_throughput)),
        (say("peak"), rate(report.peak_throughput) + peak_at),
    ]
    yield from _markdown_table(("", ""), rows)


def _markdown_advice(report: Report, say: Say) -> Iterator[str]:
    yield from (f"## {say('advice')}", "")
    for advice in report.recommendations:
        yield f"- **{advice.code}**: {markdown(advice.text)} {markdown(advice.action)}"
    if not report.recommendations:
        yield say("no_advice")
    yield ""


def _markdown_alerts(report: Report, say: Say) -> Iterator[str]:
    yield from (f"## {say('alerts')}", "")
    if not report.alerts:
        yield from (say("no_alerts"), "")
        return
    rows = [
        (alert.alert, alert.severity, alert.subject, formatting.alert_time(report, span.start),
         formatting.alert_time(report, span.end) if span.end else say("still_firing"))
        for alert in report.alerts[:MARKDOWN_ROWS]
        for span in alert.spans
    ]  # fmt: skip
    head = [say(key) for key in ("alerts", "severity", "subject", "fired_from", "fired_until")]
    yield from _markdown_table(head, sorted(rows, key=lambda row: row[3])[:MARKDOWN_ROWS])


def _markdown_tables(report: Report, say: Say) -> Iterator[str]:
    yield from (f"## {say('tasks')}", "")
    names = [say(key) for key in ("task", "total", "failed", "retried")]
    tasks = [
        (row.name, count(row.ends.total), count(row.ends.failed), count(row.ends.retried),
         ms(row.execution_time_ms.p95), ms(row.wait_time_ms.p95))
        for row in report.tasks[:MARKDOWN_ROWS]
    ]  # fmt: skip
    yield from _markdown_table((*names, f"{say('execution')} p95", f"{say('wait')} p95"), tasks)
    yield from (f"## {say('queues')}", "")
    queues = [
        (row.queue_name, count(row.ends.total), ms(row.wait_time_ms.p95), decimal(row.avg_length),
         count(row.max_length), formatting.slot_user(report, row))
        for row in report.queues[:MARKDOWN_ROWS]
    ]  # fmt: skip
    queue_head = (say("queue"), say("total"), f"{say('wait')} p95", say("mean_length"), say("max_length"))
    yield from _markdown_table((*queue_head, say("slot_user")), queues)
    if report.capacity:
        yield from (f"## {say('capacity')}", "")
        needs = [
            (row.queue_name, ms(row.wait_target_ms), formatting.slots_needed(row), decimal(row.present_slots),
             decimal(row.saved_slot_hours))
            for row in report.capacity
        ]  # fmt: skip
        need_keys = ("queue", "wait_target", "slots_needed", "present_slots", "saved_slot_hours")
        yield from _markdown_table([say(key) for key in need_keys], needs)
    if report.schedules:
        yield from (f"## {say('schedules')}", "")
        entries = [
            (row.schedule, row.name, count(row.due), count(row.sent), count(row.missed), count(row.succeeded),
             count(row.failed), ms(row.lateness_p95_ms))
            for row in report.schedules[:MARKDOWN_ROWS]
        ]  # fmt: skip
        keys = ("schedule", "task", "due", "sent", "schedule_missed", "successful", "failed")
        yield from _markdown_table((*map(say, keys), f"{say('lateness')} p95"), entries)


def _markdown_quality(report: Report, say: Say) -> Iterator[str]:
    quality = report.data_quality
    yield from (f"## {say('quality')}", "", markdown(quality.words), "")
    for text in dict.fromkeys(note.text for note in (*quality.notes, *report.unknown.values())):
        yield f"- {markdown(text)}"


def _quantiles(found: Quantiles) -> str:
    return " / ".join(ms(value) for value in (found.p50, found.p95, found.p99))


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(markdown(cell) for cell in row)} |"
    yield ""
