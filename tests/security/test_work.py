"""Work for each message is bounded, whatever it says: clocks, restarts, patterns of bindings, exceptions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from kombu.transport.virtual.exchange import TopicExchange
from tests.tracking.cluster import WORKER, Cluster, make_settings

from celerymeter.exception_names import exception_class, exception_name
from celerymeter.model import Event, QueueBinding
from celerymeter.polling.redis_messages import Routes, parse_bindings
from celerymeter.routing import QueueRoutes, RoutingTable
from celerymeter.settings import Limits
from celerymeter.tracking.loss import LossMeter

SEPARATOR = "\x06\x16"
KOMBU: Any = TopicExchange


def seconds(action: Callable[[], object]) -> float:
    """Return the CPU time that an action takes, here alone: other tests run beside."""
    began = time.thread_time()
    action()
    return time.thread_time() - began


# Clocks


@pytest.mark.parametrize("clocks", ["high", "rising", "falling", "alternating"])
def test_a_heartbeat_costs_the_same_however_many_starts_wait(clocks: str) -> None:
    """1 M starts ahead of all heartbeats, then 2,000 of these: no answer for 100 s, and Kubernetes restarts it."""
    starts = 300_000
    of: Callable[[int], int] = {
        "high": lambda number: 2**62,
        "rising": lambda number: 2**61 + number,
        "falling": lambda number: 2**62 - number,
        "alternating": lambda number: (2**62, 1)[number % 2],
    }[clocks]
    meter = LossMeter()
    for number in range(starts):
        meter.started(of(number))

    def beat() -> None:
        for number in range(2000):
            meter.heartbeat(processed=number, clock=10 + number)

    assert seconds(beat) < 2.0


def test_starts_ahead_of_a_heartbeat_count_for_a_later_one() -> None:
    """In whatever order they came."""
    meter = LossMeter()
    meter.heard()
    for number, clock in enumerate((10, 20, 30, 40)):
        meter.heartbeat(processed=number, clock=clock)
        for start in (clock + 25, clock + 5):
            meter.started(start)
    assert meter.marks == 6  # the heartbeat at 30 is the last that was judged: 15 and 25 are before it


def test_starts_that_wait_for_heartbeats_are_bounded_over_all_workers() -> None:
    """Of workers that were invented, too; one with usual numbers keeps its account."""
    cluster = Cluster()
    cluster.heartbeat()
    for host in range(6):
        meter = cluster.tracker.workers.seen(f"celery@h{host}", cluster.now)
        assert meter is not None
        for _ in range(100_000):
            meter.loss.started(2**62)
    cluster.start("u")
    cluster.pass_time(1)
    marks = {worker.hostname: worker.loss.marks for worker in cluster.tracker.workers}
    assert sum(marks.values()) < 500_000
    assert marks[WORKER] == 1


# Restarts


def restarts(cluster: Cluster, hostnames: list[str]) -> None:
    """Send heartbeats of two processes under each name, again and again."""
    events = [
        cluster.event("worker-heartbeat", hostname, pid=pid, processed=5, active=0)
        for hostname in hostnames
        for pid in (1, 2)
    ]
    cluster.tracker.apply(events, cluster.now)


def test_workers_that_start_again_and_again_cost_little() -> None:
    """A restart must not read all runs in progress: there are 20,000 here."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=30_000)))
    cluster.heartbeat()
    for number in range(20_000):
        cluster.publish(f"u{number}")
        cluster.start(f"u{number}")
    assert seconds(lambda: restarts(cluster, [f"celery@h{number}" for number in range(1000)])) < 1.0
    assert cluster.series().in_progress == 20_000


def test_runs_of_many_workers_that_start_again_are_lost_all_the_same() -> None:
    """A rollout restarts hundreds of workers at once, under the same names."""
    cluster = Cluster()
    names = [f"celery@h{number}" for number in range(100)]
    for hostname in names:
        cluster.heartbeat(hostname, pid=1)
        cluster.publish(hostname)
        cluster.start(hostname, hostname)
    assert cluster.series().in_progress == 100
    cluster.now += 2
    for hostname in names:
        cluster.heartbeat(hostname, pid=2, processed=0)
    cluster.tracker.tick(cluster.now)
    assert cluster.series().in_progress == 0


