"""Replies of workers, recorded from real ones of every pool, and replies that no worker should send."""

from __future__ import annotations

import json

import pytest

from celerymeter.inspect_replies import Replies
from celerymeter.model import ActiveTask, WorkerState
from celerymeter.polling.workers import worker_state

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


def replies_of(method: str, answer: object, *, hostname: str = "w1@test") -> Replies:
    """The reply of one worker to one command."""
    replies = Replies()
    replies.receive(method, json.dumps({hostname: answer}))
    return replies


def state(replies: Replies) -> WorkerState:
    """Return the exporter's reading of them."""
    return worker_state(replies, "w1@test")


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_tells_its_slots(pool: str) -> None:
    """Prefork by its processes, which autoscaling changes while ``max-concurrency`` stays."""
    found = state(replies_of("stats", {"pid": 7, "total": {"tests.add": 3}, "pool": POOLS[pool]}))
    assert (found.pool, found.slots, found.pid, found.totals) == (pool, SLOTS[pool], 7, {"tests.add": 3})


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
    found = state(replies_of("stats", {"pid": 7, "pool": pool}))
    assert (found.pool, found.slots) == (name, slots)


def test_queues_that_tasks_wait_in() -> None:
    """A broadcast's queue has a new name with every worker and holds copies."""
    found = state(replies_of("active_queues", [ROUTED, DIRECT, BROADCAST]))
    assert found.queues == ("celery", "mails")


def test_a_queue_with_several_bindings() -> None:
    """Declared with a list of them it has no exchange of its own (kombu pull request 453)."""
    media = {"name": "media", "type": "topic"}
    bindings = [{"exchange": media, "routing_key": "video.#"}, {"exchange": media, "routing_key": "image.*"}]
    replies = replies_of(
        "active_queues", [DIRECT, {"name": "m", "exchange": None, "routing_key": "", "bindings": bindings}]
    )
    task = {"id": "u", "name": "n", "delivery_info": {"exchange": "media", "routing_key": "image.png"}}
    replies.receive("active", json.dumps({"w1@test": [task]}))
    found = state(replies)
    assert found.queues == ("celery", "m")
    assert {(one.queue, one.routing_key) for one in found.bindings} >= {("m", "video.#"), ("m", "image.*")}
    assert found.active is not None
    assert found.active[0].queue_name == "m"


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
    replies = replies_of("active_queues", queues)
    task = {"id": "u", "name": "tests.add", "args": "(1,)", "time_start": 1.5, "worker_pid": 9}
    replies.receive("active", json.dumps({"w1@test": [{**task, "delivery_info": delivery}]}))
    assert state(replies).active == (ActiveTask("u", "tests.add", 1.5, queue_name, 9),)


@pytest.mark.parametrize("time_start", [None, -1, 1e40])
def test_a_start_that_is_no_time_is_none(time_start: object) -> None:
    """A task that its pool has not taken yet has none."""
    active = state(replies_of("active", [{"id": "u", "name": "n", "time_start": time_start}])).active
    assert active is not None
    assert active[0].started_at is None


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("stats", b"not json"),
        ("stats", b"[1, 2]"),
        ("stats", b'{"w2@test": 5}'),
        ("active", b'{"w2@test": {"id": "u"}}'),
        ("active_queues", b'{"w2@test": [1]}'),
        ("scheduled", b"\xff"),
    ],
)
def test_what_one_worker_garbles_spoils_nothing_of_the_others(method: str, body: bytes) -> None:
    """It is counted, and the worker is silent as far as we are concerned."""
    replies = replies_of("stats", {"pid": 7})
    replies.receive(method, body)
    assert replies.malformed == 1
    assert replies.hostnames == {"w1@test"}


@pytest.mark.parametrize("method", ["stats", "active", "revoke"])
def test_an_error_is_no_answer(method: str) -> None:
    """Its first line is kept, and it settles the command."""
    replies = replies_of(method, {"error": "RuntimeError('no')\nline 2"})
    assert not replies.hostnames
    assert not replies.answered(method)
    assert replies.settled(method) == {"w1@test"}
    assert replies.errors == {"w1@test": "RuntimeError('no')"}
    assert replies.malformed == 0


def test_an_odd_field_rejects_no_reply() -> None:
    """It is absent; everything else is used."""
    odd = {"pid": -1, "uptime": -5, "clock": "x", "total": {"a": 3, "b": "many"}, "prefetch_count": None}
    found = state(replies_of("stats", {**odd, "pool": {**POOLS["prefork"], "processes": [1, "two", 3]}}))
    assert (found.pid, found.totals, found.pool, found.slots) == (None, {"a": 3}, "prefork", 2)

    tasks = [
        {"id": "u1", "name": "n", "time_start": "soon", "worker_pid": "x", "delivery_info": [1]},
        {"id": 5.5, "name": "n"},
        {"id": "u2", "name": "n", "time_start": 2.0},
    ]
    active = state(replies_of("active", tasks)).active
    assert active == (ActiveTask("u1", "n", None, None), ActiveTask("u2", "n", 2.0, None))


def test_arguments_that_json_does_not_know_reject_no_reply() -> None:
    """Python's json writes NaN."""
    replies = Replies()
    replies.receive("reserved", b'{"w1@test": [{"id": "u", "name": "n", "args": [NaN, "\\ud800"]}]}')
    assert replies.count("reserved", "w1@test") == 1
    assert replies.malformed == 0


@pytest.mark.parametrize("value", [{"hex": "0" * 31 + "7"}, "0" * 31 + "7"])
def test_an_id_that_is_a_uuid_object(value: object) -> None:
    """kombu writes it as a tagged value; everything else knows the string form."""
    tagged = {"__type__": "uuid", "__value__": value}
    tasks = replies_of("active", [{"id": tagged, "name": "n"}]).tasks("active", "w1@test")
    assert [task.id for task in tasks or ()] == ["00000000-0000-0000-0000-000000000007"]


def test_an_id_that_is_a_number() -> None:
    """`apply_async(task_id=order.pk)`: Celery's commands do not find it by its text."""
    tasks = replies_of("active", [{"id": 5, "name": "n"}, {"id": True, "name": "n"}]).tasks("active", "w1@test")
    assert [(task.id, task.uuid_object) for task in tasks or ()] == [("5", True)]


def test_a_queried_task_has_its_state() -> None:
    """As `inspect query_task` answers."""
    request = {"id": "u", "name": "n", "worker_pid": 7}
    found = replies_of("query_task", {"u": ["active", request]}).queried("w1@test")
    assert [(where, task.id, task.worker_pid) for where, task in found] == [("active", "u", 7)]


def test_of_two_processes_under_one_name_the_first_counts() -> None:
    """Their answers are not mixed."""
    replies = replies_of("stats", {"pid": 7})
    replies.receive("stats", b'{"w1@test": {"pid": 8}}')
    assert state(replies).pid == 7


def test_reserved_and_scheduled_are_counted_without_their_arguments() -> None:
    """A hundred thousand of them are a hundred thousand empty marks."""
    task = {"eta": "2030-01-01T00:00:00", "priority": 6, "request": {"id": "u", "args": ["x" * 1000]}}
    assert replies_of("scheduled", [task] * 3).count("scheduled", "w1@test") == 3
    assert replies_of("scheduled", []).count("reserved", "w1@test") is None
