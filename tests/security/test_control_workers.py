"""Invented workers: no number of them makes the API forget a real one, or claim what is not proven."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.revocation.process import ControlProcess

from celerymeter.control.live_workers import (
    FEW,
    HISTORY,
    MAX_DESTINATIONS,
    MAX_NEW,
    MAX_SILENT,
    MAX_WORKERS,
    LiveWorker,
    LiveWorkers,
    destinations,
)
from celerymeter.control.revocation.models import MAX_SHOWN
from celerymeter.control.worker_probe import WorkerProbe
from celerymeter.inspect_replies import Replies
from celerymeter.model import Event
from celerymeter.remote_control import RemoteControl
from celerymeter.settings import BrokerSettings

MANY = MAX_WORKERS + 1


@dataclass
class Cluster:
    """A registry, and somebody who may publish events."""

    now: float = 1000.0
    came: list[str] = field(default_factory=list)
    evicted: int = 0

    def __post_init__(self) -> None:
        self.workers = LiveWorkers(clock=lambda: self.now, evicted=self.count)
        self.workers.listen(self)
        self.workers.connected(self.now)

    def count(self, number: int) -> None:
        self.evicted += number

    def send(self, *hostnames: str, kind: str = "worker-heartbeat", pid: int = 1) -> None:
        batch = [Event(type=kind, hostname=name, timestamp=self.now, pid=pid) for name in hostnames]
        self.workers.events(batch, self.now)

    def beat(self, *hostnames: str, seconds: float = HISTORY) -> None:
        """Heartbeats every 2 s."""
        for _ in range(int(seconds / 2) + 1):
            self.send(*hostnames)
            self.now += 2

    def joined(self, worker: LiveWorker) -> None:
        self.came.append(worker.hostname)

    def left(self, hostname: str) -> None:
        """Nothing."""


def invented(number: int, *, length: int = 12) -> list[str]:
    """Names of workers that nobody has."""
    return [f"evil@{n:0{length}}" for n in range(number)]


def _ever_new(cluster: Cluster) -> None:
    for n in range(50, 3000, 50):
        cluster.beat(*invented(n)[-50:], seconds=8)


FLOODS: dict[str, Callable[[Cluster], None]] = {
    "a heartbeat each": lambda cluster: cluster.send(*invented(MANY)),
    "a task event each": lambda cluster: cluster.send(*invented(MANY), kind="task-started"),
    "all come online": lambda cluster: cluster.send(*invented(MANY), kind="worker-online"),
    "heartbeats for a while": lambda cluster: cluster.beat(*invented(3000), seconds=12),
    "ever new ones": _ever_new,
    "long names": lambda cluster: cluster.send(*invented(MANY, length=400)),
}
"""Floods that anybody with the right to publish events can make."""


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
@pytest.mark.parametrize("proof", ["history", "answer"])
def test_a_worker_that_lives_stays_known(flood: Callable[[Cluster], None], proof: str) -> None:
    """One that has answered, also when it is stopped meanwhile; one that sends heartbeats as well."""
    cluster = Cluster()
    if proof == "answer":
        cluster.send("real@host")
        cluster.workers.answered(["real@host"])
    else:
        cluster.beat("real@host")
    flood(cluster)
    assert cluster.workers.get("real@host") is not None
    cluster.send("real@host")
    assert "real@host" in cluster.workers.alive()


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_what_counts_as_alive_is_bounded(flood: Callable[[Cluster], None]) -> None:
    """Those that only appear count for nothing while there are many; what is forgotten is counted."""
    cluster = Cluster()
    flood(cluster)
    assert len(cluster.workers.alive()) <= MAX_SILENT + FEW
    assert len(cluster.workers._new) <= MAX_NEW
    assert cluster.evicted > 0 or len(cluster.workers._known) + len(cluster.workers._new) <= MAX_SILENT + MAX_NEW


def test_many_that_appear_at_once_are_not_waited_for() -> None:
    """A revoke would wait for each."""
    cluster = Cluster()
    cluster.beat("real@host")
    cluster.send(*invented(MANY))
    assert cluster.workers.alive() == {"real@host"}


@pytest.mark.parametrize("number", [1, 10, FEW])
def test_a_few_new_workers_count_at_once(number: int) -> None:
    """As in every cluster that starts."""
    cluster = Cluster()
    cluster.send(*invented(number))
    assert len(cluster.workers.alive()) == number


def test_a_large_cluster_that_starts_is_known_after_a_few_heartbeats() -> None:
    """And whole once it has answered."""
    cluster = Cluster()
    names = invented(MAX_NEW)
    cluster.beat(*names)
    assert cluster.workers.alive() == set(names)
    bigger = Cluster()
    names = invented(3 * MAX_NEW)
    bigger.send(*names)
    bigger.workers.answered(names)
    assert bigger.workers.alive() == set(names)


@pytest.mark.parametrize("kind", ["worker-offline", "worker-online", "worker-heartbeat", "task-started"])
def test_an_event_in_the_name_of_a_worker_takes_no_proof_from_it(kind: str) -> None:
    """Of a worker that has answered anybody may say that it goes or restarts; its next heartbeat tells."""
    cluster = Cluster()
    cluster.send("real@host")
    cluster.workers.answered(["real@host"])
    cluster.send("real@host", kind=kind, pid=666)
    cluster.send(*invented(MANY))
    cluster.send("real@host")
    assert "real@host" in cluster.workers.alive()


@pytest.mark.parametrize(
    "name", ["a" * 201, "w@\x1b[2J", "w@a\nb", "w@\u202eb", "w@" + "\U0001f600" * 300, "a" * 199 + "…"]
)
def test_a_name_that_no_worker_has_is_not_kept(name: str) -> None:
    """It is counted."""
    cluster = Cluster()
    cluster.send(name)
    assert (cluster.workers.get(name), cluster.workers.alive(), cluster.evicted) == (None, frozenset(), 1)


def test_a_worker_that_comes_amid_inventions_is_announced_once_it_answers() -> None:
    """So that it gets the flags that it does not know; invented ones get nothing."""
    cluster = Cluster()
    cluster.send(*invented(MANY))
    cluster.send("real@host")
    announced = len(cluster.came)
    cluster.workers.answered(["real@host"])
    assert cluster.came[announced:] == ["real@host"]
    assert announced <= FEW
    cluster.send("real@host")
    assert len(cluster.came) == announced + 1


class Answering(RemoteControl):
    """Remote control that one worker answers."""

    asked = 0

    def ask(self, *_: object, **__: object) -> Replies:
        self.asked += 1
        replies = Replies()
        replies.receive("active_queues", b'{"real@host": []}')
        return replies


def test_workers_are_asked_only_when_they_have_only_sent_events() -> None:
    """Once after they came; amid inventions twice a minute."""
    cluster, remote = Cluster(), Answering(BrokerSettings(url="redis://127.0.0.1:1/0"))
    probe = WorkerProbe(remote, cluster.workers, clock=lambda: cluster.now)
    probe.probe()
    cluster.beat("real@host", seconds=30)
    probe.probe()
    cluster.beat("real@host", seconds=60)
    probe.probe()
    assert remote.asked == 1
    for _ in range(10):
        cluster.send(*invented(MANY))
        cluster.now += 6
        probe.probe()
    assert remote.asked == 3
    assert cluster.workers.get("real@host") is not None


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ControlProcess]:
    """A control API and one worker."""
    process = ControlProcess(tmp_path / "state")
    yield process
    process.close()


def publish(process: ControlProcess, *hostnames: str, at: float) -> None:
    """Have heartbeats come in."""
    process.parts.events.events(
        [Event(type="worker-heartbeat", hostname=name, timestamp=at, pid=1) for name in hostnames], at
    )


def test_a_revoke_amid_inventions_waits_for_a_stopped_worker(process: ControlProcess) -> None:
    """It has answered before, so it is named as missing and nothing is claimed for it."""
    now = time.time()
    publish(process, "stopped@host", at=now - 20)
    process.parts.monitoring.switch.workers.answered(["stopped@host"])
    publish(process, *invented(MANY), at=now)
    publish(process, "stopped@host", at=now)
    process.begin("t1")()
    batch = process.find()
    assert batch.workers.missing == {"stopped@host"}
    assert [result.status for result in batch.results] == ["partial"]


def test_a_revoke_amid_inventions_with_a_history_has_a_bounded_answer(process: ControlProcess) -> None:
    """And so has its row in the audit trail; commands name no inventions."""
    now = time.time()
    for seconds in range(12, -1, -2):
        publish(process, *invented(MAX_NEW, length=195), at=now - seconds)
    process.begin("t1")()
    process.run_threads()
    batch = process.find()
    assert MAX_SILENT >= len(batch.workers.missing) > MAX_SHOWN
    assert len(batch.workers.shortened().missing) == MAX_SHOWN
    (_, detail), *_ = process.audited("outcome")
    assert detail["missing_workers"] == len(batch.workers.missing)
    assert len(json.dumps(detail)) < 50_000


def test_a_command_names_only_a_few() -> None:
    """To more it goes as to all: its length does not grow with their names."""
    assert destinations(invented(MAX_DESTINATIONS)) is not None
    assert destinations(invented(MAX_DESTINATIONS + 1)) is None


@pytest.mark.parametrize("kind", ["answers", "errors"])
def test_a_reply_speaks_for_its_own_worker_only(kind: str) -> None:
    """One message made 10,000 workers known, with the best proof there is."""
    replies, body = Replies(), {name: {"error": "x"} if kind == "errors" else {"pid": 1} for name in invented(MANY)}
    replies.receive("stats", json.dumps(body))
    assert (len(replies.settled("stats")), replies.malformed) == (0, 1)


@pytest.mark.parametrize("reply", [{"pid": 1}, {"error": "no"}, {}])
def test_replies_are_bounded_in_number(reply: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    """Those of workers that came first count; the others fill no log."""
    replies = Replies()
    replies.receive("stats", json.dumps({"real@host": reply}))
    for name in invented(MANY + 500):
        replies.receive("stats", json.dumps({name: reply}))
    assert len(replies.settled("stats")) == MAX_WORKERS
    assert "real@host" in replies.settled("stats")
    assert replies.malformed >= 500
    assert len(caplog.records) <= 10


@pytest.mark.parametrize("name", ["x" * 600, "x" * 1_000_000, "\U0001f600" * 100_000])
def test_a_reply_of_a_worker_with_a_long_name_is_not_kept(name: str) -> None:
    """Nobody has one."""
    replies = Replies()
    replies.receive("stats", json.dumps({name: {"pid": 1}}))
    assert (replies.hostnames, replies.malformed) == (frozenset(), 1)
