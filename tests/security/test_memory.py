"""A client that publishes events cannot make the exporter large: names, waiting events, retries, workers."""

from __future__ import annotations

import json
import re
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.exposition.golden import render
from tests.tracking.cluster import PRODUCER, START, Cluster, make_settings

from celerymeter.escaping import MAX_NAME
from celerymeter.events.decode import Decoder
from celerymeter.metrics import CATALOGUE
from celerymeter.model import Event, QueueBinding
from celerymeter.settings import Limits

MEGABYTE = 1024 * 1024
TOTALS: dict[str, object] = {"version": 1, "instance": "i", "sequence": 1, "age": 1.0, "begun": 1, "processed": 1}
TOTALS |= {"started": 1, "runtime_bounds": [1.0], "wait_bounds": [1.0]}
TRACEBACK = (
    "Traceback (most recent call last):\n"
    + "  File x\n" * 20_000
    + "    "
    + "x" * 60_000
    + "\nbilliard.exceptions.TimeLimitExceeded: 1"
)
WIDE = "\U0001f600"
"""A character of four bytes, here as in the page."""


def kept_by(feed: Callable[[], object]) -> int:
    """Return the bytes that are in use after ``feed`` and were not before it."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        feed()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_names_are_cut_with_a_mark_and_counted() -> None:
    """Of tasks, queues, workers, events and exceptions."""
    cluster = Cluster()
    long = "n" * 500
    cluster.publish("u", name=long, queue="q" * 300)
    cluster.receive("u", name=long)
    cluster.start("u")
    cluster.end("u", "failed", exception="E" * 90 + "('x')")
    cluster.heartbeat("celery@" + "h" * 400)
    cluster.send("c" * 201)
    cut = "n" * (MAX_NAME - 1) + "…"
    series = cluster.series(cut, "q" * (MAX_NAME - 1) + "…")
    assert (series.sent, series.received, series.started, series.failed) == (1, 1, 1, 1)
    text = render(cluster)
    assert f'celery_task_failed_total{{name="{cut}"' in text
    assert 'celerymeter_names_cut_total{label="hostname"} 1' in text
    assert 'celerymeter_names_cut_total{label="event"} 1' in text
    assert max(len(part) for line in text.splitlines() for part in line.split('"')[1::2]) <= MAX_NAME
    assert [cluster.tracker.task_series.cut[label] > 0 for label in ("name", "queue_name")] == [True, True]


@pytest.mark.parametrize("sign", ["\n", "\x1b", "\x9b", "\u2028", "\u202e", "\r", "\x00"])
def test_no_name_has_a_character_that_acts(sign: str) -> None:
    """A line break hides a task from queries with ``.*``; the others write into terminals."""
    cluster = Cluster()
    name = f"shop{sign}pay"
    for uuid in ("u", "v"):
        cluster.publish(uuid, name=name, queue=f"q{sign}")
        cluster.receive(uuid, name=name)
        cluster.start(uuid)
        cluster.end(uuid)
    cluster.receive("w", name=name)
    cluster.heartbeat(f"celery@{sign}")
    cluster.send(f"custom{sign}")
    series = cluster.series("shop\ufffdpay", "q\ufffd")
    assert (series.sent, series.received, series.started, series.succeeded) == (2, 2, 2, 2)
    assert sign not in render(cluster).replace("\n", "" if sign == "\n" else "\n")
    assert "\\n" not in render(cluster)


def test_real_names_are_as_they_were() -> None:
    """In any script, also with quotes, and up to the limit."""
    cluster = Cluster()
    for name in ("shop.pay", "訂單.付款", 'say "hi"', "n" * MAX_NAME):
        cluster.run(name, name=name)
        assert cluster.series(name).succeeded == 1
    assert not any(cluster.tracker.task_series.cut.values())


@pytest.mark.parametrize("sign", ["a", WIDE])
def test_a_page_stays_small_whatever_the_names(sign: str) -> None:
    """Names of 500 characters of every kind, more than there is room for; the shipped memory limit is 512 MiB."""
    cluster = Cluster()

    def feed() -> None:
        for number in range(1500):
            name = f"{number}{sign * 490}"
            cluster.run(f"u{number}", name=name, queue=name)
            cluster.run(f"f{number}", name=name, outcome="failed")
            cluster.heartbeat(f"celery@{name}")
            cluster.send(name)

    assert kept_by(feed) < 60 * MEGABYTE
    text = render(cluster)
    assert len(text.encode()) < 48 * MEGABYTE
    assert cluster.tracker.task_series.folded["pair"] > 0


def test_exceptions_do_not_multiply_with_pairs() -> None:
    """Every task may fail with every class of the limit."""
    cluster = Cluster(make_settings(Limits(task_pairs=50)))
    for number in range(50):
        for exception in range(100):
            uuid = f"{number}-{exception}"
            cluster.publish(uuid, name=f"task{number}")
            cluster.start(uuid)
            cluster.end(uuid, "failed", exception=f"Error{exception}('x')")
    series = list(cluster.tracker.task_series)
    assert sum(len(one.exceptions) for one in series) <= 3 * 50
    assert all(sum(one.exceptions.values()) == one.failed == 100 for one in series)


@pytest.mark.parametrize("kind", ["task-failed", "task-retried", "task-succeeded", "task-received"])
def test_an_event_that_waits_keeps_no_traceback(kind: str) -> None:
    """60 of 11 MB each were 623 MB; what counts is the class on the last line."""
    cluster = Cluster()

    def feed() -> None:
        for number in range(20):
            text = f"{TRACEBACK}{number}"
            cluster.send(kind, uuid=f"u{number}", name="a", traceback=text, exception=text)

    assert kept_by(feed) < MEGABYTE


def test_an_event_that_waited_counts_by_its_class() -> None:
    """Celery 5.7 names a wrapper instead, so the traceback's last line is needed."""
    cluster = Cluster()
    cluster.receive("u")
    cluster.start("u")
    cluster.end("u", "failed", exception="ExceptionWithTraceback()", traceback=TRACEBACK)
    cluster.publish("u")
    assert cluster.series().exceptions == {"TimeLimitExceeded": 1}


