"""From exchange and routing key to queue, by what workers declared."""

from __future__ import annotations

from typing import Any

import pytest
from kombu.transport.native_delayed_delivery import calculate_routing_key

from celerymeter.model import Event, QueueBinding
from celerymeter.routing import QueueRoutes

ORDERS = QueueBinding("orders", "shop", "topic", "orders")
MAIL = QueueBinding("mail", "shop", "topic", "mail.#")
ONE_WORD = QueueBinding("words", "words", "topic", "a.*.c")
DIRECT = QueueBinding("celery", "celery", "direct", "celery")
TWICE = QueueBinding("copy", "celery", "direct", "both")
AGAIN = QueueBinding("other", "celery", "direct", "both")
FANOUT = QueueBinding("logs", "logs", "fanout", "")
ROUTES = QueueRoutes([ORDERS, MAIL, ONE_WORD, DIRECT, TWICE, AGAIN, FANOUT])


@pytest.mark.parametrize(
    ("exchange", "routing_key", "queue"),
    [
        ("", "anything", "anything"),
        ("celery", "celery", "celery"),
        ("celery", "both", None),
        ("celery", "elsewhere", None),
        ("shop", "orders", "orders"),
        ("shop", "mail", "mail"),
        ("shop", "mail.out.now", "mail"),
        ("shop", "post.out", None),
        ("words", "a.b.c", "words"),
        ("words", "a.c", None),
        ("logs", "whatever", "logs"),
        ("nowhere", "celery", None),
        ("celery_delayed_27", calculate_routing_key(3, "orders"), "orders"),
        ("celery_delayed_27", calculate_routing_key(600, "mail.out"), "mail"),
        ("shop_celery_delayed_27", calculate_routing_key(1, "celery"), "celery"),
        ("celery_delayed_27", f"{'0.' * 28}{'1.' * 28}orders", "orders"),
        ("celery_delayed_delivery", f"{'0.' * 28}orders", "orders"),
        ("celery_delayed_27", calculate_routing_key(3, "nobody"), None),
        ("celery_delayed_27", "0.0.orders", None),
    ],
)
def test_a_queue_is_known_or_it_is_not(exchange: str, routing_key: str, queue: str | None) -> None:
    """One queue is the answer; none or several is no guess."""
    assert ROUTES.queue(exchange, routing_key) == queue


def test_before_any_worker_has_replied_a_delayed_key_is_taken_for_its_queue() -> None:
    """By default they are the same; a key of several words is no queue's name."""
    routes = QueueRoutes()
    assert routes.queue("celery_delayed_27", calculate_routing_key(3, "orders")) == "orders"
    assert routes.queue("celery_delayed_27", calculate_routing_key(3, "mail.out")) is None
    routes.update([QueueBinding("first", "shop", "topic", "orders")])
    assert routes.queue("celery_delayed_27", calculate_routing_key(3, "orders")) == "first"


def test_the_queue_that_an_event_names() -> None:
    """An exchange whose bindings are known goes before the name, which Celery gets wrong for some retries."""

    def sent(**fields: Any) -> Event:
        return Event(type="task-sent", hostname="h", timestamp=1.0, uuid="u", **fields)

    assert ROUTES.queue_of(sent(queue="celery", exchange="shop", routing_key="orders")) == "orders"
    assert ROUTES.queue_of(sent(queue="named", exchange="unheard", routing_key="orders")) == "named"
    assert ROUTES.queue_of(sent(queue="named", exchange="", routing_key="orders")) == "named"
    assert ROUTES.queue_of(sent(queue="named")) == "named"
    assert ROUTES.queue_of(sent(exchange="shop", routing_key="orders")) == "orders"
    assert ROUTES.queue_of(sent(exchange="", routing_key="q")) == "q"
    assert ROUTES.queue_of(sent(routing_key="q")) is None
    assert ROUTES.queue_of(sent(exchange="")) is None


def test_what_is_remembered_of_keys_is_bounded() -> None:
    """A producer may use as many as it likes."""
    for number in range(25_000):
        assert ROUTES.queue("shop", f"mail.{number}") == "mail"
    assert len(ROUTES._known) <= 10_000
