"""A report as one page that fetches nothing: style, charts and tables are inside."""

from __future__ import annotations

from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from celerymeter.reports import shown
from celerymeter.reports.charts import chart, drawable
from celerymeter.reports.language import amount
from celerymeter.reports.report import History, Report
from celerymeter.reports.rows import largest

DRAWN_QUEUES = 8
"""Queues in the chart: the longest."""
SHOWN_ROWS = 50
"""Rows of a table; the rest is in the other formats."""


def page(report: Report) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("celerymeter.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        report=report,
        say=partial(shown.label, report),
        charts=_charts(report),
        amount=amount,
        rows=SHOWN_ROWS,
        show=shown,
    )


def _charts(report: Report) -> list[tuple[str, Markup, list[str]]]:
    """Headings, drawings (our own SVG, in which names are escaped) and the lines' names in the order of colours."""
    say, history = partial(shown.label, report), report.history
    drawings = [
        (say("throughput_chart"), {say("ended_rate"): history.throughput, say("failed_rate"): history.failures}),
        (
            say("execution_chart"),
            {"p50": history.execution_p50, "p95": history.execution_p95, "p99": history.execution_p99},
        ),
        (say("queue_chart"), {name: history.queue_lengths[name] for name in _longest(history)}),
    ]
    return [(heading, Markup(chart(curves)), list(drawable(curves))) for heading, curves in drawings]  # noqa: S704 - drawn here, names escaped


def _longest(history: History) -> list[str]:
    longest = sorted(history.queue_lengths, key=lambda name: -(largest(history.queue_lengths[name]) or 0.0))
    return sorted(longest[:DRAWN_QUEUES])
