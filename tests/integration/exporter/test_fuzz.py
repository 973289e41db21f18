"""Thousands of spoiled events at a live exporter: each is accounted for, and no scraper notices."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest
import redis
from tests.events.messages import RECORDED, event, message, recorded
from tests.events.test_rubbish import damaged
from tests.integration.exporter.conftest import StartExporter
from tests.scrape import ExporterProcess, Scrape

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

pytestmark = pytest.mark.integration

BURST = 500
ODD: tuple[object, ...] = (
    *(None, True, -1, 0, 2**63, 2**200, 10**400, 1e308, -0.0, float("nan"), float("inf")),
    *("", "\x00", "\udcff", 'a"b\\c\n', "x" * 20_000, [], [[]], {}, {"a": None}, [1] * 500),
)
"""Values that no field, or hardly any, can have."""


def single_events() -> list[bytes]:
    """Recorded messages of one event each: whatever is done to one, it counts once."""
    [path] = [path for path in RECORDED if "gevent" in path.name]
    return [data for _, data in recorded(path)]


def changed(dice: random.Random, data: bytes) -> bytes:
    """The same event with some fields odd, missing or somebody else's, in an envelope without fault."""
    fields = json.loads(base64.b64decode(json.loads(data)["body"]))
    for _ in range(dice.randint(1, 3)):
        name = dice.choice(sorted(fields))
        fields[name] = dice.choice((*ODD, dice.choice(list(fields.values()))))
        if dice.random() < 0.2:
            del fields[name]
        if not fields:
            break
    return message(fields)


def burst(dice: random.Random, events: list[bytes]) -> list[bytes]:
    """Half of it damaged in its bytes, half in its values."""
    spoil = (damaged, lambda dice, events: changed(dice, dice.choice(events)))
    return [spoil[number % 2](dice, events) for number in range(BURST)]


def accounted(page: Scrape) -> float:
    """Events that were taken or refused."""
    return page.sum("celerymeter_events_total") + page.sum("celerymeter_events_invalid_total")


def counters(page: Scrape) -> set[str]:
    """The counters that the page declares; gauges come and go with what is known."""
    types = [line.split() for line in page.text.splitlines() if line.startswith("# TYPE ")]
    return {name for _, _, name, kind in types if kind == "counter"}


def watch(exporter: ExporterProcess, stop: Event) -> int:
    """Scrape until ``stop`` is set: each page is whole, and nothing on it falls; return how many there were."""
    before, pages = exporter.scrape(), 0
    while not stop.is_set():
        page = exporter.scrape()
        assert page.text.endswith("\n")
        assert counters(page) >= counters(before)
        assert accounted(page) >= accounted(before)
        assert page.get("celerymeter_broker_up") == 1
        before, pages = page, pages + 1
        stop.wait(0.1)
    return pages


@contextmanager
def two_scrapers(exporter: ExporterProcess) -> Iterator[None]:
    """For the length of the block; what either found wrong is raised at its end."""
    stop = Event()
    with ThreadPoolExecutor(2) as pool:
        scrapers = [pool.submit(watch, exporter, stop) for _ in range(2)]
        try:
            yield
        finally:
            stop.set()
        assert all(scraper.result(30) > 3 for scraper in scrapers)


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_every_spoiled_event_is_accounted_for(seconds: float, redis_server: Redis, new_exporter: StartExporter) -> None:
    """Over 10,000 of them, each counted once as an event or as invalid; a good heartbeat is seen afterwards."""
    exporter, events, dice, sent = new_exporter(), single_events(), random.Random(2), 0
    end = time.monotonic() + seconds
    with redis.Redis(port=redis_server.port) as client, two_scrapers(exporter):
        while sent < 10_500 or time.monotonic() < end:
            pipeline = client.pipeline(transaction=False)
            for data in burst(dice, events):
                pipeline.publish("/0.celeryev/task.multi", data)
            pipeline.execute()
            sent += BURST
            wait_until(lambda: accounted(exporter.scrape()) >= sent, what=f"{sent} are accounted for")
        heartbeat = event(type="worker-heartbeat", hostname="good@test", uuid=..., freq=2, timestamp=time.time())
        client.publish("/0.celeryev/worker.heartbeat", message(heartbeat))
        wait_until(lambda: exporter.value("celery_worker_up", hostname="good@test") == 1)
    page = exporter.scrape()
    assert accounted(page) == sent + 1
    assert page.sum("celerymeter_events_total") > sent / 20
    assert page.sum("celerymeter_events_invalid_total") > sent / 4
    assert page.sum("celerymeter_broker_reconnects_total") == 0
    assert exporter.code("/-/healthy") == 200
