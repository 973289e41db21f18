"""A worker's clock is set while it works: no duration sees that, and times of day follow the clock."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from celerymeter.aggregate.counting import VANISHED
from celerymeter.aggregate.member import Member, Options
from celerymeter.stamp import HEADER

BUCKETS = (1.0, 10.0, 100.0)


class Worker:
    """A worker with two clocks, ``utc``, which is set, and ``steady``; its methods report events as Celery does."""

    def __init__(self) -> None:
        self.utc, self.steady = 1_700_000_000.0, 5_000.0
        app = SimpleNamespace(tasks={}, amqp=SimpleNamespace(queues=SimpleNamespace(consume_from={})))
        self.member = Member(
            SimpleNamespace(app=app, consumer=None, options={}),
            Options(BUCKETS, BUCKETS),
            clock=lambda: self.utc,
            steady=lambda: self.steady,
        )

    def let_pass(self, seconds: float) -> None:
        """Time passes by both clocks."""
        self.utc += seconds
        self.steady += seconds

    def receive(self, uuid: str, *, sent: float | None = None, eta: float | None = None) -> None:
        """A message arrives; the times are UTC."""
        self.member.received(
            SimpleNamespace(
                id=uuid,
                type="add",
                task=SimpleNamespace(send_events=True),
                request_dict={HEADER: sent},
                delivery_info={"exchange": "", "routing_key": "celery"},
                eta=None if eta is None else datetime.fromtimestamp(eta, timezone.utc),
            )
        )

    def report(self, uuid: str, event: str, **fields: Any) -> None:
        """An event of a task."""
        assert self.member.count(event, {"uuid": uuid, **fields})

    def row(self) -> list[Any]:
        """The series in the next message."""
        [row] = self.member.message()["series"].values()
        return list(row)


BUSY, RUNNING, OLDEST, LAST_SUCCESS, WAIT_SUM, WAITS, RARE = 7, 8, 9, 10, 13, 14, 15


@pytest.fixture(params=[3600.0, -3600.0])
def step(request: pytest.FixtureRequest) -> float:
    """Seconds by which the clock is set."""
    return float(request.param)


def test_busy_time_and_the_time_until_a_failure_are_those_that_passed(step: float) -> None:
    worker = Worker()
    worker.receive("a")
    worker.report("a", "task-started")
    worker.let_pass(2.0)
    worker.utc += step
    assert worker.row()[BUSY] == pytest.approx(2.0)
    worker.let_pass(3.0)
    worker.report("a", "task-failed", exception="ValueError()")
    row = worker.row()
    assert row[BUSY] == pytest.approx(5.0)
    assert row[RARE]["failed_runtime_sum"] == pytest.approx(5.0)


def test_the_oldest_start_and_the_last_success_are_by_the_clock_as_it_is_now(step: float) -> None:
    """The exporter takes the difference of the two clocks from the heartbeat before."""
    worker = Worker()
    for uuid in ("a", "b"):
        worker.receive(uuid)
        worker.report(uuid, "task-started")
    worker.report("b", "task-succeeded", runtime=0.0)
    worker.let_pass(2.0)
    worker.utc += step
    row = worker.row()
    assert (row[OLDEST], row[LAST_SUCCESS]) == pytest.approx((worker.utc - 2.0, worker.utc - 2.0))
    task = worker.member.task("b")
    assert task is not None
    assert (task["started"], task["ended"]) == pytest.approx((worker.utc - 2.0, worker.utc - 2.0))


def test_a_wait_is_measured_by_the_clock_that_was_right_when_the_message_came(step: float) -> None:
    worker = Worker()
    worker.receive("a", sent=worker.utc - 3.0)
    worker.receive("b", sent=worker.utc - 50.0, eta=worker.utc - 1.0)
    worker.utc += step
    worker.let_pass(2.0)
    for uuid in ("a", "b"):
        worker.report(uuid, "task-started")
    row = worker.row()
    assert row[WAIT_SUM] == pytest.approx(5.0 + 3.0)
    assert row[WAITS] == [1, 2]


def test_what_waits_for_an_event_does_not_wait_for_the_clock(step: float) -> None:
    """A rejection, a revocation without a signal, and a run that Celery no longer lists are counted in time."""
    worker = Worker()
    for uuid in ("a", "b"):
        worker.receive(uuid)
        worker.report(uuid, "task-started")
    worker.report("a", "task-rejected", requeue=False)
    worker.row()  # Celery lists no run
    worker.utc += step
    assert "without_result" not in dict(enumerate(worker.row())).get(RARE, {})
    worker.let_pass(VANISHED)
    row = worker.row()
    assert (row[RUNNING], row[RARE]) == (0, {"rejected": 1, "without_result": 1})
