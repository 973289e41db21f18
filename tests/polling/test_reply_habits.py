"""A worker that cannot reply to a command is not sent it again and again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pytest
from tests.fake_remote_control import FakeRemoteControl, Wait, add_reply

from celerymeter.inspect_replies import Replies
from celerymeter.model import WorkersSnapshot
from celerymeter.polling.list_schedule import MAX_HELD
from celerymeter.polling.reply_habits import PAUSES, YOUNG, PollTarget
from celerymeter.polling.workers import MAX_NEW, WorkerPoller
from celerymeter.remote_control import Command
from celerymeter.settings import BrokerSettings, ExporterSettings

ANSWERS = {"active_queues": [], "active": [], "reserved": [], "scheduled": [], "registered": ["add"]}
METHODS = ["stats", "active_queues", "active"]
LISTS = ["reserved", "scheduled"]
ONCE = ["registered"]
"""Once for each process; on Redis its configuration too."""


@dataclass
class Worker:
    """Replies to all commands but these; a busy one replies to none and sends no heartbeat."""

    mute: Collection[str] = ()
    busy: bool = False
    process: int = 1
    online_at: float | None = None
    pool: str = "celery.concurrency.prefork:TaskPool"
    reserved: int = 0
    conf: object = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, method: str) -> object:
        """The answer to a command."""
        if method == "stats":
            return {"pid": self.process, "pool": {"implementation": self.pool}}
        if method == "conf":
            return self.conf
        return [{"id": str(number)} for number in range(self.reserved)] if method == "reserved" else ANSWERS[method]


class Cluster(FakeRemoteControl):
    """Workers behind a remote control without a broker."""

    def __init__(self, url: str = "memory://", /, **workers: Worker) -> None:
        super().__init__(BrokerSettings(url=url))
        self.workers = workers
        self.now = 1000.0
        self.silences: list[float] = []
        self._poller = WorkerPoller(ExporterSettings(BrokerSettings(url=url)), control=self)

    def deliver(self, commands: Sequence[Command], replies: Replies, wait: Wait) -> None:
        """Every worker that is addressed replies at once."""
        self.silences.append(wait.silence)
        for command in commands:
            for name in command.destination or self.workers:
                worker = self.workers[name]
                worker.asked.append(command.method)
                if not worker.busy and command.method not in worker.mute:
                    add_reply(replies, command, name, worker.answer(command.method))

    def poll(self) -> frozenset[str]:
        """One poll, two minutes after the last; returns the workers that could have replied and did not."""
        return self.snapshot().silent

    def beats(self) -> None:
        """Search for beats."""
        self._poller.beats(now=self.now)

    def snapshot(self) -> WorkersSnapshot:
        """The same; returns all of it."""
        for worker in self.workers.values():
            worker.asked.clear()
        self.now += 120
        live = [PollTarget(name, worker.process, worker.online_at) for name, worker in self.workers.items()]
        beating = [name for name, worker in self.workers.items() if not worker.busy]
        return self._poller.poll(now=self.now, live=live, heard_since=lambda _: beating)


def test_a_worker_that_replies_to_nothing_has_two_more_chances() -> None:
    """Soon, after five minutes, and then when it has restarted; others are asked on."""
    mute, well = Worker(mute=METHODS), Worker()
    cluster = Cluster(mute=mute, well=well)
    asked = []
    for _ in range(8):
        silent = cluster.poll()
        asked.append(mute.asked.copy())
        assert (silent == {"mute"}) == bool(mute.asked)
        assert well.asked[:3] == METHODS
    assert asked == [["stats"], ["stats"], [], [], ["stats"], [], [], []]
    mute.process = 2
    assert cluster.poll() == {"mute"}
    assert mute.asked == ["stats"]


def test_chance_keeps_nobody_silent() -> None:
    """Its second reply counts."""
    cluster = Cluster(unlucky=Worker(mute=METHODS))
    cluster.poll()
    cluster.workers["unlucky"].mute = ()
    for _ in range(3):
        cluster.poll()
    assert cluster.workers["unlucky"].asked[:3] == METHODS


def test_where_nobody_can_reply_nothing_is_sent() -> None:
    """A worker logs an error for every command that it cannot decode, also for those to other workers."""
    cluster = Cluster(mute=Worker(mute=METHODS))
    cluster.poll()
    cluster.poll()
    rounds = len(cluster.silences)
    cluster.poll()
    assert len(cluster.silences) == rounds


def test_a_busy_worker_is_asked_again() -> None:
    """It sends no heartbeats meanwhile."""
    cluster = Cluster(solo=Worker(busy=True))
    for _ in range(3):
        assert cluster.poll() == frozenset()
        assert cluster.workers["solo"].asked == ["stats"]
    cluster.workers["solo"].busy = False
    cluster.poll()
    assert cluster.workers["solo"].asked == [*METHODS, *LISTS, *ONCE]


def test_a_worker_that_has_replied_before_is_asked_again() -> None:
    """It is able to; something else is wrong just now, and the poll says so."""
    cluster = Cluster(well=Worker())
    cluster.poll()
    cluster.workers["well"].mute = METHODS
    for _ in range(3):
        assert cluster.poll() == {"well"}
        assert cluster.workers["well"].asked == METHODS


def test_a_new_worker_may_not_listen_yet() -> None:
    """It says that it is online before it does."""
    cluster = Cluster(young=Worker(mute=METHODS))
    cluster.workers["young"].online_at = cluster.now + 120 - YOUNG / 2
    assert cluster.poll() == frozenset()
    assert cluster.poll() == {"young"}


def test_a_worker_that_never_replied_is_waited_for_longer() -> None:
    """For its heartbeats have to prove that it could have."""
    cluster = Cluster(well=Worker())
    cluster.poll()
    first = cluster.silences[0]
    cluster.silences.clear()
    cluster.poll()
    assert cluster.silences[0] < first


def test_one_command_that_fails_is_left_out_alone() -> None:
    """A task's arguments cannot be written, so `reserved` fails; `scheduled`, which was lost with it, does not."""
    odd = Worker(mute=LISTS)
    cluster = Cluster(odd=odd, well=Worker())
    cluster.poll()
    assert odd.asked == [*METHODS, *LISTS, *ONCE]
    odd.mute = ["reserved"]
    for pause in PAUSES:
        cluster.now += pause
        cluster.poll()
    for _ in range(4):
        cluster.poll()
        assert odd.asked == [*METHODS, "scheduled"]
        assert cluster.workers["well"].asked == [*METHODS, *LISTS]


