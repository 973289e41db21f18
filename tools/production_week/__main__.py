"""The rules over the days of a shop: what fires when nothing is wrong, and with one incident at a time.

A shop of so many queues, tasks and workers has what every shop has: days and nights, deploys, an autoscaler, pods that
are killed, bursts, a nightly batch, long tasks, failures here and there, restarts of the exporter. promtool evaluates
the shipped rules over its series, minute by minute in compressed time:

    python -m tools.production_week                                     # each day of a week, and each incident
    python -m tools.production_week --days 0 --from-hour 10 --hours 3   # three hours of a Monday

promtool loads 10,000 samples for a query at most: with 30 tasks a day is possible, with 150 tasks three hours.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tools.production_week.incidents import INCIDENTS, Incident
from tools.production_week.promtool import World, objections
from tools.production_week.series import series_of
from tools.production_week.shop import Shop


def healthy(shop: Shop) -> World:
    """Return the shop with nothing wrong."""
    return World(f"day-{shop.day}", series_of(shop, seed=shop.day + 1), {})


def with_incident(shop: Shop, incident: Incident) -> World:
    """Return the shop with an incident, from after a third of its hours until half an hour before their end."""
    series, minutes = series_of(shop), len(shop.minutes)
    incident.change(series, range(minutes // 3 + 15, minutes - 30))
    return World(incident.name.replace(" ", "-"), series, incident.fires)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for, print what fired, and return 1 if that is not what must fire."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("queues", 8), ("tasks", 30), ("workers", 20), ("from-hour", 0), ("hours", 24)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--days", type=int, nargs="*", default=list(range(7)), help="0 is Monday")
    parser.add_argument(
        "--no-incidents", action="store_true", help="else each incident, from 10:00 to 13:00 on a Monday"
    )
    options = parser.parse_args(arguments)
    shop = Shop(options.queues, options.tasks, options.workers, 0, options.from_hour, options.hours)

    def worlds() -> Iterator[tuple[str, list[World]]]:
        for day in options.days:
            yield f"day {day}", [healthy(replace(shop, day=day))]
        if not options.no_incidents:
            short = replace(shop, from_hour=10, hours=3)
            for incident in INCIDENTS:
                yield incident.name, [with_incident(short, incident)]

    status = 0
    for name, found in worlds():
        began = time.monotonic()
        objection = objections(found)
        size, took = sum(len(world.series) for world in found), time.monotonic() - began
        sys.stdout.write(f"{name}: {size:,} series, {took:.0f} s: {objection or 'as it must be'}\n")
        sys.stdout.flush()
        status = 1 if objection else status
    return status


if __name__ == "__main__":
    sys.exit(main())