@pytest.mark.parametrize(
    "beats",
    ["falling clocks", "the same clock", "highest clock", "falling totals", "rising and falling", "huge totals"],
)
def test_heartbeats_of_any_order_cost_the_same(beats: str) -> None:
    """With very many starts that wait."""
    of: Callable[[int], tuple[int, int]] = {
        "falling clocks": lambda number: (number, 2**40 - number),
        "the same clock": lambda number: (number, 5),
        "highest clock": lambda number: (number, 2**63 - 1),
        "falling totals": lambda number: (10_000 - number, number),
        "rising and falling": lambda number: ((10**6, 0)[number % 2], number),
        "huge totals": lambda number: (2**62 + number, number),
    }[beats]
    meter = LossMeter()
    for number in range(200_000):
        meter.started(2**39 + number % 1000)

    def beat() -> None:
        for number in range(1000):
            processed, clock = of(number)
            meter.heartbeat(processed=processed, clock=clock)
            meter.started(2**50 + number)

    assert seconds(beat) < 2.0
    assert meter.marks <= 300_000


@pytest.mark.parametrize("kind", ["worker-online", "worker-offline", "worker-heartbeat"])
@pytest.mark.parametrize("starts", [0, 20_000])
def test_a_worker_that_starts_again_and_again_costs_little(kind: str, starts: int) -> None:
    """By any event that says so, amid starts that wait."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=30_000)))
    cluster.heartbeat()
    for number in range(starts):
        cluster.publish(f"u{number}")
        cluster.start(f"u{number}")
    events = [
        cluster.event(kind, WORKER if number % 3 else f"celery@h{number}", pid=number, processed=number % 7, active=0)
        for number in range(2000)
    ]
    assert seconds(lambda: cluster.tracker.apply(events, cluster.now)) < 2.0
    cluster.pass_time(5)
    assert cluster.series().in_progress <= starts if starts else True


# Patterns of bindings

KEYS = ["", "a", "a.b", "a.b.c", "mail", "mail.", "mail.x", "x.mail", "a..b", ".", "a.x.b", "a.x.y.b", "b.a"]
PATTERNS = [
    "#",
    "*",
    "a",
    "a.#",
    "#.a",
    "*.b",
    "a.*",
    "a.#.b",
    "a.*.b",
    "#.b.#",
    "#.#",
    "mail.#",
    "*.*",
    "#.*",
    "*.#.b",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_mean_what_they_mean_to_kombu(pattern: str) -> None:
    """In Redis kombu itself matches, by a regular expression; here nothing backtracks."""
    expression = KOMBU(None).key_to_pattern(pattern)
    routes = Routes({"x": parse_bindings([SEPARATOR.join((pattern, expression, "q"))], SEPARATOR)})
    for key in KEYS:
        theirs = bool(KOMBU(None)._match(expression, key))
        assert (routes.queue("x", key) == "q") == theirs, key


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_mean_what_they_mean_to_rabbitmq(pattern: str) -> None:
    """There a ``#`` also stands for no word."""

    def matches(words: list[str], key: list[str]) -> bool:
        if not words:
            return not key
        if words[0] == "#":
            return any(matches(words[1:], key[taken:]) for taken in range(len(key) + 1))
        return bool(key) and (words[0] == key[0] or (words[0] == "*" and key[0] != "")) and matches(words[1:], key[1:])

    table = RoutingTable(topic=[(pattern, "q")])
    for key in KEYS:
        assert (table.queue(key) == "q") == matches(pattern.split("."), key.split(".")), key


EVIL = {
    "many": ".".join(["#"] * 127),
    "alternating": ".".join(["#", "a"] * 60),
    "with an end": ".".join(["#"] * 60) + ".end",
    "stars": ".".join(["*", "#"] * 60),
    "double": "#.a" * 60,
}


