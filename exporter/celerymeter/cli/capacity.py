"""``celerymeter capacity``."""

from __future__ import annotations

from celerymeter.cli.command import naming_prometheus, settings_command
from celerymeter.reports.capacity_command import CapacitySettings


@settings_command("capacity", CapacitySettings)
def command(settings: CapacitySettings) -> int:
    """Say how many slots a queue needed to keep its wait target.

    The arrivals and run times of the window are replayed, first come first served, with other numbers of slots. Exit
    status 1 if the number cannot be known; the reason is printed.
    """
    from celerymeter.reports.capacity_command import run

    with naming_prometheus(settings.prometheus_url):
        return run(settings)
