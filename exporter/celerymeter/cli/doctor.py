"""``celerymeter doctor``."""

from __future__ import annotations

from celerymeter.cli.command import settings_command
from celerymeter.doctor.settings import DoctorSettings


@settings_command("doctor", DoctorSettings)
def command(settings: DoctorSettings) -> int:
    """Find what is wrong with the monitoring of a cluster, and say how to fix it.

    Checks the broker and its workers, and the exporter, Prometheus (with its rules and Alertmanagers) and the control
    API if their URLs are given. Changes nothing. Each finding is one line with its kind, a code, what was found and
    what to do. A FAULT means that metrics are wrong or missing, or that alerts reach nobody; a HINT is less urgent.
    Exit status: 0 without a fault, 1 with one, 2 for settings that can never work.
    """
    from celerymeter.doctor.examine import run

    return run(settings)
