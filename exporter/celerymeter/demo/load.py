"""What the demo sends, how often, and when: plain data and one generator, without a broker or a clock."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

TIDE = 120.0
"""Seconds from one high tide of traffic to the next."""
HEALTHY_CAP = 40
"""Messages in a queue at which a healthy shop sends no more: below every limit, however slow the machine is."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One kind of task: ``rate`` a second on average, due ``delay`` seconds later, while its queue is below ``cap``."""

    task: str
    rate: float
    arguments: Mapping[str, float] = field(default_factory=dict)
    numbered: bool = True
    delay: float = 0.0
    cap: int = HEALTHY_CAP
    queue: str | None = None

    @property
    def queue_name(self) -> str:
        """Where it goes: by default the queue named like the first part of the task."""
        return self.queue or self.task.split(".", 1)[0]


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
        Flow("orders.charge_card", 2.0, {"declined": 0.3, "timeouts": 0.7}),
        Flow("emails.send_receipt", 2.5, {"broken": 0.08}),
        Flow("media.render_video", 2.0, {"seconds": 4.0}, numbered=False, cap=150),
        Flow("exports.push_to_warehouse", 0.5, cap=30),
        Flow("orders.sync_stock", 0.3, {"hanging": 0.5}, numbered=False),
    ),
}
"""``light`` is a healthy shop, ``busy`` four times as many quick tasks, ``faulty`` makes alerts fire."""


def tide(moment: float) -> float:
    """How busy it is at this second of the demo: between 0.5 and 1.5, on average 1."""
    return 1.0 + 0.5 * math.sin(2 * math.pi * moment / TIDE)


def arrivals(flows: tuple[Flow, ...], dice: random.Random) -> Iterator[tuple[float, Flow]]:
    """When to send what, in seconds from the start: for each flow a Poisson process that follows the tide."""
    due = [(dice.expovariate(flow.rate), index) for index, flow in enumerate(flows)]
    heapq.heapify(due)
    while True:
        moment, index = due[0]
        yield moment, flows[index]
        pause = dice.expovariate(flows[index].rate * tide(moment))
        heapq.heapreplace(due, (moment + pause, index))
