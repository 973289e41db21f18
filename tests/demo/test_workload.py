"""The tasks that the demo sends, and their times."""

from __future__ import annotations

import itertools
import random

import pytest

from celerymeter.demo.app import QUEUES, app
from celerymeter.demo.workload import LOADS, WAVE, Flow, QueueLengths, arrivals, traffic


def sent(flows: tuple[Flow, ...], *, seconds: float) -> list[tuple[float, Flow]]:
    """Return what is sent in this time."""
    return list(itertools.takewhile(lambda due: due[0] < seconds, arrivals(flows, random.Random(1))))


def test_arrivals_come_in_order_at_the_average_rate() -> None:
    """Over whole waves the mean rate of a flow is its rate."""
    due = sent((Flow("a.x", 3.0), Flow("b.y", 0.5)), seconds=10 * WAVE)
    times = [at for at, _ in due]
    assert times == sorted(times)
    assert sum(flow.task == "a.x" for _, flow in due) == pytest.approx(3600, rel=0.1)
    assert sum(flow.task == "b.y" for _, flow in due) == pytest.approx(600, rel=0.2)


def test_traffic_doubles_and_halves_but_never_stops() -> None:
    """Traffic varies between half and one and a half times the average."""
    factors = [traffic(at) for at in range(int(WAVE))]
    assert min(factors) == pytest.approx(0.5)
    assert max(factors) == pytest.approx(1.5)


@pytest.mark.parametrize("load", LOADS)
def test_every_task_that_is_sent_exists(load: str) -> None:
    """The application knows each flow's task."""
    assert {flow.task for flow in LOADS[load]} <= set(app.tasks)


def test_what_was_sent_since_the_last_measurement_counts() -> None:
    """A queue is not measured again within a second; it fills up to its cap, not beyond."""
    now = iter([0.0, 0.0, 0.9, 1.5, 1.5])
    lengths = {"orders": 5}
    known = QueueLengths(lengths.__getitem__, clock=lambda: next(now))
    assert known.of("orders") == 5
    known.grow("orders")
    lengths["orders"] = 2
    assert known.of("orders") == 6
    assert known.of("orders") == 2


@pytest.mark.parametrize("load", ["light", "busy"])
def test_a_healthy_load_never_reaches_the_limit_of_a_backlog(load: str) -> None:
    """This holds on a slow machine too: the sender waits, and each message waits less than its target."""
    assert max(flow.cap for flow in LOADS[load]) < 50
    slow = [flow for flow in LOADS[load] if flow.queue == "media"]
    assert all(flow.cap * flow.arguments["seconds"] / 2 < 60 for flow in slow)


@pytest.mark.parametrize("load", ["light", "busy"])
def test_a_healthy_load_stays_below_what_its_workers_can_do(load: str) -> None:
    """At the peak of traffic the slow queue does not fill its two slots, so that no backlog grows."""
    slow = [flow for flow in LOADS[load] if flow.queue == "media"]
    assert sum(flow.rate * flow.arguments["seconds"] for flow in slow) < 2 / 1.5
    assert {flow.queue for flow in LOADS[load]} <= set(QUEUES)


def test_the_faulty_load_fills_queues_up_to_a_cap() -> None:
    """There is more slow work than slots, and a queue without consumers; both stop growing."""
    faulty = {flow.queue: flow for flow in LOADS["faulty"]}
    assert faulty["media"].rate * faulty["media"].arguments["seconds"] > 2
    assert set(faulty) - set(QUEUES) == {"exports"}
    assert all(flow.cap <= 400 for flow in faulty.values())


def test_the_faulty_load_retries_more_often_than_it_ends() -> None:
    """A retry follows each of up to three attempts without an answer: more than half of the runs end in one."""
    [unanswered] = [flow.arguments["timeouts"] for flow in LOADS["faulty"] if flow.task == "orders.charge_card"]
    retries = sum(unanswered**attempt for attempt in (1, 2, 3))
    assert retries / (retries + 1) > 0.55
