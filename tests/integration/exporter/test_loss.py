"""Runs whose events were lost are counted, neither one less nor one more."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from tests.apps.worker_app import make_app
from tests.events.messages import event, message
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.demo.processes import Process, wait_until
from celerymeter.demo.servers import Redis

pytestmark = pytest.mark.integration

WORKERS = ("w1@test", "w2@test")
BEATS = 3
"""Heartbeats of each worker that make a baseline: the one that is judged, and those that settle it."""


class Office:
    """Two workers, and an exporter that has a Redis user of its own so that it alone can be cut off."""

    def __init__(self, server: Redis, folder: Path, stack: ExitStack) -> None:
        self.client = redis.Redis(port=server.port)
        self.workers: dict[str, Process] = {}
        self._server, self._folder, self._stack = server, folder, stack
        self.client.acl_setuser(
            "exporter", enabled=True, passwords=["+s3cret"], categories=["+@all"], keys="*", channels="*"
        )
        self.exporter = ExporterProcess(folder, server.url.replace("//", "//exporter:s3cret@"))
        stack.callback(self.exporter.stop)
        self.exporter.up()
        for hostname in WORKERS:
            self.workers[hostname] = self._start(hostname)
        self.producer = make_app(server.url)
        stack.callback(self.producer.close)

    def _start(self, hostname: str) -> Process:
        options = ["--heartbeat-interval", "1"]
        worker = start_worker(self._server.url, self._folder, hostname=hostname, concurrency=2, options=options)
        return self._stack.enter_context(worker)

    def restart(self, hostname: str, end: Callable[[Process], int]) -> None:
        """End a worker in the midst of its work, and start another under its name."""
        begun = self.exporter.scrape().sum("celery_task_started_total")
        for _ in range(200):
            self.producer.send_task("tests.sleep", (0.02,))
        wait_until(lambda: self.exporter.scrape().sum("celery_task_started_total") > begun + 10)
        end(self.workers[hostname])
        self.workers[hostname] = self._start(hostname)
        wait_until(self._at_rest, interval=0.2, what="all tasks have ended")

    def _at_rest(self) -> bool:
        page = self.exporter.scrape()
        return self.client.llen("celery") == 0 and page.sum("celery_task_in_progress") == 0

    def run(self, tasks: int, name: str = "tests.add") -> None:
        """Send so many, and wait until the workers have begun them all."""
        wanted = self.begun() + tasks
        for number in range(tasks):
            self.producer.send_task(name, (number, 1))
        wait_until(lambda: self.begun() == wanted, interval=0.2, what=f"{wanted} runs have begun")

    def load(self) -> int:
        """Send some seconds of work; how many runs that is."""
        for _ in range(20):
            self.producer.send_task("tests.retry", (1,))
            for _ in range(7):
                self.producer.send_task("tests.sleep", (0.02,))
        return 20 * (2 + 7)

    def begun(self) -> int:
        """Runs that the workers have begun, by their own word."""
        stats = self.producer.control.inspect(timeout=5, limit=len(WORKERS)).stats() or {}
        return sum(count for answer in stats.values() for count in answer["total"].values())

    def lost(self) -> float:
        """Runs that have begun and that the exporter never heard of."""
        return self.begun() - self.exporter.scrape().sum("celery_task_started_total")

    def missed(self) -> float:
        """The counter under test."""
        return self.exporter.scrape().sum("celerymeter_events_missed_total")

    def await_beats(self, count: int = BEATS) -> None:
        """Wait for so many more heartbeats of each worker."""
        heard = self._beats()
        wait_until(lambda: self._beats() >= heard + count * len(WORKERS), what="heartbeats")

    def _beats(self) -> float:
        return self.exporter.scrape().sum("celerymeter_events_total", event="worker-heartbeat")

    @contextmanager
    def refused(self) -> Iterator[None]:
        """The broker has closed the exporter's connections and refuses new ones."""
        self.client.acl_setuser("exporter", enabled=False)
        self.client.client_kill_filter(user="exporter")
        wait_until(lambda: self.exporter.value("celerymeter_broker_up") == 0)
        yield
        self.client.acl_setuser("exporter", enabled=True)
        wait_until(lambda: self.exporter.value("celerymeter_broker_up") == 1)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The exporter does not read; the broker's connections to it are cut meanwhile."""
        reconnects = self.exporter.value("celerymeter_broker_reconnects_total") or 0
        self.exporter.signal(signal.SIGSTOP)
        self.client.client_kill_filter(user="exporter")
        yield
        self.exporter.signal(signal.SIGCONT)
        wait_until(lambda: self.exporter.value("celerymeter_broker_reconnects_total") == reconnects + 1)

    @contextmanager
    def overrun(self) -> Iterator[None]:
        """The exporter does not read, and the broker drops it for that by itself: over its default limit of 32 MB."""
        reconnects = self.exporter.value("celerymeter_broker_reconnects_total") or 0
        self.exporter.signal(signal.SIGSTOP)
        wait_until(self._flooded, interval=0.01, what="the broker drops its subscriber")
        yield
        self.exporter.signal(signal.SIGCONT)
        wait_until(lambda: self.exporter.value("celerymeter_broker_reconnects_total") == reconnects + 1)

    def _flooded(self) -> bool:
        """Send more than anybody can keep who does not read; whether the exporter was dropped."""
        self.client.publish("/0.celeryev/shop.opened", message(event(type="shop-opened", goods="x" * 500_000)))
        return not any(one["user"] == "exporter" for one in self.client.client_list(_type="pubsub"))


