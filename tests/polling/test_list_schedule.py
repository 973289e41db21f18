"""Reserved and scheduled tasks are asked for seldom, and the more seldom the more a worker holds."""

from __future__ import annotations

from celerymeter.inspect_replies import Replies, WorkerStats
from celerymeter.polling.list_schedule import FEW, MAX_HELD, ListSchedule


def schedule_of_a_minute() -> ListSchedule:
    """Asked every 60 s, without jitter."""
    return ListSchedule(interval=60, jitter=lambda: 1.0)


def asked(schedule: ListSchedule, workers: dict[str, WorkerStats], *, at: list[float]) -> list[list[str]]:
    """Return the workers that polls at these times ask."""
    return [schedule.due(workers, now=now) for now in at]


def test_a_worker_that_holds_little_is_asked_at_once_and_then_on_the_interval() -> None:
    """The first page of an exporter is complete."""
    workers = {"w": WorkerStats(pid=1, prefetch_count=8)}
    assert asked(schedule_of_a_minute(), workers, at=[0, 15, 59, 60, 75]) == [["w"], [], [], ["w"], []]


def test_a_worker_that_holds_much_is_asked_seldom() -> None:
    """It would do nothing else for as long as it writes."""
    schedule, workers = schedule_of_a_minute(), {"w": WorkerStats(pid=1, prefetch_count=10_000)}
    rounds = asked(schedule, workers, at=[15.0 * n for n in range(80)])
    assert rounds[0] == []
    assert 4 <= sum(map(len, rounds)) <= 6


def test_a_worker_that_holds_too_much_is_unknown() -> None:
    """Its gauges are absent, not old."""
    schedule, replies = schedule_of_a_minute(), Replies()
    replies.receive("scheduled", b'{"w": [{}, {}]}')
    schedule.learn(replies, schedule.due({"w": WorkerStats(pid=1, prefetch_count=8)}, now=0))
    schedule.due({"w": WorkerStats(pid=1, prefetch_count=8)}, now=15)
    carried = schedule.last_answer("w")
    assert carried is not None
    assert (carried.reserved, carried.scheduled) == (None, 2)

    assert schedule.due({"w": WorkerStats(pid=1, prefetch_count=MAX_HELD + 1)}, now=1e6) == []
    emptied = schedule.last_answer("w")
    assert emptied is not None
    assert emptied.scheduled is None


def test_one_round_is_bounded_and_the_rest_follows() -> None:
    """Many workers of middling size do not flood the broker with their replies."""
    workers = {f"w{n}": WorkerStats(pid=n, prefetch_count=FEW) for n in range(50)}
    rounds = asked(schedule_of_a_minute(), workers, at=[0, 1, 2, 3])
    assert [len(names) for names in rounds] == [20, 20, 10, 0]
    assert len({name for names in rounds for name in names}) == 50


def test_a_new_process_knows_nothing_of_the_old_one() -> None:
    """A restarted worker's tasks are asked for again; one that is gone is forgotten."""
    schedule = schedule_of_a_minute()
    schedule.due({"w": WorkerStats(pid=1)}, now=0)
    assert schedule.due({"w": WorkerStats(pid=2)}, now=1) == ["w"]
    schedule.due({}, now=2)
    assert schedule.last_answer("w") is None
