"""The two remote-control commands, and which events a worker publishes besides its totals."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.control import Panel

from celerymeter.aggregate import commands
from celerymeter.aggregate.dispatcher import COUNTED, TOTALS, AggregatingDispatcher
from celerymeter.aggregate.member import MAX_FOLLOWED, Member, Options


class Base:
    """Celery's dispatcher, as far as it is used."""

    def send(self, type: str, *args: Any, **fields: Any) -> Any:
        """Keep the type and the task of each event that is published."""
        self.published.append((type, fields.get("uuid")))

    def __init__(self) -> None:
        self.published: list[tuple[str, str | None]] = []


class Dispatcher(AggregatingDispatcher, Base):
    """One of a worker; what it publishes itself is kept too."""

    def _publish_now(self, event: str, fields: dict[str, Any]) -> None:
        assert event == TOTALS or fields[COUNTED] is True
        self.published.append((event, fields.get("uuid")))


@pytest.fixture
def dispatcher() -> Dispatcher:
    """A worker's."""
    app = SimpleNamespace(tasks={}, amqp=SimpleNamespace(queues=SimpleNamespace(consume_from={})))
    dispatcher = Dispatcher()
    dispatcher.member = Member(SimpleNamespace(app=app, consumer=None, options={}), Options())
    return dispatcher


def ask(command: Any, dispatcher: object, **arguments: object) -> Any:
    """Return the worker's reply to a command."""
    return command(SimpleNamespace(consumer=SimpleNamespace(event_dispatcher=dispatcher)), **arguments)


def run(dispatcher: Dispatcher, uuid: str, *events: str, **fields: object) -> None:
    """The events of a task, as Celery sends them."""
    member = dispatcher.member
    assert member is not None
    member.totals.received(uuid, "add", "celery", now=time.monotonic())
    for event in events:
        dispatcher.send(event, uuid=uuid, **fields)


def test_workers_know_the_commands() -> None:
    assert Panel.data["celerymeter_follow"] is commands.follow
    assert Panel.data["celerymeter_task"] is commands.task


def test_steps_are_not_published_but_revoked_and_rejected(dispatcher: Dispatcher) -> None:
    run(dispatcher, "a", "task-received", "task-started", "task-succeeded")
    run(dispatcher, "b", "task-revoked")
    run(dispatcher, "c", "task-started", "task-rejected", requeue=False)
    dispatcher.send("my-own")
    dispatcher.send("worker-heartbeat")
    assert dispatcher.published == [
        ("task-revoked", "b"),
        ("task-rejected", "c"),
        ("my-own", None),
        ("worker-heartbeat", None),
        ("celerymeter-totals", None),
    ]


def test_followed_tasks_are_published_until_they_end(dispatcher: Dispatcher) -> None:
    assert ask(commands.follow, dispatcher, ids=["a", "a"], seconds=60) == {"ok": {"followed": 1, "refused": 0}}
    run(dispatcher, "a", "task-started", "task-retried")
    run(dispatcher, "a", "task-started", "task-succeeded")
    run(dispatcher, "a", "task-started", "task-succeeded")
    events = ["task-started", "task-retried", "task-started", "task-succeeded"]
    assert dispatcher.published == [(event, "a") for event in events]


def test_a_terminated_task_is_followed_on(dispatcher: Dispatcher) -> None:
    """Celery announces its end at the command, and the task may go on."""
    ask(commands.follow, dispatcher, ids=["a"])
    run(dispatcher, "a", "task-started")
    dispatcher.send("task-revoked", uuid="a", terminated=True)
    dispatcher.send("task-succeeded", uuid="a", runtime=1.0)
    assert [event for event, _ in dispatcher.published] == ["task-started", "task-revoked", "task-succeeded"]


def test_no_more_is_followed_than_there_is_room_for(dispatcher: Dispatcher) -> None:
    many = [str(number) for number in range(MAX_FOLLOWED + 5)]
    reply = ask(commands.follow, dispatcher, ids=many, seconds=0.001)
    assert reply == {"ok": {"followed": MAX_FOLLOWED, "refused": 5}}
    time.sleep(0.002)
    assert ask(commands.follow, dispatcher, ids=["x"]) == {"ok": {"followed": 1, "refused": 0}}


def test_what_a_worker_knows_of_tasks(dispatcher: Dispatcher) -> None:
    run(dispatcher, "a", "task-started")
    run(dispatcher, "b", "task-started", "task-failed", exception="ValueError('x')")
    reply = ask(commands.task, dispatcher, ids=["a", "b", "x"])["ok"]
    assert reply.keys() == {"a", "b"}
    assert (reply["a"]["state"], reply["a"]["name"], reply["a"]["queue"]) == ("started", "add", "celery")
    assert reply["a"]["ended"] is None
    assert reply["b"]["state"] == "failed"
    assert reply["b"]["ended"] >= reply["b"]["started"] >= reply["b"]["received"]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (commands.follow, {"ids": "a", "seconds": "long"}),
        (commands.follow, {"ids": ["a"], "seconds": -1}),
        (commands.follow, {"ids": [1]}),
        (commands.follow, {"ids": {"a": 1}}),
        (commands.task, {"ids": 5}),
        (commands.task, {"ids": [str(number) for number in range(1001)]}),
    ],
)
def test_what_cannot_be_meant_is_an_error(dispatcher: Dispatcher, command: Any, arguments: dict[str, Any]) -> None:
    assert "expected" in ask(command, dispatcher, **arguments)["error"]


def test_a_worker_that_does_not_aggregate_says_so() -> None:
    for command in (commands.follow, commands.task):
        assert "does not aggregate" in ask(command, Base(), ids=["a"])["error"]
