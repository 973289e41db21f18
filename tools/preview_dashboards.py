"""Keep a Prometheus with more than an hour of history of every scenario running, for Grafana to look at.

``python -m tools.preview_dashboards FOLDER`` prints its address and ends with ^C.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from tests.dashboards.scenarios import ALL, BIG_CROWD
from tests.dashboards.simulation import Pace, Simulation

PACE = Pace(past=4500, step=60, interval="15s", patient=True)


def main() -> None:
    """Run until ^C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Simulation(Path(sys.argv[1]), (*ALL[:-1], BIG_CROWD), PACE) as prometheus:
        print(prometheus.url, flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
