"""The rules over the week of a shop: what fires when nothing is wrong, and with one incident at a time.

A shop of so many queues, tasks and workers has what every shop has: days and nights, deploys, an autoscaler, pods that
are killed, bursts, a nightly batch, long tasks, failures here and there, restarts of the exporter. Its series are
written into a real Prometheus as the past of a week, and the shipped rules are evaluated over them, minute by minute:

    python -m tools.production_week --queues 50 --tasks 500 --workers 200
    python -m tools.production_week --from-hour 10 --hours 3                 # three hours of a Monday
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.production_week.evaluation import CHUNK, Evaluation
from tools.production_week.history import History
from tools.production_week.incidents import INCIDENTS
from tools.production_week.shop import Shop
from tools.production_week.worlds import World, healthy, objections, rules, with_incident


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for, print what fired, and return 1 if that is not what must fire."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("queues", 8), ("tasks", 30), ("workers", 20), ("from-hour", 0), ("hours", 7 * 24)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--no-week",
        action="store_true",
        help="only the incidents, each in a shop of its own, from 10:00 to 13:00 of a Monday",
    )
    parser.add_argument("--no-incidents", action="store_true", help="only the week")
    options = parser.parse_args(arguments)
    gc.disable()  # answers of Prometheus have no cycles, and to look for some takes most of the time
    size = (options.queues, options.tasks, options.workers)
    wrong = not options.no_week and _week(healthy(Shop(*size, from_hour=options.from_hour, hours=options.hours)))
    for incident in () if options.no_incidents else INCIDENTS:
        began = time.monotonic()
        found = objections([with_incident(Shop(*size, from_hour=10, hours=3), incident)])
        wrong = _say(f"{incident.name}, {time.monotonic() - began:.0f} s", found) or wrong
    return int(wrong)


def _week(world: World) -> bool:
    """Evaluate a week in one history, and say every six hours what fired until then."""
    with tempfile.TemporaryDirectory() as folder, History(Path(folder)) as history:
        began = time.monotonic()
        series = history.write(world.labelled())
        _say(f"{series:,} series of {world.minutes} min written in {time.monotonic() - began:.0f} s")
        evaluation = Evaluation(history, rules())
        for start in range(0, world.minutes, CHUNK):
            end = min(start + CHUNK, world.minutes)
            evaluation.run(start, end)
            found = "".join(f"{line}\n" for line in world.objections(evaluation.fired))
            _say(f"until hour {end / 60:.0f} of {world.minutes / 60:.0f}, {time.monotonic() - began:.0f} s", found)
    return bool(found)


def _say(what: str, objection: str = "") -> bool:
    sys.stdout.write(f"{what}: {objection or 'as it must be'}\n")
    sys.stdout.flush()
    return bool(objection)


if __name__ == "__main__":
    sys.exit(main())