@pytest.mark.parametrize("late", METHODS)
def test_a_reply_that_comes_too_late_keeps_nobody_silent(late: str) -> None:
    """On a machine that is short of time one of several replies may miss a poll, and the next one too."""
    worker = Worker()
    cluster = Cluster(slow=worker)
    cluster.poll()
    worker.mute = [late]
    assert [cluster.poll() for _ in range(3)] == [{"slow"}] * 3
    worker.mute = []
    assert cluster.poll() == frozenset()
    assert set(METHODS) <= set(worker.asked)


def test_a_command_that_fails_later_is_sent_three_times_at_most() -> None:
    """At once, soon, and once more after five minutes."""
    worker = Worker()
    cluster = Cluster(odd=worker)
    cluster.poll()
    worker.mute = ["reserved"]
    counts = []
    for _ in range(8):
        cluster.poll()
        counts.append(worker.asked.count("reserved"))
    assert counts == [1, 1, 0, 0, 1, 0, 0, 0]
    assert worker.asked == [*METHODS, "scheduled"]


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_that_holds_too_many_tasks_is_not_asked_for_them_again(pool: str) -> None:
    """Without a prefetch limit only its first answer shows how many."""
    worker = Worker(pool=f"celery.concurrency.{pool}:TaskPool", reserved=MAX_HELD + 1)
    cluster = Cluster(full=worker)
    cluster.poll()
    assert worker.asked == [*METHODS, *LISTS, *ONCE]
    cluster.poll()
    assert worker.asked == METHODS


REDIS = "redis://127.0.0.1:1/0"


def test_each_worker_process_is_asked_once_for_its_configuration() -> None:
    """A restart may have changed it."""
    worker = Worker(conf={"broker_transport_options": {"visibility_timeout": 86400}})
    cluster = Cluster(REDIS, worker=worker)
    asked = []
    for process in (1, 1, 1, 2, 2):
        worker.process = process
        assert cluster.snapshot().workers["worker"].visibility_timeout == 86400
        asked.append("conf" in worker.asked)
    assert asked == [True, False, False, True, False]


def test_a_worker_that_cannot_tell_its_configuration_is_left_alone() -> None:
    """It is asked twice more, and keeps nobody else from being asked; an error is a reply."""
    mute, well = Worker(mute=["conf"]), Worker()
    cluster = Cluster(REDIS, mute=mute, well=well)
    asked = []
    for _ in range(6):
        found = cluster.snapshot().workers
        asked.append("conf" in mute.asked)
        assert (found["mute"].visibility_timeout, found["well"].visibility_timeout) == (None, 3600)
    assert asked == [True, True, False, False, True, False]


def test_a_poll_asks_few_of_many_workers_for_their_configuration() -> None:
    """After a restart of the exporter the replies of a large cluster would be tens of megabytes at once."""
    workers = {f"w{number}": Worker() for number in range(MAX_NEW + 7)}
    cluster = Cluster(REDIS, **workers)
    counts = []
    for _ in range(3):
        cluster.poll()
        counts.append(sum("conf" in worker.asked for worker in workers.values()))
    assert counts == [MAX_NEW, 7, 0]


@pytest.mark.parametrize("options", [{}, {"visibility_timeout": 60}])
def test_where_the_configuration_is_of_no_use_it_is_not_asked_for(options: dict[str, object]) -> None:
    """On RabbitMQ nothing depends on it, and an option overrides it."""
    url = REDIS if options else "amqp://127.0.0.1:1//"
    cluster, worker = Cluster(url, worker=Worker()), Worker()
    poller = WorkerPoller(ExporterSettings(BrokerSettings(url=url, transport_options=options)), control=cluster)
    cluster.workers = {"worker": worker}
    assert poller.poll(now=1.0, live=[PollTarget("worker", 1)]).workers["worker"].visibility_timeout is None
    assert worker.asked == [*METHODS, *LISTS, *ONCE]


@pytest.mark.parametrize(("mute", "pings"), [((), 1), (METHODS, 0)])
def test_no_beat_is_searched_for_while_a_worker_may_log_an_error_for_it(mute: Collection[str], pings: int) -> None:
    """A ping to unknown beats goes to every worker, and one that accepts only pickle logs an error for each."""
    worker = Worker(mute=[*mute, "ping"])
    cluster = Cluster(REDIS, worker=worker, well=Worker(mute=["ping"]))
    cluster.poll()
    cluster.beats()
    assert worker.asked.count("ping") == pings