def test_the_sending_of_a_retry_keeps_no_traceback() -> None:
    """40 messages were 420 MB for a week."""
    cluster = Cluster()

    def feed() -> None:
        for number in range(20):
            fields: Any = {
                "retries": number + 1,
                "traceback": f"{TRACEBACK}{number}",
                "exception": f"{number}{TRACEBACK}",
            }
            cluster.publish(f"u{number % 4}", **fields)

    assert kept_by(feed) < MEGABYTE


def test_sendings_of_retries_are_bounded_in_number() -> None:
    """However many tasks they are of, and although none of these ever runs; what is dropped is counted."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=1000)))
    for number in range(4000):
        cluster.publish(f"u{number % 900}", retries=1 + number // 900)
    assert cluster.tracker.tasks.runs.count_sent_ahead() <= 250
    assert cluster.tracker.tasks.runs.evicted["limit"] >= 3700


def test_room_for_sendings_comes_back() -> None:
    """Runs that end give theirs back."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=1000)))
    for number in range(250):
        cluster.publish(f"u{number}")
        cluster.publish(f"u{number}", retries=1)
    for number in range(250):
        cluster.start(f"u{number}")
        cluster.end(f"u{number}", "retried")
        cluster.start(f"u{number}")
        cluster.end(f"u{number}")
    cluster.pass_time(1)
    cluster.publish("last")
    cluster.publish("last", retries=1)
    assert cluster.tracker.tasks.runs.count_sent_ahead() == 1


def test_waiting_events_are_bounded_in_number() -> None:
    """Those beyond are counted at once under what is known."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=100)))
    for number in range(5000):
        cluster.send("task-succeeded", uuid=f"u{number % 90}")
    assert cluster.tracker.tasks.labels._events_waiting <= 200
    cluster.pass_time(20)
    assert cluster.tracker.tasks.labels._events_waiting == 0
    counted = sum(series.succeeded for series in cluster.tracker.task_series)
    assert counted + cluster.tracker.tasks.counts.duplicates["task-succeeded"] == 5000


@pytest.mark.parametrize("field", ["uuid", "parent_id"])
def test_long_ids_take_no_more_memory_than_a_tenth_of_the_limit(field: str) -> None:
    """Ids that Celery makes have 36 characters."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=10_000)))

    def feed() -> None:
        for number in range(12_000):
            fields: Any = {"uuid": f"u{number}", field: f"{number}{WIDE * 240}"}
            cluster.publish(**fields)

    assert kept_by(feed) < 10 * MEGABYTE
    assert cluster.tracker.tasks.runs.evicted["limit"] > 9000