@pytest.mark.parametrize("pattern", EVIL.values(), ids=EVIL.keys())
@pytest.mark.parametrize("key", ["a." * 127, ".".join("ab" * 60), "a" * 255, "." * 255])
def test_no_pattern_freezes_the_exporter(pattern: str, key: str) -> None:
    """A regular expression of `#.#.#…` takes for ever: from Redis' bindings, and from workers' replies."""
    expression = KOMBU(None).key_to_pattern(pattern)
    routes = Routes({"x": parse_bindings([SEPARATOR.join((pattern, expression, "q"))] * 10, SEPARATOR)})
    events = QueueRoutes([QueueBinding("q", "x", "topic", pattern)])
    assert seconds(lambda: routes.queue("x", key)) < 0.1
    assert seconds(lambda: events.queue("x", key)) < 0.1


@pytest.mark.parametrize("expression", ["^(a+)+$", "^(a|a)*b$", "(", "^(?P<x>a)(?P=x)*$", "^[$"])
def test_expressions_out_of_redis_are_never_run(expression: str) -> None:
    """Anybody with write access to Redis chooses them."""
    routes = Routes({"x": parse_bindings([SEPARATOR.join(("a", expression, "q"))], SEPARATOR)})
    assert seconds(lambda: routes.queue("x", "a" * 50 + "!")) < 0.1


def test_a_key_is_looked_up_quickly_among_many_bindings() -> None:
    """Each event may bring a new one."""
    bindings = [QueueBinding(f"q{number}", "x", "topic", f"*.#.w{number}.#") for number in range(2000)]
    bindings += [QueueBinding(f"d{number}", "x", "direct", f"key{number}") for number in range(2000)]
    routes = QueueRoutes(bindings)
    routes.queue("x", "key1")

    def look_up() -> None:
        for number in range(2000):
            routes.queue("x", f"a.{number}.c.w{number}.e")

    assert seconds(look_up) < 2.0
    assert routes.queue("x", "a.b.w7") == "q7"
    assert routes.queue("x", "key7") == "d7"


def test_bindings_take_little_memory_whatever_their_number() -> None:
    """Patterns beyond a limit lead nowhere; those before it still do."""
    words = 120
    table = RoutingTable(
        topic=[(".".join(f"{n}w{i}"[:1] for i in range(words)) + f".{n}", f"q{n}") for n in range(5000)]
    )
    assert table.queue(".".join(["0"] * words) + ".0") == "q0"
    assert table.queue(".".join(["4"] * words) + ".4999") is None


# Exceptions


@pytest.mark.parametrize(
    "text", ["a." * 500_000, "a" * 1_000_000, "a" + " " * 1_000_000, "_" * 1_000_000 + "(", ("a" * 99 + ".") * 10_000]
)
def test_the_class_of_an_exception_is_found_quickly(text: str) -> None:
    """In its beginning, or not at all."""
    assert seconds(lambda: exception_class(text)) < 0.05


HEAD = "Traceback (most recent call last):\n"
LINK = "\n\nDuring handling of the above exception, another exception occurred:\n\n"


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "\n" * 4_000_000,
        HEAD + "  File x\n" * 400_000 + "Error: x",
        HEAD + "a." * 2_000_000,
        (HEAD + "  File x\nError: x" + LINK) * 40_000,
        LINK * 60_000,
    ],
)
def test_the_class_of_an_exception_is_found_quickly_in_a_traceback(text: str) -> None:
    """As large as an event may be, and of any form."""
    assert seconds(lambda: exception_name("x", text)) < 0.1


def test_custom_events_of_any_kind_cost_no_series_each() -> None:
    """50 types, then one for all others."""
    cluster = Cluster()
    events = [Event(type=f"my-{number}", hostname="h", timestamp=cluster.now) for number in range(1000)]
    cluster.tracker.apply(events, cluster.now)
    assert len(cluster.tracker.event_counts) <= 51
    assert sum(cluster.tracker.event_counts.values()) == 1000
