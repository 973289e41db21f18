"""Which workers live, by their events."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from celerymeter.control.event_listener import EventListener
from celerymeter.control.live_workers import FORGET_AFTER, LiveWorker, LiveWorkers
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis
from celerymeter.model import Event
from celerymeter.settings import BrokerSettings


@dataclass
class Cluster:
    """A registry, its clock and what it says."""

    now: float = 1000.0
    came: list[tuple[str, bool]] = field(default_factory=list)
    went: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.workers = LiveWorkers(clock=lambda: self.now, max_new=3)
        self.workers.listen(self)
        self.workers.connected(self.now)

    def joined(self, worker: LiveWorker) -> None:
        """Note it."""
        self.came.append((worker.hostname, worker.restarted))

    def left(self, hostname: str) -> None:
        """Note it."""
        self.went.append(hostname)

    def send(self, kind: str, hostname: str = "w", *, pid: int = 1, freq: float | None = None) -> None:
        """One event."""
        event = Event(type=kind, hostname=hostname, timestamp=self.now, pid=pid, freq=freq)
        self.workers.events([event], self.now)


@pytest.mark.parametrize("kind", ["worker-heartbeat", "worker-online", "task-started"])
def test_a_worker_that_is_heard_is_alive(kind: str) -> None:
    """Until it has been silent for half a minute, or says that it goes."""
    cluster = Cluster()
    cluster.send(kind)
    cluster.now += 29
    assert cluster.workers.alive() == {"w"}
    cluster.now += 2
    assert cluster.workers.alive() == frozenset()
    cluster.send(kind)
    cluster.send("worker-offline")
    assert cluster.workers.alive() == frozenset()
    assert cluster.went == ["w"]


def test_a_client_is_no_worker() -> None:
    """`task-sent` comes from producers, other types from anybody."""
    cluster = Cluster()
    cluster.send("task-sent")
    cluster.send("shop-opened")
    assert cluster.workers.alive() == frozenset()


def test_a_slow_heartbeat_is_awaited() -> None:
    """Three of them may be missing."""
    cluster = Cluster()
    cluster.send("worker-heartbeat", freq=60)
    cluster.now += 179
    assert cluster.workers.alive() == {"w"}


def test_who_comes_and_who_comes_again() -> None:
    """A new pid or `worker-online` means that it has forgotten everything."""
    cluster = Cluster()
    cluster.send("worker-heartbeat", "a")
    cluster.send("worker-heartbeat", "a")
    cluster.send("task-started", "a", pid=0)
    cluster.send("worker-heartbeat", "a", pid=2)
    cluster.send("worker-online", "b")
    assert cluster.came == [("a", False), ("a", True), ("b", True)]
    found = cluster.workers.get("a")
    assert found is not None
    assert found.pid == 2


def test_everybody_is_known_a_while_after_the_subscription() -> None:
    """And not while there is none."""
    cluster = Cluster()
    informed = [cluster.workers.informed]
    cluster.now += 11
    informed.append(cluster.workers.informed)
    cluster.workers.disconnected(cluster.now, "gone")
    informed.append(cluster.workers.informed)
    assert informed == [False, True, False]


def test_a_worker_that_is_heard_again_after_a_silence_comes_again() -> None:
    """It was not among those that were sent commands meanwhile."""
    cluster = Cluster()
    for _ in range(2):
        cluster.send("worker-heartbeat", "a")
        cluster.now += 31
    cluster.send("worker-heartbeat", "a")
    cluster.send("worker-heartbeat", "a")
    assert cluster.came == [("a", False)] * 3


def test_a_worker_without_heartbeats_is_waited_for_once_it_has_answered() -> None:
    """For a minute, or until it says that it goes; of others the heartbeats tell."""
    cluster = Cluster()
    cluster.workers.answered(["mute", "gone", "dead"])
    assert cluster.workers.expected() == frozenset(), "not every worker is known yet"
    cluster.now += 11
    cluster.send("worker-heartbeat", "dead", freq=2)
    cluster.send("worker-offline", "gone")
    assert cluster.workers.expected() == {"mute", "dead"}
    cluster.now += 40
    assert cluster.workers.expected() == {"mute"}
    cluster.now += 10
    assert cluster.workers.expected() == frozenset()


def test_what_is_remembered_is_bounded() -> None:
    """In number and in age; the longest silent go first."""
    cluster = Cluster()
    for name in "abcd":
        cluster.send("worker-heartbeat", name)
    assert cluster.workers.alive() == {"b", "c", "d"}
    cluster.workers.answered(["b"])
    cluster.now += FORGET_AFTER + 1
    cluster.send("worker-heartbeat", "e")
    assert (cluster.workers.get("b"), cluster.workers.get("c")) == (None, None)


@pytest.mark.integration
def test_a_refused_password_is_logged_once_until_it_is_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The health has the broker as the exporter sees it, so only the log says that the API itself gets no events."""
    with caplog.at_level(logging.INFO), Redis(tmp_path, options=["--requirepass", "right"]) as server:
        server.up()
        listener = EventListener(BrokerSettings(server.url.replace("127.0.0.1", ":hush@127.0.0.1")))
        listener.start()
        wait_until(lambda: "refuses user or password" in caplog.text, what="the refusal is logged")
        with redis.Redis(port=server.port, password="right") as client:

            def refused() -> int:
                return int(client.info("errorstats").get("errorstat_WRONGPASS", {}).get("count", 0))

            wait_until(lambda: refused() > 2, what="further attempts")
            client.config_set("requirepass", "hush")
        wait_until(lambda: "subscribed to events" in caplog.text, what="a subscription with the right password")
        listener.stop()
    said = [record.message for record in caplog.records if record.name == "celerymeter.control.event_listener"]
    assert len(said) == 2
    assert "hush" not in caplog.text
