"""Sends the demo's tasks until it is stopped: ``python -m celerymeter.demo.workload busy``."""

from __future__ import annotations

import itertools
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import redis
from kombu.exceptions import OperationalError

from celerymeter.demo.app import app
from celerymeter.demo.load import LOADS, Flow, arrivals

LATE = 1.0
"""What is due for longer than this (s) is left out: after a broker outage nobody wants the backlog at once."""
LOOK_EVERY = 1.0


class Depths:
    """How long each queue was when last looked at, at most ``LOOK_EVERY`` ago."""

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def __call__(self, queue: str) -> int:
        """Messages in the queue."""
        when, length = self._seen.get(queue, (float("-inf"), 0))
        if self._clock() - when > LOOK_EVERY:
            when, length = self._clock(), int(self._client.llen(queue))
            self._seen[queue] = when, length
        return length


def send(flow: Flow, number: int) -> None:
    """Send one task of a flow."""
    app.send_task(
        flow.task,
        args=[number] if flow.numbered else [],
        kwargs=dict(flow.arguments),
        countdown=flow.delay or None,
        queue=flow.queue_name,
    )


def deliver(due: Iterable[tuple[float, Flow]], depth: Callable[[str], int]) -> None:
    """Send each task at its moment, unless it is late or its queue is full."""
    start = time.monotonic()
    numbers = itertools.count(1)
    for moment, flow in due:
        ahead = start + moment - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        elif -ahead > LATE:
            continue
        try:
            if depth(flow.queue_name) < flow.cap:
                send(flow, next(numbers))
        except (redis.RedisError, OperationalError) as error:
            print(f"not sent: {flow.task}: {error}", flush=True)
            time.sleep(LATE)


def main(load: str) -> None:
    """Run until SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        deliver(arrivals(LOADS[load], random.Random()), Depths(redis.Redis.from_url(app.conf.broker_url)))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "light")
