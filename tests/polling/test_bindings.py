"""From exchange and routing key to queue, by what workers declared."""

from __future__ import annotations

import pytest

from celerymeter.polling.redis_messages import Routes, parse_bindings

SEPARATOR = "\x06\x16"
TOPIC = r"^mail\..*?$"  # what kombu makes of "mail.#"


def member(routing_key: str, pattern: str, queue: str) -> bytes:
    """A binding as kombu stores it."""
    return SEPARATOR.join((routing_key, pattern, queue)).encode()


@pytest.fixture
def routes() -> Routes:
    """A direct exchange with a key of two queues, a topic exchange, and one with nonsense in it."""
    return Routes(
        {
            "direct": parse_bindings(
                [member("a", "", "queue-a"), member("both", "", "queue-a"), member("both", "", "queue-b")], SEPARATOR
            ),
            "topic": parse_bindings([member("mail.#", TOPIC, "mails")], SEPARATOR),
            "odd": parse_bindings([b"junk", b"\xff", member("x", "(", "broken"), member("", "", "")], SEPARATOR),
        }
    )


@pytest.mark.parametrize(
    ("exchange", "routing_key", "queue"),
    [
        ("", "celery", "celery"),
        ("", "", None),
        ("direct", "a", "queue-a"),
        ("direct", "both", None),
        ("direct", "elsewhere", None),
        ("topic", "mail.out.now", "mails"),
        ("topic", "post.out", None),
        ("odd", "x", None),
        ("nowhere", "a", None),
    ],
)
def test_a_queue_is_known_or_it_is_not(routes: Routes, exchange: str, routing_key: str, queue: str | None) -> None:
    """One queue is the answer; none or several is no guess."""
    assert routes.queue(exchange, routing_key) == queue


def test_bound_queues_exist(routes: Routes) -> None:
    """Also an empty one, which has no key of its own."""
    assert routes.queues == {"queue-a", "queue-b", "mails", "broken"}
