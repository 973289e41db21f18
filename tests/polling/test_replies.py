"""What workers answer, as recorded from real ones of every pool, and what they should not have answered."""

from __future__ import annotations

import json

import pytest

from celerymeter.model import ActiveTask
from celerymeter.polling.replies import Replies

POOLS = {
    "prefork": {
        "implementation": "celery.concurrency.prefork:TaskPool",
        "max-concurrency": 2,
        "processes": [29341, 29342, 29343],
        "max-tasks-per-child": "N/A",
        "put-guarded-by-semaphore": False,
        "timeouts": [0, 0],
        "writes": {"total": 0, "avg": "0.00", "all": "", "raw": "", "strategy": "fair"},
    },
    "threads": {"implementation": "celery.concurrency.thread:TaskPool", "max-concurrency": 5, "threads": 1},
    "gevent": {"implementation": "celery.concurrency.gevent:TaskPool", "max-concurrency": 7},
    "eventlet": {
        "implementation": "celery.concurrency.eventlet:TaskPool",
        "max-concurrency": 6,
        "free-threads": 5,
        "running-threads": 1,
    },
    "solo": {
        "implementation": "celery.concurrency.solo:TaskPool",
        "max-concurrency": 1,
        "processes": [77],
        "max-tasks-per-child": None,
        "put-guarded-by-semaphore": True,
        "timeouts": [],
    },
}
SLOTS = {"prefork": 3, "threads": 5, "gevent": 7, "eventlet": 6, "solo": 1}
DIRECT = {"name": "celery", "exchange": {"name": "celery", "type": "direct"}, "routing_key": "celery"}
ROUTED = {"name": "mails", "exchange": {"name": "post", "type": "topic"}, "routing_key": "mail.out"}
BROADCAST = {"name": "bcast.1-2-3", "exchange": {"name": "all", "type": "fanout"}, "routing_key": ""}


def told(method: str, answer: object, *, hostname: str = "w1@test") -> Replies:
    """The reply of one worker to one command."""
    replies = Replies()
    replies.receive(method, json.dumps({hostname: answer}))
    return replies


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_tells_its_slots(pool: str) -> None:
    """Prefork by its processes, which autoscaling changes while ``max-concurrency`` stays."""
    state = told("stats", {"pid": 7, "total": {"tests.add": 3}, "pool": POOLS[pool]}).state("w1@test")
    assert (state.pool, state.slots, state.pid, state.totals) == (pool, SLOTS[pool], 7, {"tests.add": 3})


@pytest.mark.parametrize(
    ("pool", "name", "slots"),
    [
        ({}, None, None),
        ({"implementation": "shop.pools:Mine", "max-concurrency": 4}, "pools", 4),
        ({"implementation": "celery.concurrency.thread:TaskPool", "max-concurrency": "many"}, "threads", None),
        ({"implementation": "x:Y", "max-concurrency": True, "processes": "N/A"}, "x", None),
    ],
)
def test_an_unknown_pool_tells_what_it_can(pool: dict[str, object], name: str | None, slots: int | None) -> None:
    """A pool of one's own may put anything into its section."""
    state = told("stats", {"pid": 7, "pool": pool}).state("w1@test")
    assert (state.pool, state.slots) == (name, slots)


def test_queues_that_tasks_wait_in() -> None:
    """A broadcast's queue has a new name with every worker and holds copies."""
    state = told("active_queues", [ROUTED, DIRECT, BROADCAST]).state("w1@test")
    assert state.queues == ("celery", "mails")


@pytest.mark.parametrize(
    ("delivery", "queues", "queue_name"),
    [
        ({"exchange": "", "routing_key": "celery"}, [DIRECT, ROUTED], "celery"),
        ({"exchange": "post", "routing_key": "mail.out"}, [DIRECT, ROUTED], "mails"),
        ({"exchange": "post", "routing_key": "mail.in"}, [DIRECT, ROUTED], None),
        ({"exchange": "post", "routing_key": "mail.in"}, [ROUTED], "mails"),
        (None, [DIRECT], "celery"),
        (None, [], None),
    ],
)
def test_the_queue_of_a_running_task(delivery: object, queues: list[object], queue_name: str | None) -> None:
    """By its delivery, else the only queue of its worker, else not at all."""
    replies = told("active_queues", queues)
    task = {"id": "u", "name": "tests.add", "args": "(1,)", "time_start": 1.5, "worker_pid": 9}
    replies.receive("active", json.dumps({"w1@test": [{**task, "delivery_info": delivery}]}))
    assert replies.state("w1@test").active == (ActiveTask("u", "tests.add", 1.5, queue_name, 9),)


@pytest.mark.parametrize("time_start", [None, -1, 1e40])
def test_a_start_that_is_no_time_is_none(time_start: object) -> None:
    """A task that its pool has not taken yet has none."""
    active = told("active", [{"id": "u", "name": "n", "time_start": time_start}]).state("w1@test").active
    assert active is not None
    assert active[0].started_at is None


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("stats", b"not json"),
        ("stats", b"[1, 2]"),
        ("stats", b'{"w2@test": {"pid": "many"}}'),
        ("active", b'{"w2@test": {"error": "KeyError()"}}'),
        ("active_queues", b'{"w2@test": [1]}'),
        ("scheduled", b"\xff"),
    ],
)
def test_what_one_worker_garbles_spoils_nothing_of_the_others(method: str, body: bytes) -> None:
    """It is counted, and the worker is silent as far as we are concerned."""
    replies = told("stats", {"pid": 7})
    replies.receive(method, body)
    assert replies.malformed == 1
    assert replies.hostnames == {"w1@test"}


def test_an_error_is_no_answer_to_stats() -> None:
    """Nobody is a worker by failing to say anything of itself."""
    assert not told("stats", {"error": "RuntimeError('no')"}).hostnames


def test_of_two_processes_under_one_name_the_first_counts() -> None:
    """Their answers are not mixed."""
    replies = told("stats", {"pid": 7})
    replies.receive("stats", b'{"w1@test": {"pid": 8}}')
    assert replies.state("w1@test").pid == 7


def test_reserved_and_scheduled_are_counted_without_their_arguments() -> None:
    """A hundred thousand of them are a hundred thousand empty marks."""
    task = {"eta": "2030-01-01T00:00:00", "priority": 6, "request": {"id": "u", "args": ["x" * 1000]}}
    assert told("scheduled", [task] * 3).count("scheduled", "w1@test") == 3
    assert told("scheduled", []).count("reserved", "w1@test") is None
