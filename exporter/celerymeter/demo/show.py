"""The demo while it runs: notifications as they come, and the live line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from celerymeter.demo.figures import History
from celerymeter.demo.screen import GREEN, RED, Screen, live_line, paint
from celerymeter.demo.sink import Sink
from celerymeter.demo.stack import Stack
from celerymeter.demo.watch import ALWAYS_FIRING, Watch

TICK = 1.0
ALERTS_EVERY = 3.0
LINE_EVERY = 10.0
"""Seconds between two lines where the output is no terminal."""
NOT_IN_SLACK = "Slack did not take a message: alertmanager/alertmanager.log, beside the other logs, says why"


@dataclass(slots=True)
class Every:
    """Says once in ``period`` seconds that it is time."""

    period: float
    _last: float = field(default=float("-inf"))

    def due(self, now: float) -> bool:
        """Whether it is time, at ``now``."""
        if now - self._last < self.period:
            return False
        self._last = now
        return True


def show(screen: Screen, stack: Stack, watch: Watch, sink: Sink, *, duration: float | None) -> None:
    """Until ``duration`` (s) is over or a child ends; raises `ProcessEnded` then."""
    history, alerts = History(), Every(ALERTS_EVERY)
    line = Every(TICK if screen.live else LINE_EVERY)
    firing: Sequence[str] = ()
    warned = False
    start = time.monotonic()
    while (now := time.monotonic()) - start < (duration or float("inf")):
        stack.check()
        if (figures := watch.figures()) is not None:
            history.add(figures)
        if alerts.due(now):
            firing = watch.firing()
            if not warned and (warned := watch.slack_refuses()):
                screen.say(paint(NOT_IN_SLACK, RED, colour=screen.colour))
        for notification in sink.take():
            if notification.alert != ALWAYS_FIRING:
                tone = RED if notification.status == "firing" else GREEN
                screen.say(f"{time.strftime('%H:%M:%S')} {paint(str(notification), tone, colour=screen.colour)}")
        if line.due(now):
            screen.show(live_line(history, firing, elapsed=now - start, width=screen.width, colour=screen.colour))
        time.sleep(max(0.0, TICK - (time.monotonic() - now)))
