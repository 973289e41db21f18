"""``celerymeter report``."""

from __future__ import annotations

from celerymeter.cli.command import naming_prometheus, settings_command
from celerymeter.reports.run import ReportSettings


@settings_command("report", ReportSettings)
def command(settings: ReportSettings) -> int:
    """Write a performance report from Prometheus.

    Counts are exact: they cover the tasks that Prometheus scraped after --from, up to and including --to. A value that
    cannot be known is null, with the reason. Exit status 1 if Prometheus does not answer or the tasks cannot be
    counted.
    """
    from celerymeter.reports.run import run

    with naming_prometheus(settings.prometheus_url):
        return run(settings)
