"""The feed's messages reach the clients that they should."""

from __future__ import annotations

import json

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from celerymeter.control.feed.hub import (
    MAILBOX_SIZE,
    FeedError,
    FeedFull,
    FeedMessage,
    Hub,
    Mailbox,
    MessageHistory,
    MessageType,
)


class Made:
    """A hub and what it counts."""

    def __init__(self, max_clients: int = 3) -> None:
        registry = CollectorRegistry()
        self.clients = Gauge("clients", "", registry=registry)
        self.dropped = Counter("dropped", "", registry=registry)
        self.now = 1000.0
        self.hub = Hub(max_clients=max_clients, clients=self.clients, dropped=self.dropped, clock=lambda: self.now)

    def join(self, since: int | None = None) -> Mailbox:
        """A client that nobody need wake."""
        return self.hub.join(wake=nothing, abort=nothing, since=since)[0]

    def publish(self, kind: MessageType, text: str = "") -> None:
        """A message with some data."""
        self.hub.publish(kind, FeedError(code=text, detail=""))


def nothing() -> None:
    """Do nothing."""


def taken(mailbox: Mailbox) -> list[tuple[int, str, str]]:
    """All that waits: number, kind, text."""
    waiting = iter(mailbox.take, None)
    return [(one.seq, one.kind, json.loads(one.text)["data"]["code"]) for one in waiting]


def test_all_clients_get_the_same_numbers() -> None:
    """From when they joined."""
    made = Made()
    first = made.join()
    made.publish("metrics_update", "a")
    second = made.join()
    made.publish("alert", "b")

    assert taken(first) == [(1_000_001, "metrics_update", "a"), (1_000_002, "alert", "b")]
    assert taken(second) == [(1_000_002, "alert", "b")]


def test_numbers_grow_over_a_restart() -> None:
    """A later start begins above what an earlier one can have reached."""
    made, later = Made(), Made()
    made.publish("alert")
    later.now = 1010.0
    newer = Hub(max_clients=1, clients=later.clients, dropped=later.dropped, clock=lambda: 1010.0)
    assert newer.private("error", FeedError(code="", detail="")).seq > 1_000_001


def test_a_slow_client_loses_old_updates_and_keeps_alerts() -> None:
    """The mailbox is bounded, what was lost is counted, and the newest is there."""
    made = Made()
    mailbox = made.join()
    made.publish("alert", "fire")
    for n in range(3 * MAILBOX_SIZE):
        made.publish("metrics_update", str(n))
    waiting = taken(mailbox)

    assert len(waiting) == MAILBOX_SIZE
    assert waiting[0][1:] == ("alert", "fire")
    assert waiting[-1][2] == str(3 * MAILBOX_SIZE - 1)
    assert made.dropped._value.get() == 2 * MAILBOX_SIZE + 1


def test_a_flood_of_alerts_is_bounded_too() -> None:
    """With nothing but alerts the oldest goes."""
    made = Made()
    mailbox = made.join()
    for n in range(MAILBOX_SIZE + 5):
        made.publish("alert", str(n))

    assert [code for _, _, code in taken(mailbox)] == [str(n) for n in range(5, MAILBOX_SIZE + 5)]


def test_who_comes_back_is_given_what_came_since() -> None:
    """And learns when that is not all."""
    made = Made()
    for n in range(10):
        made.publish("alert", str(n))
    last = made.hub.join(wake=nothing, abort=nothing, since=1_000_007)[1]
    never = made.hub.join(wake=nothing, abort=nothing, since=5)[1]
    ahead = made.hub.join(wake=nothing, abort=nothing, since=2_000_000)[1]

    assert ([message.seq for message in last.messages], last.complete) == ([1_000_008, 1_000_009, 1_000_010], True)
    assert (len(never.messages), never.complete) == (10, False)
    assert (ahead.messages, ahead.complete) == ((), False)


@pytest.mark.parametrize(
    "history", [MessageHistory(size=4), MessageHistory(characters=16)], ids=["messages", "characters"]
)
def test_the_memory_is_bounded(history: MessageHistory) -> None:
    """The oldest are forgotten, and that is known."""
    for n in range(50):
        history.add(FeedMessage(n, "alert", "text"))

    assert [message.seq for message in history.since(0, newest=49).messages] == [46, 47, 48, 49]
    assert not history.since(44, newest=49).complete
    assert history.since(45, newest=49).complete


def test_no_more_clients_than_allowed() -> None:
    """Until one leaves; they are counted."""
    made = Made(max_clients=2)
    first, _ = made.join(), made.join()
    assert made.clients._value.get() == 2
    with pytest.raises(FeedFull):
        made.join()
    made.hub.leave(first)
    made.join()


def test_at_the_end_all_close_and_those_that_hang_are_aborted() -> None:
    """And nobody is let in."""
    made = Made()
    events: list[str] = []
    polite, _ = made.hub.join(
        wake=lambda: made.hub.leave(polite) if polite.closing else None, abort=lambda: events.append("polite")
    )
    deaf, _ = made.hub.join(wake=nothing, abort=lambda: events.append("deaf"))
    made.hub.stop()

    assert (polite.closing, deaf.closing) == (True, True)
    assert "deaf" in events
    with pytest.raises(FeedFull):
        made.join()