def test_short_ids_are_not_dropped_for_long_ones() -> None:
    """Those of real tasks stay."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=1000)))
    for number in range(500):
        cluster.publish(f"real-{number}")
    for number in range(5000):
        cluster.publish(f"{number}{'x' * 200}")
    for number in range(500):
        cluster.start(f"real-{number}")
        cluster.end(f"real-{number}")
    assert cluster.series().succeeded == 500


def test_pairs_beyond_their_limit_are_not_remembered() -> None:
    """Neither by their raw names."""
    cluster = Cluster(make_settings(Limits(task_pairs=10)))
    for number in range(2000):
        cluster.publish(f"u{number}", name=f"task{number % 100}", queue=f"queue{number % 97}")
    assert len(cluster.tracker.tasks.counts.sent_series) <= 10


# Workers


def test_a_worker_that_answered_stays_when_others_are_invented() -> None:
    """10,001 heartbeats made the ones that live unknown."""
    cluster = Cluster(make_settings(Limits(workers=200)))
    for number in range(20):
        cluster.heartbeat(f"celery@real{number}")
        cluster.answer(f"celery@real{number}", queues=("celery",))
    for number in range(5000):
        cluster.heartbeat(f"celery@invented{number}")
    hostnames = {worker.hostname for worker in cluster.tracker.workers}
    assert {f"celery@real{number}" for number in range(20)} <= hostnames
    assert len(hostnames) <= 200
    assert cluster.tracker.task_series.folded["hostname"] >= 4800


def test_a_worker_with_a_history_stays_when_others_are_invented() -> None:
    """Remote control may be turned off."""
    cluster = Cluster(make_settings(Limits(workers=50)))
    cluster.pass_time(70, beating=("celery@quiet",))
    for number in range(1000):
        cluster.heartbeat(f"celery@invented{number}")
    assert cluster.tracker.workers.get("celery@quiet") is not None


def test_a_new_worker_has_room_among_invented_ones() -> None:
    """One that joins while the table is full of them is seen, and once it has answered it stays."""
    cluster = Cluster(make_settings(Limits(workers=50)))
    for number in range(500):
        cluster.heartbeat(f"celery@invented{number}")
    cluster.heartbeat("celery@new")
    cluster.answer("celery@new", queues=("celery",))
    for number in range(500, 1000):
        cluster.heartbeat(f"celery@invented{number}")
    assert cluster.tracker.workers.get("celery@new") is not None
    assert 'celery_worker_up{hostname="celery@new"} 1' in render(cluster)


def test_a_real_cluster_beyond_the_limit_is_folded_as_before() -> None:
    """Nobody goes for a newcomer when all have answered."""
    cluster = Cluster(make_settings(Limits(workers=10)))
    for number in range(15):
        cluster.heartbeat(f"celery@w{number}")
        cluster.answer(f"celery@w{number}", queues=("celery",))
    assert {worker.hostname for worker in cluster.tracker.workers} == {f"celery@w{number}" for number in range(10)}
    assert 'celery_worker_up{hostname="__other__"} 1' in render(cluster)


def test_runs_of_a_worker_that_is_dropped_are_not_in_progress_for_ever() -> None:
    """Nobody will end them."""
    cluster = Cluster(make_settings(Limits(workers=10)))
    cluster.publish("u")
    cluster.start("u", "celery@invented")
    assert cluster.series().in_progress == 1
    for number in range(100):
        cluster.heartbeat(f"celery@invented{number}")
    cluster.pass_time(1)
    assert cluster.series().in_progress == 0


@pytest.mark.parametrize("version", ["5.7.0", "v" * 500, f"5{WIDE * 100}", "5\n7"])
def test_a_version_is_short(version: str) -> None:
    """It is a label of each worker."""
    cluster = Cluster()
    cluster.heartbeat("celery@one", sw_ver=version)
    worker = cluster.tracker.workers.get("celery@one")
    assert worker is not None
    assert len(worker.version) <= 40
    assert "\n" not in worker.version


def test_hosts_of_producers_are_cut() -> None:
    """Their clocks are kept by host."""
    cluster = Cluster()

    def feed() -> None:
        for number in range(12_000):
            cluster.send("task-sent", f"gen1@{number}{WIDE * 500}", uuid="u", name="a", queue="q")

    assert kept_by(feed) < 8 * MEGABYTE


def test_routes_remember_no_long_keys() -> None:
    """A producer may use as many as it likes."""
    cluster = Cluster()
    routes = cluster.tracker.workers.routes
    routes.update([QueueBinding("q", "shop", "topic", "#")])

    def feed() -> None:
        for number in range(12_000):
            event = Event(
                type="task-sent",
                hostname=PRODUCER,
                timestamp=START,
                exchange="shop",
                routing_key=f"{number}.{WIDE * 400}",
            )
            routes.queue_of(event)

    assert kept_by(feed) < 8 * MEGABYTE


# The same through other fields, spellings and orders

TEXT_OF_400_KB = WIDE * 100_000
FIELDS: dict[str, object] = {
    **dict.fromkeys(("args", "kwargs", "result", "eta", "root_id", "parent_id", "routing_key"), TEXT_OF_400_KB),
    **dict.fromkeys(("expires", "celerymeter_counted", "application_version"), TEXT_OF_400_KB),
    "stamped_headers": [TEXT_OF_400_KB],
    "expires as a list": [[]] * 20_000,
    "celerymeter_counted as an object": {"x": TEXT_OF_400_KB},
    "application_version as objects": [{}] * 20_000,
    "totals": {**TOTALS, "series": {f"k{number}": [WIDE * 40, "q", 1, 1, 1] for number in range(2000)}},
    "beat": {
        "instance": "b",
        "started_at": 1.0,
        "schedule": [{"schedule": f"s{number}", "name": WIDE * 40} for number in range(2000)],
    },
}


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("kind", ["task-sent", "task-received", "task-retried"])
def test_no_field_of_an_event_that_waits_is_kept_whole(name: str, kind: str) -> None:
    """As bytes off the wire; of a retry that is far ahead, too."""
    field = name.partition(" ")[0]
    fields = {"type": kind, "hostname": PRODUCER, "timestamp": START, "name": "a", "queue": "q", field: FIELDS[name]}
    events = [
        decoded
        for number in range(12)
        for decoded in Decoder(lambda reason, count: None).bare(
            json.dumps({**fields, "uuid": f"u{number % 3}", "retries": number + 1}).encode(),
            content_type="application/json",
            content_encoding="utf-8",
        )
    ]
    cluster = Cluster()
    cluster.tracker.apply(events, cluster.now)
    kept = [event for event in events if sys.getrefcount(event) > 3]
    assert sum(len(msgspec.json.encode(event)) for event in kept) < 12 * 4000


@pytest.mark.parametrize("retries", [-1, 2**31, 2**62, 2**63 - 1, "falling", "the same"])
def test_sendings_of_retries_of_any_number_are_bounded(retries: int | str) -> None:
    """Neither a number nor an order of them makes room for more."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=1000)))
    for number in range(3000):
        value = {"falling": 3000 - number, "the same": 7}.get(str(retries), retries)
        cluster.publish(f"u{number % 700}", retries=value)
    assert cluster.tracker.tasks.runs.count_sent_ahead() <= 250


