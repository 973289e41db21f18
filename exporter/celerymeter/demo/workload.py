"""Send the demo's tasks until SIGTERM: ``python -m celerymeter.demo.workload busy``.

A file that is given as second argument is touched after each task: its age tells whether tasks are still sent. The
loads are plain data; only `main` needs a broker.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

WAVE = 120.0
"""Seconds from one peak of traffic to the next."""
HEALTHY_CAP = 40
"""A healthy shop sends no more while a queue holds so many messages: no backlog alert, however slow the machine."""
LATE = 1.0
"""A task that is due for longer than this (s) is left out, or a broker outage would end in a burst."""
MEASURE_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class Flow:
    """One kind of task: ``rate`` a second on average, run ``delay`` seconds later, while its queue is below ``cap``."""

    task: str
    rate: float
    arguments: Mapping[str, float] = field(default_factory=dict)
    numbered: bool = True
    delay: float = 0.0
    cap: int = HEALTHY_CAP

    @property
    def queue(self) -> str:
        """The queue, which is named like the first part of the task."""
        return self.task.split(".", 1)[0]


def _shop(scale: float) -> tuple[Flow, ...]:
    return (
        Flow("orders.place", 3.0 * scale),
        Flow("orders.charge_card", 2.0 * scale),
        Flow("emails.send_receipt", 2.5 * scale),
        Flow("emails.send_reminder", 0.3 * scale, delay=15.0),
        Flow("media.render_video", 0.42, {"seconds": 3.0}, numbered=False, cap=25),
    )


LOADS: Mapping[str, tuple[Flow, ...]] = {
    "light": _shop(1.0),
    "busy": _shop(4.0),
    "faulty": (
        Flow("orders.place", 3.0),
        Flow("orders.charge_card", 2.0, {"declined": 0.5, "timeouts": 0.7}),
        Flow("emails.send_receipt", 2.5, {"broken": 0.08}),
        Flow("media.render_video", 2.0, {"seconds": 4.0}, numbered=False, cap=150),
        Flow("exports.push_to_warehouse", 0.5, cap=30),
        Flow("orders.sync_stock", 0.3, {"hanging": 0.5}, numbered=False),
    ),
}
"""``light`` is a healthy shop, ``busy`` sends four times as many quick tasks, ``faulty`` makes alerts fire."""


def traffic(at: float) -> float:
    """Return the factor of the rates at this second of the demo: between 0.5 and 1.5, on average 1."""
    return 1.0 + 0.5 * math.sin(2 * math.pi * at / WAVE)


def arrivals(flows: tuple[Flow, ...], dice: random.Random) -> Iterator[tuple[float, Flow]]:
    """Yield when to send what, in seconds from the start: each flow is a Poisson process that follows `traffic`."""
    due = [(dice.expovariate(flow.rate), index) for index, flow in enumerate(flows)]
    heapq.heapify(due)
    while True:
        at, index = due[0]
        yield at, flows[index]
        pause = dice.expovariate(flows[index].rate * traffic(at))
        heapq.heapreplace(due, (at + pause, index))


class QueueLengths:
    """Upper bounds of the lengths of queues: measured at most every ``MEASURE_EVERY`` s, plus what was sent since."""

    def __init__(self, measure: Callable[[str], int], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._measure = measure
        self._clock = clock
        self._known: dict[str, tuple[float, int]] = {}

    def of(self, queue: str) -> int:
        """Return the number of messages in the queue."""
        at, length = self._known.get(queue, (float("-inf"), 0))
        if self._clock() - at > MEASURE_EVERY:
            at, length = self._clock(), self._measure(queue)
            self._known[queue] = at, length
        return length

    def grow(self, queue: str) -> None:
        """Add a message that was sent."""
        at, length = self._known[queue]
        self._known[queue] = at, length + 1


def in_time(due: Iterable[tuple[float, Flow]]) -> Iterator[Flow]:
    """Yield each flow when it is due, and leave out what is late."""
    start = time.monotonic()
    for at, flow in due:
        ahead = start + at - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        if ahead > -LATE:
            yield flow


def main(load: str, heartbeat: Path | None) -> None:
    """Send tasks until SIGTERM."""
    import redis
    from kombu.exceptions import OperationalError

    from celerymeter.demo.app import app

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    broker = redis.Redis.from_url(app.conf.broker_url)
    lengths = QueueLengths(lambda queue: int(broker.llen(queue)))
    numbers = itertools.count(1)
    with suppress(KeyboardInterrupt):
        for flow in in_time(arrivals(LOADS[load], random.Random())):
            try:
                if lengths.of(flow.queue) >= flow.cap:
                    continue
                app.send_task(
                    flow.task,
                    args=[next(numbers)] if flow.numbered else [],
                    kwargs=dict(flow.arguments),
                    countdown=flow.delay or None,
                    queue=flow.queue,
                )
                lengths.grow(flow.queue)
                if heartbeat:
                    heartbeat.touch()
            except (redis.RedisError, OperationalError) as error:
                print(f"{flow.task} was not sent: {error}", flush=True)
                time.sleep(LATE)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "light", Path(sys.argv[2]) if len(sys.argv) > 2 else None)
