"""Sends the demo's tasks until it is stopped: ``python -m celerymeter.demo.workload busy``.

A file given as second argument is touched after each task that was sent: its age says whether this still works.
"""

from __future__ import annotations

import itertools
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import redis
from kombu.exceptions import OperationalError

from celerymeter.demo.app import app
from celerymeter.demo.load import LOADS, Flow, arrivals

LATE = 1.0
"""What is due for longer than this (s) is left out: after a broker outage nobody wants the backlog at once."""
LOOK_EVERY = 1.0


class Depths:
    """How long each queue is at most: what was seen at most ``LOOK_EVERY`` ago, and what we have sent since."""

    def __init__(self, look: Callable[[str], int], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def __call__(self, queue: str) -> int:
        """Messages in the queue."""
        when, length = self._seen.get(queue, (float("-inf"), 0))
        if self._clock() - when > LOOK_EVERY:
            when, length = self._clock(), self._look(queue)
            self._seen[queue] = when, length
        return length

    def grow(self, queue: str) -> None:
        """One message more was sent there."""
        when, length = self._seen[queue]
        self._seen[queue] = when, length + 1


def send(flow: Flow, number: int) -> None:
    """Send one task of a flow."""
    app.send_task(
        flow.task,
        args=[number] if flow.numbered else [],
        kwargs=dict(flow.arguments),
        countdown=flow.delay or None,
        queue=flow.queue_name,
    )


def deliver(due: Iterable[tuple[float, Flow]], depths: Depths, sent: Callable[[], None]) -> None:
    """Send each task at its moment, unless it is late or its queue is full; ``sent`` is called after each."""
    start = time.monotonic()
    numbers = itertools.count(1)
    for moment, flow in due:
        ahead = start + moment - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        elif -ahead > LATE:
            continue
        try:
            if depths(flow.queue_name) < flow.cap:
                send(flow, next(numbers))
                depths.grow(flow.queue_name)
                sent()
        except (redis.RedisError, OperationalError) as error:
            print(f"not sent: {flow.task}: {error}", flush=True)
            time.sleep(LATE)


def main(load: str, sign: Path | None) -> None:
    """Run until SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    broker = redis.Redis.from_url(app.conf.broker_url)
    depths = Depths(lambda queue: int(broker.llen(queue)))
    with suppress(KeyboardInterrupt):
        deliver(arrivals(LOADS[load], random.Random()), depths, sign.touch if sign else lambda: None)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "light", Path(sys.argv[2]) if len(sys.argv) > 2 else None)
