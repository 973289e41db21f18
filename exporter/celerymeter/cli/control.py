"""``celerymeter control``."""

from __future__ import annotations

from celerymeter.cli.command import settings_command
from celerymeter.control.settings import ControlSettings


@settings_command("control", ControlSettings, service=True)
def command(settings: ControlSettings) -> int:
    """Serve the control API: monitoring, a live feed, revocation, reports and an audit trail.

    It needs the broker, a Prometheus that scrapes the exporter, and a key that verifies tokens. Create a key with
    `openssl rand -hex 32 > secret` and tokens with `celerymeter token`.
    """
    from celerymeter.control.server import run

    return run(settings)
