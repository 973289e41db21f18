"""Each answer to "where is my task", caused for real: on Redis and RabbitMQ, in pools of processes and of threads.

One cluster serves all tests of a setting. Its workers have a queue of their own name and one slot.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
import requests
from tests.control.access import bearer
from tests.lookup.watching import ON_THE_WAY, Lookups, outcomes
from tests.revocation.cluster import TIMEOUT, Cluster, Held, only, running_cluster
from tests.revocation.releases import INSTALLED, OTHERS, Setting

from celerymeter.control.live_workers import ALIVE
from celerymeter.demo.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

FEW = ("--prefetch-multiplier", "1")
"""One message at a time, so that the others wait in the queue."""
FINISHED = (("tests.add", (12345, 1)), ("tests.fail", ("a secret",)))


@dataclass
class Shop:
    """A cluster with its look-ups, and the tasks that died with a worker when it began."""

    cluster: Cluster
    lookups: Lookups
    pool: str
    redis: bool
    early: str
    late: str
    reserved: str

    def hold(self, queue: str = "one") -> Held:
        """Return a task that keeps a worker busy."""
        return self.cluster.hold(queue)

    def forgets_the_dead(self) -> None:
        """Wait until no answer of the killed worker is awaited any more: until then a revoke is `partial`."""
        wait_until(
            lambda: self.cluster.revoke(uuid4().hex)["missing_workers"] == 0,
            timeout=ALIVE + TIMEOUT,
            interval=1,
            what="only live workers are asked",
        )


def param(broker: str, pool: str) -> Any:
    """Return a setting; only the first is tried with every run of the tests."""
    marks = () if (broker, pool) == ("redis", "prefork") else (pytest.mark.slow,)
    return pytest.param((broker, pool), marks=marks, id=f"{broker}-{pool}")


POOLS = ("prefork", "threads", "aggregate", *OTHERS)
"""``aggregate``: prefork, with workers that publish totals and remember single tasks themselves; and older releases of
Celery, prefork too.
"""
SETTINGS = [param(broker, pool) for broker in ("redis", "rabbitmq") for pool in POOLS]


@pytest.fixture(scope="module", params=SETTINGS)
def shop(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """Two workers that live and one that has been killed with all that it had."""
    broker, pool = request.param
    kind: dict[str, Any] = {"pool": "threads" if pool == "threads" else "prefork"}
    release = pool if pool in OTHERS else INSTALLED
    kind |= {"aggregate": {}, "events": False} if pool == "aggregate" else {}
    with running_cluster(tmp_path_factory.mktemp("where"), Setting(broker, release)) as cluster:
        lookups = Lookups(cluster.control)
        doomed = cluster.worker("doomed@t", **{**kind, "pool": "prefork"}, concurrency=2)
        held = cluster.hold("doomed")
        late = cluster.send("tests.sleep_late", 600, queue="doomed")
        lookups.becomes(late, "running", before=ON_THE_WAY)
        reserved = cluster.send("tests.add", 1, 2, queue="doomed")
        lookups.becomes(reserved, "reserved", before=ON_THE_WAY)
        lookups.becomes(held.id, "running", before=ON_THE_WAY, worker="doomed@t")
        doomed.kill()
        cluster.worker("one@t", **kind, options=FEW)
        cluster.worker("two@t", **kind)
        yield Shop(cluster, lookups, pool, broker == "redis", held.id, late, reserved)


def test_behind_others_reserved_and_running(shop: Shop) -> None:
    """A slot, then the worker, then the queue with its place."""
    held = shop.hold()
    running = shop.lookups.becomes(held.id, "running", worker="one@t", name="tests.hold")
    assert outcomes(running) == [("one@t", "running")]
    reserved = shop.cluster.send("tests.add", 1, 2, queue="one")
    reply = shop.lookups.becomes(reserved, "reserved", before=("queued",), worker="one@t", queue="one")
    assert reply["behind"] == 1
    queued = [shop.cluster.send("tests.add", 1, 2, queue="one") for _ in range(3)]
    replies = [shop.lookups.becomes(task_id, "queued", queue="one", consumers=["one@t"]) for task_id in queued]
    assert [reply["position"]["total"] for reply in replies] == [3, 3, 3]
    numbers = [reply["position"]["number"] for reply in replies]
    assert numbers == ([1, 2, 3] if shop.redis else [None, None, None])
    assert [reply["free_slots"] for reply in replies] == [0, 0, 0]
    held.let_go()
    for task_id in (held.id, reserved, *queued):
        shop.lookups.becomes(task_id, "succeeded", before=ON_THE_WAY)


def test_at_another_priority(shop: Shop) -> None:
    """Behind all that is more urgent; on RabbitMQ the place is not known."""
    urgent = [shop.cluster.send("tests.add", 1, 2, queue="nobody.priority", priority=0) for _ in range(2)]
    slow = shop.cluster.send("tests.add", 1, 2, queue="nobody.priority", priority=9)
    reply = shop.lookups.becomes(slow, "queued", queue="nobody.priority")
    expected = (
        {"number": 3, "total": 3, "priority": 9} if shop.redis else {"number": None, "total": 3, "priority": None}
    )
    assert reply["position"] == expected
    first = shop.lookups.becomes(urgent[0], "queued")["position"]
    assert first["number"] == (1 if shop.redis else None)


def test_scheduled_at_a_worker(shop: Shop) -> None:
    """Until its ETA."""
    sent = time.time()
    task_id = shop.cluster.send("tests.add", 1, 2, queue="two", countdown=3600)
    reply = shop.lookups.becomes(task_id, "scheduled", before=("queued", "reserved"), worker="two@t")
    assert reply["eta"] is not None
    assert seconds(reply["eta"]) == pytest.approx(sent + 3600, abs=60)


def test_succeeded_and_failed(shop: Shop) -> None:
    """With the class of the exception, never its text."""
    done, failed = (shop.cluster.send(name, *args, queue="two") for name, args in FINISHED)
    assert outcomes(shop.lookups.becomes(done, "succeeded", before=ON_THE_WAY)) == [("two@t", "succeeded")]
    reply = shop.lookups.becomes(failed, "failed", before=ON_THE_WAY, worker="two@t")
    assert reply["runs"][0]["exception"] == ("ValueError" if shop.pool != "aggregate" else None)
    assert "a secret" not in str(reply)


def test_waiting_for_its_retry(shop: Shop) -> None:
    """The answer says when it runs again."""
    task_id = shop.cluster.send("tests.retry", 1, 3600, queue="two")
    reply = shop.lookups.becomes(task_id, "retrying", before=ON_THE_WAY, worker="two@t")
    wait_until(lambda: shop.lookups.look(task_id)["eta"], what="the event of the new message")
    reply = shop.lookups.look(task_id)
    # A worker that aggregates remembers the newest run of a task.
    assert outcomes(reply) == ([("two@t", "retried")] if shop.pool != "aggregate" else [])
    assert seconds(reply["eta"]) == pytest.approx(time.time() + 3600, abs=60)


def test_replaced(shop: Shop) -> None:
    """The id is that of the task in its place."""
    task_id = shop.cluster.send("tests.replace", "task", "nobody.replaced", queue="two")
    shop.lookups.becomes(task_id, "queued", before=ON_THE_WAY, queue="nobody.replaced", name="tests.add")
    # Its message may be seen in the queue before the event of it.
    wait_until(lambda: outcomes(shop.lookups.look(task_id)) == [("two@t", "replaced")], what="the event")


def test_rejected(shop: Shop) -> None:
    """It does not run again."""
    task_id = shop.cluster.send("tests.reject", queue="two")
    shop.lookups.becomes(task_id, "rejected", before=(*ON_THE_WAY, "failed"))
    wait_until(lambda: outcomes(shop.lookups.look(task_id)) == [("two@t", "rejected")], what="its event")


def test_rate_limited(shop: Shop) -> None:
    """Workers list it nowhere."""
    first = shop.cluster.send("tests.limited", 1, 2, queue="two")
    shop.lookups.becomes(first, "succeeded", before=ON_THE_WAY)
    second = shop.cluster.send("tests.limited", 1, 2, queue="two")
    reply = shop.lookups.becomes(second, "reserved", before=("queued",), worker="two@t")
    wait_until(lambda: "1/h" in shop.lookups.look(second)["sentence"]["en"], interval=0.5)
    assert reply["runs"] == []


def test_revoked_and_expired_before_they_ran(shop: Shop) -> None:
    """A worker discards each when its turn comes."""
    shop.forgets_the_dead()
    held = shop.hold()
    revoked = shop.cluster.send("tests.add", 1, 2, queue="one")
    expiring = shop.cluster.send("tests.add", 1, 2, queue="one", expires=1)
    waiting = ("queued", "reserved")
    shop.lookups.becomes(revoked, "reserved", before=waiting)
    threads = shop.pool == "threads"  # this pool has taken it, and checks no flags
    shop.cluster.becomes(shop.cluster.revoke(revoked), "error" if threads else "flagged")
    assert shop.lookups.look(revoked)["verdict"] in waiting
    time.sleep(1)  # it expires
    held.let_go()
    verdicts = {revoked: "revoked", expiring: "expired"}
    if threads:
        verdicts[revoked] = "succeeded"
    for task_id, verdict in verdicts.items():
        reply = shop.lookups.becomes(task_id, verdict, before=waiting)
        assert verdict == "succeeded" or reply["runs"] == []


def test_terminated(shop: Shop) -> None:
    """Proven by the process that is gone; threads cannot be terminated."""
    shop.forgets_the_dead()
    held = shop.hold()
    reply = shop.cluster.revoke(held.id, terminate=True)
    if shop.pool == "threads":
        assert shop.lookups.look(held.id)["verdict"] == "running"
        held.let_go()
        shop.lookups.becomes(held.id, "succeeded", before=("running",))
        return
    shop.cluster.becomes(reply, "terminated")
    answer = shop.lookups.becomes(held.id, "revoked", worker="one@t")
    assert outcomes(answer) == [("one@t", "terminated")]


def test_terminated_by_somebody_else_and_living_on(shop: Shop) -> None:
    """Celery announces the end of a process that ignores the signal."""
    if shop.pool == "threads":
        pytest.skip("threads cannot be terminated")
    held = shop.cluster.hold("one", unmoved=True)
    shop.cluster.app.control.revoke(held.id, terminate=True)
    reply = shop.lookups.becomes(held.id, "unknown", before=("running",), worker="one@t")
    assert "terminate was sent" in reply["sentence"]["en"]
    held.let_go()
    shop.lookups.becomes(held.id, "succeeded")


def test_ran_twice(shop: Shop) -> None:
    """The same id was sent twice; a worker that aggregates remembers only the newest run of a task."""
    task_id = uuid4().hex
    for _ in range(2):
        shop.cluster.app.send_task("tests.add", (1, 2), queue="two", task_id=task_id)
    if shop.pool == "aggregate":
        shop.lookups.becomes(task_id, "succeeded", before=ON_THE_WAY)
        return
    reply = shop.lookups.becomes(task_id, "ran_twice", before=(*ON_THE_WAY, "succeeded"))
    assert outcomes(reply) == [("two@t", "succeeded")] * 2


def test_runs_twice_at_once(shop: Shop) -> None:
    """At two workers."""
    folder = shop.cluster.folder / "both"
    folder.mkdir()
    task_id = uuid4().hex
    for queue in ("one", "two"):
        shop.cluster.app.send_task("tests.hold", (str(folder),), queue=queue, task_id=task_id)
    reply = shop.lookups.becomes(task_id, "ran_twice", before=ON_THE_WAY, worker="one@t, two@t")
    (folder / "go").touch()
    assert sorted(outcomes(reply)) == [("one@t", "running"), ("two@t", "running")]
    reply = shop.lookups.becomes(task_id, "ran_twice", final=True)


def test_lost_with_its_worker(shop: Shop) -> None:
    """An acknowledged message never comes back; on Redis the others do after the visibility timeout."""
    time_limit = ALIVE + TIMEOUT
    before = ("running", "reserved", "queued")
    if shop.pool == "aggregate":  # what it remembered died with it
        for task_id in (shop.early, shop.late, shop.reserved):
            assert shop.lookups.look(task_id)["verdict"] in ("unknown", "queued")
        return
    early = shop.lookups.becomes(shop.early, "lost", before=before, timeout=time_limit, worker="doomed@t")
    assert (early["redelivered_at"], outcomes(early)) == (None, [("doomed@t", "lost")])
    assert "will not be delivered again" in early["sentence"]["en"]
    for task_id in (shop.late, shop.reserved):
        reply = shop.lookups.look(task_id)
        if shop.redis:
            assert reply["verdict"] == "lost"
            assert seconds(reply["redelivered_at"]) > time.time() + 3000
        else:  # RabbitMQ puts them back at once, and nobody consumes this queue any more
            assert reply["verdict"] in ("lost", "queued")
            assert "puts such a message back" in reply["sentence"]["en"]


def test_in_a_queue_that_nobody_consumes(shop: Shop) -> None:
    """No live worker takes it; until the killed worker counts as dead, it may be one that does."""
    task_id = shop.cluster.send("tests.add", 1, 2, queue="nobody")
    reply = shop.lookups.becomes(task_id, "queued", queue="nobody", consumers=[])
    assert "no live worker consumes it" in reply["sentence"]["en"]


def test_never_heard_of(shop: Shop) -> None:
    """It says what would have seen it."""
    reply = shop.lookups.look(uuid4().hex)
    assert (reply["verdict"], reply["runs"], reply["final"]) == ("unknown", [], False)
    assert "Nothing has seen this id" in reply["sentence"]["en"]
    assert {source["source"] for source in reply["evidence"]} >= {"events", "workers", "result backend"}


def seconds(text: str) -> float:
    """Return a time of an answer as UTC seconds."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_a_revoke_says_where_the_answer_is(shop: Shop) -> None:
    """Batch results and look-ups agree on a task that waits."""
    task_id = shop.cluster.send("tests.add", 1, 2, queue="nobody.revoked")
    shop.lookups.becomes(task_id, "queued")
    reply = shop.cluster.revoke(task_id, dry_run=True)
    assert only(reply)["status"] == "pending"
    answer = requests.get(
        shop.cluster.control.root + reply["look_up"].format(task_id=task_id), headers=bearer(), timeout=TIMEOUT
    )
    assert (answer.status_code, answer.json()["verdict"]) == (200, "queued")
