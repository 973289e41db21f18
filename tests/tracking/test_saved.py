"""Counters that continue in another process of the exporter."""

from __future__ import annotations

import msgspec
import pytest
from tests.aggregate.sender import Sender
from tests.exposition.golden import busy, render
from tests.tracking.cluster import WORKER, Cluster, make_settings

from celerymeter.metrics import CATALOGUE
from celerymeter.tracking.saved import Saved, restore, save

COUNTERS = tuple(
    f"{family.name}{suffix}"
    for family in CATALOGUE
    for suffix in ("{", " ", "_bucket{", "_sum{", "_count{")
    if family.kind != "gauge" and family.area in ("tasks", "schedules", "exporter")
)


def restarted(cluster: Cluster, *, after: float = 0.0) -> Cluster:
    """The same exporter as a new process, some seconds later; its state went through a file."""
    content = msgspec.json.encode(save(cluster.tracker))
    following = Cluster(cluster.settings, now=cluster.now + after)
    restore(following.tracker, msgspec.json.decode(content, type=Saved), now=following.now)
    following.processed = cluster.processed
    return following


def counters(cluster: Cluster) -> list[str]:
    """The lines of all counters that need no living worker."""
    return [line for line in render(cluster).splitlines() if line.startswith(COUNTERS) and "_missed_" not in line]


def test_all_counters_of_the_page_continue() -> None:
    cluster = busy()
    cluster.end("d", "succeeded", runtime=1.0)
    before = counters(cluster)
    assert len(before) > 100
    assert counters(restarted(cluster)) == before


def test_a_restart_does_not_count_anything_as_done_just_now() -> None:
    cluster = busy()
    following = restarted(cluster, after=60)
    assert {rate for series in following.tracker.task_series for rate in following.tracker.rates.of(series, 0.0)} <= {
        0.0,
        None,
    }


def test_what_happened_meanwhile_arrives_with_the_next_totals() -> None:
    cluster = Cluster()
    sender = Sender(cluster)
    sender.run("a", runtime=0.5)
    sender.send()
    following = restarted(cluster, after=600)
    sender.cluster = following
    for uuid in ("b", "c"):
        sender.run(uuid, runtime=0.5)
        sender.message()  # while nobody listens
    for _ in range(3):
        sender.message()
    sender.send(full=True)
    assert following.series().succeeded == 3
    assert sum(following.series().runtime.counts) == 3


def test_a_worker_that_started_meanwhile_is_counted_from_its_start() -> None:
    cluster = Cluster()
    following = restarted(cluster, after=600)
    sender = Sender(following)
    sender.began = following.now - 300
    sender.run("a")
    sender.message()
    sender.send(full=True)
    assert following.series().succeeded == 1


def test_counters_of_a_worker_continue_when_it_is_heard_again() -> None:
    cluster = Cluster()
    cluster.heartbeat(kind="worker-online")
    cluster.run("a")
    cluster.heartbeat()
    following = restarted(cluster, after=60)
    assert len(following.tracker.workers) == 0
    again = restarted(following, after=60)  # it may be silent for longer than one process lives
    again.processed[WORKER] = 5
    again.heartbeat()
    worker = again.tracker.workers.get(WORKER)
    assert worker is not None
    assert worker.processed_total == 5


def test_other_buckets_start_anew() -> None:
    content = save(Cluster().tracker)
    other = Cluster(make_settings(runtime_buckets=(1.0,)))
    with pytest.raises(ValueError, match="buckets were changed"):
        restore(other.tracker, content, now=other.now)
