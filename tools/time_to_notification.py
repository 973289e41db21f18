"""The time until a person gets each message, with rules, routing and intervals as shipped; takes half an hour.

``python -m tools.time_to_notification`` prints the table for alerts/README.md. With ``--firing-only`` it does not wait
for the messages that an alert is over, and takes ten minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.integration.alerts.faults import OVERRIDES, SCRIPTS, starters
from tests.integration.alerts.monitored import SHIPPED, MonitoredClusters
from tests.integration.alerts.timing import AlertTimer, outcomes


def clock(seconds: float) -> str:
    """Minutes and seconds, as ``2 m 05 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest:02d} s" if minutes else f"{rest} s"


def main() -> None:
    """Run every script at once and print what was measured, whatever failed."""
    with (
        tempfile.TemporaryDirectory() as folder,
        MonitoredClusters(Path(folder), starters(), pace=SHIPPED, overrides=OVERRIDES) as monitored,
    ):
        outcome = outcomes(AlertTimer(monitored, to_the_end="--firing-only" not in sys.argv), SCRIPTS)
    print("| fault | alert | message after | resolved after |\n|---|---|---|---|")
    for one in (expected for all_of_it in SCRIPTS.values() for expected in all_of_it):
        measured, firing = outcome.timer.times.get(one), outcome.timer.firing.get(one)
        message = "no message" if firing is None else clock(firing)
        over = clock(measured.resolved) if measured else ""
        print(f"| {one.fault} | {one.alert} ({one.severity}) | {message} | {over} |")
    for script, future in outcome.ran.items():
        if error := future.exception():
            print(f"{script.__name__}: {error}")


if __name__ == "__main__":
    main()
