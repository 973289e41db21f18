"""Which source is asked for what: a look-up costs workers little, and a source that is away spoils no other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from tests.fake_remote_control import FakeRemoteControl, Wait, add_reply

from celerymeter.control.evidence.events import EventCache
from celerymeter.control.evidence.look import FEW, TaskLooker
from celerymeter.control.evidence.models import Termination
from celerymeter.control.evidence.sources import Sources
from celerymeter.control.evidence.task import Evidence
from celerymeter.control.evidence.workers import WorkerInspector
from celerymeter.control.live_workers import LiveWorkers
from celerymeter.control.lookup.decide import decide
from celerymeter.errors import BrokerUnavailable
from celerymeter.inspect_replies import Replies
from celerymeter.model import Event
from celerymeter.remote_control import Command

ID = "one"


@dataclass
class FakeWorkers(FakeRemoteControl):
    """Workers with their answers, to other commands an empty one; ``asked`` are the commands since it was cleared."""

    workers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    away: bool = False

    def deliver(self, commands: Sequence[Command], replies: Replies, wait: Wait) -> None:
        """Reply to what is sent to them."""
        if self.away:
            raise BrokerUnavailable("nobody is there")
        for command in commands:
            for name, answers in self.workers.items():
                if command.destination is None or name in command.destination:
                    self.asked.append((name, command.method))
                    add_reply(replies, command, name, answers.get(command.method, _EMPTY.get(command.method, [])))


_EMPTY = {"stats": {"pid": 7, "prefetch_count": 4}, "query_task": {}, "celerymeter_task": {"ok": {}}}
LISTS = {"reserved", "scheduled"}


class Cluster:
    """Workers, events and a look."""

    def __init__(self, **workers: Mapping[str, Any]) -> None:
        self.remote = FakeWorkers(workers={f"{name}@t": answers for name, answers in workers.items()})
        self.cache = EventCache()
        self.live = LiveWorkers()
        self.inspector = WorkerInspector([self.remote])
        self.inspector.aggregating = self.live.aggregating
        self.terminated = {ID: Termination(9)}
        self.looker = TaskLooker(
            Sources(
                self.inspector,
                self.cache,
                self.live,
                result_backend=None,
                broker=None,
                previously_terminated=lambda ids: {
                    each: self.terminated[each] for each in ids if each in self.terminated
                },
            )
        )

    def event(self, kind: str, worker: str = "a@t", **fields: Any) -> None:
        """Have an event come in ten seconds ago."""
        at = time.time() - 10
        event = Event(type=kind, hostname=worker, timestamp=at, pid=7, **fields)
        self.live.events([event], at)
        self.cache.add([event], at)

    def task_event(self, kind: str, **fields: Any) -> None:
        """Have one of the task come in."""
        self.event(f"task-{kind}", uuid=ID, **fields)

    def look(self, task_id: str = ID) -> Evidence:
        """Look for the task."""
        self.remote.asked.clear()
        (evidence,) = self.looker.look([task_id], until=time.monotonic() + 1)
        return evidence

    def lists(self) -> set[tuple[str, str]]:
        """Return which lists of which worker the last look asked for."""
        return {(name, method) for name, method in self.remote.asked if method in LISTS}


def request(task_id: object = ID, **fields: object) -> dict[str, object]:
    """Return a task as a worker lists it."""
    return {"id": task_id, "name": "tests.add", **fields}


def test_a_task_that_a_worker_names_costs_no_list() -> None:
    """`query_task` is enough while it runs."""
    cluster = Cluster(a={"query_task": {ID: ["active", request(time_start=5.0, worker_pid=9)]}}, b={})
    evidence = cluster.look()
    assert [(held.worker, held.state, held.started_at) for held in evidence.held] == [("a@t", "active", 5.0)]
    assert cluster.lists() == set()


def test_a_task_whose_end_is_known_costs_no_list() -> None:
    """Its event is enough."""
    cluster = Cluster(a={})
    for kind in ("received", "started", "succeeded"):
        cluster.task_event(kind)
    assert decide(cluster.look()).verdict == "succeeded"
    assert cluster.lists() == set()


def test_only_workers_that_hold_few_are_asked_for_their_lists() -> None:
    """The others are named."""
    cluster = Cluster(a={}, b={"stats": {"prefetch_count": FEW + 1}})
    evidence = cluster.look()
    assert cluster.lists() == {("a@t", "reserved"), ("a@t", "scheduled")}
    assert [note.text for note in evidence.not_asked if note.source == "workers"] == [
        "the lists of b@t: they hold many tasks"
    ]


def test_only_the_worker_that_received_it_is_asked_for_its_lists() -> None:
    """By its event; and for the attributes of the task."""
    cluster = Cluster(a={"registered": ["tests.add [rate_limit=1/h acks_late=True]", "tests.other"]}, b={})
    cluster.task_event("received", name="tests.add")
    evidence = cluster.look()
    assert cluster.lists() == {("a@t", "reserved"), ("a@t", "scheduled")}
    assert ("a@t", "registered") in cluster.remote.asked
    assert ("b@t", "registered") not in cluster.remote.asked
    assert evidence.facts is not None
    assert (evidence.facts.rate_limit, evidence.facts.acks_late) == ("1/h", True)
    assert decide(evidence).reason == "rate_limited"


def test_an_eta_is_taken_from_the_list_where_no_event_tells_it() -> None:
    """Of that worker alone."""
    scheduled = {"eta": "2033-05-18T03:33:20+00:00", "priority": 6, "request": request()}
    held = {"query_task": {ID: ["scheduled", request()]}, "scheduled": [scheduled]}
    cluster = Cluster(a=held, b={})
    assert decide(cluster.look()).eta == 2_000_000_000.0
    assert cluster.lists() == {("a@t", "scheduled")}


@pytest.mark.parametrize("method", ["active", "reserved", "scheduled"])
def test_an_id_that_is_a_uuid_object_is_found_in_a_list(method: str) -> None:
    """`query_task` compares ids as they were sent, and misses it."""
    task_id = str(uuid4())
    listed: object = request({"__type__": "uuid", "__value__": {"hex": task_id.replace("-", "")}})
    listed = {"eta": None, "request": listed} if method == "scheduled" else listed
    evidence = Cluster(a={method: [listed]}).look(task_id)
    assert [(held.state, held.uuid_object) for held in evidence.held] == [(method, True)]


def test_only_workers_that_aggregate_are_asked_for_their_memory() -> None:
    """Others would log an error for a command that they do not know."""
    known = {"state": "succeeded", "name": "tests.add", "queue": "q", "started": 5.0, "ended": 6.0, "retries": 0}
    cluster = Cluster(a={"celerymeter_task": {"ok": {ID: known}}}, b={})
    for name in ("a@t", "b@t"):
        cluster.event("worker-heartbeat", name)
    worker = cluster.live.get("a@t")
    assert worker is not None
    worker.aggregates = True
    evidence = cluster.look()
    assert [name for name, method in cluster.remote.asked if method == "celerymeter_task"] == ["a@t"]
    assert (decide(evidence).verdict, evidence.says[2].source) == ("succeeded", "worker memory")


@pytest.mark.parametrize(
    ("stats", "verdict"),
    [
        ({"pid": 7, "pool": {"processes": [8]}}, "revoked"),
        ({"pid": 7, "pool": {"processes": [8, 9]}}, "running"),
        ({"pid": 7}, "unknown"),
    ],
)
def test_a_terminated_task_is_judged_by_its_process(stats: Mapping[str, Any], verdict: str) -> None:
    """Of the pool, as the batch that terminated it has noted it."""
    cluster = Cluster(a={"stats": stats})
    for kind in ("received", "started"):
        cluster.task_event(kind)
    cluster.task_event("revoked", terminated=True)
    assert decide(cluster.look()).verdict == verdict


def test_workers_that_cannot_be_reached_are_named_and_events_must_do() -> None:
    """An end that was seen is one."""
    cluster = Cluster(a={})
    cluster.remote.away = True
    evidence = cluster.look()
    assert [note.text for note in evidence.unreachable] == ["nobody is there"]
    assert (decide(evidence).verdict, decide(evidence).reason) == ("unknown", "broker")
    for kind in ("received", "started", "failed"):
        cluster.task_event(kind)
    assert decide(cluster.look()).verdict == "failed"


def test_silent_workers_are_named_once_they_can_be_known() -> None:
    """Soon after the subscription began, none of them may have been heard yet."""
    cluster = Cluster(a={})
    now = time.time()
    cluster.live.connected(now - 1)
    assert [note.text for note in cluster.look().unreachable] == [
        "those that do not answer are not known: events have been heard for less than 10 s"
    ]
    cluster.live.connected(now - 11)
    assert cluster.look().unreachable == ()
    cluster.event("worker-heartbeat", "silent@t")
    assert [note.text for note in cluster.look().unreachable] == ["no answer from silent@t"]


def test_a_hard_time_limit_has_its_own_name() -> None:
    """Celery 5.7 reports a wrapper, and the class in the traceback."""
    cluster = Cluster(a={})
    for kind in ("received", "started"):
        cluster.task_event(kind)
    text = (
        'Traceback (most recent call last):\n  File "x"\nbilliard.exceptions.TimeLimitExceeded: TimeLimitExceeded(1,)\n'
    )
    cluster.task_event("failed", exception="ExceptionWithTraceback()", traceback=text)
    assert [run.exception for run in cluster.look().history.runs] == ["TimeLimitExceeded"]


@pytest.mark.parametrize("announced", ["sent", "received"])
def test_the_end_of_a_run_comes_after_the_start_of_its_retry(announced: str) -> None:
    """A worker with a free slot is that quick; the later run has the end that it had."""
    cluster = Cluster(a={})
    cluster.task_event("received", retries=0)
    for retries in (1, 2):
        cluster.task_event("started")
        cluster.task_event(announced, retries=retries)
        assert decide(cluster.look()).verdict != "running"
    cluster.task_event("started")
    for _ in range(2):
        cluster.task_event("retried", exception="OSError()")
    cluster.task_event("succeeded", runtime=1.0)
    evidence = cluster.look()
    assert [(run.outcome, run.exception) for run in evidence.history.runs] == [
        ("retried", "OSError"),
        ("retried", "OSError"),
        ("succeeded", None),
    ]
    assert decide(evidence).verdict == "succeeded"
