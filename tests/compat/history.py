"""Half an hour of a make-believe cluster, as a scraper sees its page every 15 seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from prometheus_client.parser import text_string_to_metric_families
from tests.engines import Canned
from tests.scrape import Scrape, text_of
from tests.tracking.cluster import START, WORKER, Cluster, make_settings

from celerymeter.exposition.page import Page
from celerymeter.exposition.scrape import Build
from celerymeter.model import PollOutcome, QueuesSnapshot, QueueState

Compat = Literal["celery-exporter"] | None
STEP = 15
MINUTES = 30
END = START + 60 * MINUTES
LOST = "celery@two"
"""A worker that falls silent after five minutes."""
BROKEN = 10
"""The minute from which a second exception is raised."""
EVERY_MINUTE: Mapping[str, int] = {"succeeded": 8, "failed": 2, "retried": 1, "revoked": 1, "rejected": 1}
"""Outcomes of ``pay``'s runs each minute, in the queue ``celery``; from `BROKEN` on one more fails."""
MAILS = 3
"""Runs of ``mail`` a minute, all of which succeed, in the queue ``mail``."""
RUNTIMES = {"pay": 0.2, "mail": 2.0}
WAIT = 1.0
BUILD = Build(version="1", python="3", celery="5")


@dataclass
class Minutes:
    """Drives a cluster minute by minute; nothing in it is left to chance."""

    cluster: Cluster
    runs: int = 0

    def run(self, name: str, queue: str, outcome: str, *, runtime: float = 0.0, exception: str = "") -> None:
        """One run, from sent to its end; it waits for `WAIT` and takes no time by our clock."""
        self.runs += 1
        uuid = f"run-{self.runs}"
        self.cluster.publish(uuid, name, queue)
        self.cluster.now += WAIT
        self.cluster.receive(uuid, name)
        self.cluster.start(uuid)
        self.cluster.end(uuid, outcome, runtime=runtime, exception=exception)
        self.cluster.now -= WAIT

    def pass_minute(self, minute: int) -> Iterator[None]:
        """A minute's work at its second scrape."""
        beating = (WORKER, LOST) if minute < 5 else (WORKER,)
        for quarter in range(4):
            if quarter == 1:
                self._work(minute)
            self.cluster.pass_time(STEP, beating=beating)
            self._poll()
            yield

    def _work(self, minute: int) -> None:
        for outcome, count in EVERY_MINUTE.items():
            for _ in range(count):
                self.run("pay", "celery", outcome, runtime=RUNTIMES["pay"], exception="ValueError('x')")
        if minute >= BROKEN:
            self.run("pay", "celery", "failed", exception="KeyError('y')")
        for _ in range(MAILS):
            self.run("mail", "mail", "succeeded", runtime=RUNTIMES["mail"])

    def _poll(self) -> None:
        cluster = self.cluster
        if (lost := cluster.tracker.workers.get(LOST)) is not None and lost.up:
            cluster.answer(LOST, queues=())
        cluster.answer(pool="prefork", slots=4, queues=("celery", "mail"))
        queues = (QueueState("celery", 7, consumers=2), QueueState("mail", 150, consumers=2))
        cluster.tracker.queues_seen(QueuesSnapshot(cluster.now, queues))
        for collector in ("queues", "workers"):
            cluster.tracker.polled(PollOutcome(collector, True, cluster.now, 0.1))


@cache
def pages(compat: Compat) -> tuple[tuple[float, str], ...]:
    """Scrape times and pages of an exporter with or without ``--compat``; the counters begin at 0."""
    settings = make_settings(runtime_buckets=(0.1, 0.5, 5.0), wait_buckets=(0.5, 2.0, 10.0), compat=compat)
    minutes = Minutes(Cluster(settings))
    minutes.cluster.heartbeat(WORKER, kind="worker-online")
    minutes.cluster.heartbeat(LOST, kind="worker-online")
    for name, queue in (("pay", "celery"), ("mail", "mail")):
        minutes.cluster.tracker.task_series.get(name, queue)
    page = Page(minutes.cluster.tracker, build=BUILD)
    return tuple(
        (minutes.cluster.now, text_of(page, minutes.cluster.now))
        for minute in range(MINUTES)
        for _ in minutes.pass_minute(minute)
    )


@cache
def scrapes(compat: Compat) -> tuple[Scrape, ...]:
    """Every fourth of the pages, read."""
    return tuple(Scrape(text) for _, text in pages(compat)[::4])


def canned(compat: Compat, **target: str) -> list[Canned]:
    """The same as series with the labels of a scrape target."""
    samples: dict[tuple[str, frozenset[tuple[str, str]]], list[tuple[float, float]]] = defaultdict(list)
    for at, text in pages(compat):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name, frozenset({**sample.labels, **target}.items())].append((at, sample.value))
    return [Canned(name, dict(labels), values) for (name, labels), values in samples.items()]