ODD_IDS: dict[str, Callable[[int], object]] = {
    "long": lambda number: f"{number}" + "x" * 5_000,
    "wide": lambda number: f"{number}" + WIDE * 500,
    "numbers of many digits": lambda number: number + 10**300,
    "UUID objects": lambda number: {"__type__": "uuid", "__value__": {"hex": f"{number:032x}"}},
    "control characters": lambda number: f"{number}" + "\x1b\x00\u2028" * 500,
    "half a pair": lambda number: f"{number}\ud800" * 50,
}


@pytest.mark.parametrize("make", ODD_IDS.values(), ids=ODD_IDS.keys())
@pytest.mark.parametrize("field", ["uuid", "root_id", "hostname", "parent_id"])
def test_odd_ids_and_hosts_take_little(field: str, make: Callable[[int], object]) -> None:
    """As bytes off the wire; whatever comes of them, a page is whole."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=500, workers=50)))
    decoder = Decoder(lambda reason, count: None)

    def feed() -> None:
        for number in range(150):
            event = {"hostname": "celery@h", "timestamp": START, "uuid": f"u{number}", "name": "a", "queue": "q"}
            for kind in ("task-sent", "task-received", "task-started"):
                body = json.dumps({**event, "type": kind, field: make(number)}).encode()
                events = decoder.bare(body, content_type="application/json", content_encoding="utf-8")
                cluster.tracker.apply(events, cluster.now)

    assert kept_by(feed) < 1.5 * MEGABYTE
    assert set(families(render(cluster))) <= NAMES


NAMES = {metric.name.removesuffix("_total") for metric in CATALOGUE} | {"process", "python_info"}


def families(text: str) -> list[str]:
    """Return the metrics of a page, as Prometheus reads it: anything that is not one would end it."""
    return [family.name for family in text_string_to_metric_families(text)]


FORGED = [
    'x"} 1\ncelery_worker_up{hostname="forged"} 1\n#',
    "x\n# HELP celery_forged y\n# TYPE celery_forged gauge\ncelery_forged 1",
    "x\\",
    'x\\"} 1',
    "x\r\ncelery_forged 1\r\n",
    'x",le="+Inf',
    "# EOF",
    "{}",
    "%s%n{0}{{7*7}}${jndi:ldap://x}",
    "\ufeffx\ufffe",
]


@pytest.mark.parametrize("name", FORGED)
def test_no_name_forges_a_sample(name: str) -> None:
    """Of a task, queue, worker, event, exception, version or schedule."""
    cluster = Cluster()
    cluster.run("u", name=name, queue=name)
    cluster.run("v", name=name, outcome="failed")
    cluster.publish("w", name=name)
    cluster.start("w", f"celery@{name}")
    cluster.end("w", "failed", f"celery@{name}", exception=f"{name}('x')", traceback=f"Traceback\n{name}: x")
    cluster.heartbeat(f"celery@{name}", sw_ver=name)
    cluster.answer(f"celery@{name}", queues=(name,))
    cluster.send(f"my-{name}")
    text = render(cluster)
    assert set(families(text)) <= NAMES
    assert "forged" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
