"""``celerymeter demo``."""

from __future__ import annotations

from celerymeter.cli.command import settings_command
from celerymeter.demo.settings import DemoSettings


@settings_command("demo", DemoSettings)
def command(settings: DemoSettings) -> int:
    """Run the whole stack on this machine, with tasks to watch.

    Starts Redis, two workers, the exporter, the control API, Prometheus with the shipped alert rules and Alertmanager
    with the shipped routing. Prometheus and Alertmanager must be installed; Redis is included. All files are written
    to .demo/ in the current directory; .demo/env holds the addresses while the demo runs.
    """
    from celerymeter.demo.run import run

    return run(settings)
