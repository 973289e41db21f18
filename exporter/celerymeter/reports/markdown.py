"""A report as Markdown, for tickets and chats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from celerymeter.reports.report import Quantiles, Report
from celerymeter.reports.shown import count, decimal, label, moment, ms, percent, rate, signed

LONGEST = 20
"""Rows of a table; the rest is in the other formats."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def to_markdown(report: Report) -> str:
    """The report's main figures, advice, tables and limits."""
    return "\n".join([*_head(report), *_figures(report), *_advice(report), *_tables(report), *_quality(report), ""])


def _head(report: Report) -> Iterator[str]:
    say = partial(label, report)
    span = report.time_range
    yield f"# {say('title')}"
    yield ""
    yield f"{say('window')}: {moment(span.start)} to {moment(span.end)}  "
    if report.cluster:
        yield f"{say('cluster')}: {_plain(report.cluster)}  "
    for key, value in (("task", report.filters.task), ("queue", report.filters.queue)):
        if value is not None:
            yield f"{say(key)}: {_plain(value)}  "
    if not report.settled:
        yield f"**{say('unsettled')}**"
    yield ""


def _figures(report: Report) -> Iterator[str]:
    say = partial(label, report)
    change = report.previous_window
    compared = "" if change is None else f" ({signed(change.total_change_percent)} {say('before')})"
    figures = [
        (say("total"), count(report.total_tasks) + compared),
        (say("successful"), count(report.successful_tasks)),
        (say("failed"), f"{count(report.failed_tasks)} ({percent(report.error_rate_percent)})"),
        (say("retried"), count(report.retried_tasks)),
        (say("avg_execution"), ms(report.avg_execution_time_ms)),
        (f"{say('execution')} p50 / p95 / p99", _quantiles(report.execution_time_ms)),
        (f"{say('wait')} p50 / p95 / p99", _quantiles(report.wait_time_ms)),
        (say("throughput"), rate(report.average_throughput)),
        (say("peak"), rate(report.peak_throughput) + (f", {moment(report.peak.at)}" if report.peak else "")),
    ]
    yield from _table(("", ""), figures)


def _advice(report: Report) -> Iterator[str]:
    say = partial(label, report)
    yield f"## {say('advice')}"
    yield ""
    for advice in report.recommendations:
        yield f"- **{advice.code}**: {_plain(advice.text)} {_plain(advice.action)}"
    if not report.recommendations:
        yield say("no_advice")
    yield ""


def _tables(report: Report) -> Iterator[str]:
    say = partial(label, report)
    yield f"## {say('tasks')}"
    yield ""
    names = [say(key) for key in ("task", "total", "failed", "retried")]
    rows = [
        (row.name, count(row.ends.total), count(row.ends.failed), count(row.ends.retried),
         ms(row.execution_time_ms.p95), ms(row.wait_time_ms.p95))
        for row in report.tasks[:LONGEST]
    ]  # fmt: skip
    yield from _table((*names, f"{say('execution')} p95", f"{say('wait')} p95"), rows)
    yield f"## {say('queues')}"
    yield ""
    queues = [
        (row.queue_name, count(row.ends.total), decimal(row.avg_length), count(row.max_length))
        for row in report.queues[:LONGEST]
    ]
    yield from _table([say(key) for key in ("queue", "total", "mean_length", "max_length")], queues)


def _quality(report: Report) -> Iterator[str]:
    quality = report.data_quality
    yield f"## {label(report, 'quality')}"
    yield ""
    yield _plain(quality.words)
    yield ""
    for text in dict.fromkeys(note.text for note in (*quality.notes, *report.unknown.values())):
        yield f"- {_plain(text)}"


def _quantiles(found: Quantiles) -> str:
    return " / ".join(ms(value) for value in (found.p50, found.p95, found.p99))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(_plain(cell) for cell in row)} |"
    yield ""


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
