"""Totals of workers that nobody knows: their memory, their number and the work for each are bounded."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.exposition.golden import render
from tests.security.test_memory import MEGABYTE, WIDE, kept_by
from tests.security.test_work import seconds
from tests.tracking.cluster import START, Cluster, make_settings

from celerymeter.model import Event
from celerymeter.settings import Limits
from celerymeter.tracking.totals import BYTES_PER_WORKER

decode = msgspec.json.Decoder(Event).decode


def totals(hostname: str, instance: str, **fields: Any) -> Event:
    """A message as an invented worker would send it."""
    content = {
        "version": 1,
        "instance": instance,
        "sequence": 1,
        "age": 1.0,
        "begun": 0,
        "processed": 0,
        "started": 0,
        "series": {},
        "runtime_bounds": [1.0],
        "wait_bounds": [1.0],
        **fields,
    }
    event = {"type": "celerymeter-totals", "hostname": hostname, "pid": 1, "timestamp": START, "totals": content}
    return decode(json.dumps(event).encode())


def small(**limits: int) -> Cluster:
    """A cluster with small limits."""
    return Cluster(make_settings(Limits(**limits)))


def test_processes_are_bounded_in_number_and_work() -> None:
    """One beyond the limit must not be compared with all others."""
    cluster = small(workers=500)
    events = [totals(f"celery@h{number % 3}", f"i{number}") for number in range(5000)]
    assert seconds(lambda: cluster.tracker.apply(events, cluster.now)) < 0.5
    assert len(cluster.tracker.totals.instances) <= 1000


def test_processes_of_as_many_workers_are_bounded_in_work() -> None:
    """None of them can be forgotten; those that find no room are counted."""
    cluster = small(workers=500)
    events = [totals(f"celery@h{number}", f"i{number}") for number in range(5000)]
    assert seconds(lambda: cluster.tracker.apply(events, cluster.now)) < 1.0
    assert len(cluster.tracker.totals.instances) <= 1000
    assert cluster.tracker.task_series.folded["hostname"] > 2500


@pytest.mark.parametrize("field", ["unmeasured", "duplicates", "folded"])
def test_counts_of_unknown_names_are_dropped(field: str) -> None:
    """A message has 200; the next one has others."""
    cluster = small(workers=100)

    def feed() -> None:
        for number in range(100):
            names = {f"{number}-{name}": 1 for name in range(200)}
            cluster.tracker.apply([totals("celery@h", f"i{number}", **{field: names})], cluster.now)

    assert kept_by(feed) < 2 * MEGABYTE
    tasks = cluster.tracker.tasks
    assert len(tasks.counts.waits_unmeasured) + len(tasks.counts.duplicates) + len(tasks.table.folded) < 20


def test_what_waits_is_bounded_in_bytes() -> None:
    """Whatever is beyond the budget is refused and counted; the worker sends it again."""
    cluster = small(workers=1000)
    series = {f"k{key}": ["n" * 400, "q" * 400] for key in range(2000)}

    def feed() -> None:
        for number in range(40):
            cluster.tracker.apply([totals(f"celery@h{number}", f"i{number}", series=series)], cluster.now)

    assert kept_by(feed) < 24 * MEGABYTE
    assert cluster.tracker.rejections["too_large"] > 20
    cluster.tracker.totals.add_up(everything=True)
    assert cluster.tracker.totals._waiting_left == BYTES_PER_WORKER * 1000


def test_every_worker_may_have_fifty_series() -> None:
    """Of 10,000 workers most had to wait for another message, and the alert for refused events fired."""
    cluster = small(workers=200)
    row = [4, 4, 4, 0, 0, 0.12, 0, 0.0, START, 0.12, [0, 4], 2.0, [0, 4]]

    def feed() -> None:
        for number in range(200):
            series = {f"{key}": [f"shop.orders.task_{key:03}", f"queue-{key % 5}", *row] for key in range(50)}
            event = totals(f"celery@worker-{number}.example.com", f"{number:032x}", series=series)
            cluster.tracker.apply([event], cluster.now)

    assert kept_by(feed) < 2 * MEGABYTE
    assert cluster.tracker.rejections == {}
    cluster.tracker.totals.add_up(everything=True)
    assert cluster.tracker.rejections == {}
    assert sum(series.succeeded for series in cluster.tracker.task_series) == 200 * 50 * 4


def test_a_message_without_series_needs_no_room() -> None:
    """A worker that did nothing is heard, however much of others waits."""
    cluster = small(workers=1000)
    cluster.tracker.totals._waiting_left = 0
    cluster.tracker.apply([totals("celery@h", "i", begun=3)], cluster.now)
    assert cluster.tracker.rejections == {}
    assert cluster.tracker.totals.instances["i"].begun == 3


@pytest.mark.parametrize("every_tick", [False, True], ids=["waiting", "added up"])
def test_small_messages_of_a_large_process_cost_little(every_tick: bool) -> None:
    """The series that a process has sent before are not read again for each of its messages."""
    cluster = small(workers=2000)
    series = {str(key): ["n", "q", 1, 1, 1] for key in range(10_000)}
    many = [totals("celery@h", f"i{number}", series=series) for number in range(2)]
    cluster.tracker.apply(many, cluster.now)
    cluster.tracker.totals.add_up(everything=every_tick)
    messages = [
        [totals("celery@h", f"i{number}", sequence=sequence, series={"0": ["n", "q"]}) for number in range(2)]
        for sequence in range(2, 302)
    ]

    def feed() -> None:
        for few in messages:
            cluster.tracker.apply(few, cluster.now)
        cluster.tracker.totals.add_up()

    assert seconds(feed) < 1.0


def test_a_small_series_does_not_keep_a_large_message() -> None:
    """The message that it was decoded from may be of many megabytes."""
    cluster = small(workers=1000)

    def feed() -> None:
        for number in range(20):
            event = totals(f"celery@h{number}", f"i{number}", series={"k": ["n", "q"]}, rest="x" * 2 * MEGABYTE)
            cluster.tracker.apply([event], cluster.now)

    assert kept_by(feed) < 2 * MEGABYTE


def test_what_is_added_up_is_bounded_in_bytes() -> None:
    """With what each series takes beside its text."""
    cluster = small(workers=1000)

    def feed() -> None:
        for number in range(30):
            series = {f"k{key}": ["n" * 400, "q" * 400] for key in range(1000)}
            cluster.tracker.apply([totals(f"celery@h{number}", f"i{number}", series=series)], cluster.now)
            cluster.tracker.totals.add_up(everything=True)

    assert kept_by(feed) < 32 * MEGABYTE
    assert cluster.tracker.rejections["too_large"] > 1000


@pytest.mark.parametrize("changes", [{"instance": "i" * 65}, {"series": {"k" * 65: ["n", "q"]}}, {"instance": ""}])
def test_keys_are_short(changes: dict[str, Any]) -> None:
    """They are kept for as long as the process is known."""
    with pytest.raises(msgspec.ValidationError):
        totals("celery@h", **{"instance": "i", **changes})


def test_names_in_totals_are_cut_as_others() -> None:
    """With what acts in them."""
    cluster = Cluster()
    series = {"a": [f"shop\x1b{WIDE * 300}", "q\n"]}
    cluster.tracker.apply([totals("celery@h", "i", series=series)], cluster.now)
    cluster.tracker.totals.add_up(everything=True)
    text = render(cluster)
    assert "\x1b" not in text
    assert "\\n" not in text
    assert max(len(part) for line in text.splitlines() for part in line.split('"')[1::2]) <= 200


def test_a_worker_that_changes_its_mind_costs_little() -> None:
    """Events, totals, events …: its runs must not be searched for among all each time."""
    cluster = small(tracked_tasks=30_000)
    for number in range(20_000):
        cluster.publish(f"u{number}")
        cluster.start(f"u{number}")
    events = [
        totals(f"celery@h{number % 50}", f"i{number % 50}", failed=number // 50 % 2 == 1, sequence=number + 1)
        for number in range(2000)
    ]
    assert seconds(lambda: cluster.tracker.apply(events, cluster.now)) < 1.0


def test_many_workers_that_begin_to_send_totals_at_once_are_all_taken() -> None:
    """As in a rollout; their runs are forgotten at the next tick."""
    cluster = Cluster()
    names = [f"celery@h{number}" for number in range(100)]
    for hostname in names:
        cluster.publish(hostname)
        cluster.start(hostname, hostname)
    cluster.tracker.apply([totals(hostname, hostname) for hostname in names], cluster.now)
    cluster.tracker.tick(cluster.now)
    assert cluster.series().in_progress == 0
    assert not cluster.tracker.rejections
