"""``celerymeter report``: its options."""

from __future__ import annotations

import click

from celerymeter.cli.command import Values, setting, settings_command
from celerymeter.cli.control import Header
from celerymeter.cli.options import FILE, fields_of, prometheus_url_option, require
from celerymeter.reports.run import ReportSettings


def report_settings(values: Values) -> ReportSettings:
    """The settings of the options."""
    return ReportSettings(
        **{
            **fields_of(ReportSettings, values),
            "prometheus_url": require(values, "prometheus_url"),
            "prometheus_headers": dict(values["prometheus_header"]),
            "start": values["from"],
            "end": values["to"],
        }
    )


@settings_command("report", build=report_settings)
@prometheus_url_option("Prometheus, or what speaks its API (VictoriaMetrics, Thanos, Mimir).")
@setting(
    "--prometheus-header",
    Header(),
    multiple=True,
    mask=lambda pairs: " ".join(f"{name}=***" for name, _ in pairs),
    help="Header for Prometheus: a tenant, a token; may be repeated.",
)
@setting("--from", default="-24h", help="Where the window begins: -24h, -7d, or ISO 8601 such as 2026-01-31T12:00:00Z.")
@setting("--to", default="now", help="Where it ends: now, -1h, or ISO 8601.")
@setting("--cluster", help="The cluster to report on, where Prometheus has several (label cluster).")
@setting("--selector", default="", help="Further label matchers for every query: 'env=\"prod\"'.")
@setting("--task", help="Only tasks of this name.")
@setting("--queue", help="Only tasks of this queue.")
@setting("--wait/--no-wait", default=False, help="Wait until the window is settled: all of its scrapes are in.")
@setting("--format", click.Choice(["json", "html", "csv", "md"]), default="json", help="What to write.")
@setting("--out", FILE, help="File to write; stdout when not given.")
@setting("--lang", click.Choice(["en", "zh-TW"]), default="en", help="Language of sentences.")
def command(settings: ReportSettings) -> int:
    """Write a performance report from Prometheus.

    Counts are exact: whole tasks that were scraped after --from, up to and including --to. What cannot be known is
    null, with its reason. Exit status 1 when Prometheus is away or the window's tasks cannot be counted.
    """
    from celerymeter.reports.run import run

    return run(settings)
