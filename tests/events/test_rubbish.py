"""A live exporter under fire: rubbish by the thousand on its channel, while two scrapers read its page."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
import redis
from tests.events.malformed import MALFORMED
from tests.events.messages import RECORDED, event, message, recorded
from tests.scrape import ExporterProcess

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

pytestmark = pytest.mark.integration

ROUNDS = 130
GOOD = "shop-opened"


def damaged(dice: random.Random, messages: list[bytes]) -> bytes:
    """A real message with some bytes changed, cut, doubled or replaced by noise."""
    data = bytearray(dice.choice(messages))
    for _ in range(dice.randint(1, 5)):
        where = dice.randrange(len(data))
        change = dice.randrange(4)
        if change == 0:
            data[where] = dice.randrange(256)
        elif change == 1:
            del data[where:]
        elif change == 2:
            data[where:where] = data[where : where + 50]
        else:
            data[where : where + 4] = dice.randbytes(4)
        if not data:
            return b""
    return bytes(data)


def rubbish(dice: random.Random) -> list[bytes]:
    """Over 10,000 messages: every kind many times over (large ones once), and as many that are damaged at random."""
    kinds = [data for data, _ in MALFORMED.values()]
    small = [data for data in kinds if len(data) < 10_000]
    real = [data for path in RECORDED for _, data in recorded(path)]
    everything = [*kinds, *small * ROUNDS, *(damaged(dice, real) for _ in range(len(small) * ROUNDS))]
    dice.shuffle(everything)
    return everything


def test_rubbish_neither_stops_an_exporter_nor_costs_it_an_event(redis_server: Redis, tmp_path: Path) -> None:
    """Good events among it are counted exactly, the rest by reason, and every page is whole."""
    everything = rubbish(random.Random(8))
    assert len(everything) > 10_000
    stop, pages = threading.Event(), [0, 0]

    def scrape(number: int) -> None:
        while not stop.wait(0.05):
            exporter.scrape()
            pages[number] += 1

    with ExporterProcess(tmp_path, redis_server.url) as exporter, redis.Redis(port=redis_server.port) as client:
        exporter.up()
        scrapers = [threading.Thread(target=scrape, args=(number,)) for number in range(2)]
        for scraper in scrapers:
            scraper.start()
        good = message(event(type=GOOD, uuid=...))
        client.publish("/0.celeryev/shop.opened", good)
        for start in range(0, len(everything), 200):
            pipeline = client.pipeline(transaction=False)
            for data in everything[start : start + 200]:
                pipeline.publish("/0.celeryev/task.multi", data)
                pipeline.publish("/0.celeryev/shop.opened", good)
            pipeline.execute()
        wait_until(lambda: exporter.value("celerymeter_events_total", event=GOOD) == len(everything) + 1)
        stop.set()
        for scraper in scrapers:
            scraper.join()
        page = exporter.scrape()

        assert exporter.running
        assert exporter.code("/-/ready") == 200

    assert page.sum("celerymeter_events_invalid_total") > len(everything) / 2
    assert page.sum("celerymeter_broker_reconnects_total") == 0
    assert min(pages) > 3