@pytest.fixture(scope="module")
def office(shared_redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Its baseline is made: each worker has run tasks, and heartbeats have said so."""
    with ExitStack() as stack:
        made = Office(shared_redis, tmp_path_factory.mktemp("office"), stack)
        made.run(60)
        made.await_beats()
        yield made


def test_a_reconnect_between_events_misses_nothing(office: Office) -> None:
    """A task begins before it and ends after it; what never sends events is no loss either."""
    missed, lost = office.missed(), office.lost()
    office.producer.send_task("tests.sleep", (4,))
    wait_until(lambda: office.exporter.scrape().sum("celery_task_in_progress") == 1)
    with office.refused():
        pass
    office.run(30)
    office.run(70, name="tests.silent")
    wait_until(lambda: office.exporter.scrape().sum("celery_task_succeeded_total", name="tests.sleep") == 1)
    office.await_beats()
    wait_until(lambda: office.exporter.scrape().sum("celery_task_accepted_total", name="tests.silent") == 70)
    office.run(40)  # or else a slow machine takes task events to be off, and what is lost now for unknown
    office.await_beats()
    assert office.lost() - lost == 70
    assert office.missed() == missed


def test_lost_runs_are_missed_exactly(office: Office) -> None:
    """Within two heartbeats and a reply after the subscription is back."""
    # Runs without events, as the test before has them, look like events turned off if they take three heartbeats. From
    # then until events are heard again nothing is missed: let each worker send some.
    office.run(40)
    office.await_beats()
    missed, lost = office.missed(), office.lost()
    with office.stopped():
        office.run(137)
    wait_until(lambda: office.missed() == missed + 137)
    office.run(40)
    office.await_beats()
    assert (office.missed() - missed, office.lost() - lost) == (137, 137)
    assert office.exporter.scrape().sum("celerymeter_events_unexplained") == 0


def test_a_slow_subscriber_that_the_broker_drops_says_so_and_misses_exactly(office: Office) -> None:
    """It is back at once, tells of the output limit, and counts what it did not hear."""
    missed, lost = office.missed(), office.lost()
    with office.overrun():
        office.run(91)
    wait_until(lambda: office.missed() == missed + 91)
    office.run(40)
    office.await_beats()
    assert (office.missed() - missed, office.lost() - lost) == (91, 91)
    assert "client-output-buffer-limit" in office.exporter.tail(2000)


@pytest.mark.parametrize("end", [Process.stop, Process.kill], ids=["warm", "killed"])
def test_a_worker_restart_under_load_is_no_loss_and_hides_none(office: Office, end: Callable[[Process], int]) -> None:
    """A new process counts from 0; what is lost of it, and of the other worker, is missed as before."""
    missed = office.missed()
    office.restart("w1@test", end)
    office.run(40)
    office.await_beats()
    assert office.missed() == missed
    with office.stopped():
        office.run(31)
    wait_until(lambda: office.missed() == missed + 31)
    office.run(10)
    office.await_beats()
    assert office.missed() == missed + 31


def test_a_subscription_lost_under_load_is_missed_exactly(office: Office) -> None:
    """Events are cut off and come back in the middle of runs, batches and retries."""
    missed, lost, begun = office.missed(), office.lost(), office.begun()
    runs = office.load()
    with office.refused():
        before = office.begun()
        runs += office.load()
        wait_until(lambda: office.begun() > before + 50)
    runs += office.load()
    wait_until(lambda: office.begun() == begun + runs, interval=0.2)
    office.await_beats()
    new = office.lost() - lost
    assert new >= 50
    wait_until(lambda: office.missed() - missed == new)
