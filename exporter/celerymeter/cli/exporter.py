"""``celerymeter exporter``."""

from __future__ import annotations

from celerymeter.cli.command import settings_command
from celerymeter.settings import ExporterSettings


def check(settings: ExporterSettings) -> None:
    """Read the web config file once, so that ``check-config`` finds its errors too."""
    if settings.web_config_file:
        from celerymeter.httpd import load_web_config

        load_web_config(settings.web_config_file)
    from celerymeter.exporter.pushed import check_push

    check_push(settings)


@settings_command("exporter", ExporterSettings, service=True, check=check)
def command(settings: ExporterSettings) -> int:
    """Read a Celery cluster's broker and publish /metrics for Prometheus.

    One exporter for each broker is enough. It receives the workers' events (`celery worker -E`), polls the queues, and
    changes no task. Every option is also an environment variable and a key of the --config file.
    """
    from celerymeter.exporter import run

    return run(settings)
