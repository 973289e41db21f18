"""Which names are queues, and who looks at them."""

from __future__ import annotations

import msgspec
import pytest
from amqp.exceptions import AccessRefused, NotFound
from amqp.protocol import queue_declare_ok_t
from kombu.transport.memory import Channel

from celerymeter.polling import open_queue_poller
from celerymeter.polling.amqp_queues import AmqpQueuePoller, ListedQueue, ManagementBinding, TaskQueueFinder
from celerymeter.polling.queues import KnownQueues, chosen, is_task_queue
from celerymeter.polling.redis_queues import RedisQueuePoller
from celerymeter.settings import BrokerSettings, ExporterSettings


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("celery", True),
        ("celeryevents", True),
        ("w1@host.celery.pidbox", False),
        ("8a3e.reply.celery.pidbox", False),
        ("celeryev.94ed603b", False),
        ("bcast.94ed603b", False),
        ("celery_delayed_0", False),
        ("shop_celery_delayed_27", False),
        ("celery_delayed", True),
        ("unknown", False),
        ("__other__", False),
        ("", False),
    ],
)
def test_what_celery_uses_for_itself_is_no_queue(name: str, is_one: bool) -> None:
    """Nor are the labels that stand for no queue."""
    assert is_task_queue(name) is is_one


def test_configured_queues_are_the_only_ones() -> None:
    """Without them everything known counts, once."""
    broker = BrokerSettings(url="redis://")
    assert chosen(ExporterSettings(broker, queues=("b", "a")), {"c"}) == ["a", "b"]
    assert chosen(ExporterSettings(broker), {"c", "celeryev.1"}, ["a", "c"]) == ["a", "c"]


@pytest.mark.parametrize(
    ("url", "poller"),
    [
        ("redis://h/0", RedisQueuePoller),
        ("rediss://h/0", RedisQueuePoller),
        ("redis+socket:///s", RedisQueuePoller),
        ("sentinel://h", RedisQueuePoller),
        ("amqp://h//", AmqpQueuePoller),
        ("memory://", AmqpQueuePoller),
    ],
)
def test_each_transport_has_its_poller(url: str, poller: type[object]) -> None:
    """Opening one does not connect."""
    assert type(open_queue_poller(ExporterSettings(BrokerSettings(url=url)))) is poller


def test_queues_whose_length_is_refused_make_a_poll_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """As RabbitMQ 4.3 does for a user without a permission on them; one that does not exist is left out."""

    def queue_declare(_channel: object, queue: str, **_: object) -> queue_declare_ok_t:
        if queue == "mine":
            return queue_declare_ok_t(queue, 3, 0)
        raise NotFound() if queue == "missing" else AccessRefused()

    monkeypatch.setattr(Channel, "queue_declare", queue_declare)
    known = KnownQueues()
    poller = AmqpQueuePoller(ExporterSettings(BrokerSettings(url="memory://")), known)
    snapshot = poller.poll({"mine", "missing", "a", "b"}, now=0.0)
    assert [(state.name, state.length) for state in snapshot.queues] == [("mine", 3)]
    assert (snapshot.incomplete or "").startswith("the broker refuses its user the length of a and 1 others")
    assert set(known.names) == {"mine", "a", "b"}


def test_result_queues_by_the_thousand_are_no_queues_of_tasks() -> None:
    """Old backends make one for each task, named by hex digits, of one exchange (celery 2074, celery.node 109)."""
    results = {f"{number:032x}": ListedQueue(f"{number:032x}", messages=1) for number in range(50_000)}
    others = ("dms", "dms@p-meepo-3.celery.pidbox", "celeryev.ea0d5c79-aecc-4379-978f-0d4caceb3535")  # celery 2387
    listed = {**results, **{name: ListedQueue(name, messages=51_292) for name in others}}
    bindings = [ManagementBinding("celeryresults", name) for name in results]
    bindings += [
        ManagementBinding("dms", "dms"),
        ManagementBinding("celery.pidbox", others[1]),
        ManagementBinding("celeryev", others[2]),
    ]
    found = TaskQueueFinder().find(listed, ["dms"], lambda: bindings, now=0)
    assert chosen(ExporterSettings(BrokerSettings(url="amqp://")), ["dms"], found) == ["dms"]


def test_known_queues_continue_after_a_restart() -> None:
    """Queues of no tasks are left out, and the number of queues has a limit."""
    before, after = KnownQueues(), KnownQueues()
    before.add(["orders", "mail", "w1@host.celery.pidbox"])
    before.keep(["orders", "mail", "other"])
    after.load(msgspec.Raw(msgspec.json.encode(before.dump())))
    assert after.names == {"orders", "mail"}
    after.load(msgspec.Raw(msgspec.json.encode(["x" * 256, "celeryev.1", *(f"q{n}" for n in range(20_000))])))
    assert len(after.names) == 10_000
    with pytest.raises(msgspec.DecodeError):
        after.load(msgspec.Raw(b'{"names": 7}'))


LISTED = {name: ListedQueue(name) for name in ("celery", "orders", "mail", "replies")}
BINDINGS = [ManagementBinding("", name) for name in LISTED] + [
    ManagementBinding("celery", "celery"),
    ManagementBinding("shop", "orders"),
]


def test_bindings_are_asked_for_when_there_are_new_queues_and_rarely() -> None:
    """Reply queues come and go all the time."""
    finder, asked = TaskQueueFinder(), []

    def bindings() -> list[ManagementBinding]:
        asked.append(now)
        return [
            *BINDINGS,
            ManagementBinding("shop", "mail"),
            ManagementBinding("shop", "shop", destination_type="exchange"),
        ]

    listed = dict(LISTED)
    for now in (0.0, 15.0, 30.0, 90.0, 105.0):
        if now == 30.0:
            listed["new"] = ListedQueue("new")
        found = finder.find(listed, ["orders"], bindings, now=now)
        assert found == {"celery", "orders", "mail"}
    assert asked == [0.0, 90.0]


def test_without_a_name_that_is_known_only_celerys_own_bindings_count() -> None:
    """Which applications use another exchange is unknown."""
    assert TaskQueueFinder().find(LISTED, [], lambda: BINDINGS, now=0) == {"celery"}


@pytest.mark.parametrize(
    ("routing_key", "consumers", "named", "found"),
    [
        ("order.#", 2, (), False),
        ("order.#", 2, ("billing",), True),
        ("order.#", 0, (), True),
        ("order.#", None, (), True),
        ("billing", 2, (), True),
    ],
)
def test_a_queue_on_an_exchange_of_celery_may_be_of_another_application(
    routing_key: str, consumers: int | None, named: tuple[str, ...], found: bool
) -> None:
    """It consumes the queue, which no worker names; a queue that nobody consumes may be one that workers have left."""
    listed = {**LISTED, "billing": ListedQueue("billing", consumers=consumers)}
    bindings = [*BINDINGS, ManagementBinding("shop", "billing", routing_key=routing_key)]
    queues = TaskQueueFinder().find(listed, ["orders", *named], lambda: bindings, now=0)
    assert ("billing" in queues) == found
