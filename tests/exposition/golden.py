"""The golden page; ``python -m tests.exposition.golden`` writes it again, as `make generate` does."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.scrape import text_of
from tests.tracking.cluster import WORKER, Cluster, make_settings

from celerymeter.exposition.page import Page
from celerymeter.exposition.scrape import Build
from celerymeter.model import ActiveTask, BrokerMemory, PollOutcome, QueueHead, QueuesSnapshot, QueueState, ScheduleRow
from celerymeter.settings import Limits

GOLDEN = Path(__file__).with_name("golden.prom")
RESTARTED = "celery@two"
BUILD = Build(version="1.2.3", python="3.11.7", celery="5.7.0")


def render(cluster: Cluster) -> str:
    """The page of a cluster, now."""
    return text_of(Page(cluster.tracker, build=BUILD), cluster.now)


def mishaps(cluster: Cluster) -> None:
    """Let each thing that seldom happens to tasks happen once, so that no counter of tasks is 0."""
    cluster.run("rejected", outcome="rejected")
    cluster.run("revoked", outcome="revoked")
    for uuid in ("killed", "twice", "ignored"):
        cluster.publish(uuid)
        cluster.receive(uuid)
        cluster.start(uuid)
    cluster.end("killed", "failed", exception="WorkerLostError('signal 9')")
    cluster.start("twice")
    cluster.end("twice")
    for _ in range(3):
        cluster.pass_time(6, beating=(WORKER,))
        cluster.answer(active=())  # of "ignored" no event tells the end
    cluster.heartbeat(RESTARTED, kind="worker-online")
    cluster.publish("unfinished")
    cluster.receive("unfinished", hostname=RESTARTED)
    cluster.start("unfinished", RESTARTED)
    cluster.heartbeat(RESTARTED, kind="worker-offline")
    cluster.heartbeat(RESTARTED, kind="worker-online", pid=2, processed=0)


def busy() -> Cluster:
    """A cluster that gives every family of the catalogue a sample, and every counter of tasks a value above 0."""
    settings = make_settings(Limits(), runtime_buckets=(0.1, 1.0), wait_buckets=(1.0, 60.0))
    cluster = Cluster(settings)
    cluster.heartbeat(kind="worker-online", sw_ver="5.7.0", loadavg=(0.5, 0.4, 0.3), application_version="1.4")
    mishaps(cluster)
    cluster.run("a", queue="mail")
    cluster.run("b", queue="mail", outcome="retried")
    cluster.publish("c", 'say "hi"\n')
    cluster.start("c")
    cluster.end("c", "failed", exception="ValueError('secret')")
    cluster.end("c", "failed")
    cluster.publish("d")
    cluster.start("d")
    cluster.pass_time(6, beating=(WORKER,))
    cluster.answer(
        pool="prefork",
        slots=4,
        reserved=2,
        scheduled=1,
        queues=("mail", "celery"),
        totals={"add": 7},
        active=(ActiveTask("d", "add", cluster.now - 6, "celery"),),
    )
    nightly = ScheduleRow(
        schedule="nightly",
        name="report",
        every=60.0,
        last_run_at=cluster.now - 1,
        next_due_at=cluster.now + 60,
        due=3,
        sent=2,
    )
    cluster.beat("heartbeat", lag=0.25, count=1)
    cluster.beat("sent", nightly, due_at=cluster.now - 3, uuid="e")
    cluster.send("task-succeeded", uuid="e")
    cluster.tracker.reject("body", 2)
    queues = (
        QueueState("mail", 3, unacked=1, head=QueueHead("x", None, cluster.now - 9), oldest_unacked_at=cluster.now - 4),
        QueueState("celery", 0, unacked=0),
    )
    cluster.tracker.queues_seen(
        QueuesSnapshot(
            cluster.now,
            queues,
            unacked_other=5,
            unacked_unknown=2,
            visibility_timeout=3600.0,
            delayed=4,
            memory=BrokerMemory(used=7 * 2**20, limit=2**23, blocked=False, evicted=6, orphaned=4096),
        )
    )
    for collector in ("queues", "workers"):
        cluster.tracker.polled(PollOutcome(collector, True, cluster.now, 0.25))
    return cluster


def main() -> None:
    """Write the golden page if it changed."""
    page = render(busy())
    if page != GOLDEN.read_text():
        GOLDEN.write_text(page)
        sys.stdout.write("tests/exposition/golden.prom written\n")


if __name__ == "__main__":
    main()
