"""A run is more than its uuid: tasks that replace others keep it, and so do shadowed names and resent messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations

import pytest
from tests.tracking.cluster import WORKER, Cluster

from celerymeter.model import OTHER, ActiveTask

OTHER_WORKER = "celery@two"
POOL_CHILD = "gen9@one"


@pytest.fixture
def cluster() -> Cluster:
    """A cluster without history."""
    return Cluster()


def replace(cluster: Cluster, name: str = "inner", queue: str = "q2", parent_id: str = "a") -> None:
    """The pool process of a running task sends the task that replaces it."""
    cluster.send("task-sent", POOL_CHILD, uuid="a", name=name, queue=queue, retries=0, parent_id=parent_id)


def receive(cluster: Cluster, name: str = "inner", hostname: str = WORKER, retries: int = 0, parent: str = "a") -> None:
    """A worker receives a replacement."""
    cluster.receive("a", name, hostname, retries=retries, parent_id=parent)


def counts(cluster: Cluster, name: str, queue: str) -> tuple[int, int, int, int, int]:
    """Sent, received, started, succeeded, in progress."""
    series = cluster.series(name, queue)
    return series.sent, series.received, series.started, series.succeeded, series.in_progress


def start_outer(cluster: Cluster) -> None:
    """A task that will replace itself begins."""
    cluster.publish("a", "outer", "q1")
    cluster.receive("a", "outer")
    cluster.start("a")


@pytest.mark.parametrize("worker", [WORKER, OTHER_WORKER])
@pytest.mark.parametrize("parent_id", ["a", "member-of-a-chain"])
def test_a_replaced_task_ends_without_an_event(cluster: Cluster, worker: str, parent_id: str) -> None:
    """It leaves progress when its replacement is sent, and counts no success; the replacement counts as its own."""
    start_outer(cluster)
    assert counts(cluster, "outer", "q1") == (1, 1, 1, 0, 1)
    replace(cluster, parent_id=parent_id)
    assert counts(cluster, "outer", "q1") == (1, 1, 1, 0, 0)
    receive(cluster, "inner", worker, parent=parent_id)
    cluster.start("a", worker)
    assert counts(cluster, "inner", "q2") == (1, 1, 1, 0, 1)
    cluster.end("a", hostname=worker)
    assert counts(cluster, "inner", "q2") == (1, 1, 1, 1, 0)
    assert counts(cluster, "outer", "q1") == (1, 1, 1, 0, 0)
    assert len(cluster.tracker.tasks.runs) == 0
    assert not cluster.tracker.tasks.counts.duplicates


def test_a_replacement_that_fails_is_a_failure_of_its_own(cluster: Cluster) -> None:
    """And none of the task that it replaced."""
    start_outer(cluster)
    replace(cluster)
    receive(cluster, "inner")
    cluster.start("a")
    cluster.end("a", "failed", exception="ValueError('x')")
    assert (cluster.series("inner", "q2").failed, cluster.series("outer", "q1").failed) == (1, 0)


def test_a_replacement_may_retry_and_be_replaced_again(cluster: Cluster) -> None:
    """Each of the runs is counted under its own name and queue."""
    start_outer(cluster)
    replace(cluster)
    receive(cluster, "inner")
    cluster.start("a")
    cluster.send("task-sent", POOL_CHILD, uuid="a", name="inner", queue="q2", retries=1, parent_id="a")
    cluster.end("a", "retried")
    receive(cluster, "inner", retries=1)
    cluster.start("a")
    replace(cluster, "last", "q3")
    receive(cluster, "last")
    cluster.start("a")
    cluster.end("a")
    assert counts(cluster, "inner", "q2") == (2, 2, 2, 0, 0)
    assert cluster.series("inner", "q2").retried == 1
    assert counts(cluster, "last", "q3") == (1, 1, 1, 1, 0)
    assert len(cluster.tracker.tasks.runs) == 0


@pytest.mark.parametrize("worker", [WORKER, OTHER_WORKER])
def test_a_task_may_replace_itself(cluster: Cluster, worker: str) -> None:
    """With the same name and queue: the message says who sent it."""
    start_outer(cluster)
    for _ in range(3):
        replace(cluster, "outer", "q1")
        assert cluster.series("outer", "q1").in_progress == 0
        receive(cluster, "outer", worker)
        cluster.start("a", worker)
        assert cluster.series("outer", "q1").in_progress == 1
    cluster.end("a", hostname=worker)
    assert counts(cluster, "outer", "q1") == (4, 4, 4, 1, 0)
    assert len(cluster.tracker.tasks.runs) == 0


OUTER = ("outer received", "outer started")
INNER = ("inner received", "inner started", "inner succeeded")


@pytest.mark.parametrize("worker", [WORKER, OTHER_WORKER])
def test_a_replacement_may_be_sent_before_the_run_before_it_was_reported(cluster: Cluster, worker: str) -> None:
    """The pool process sends at once, its worker reports in batches."""
    cluster.publish("a", "outer", "q1")
    replace(cluster)
    cluster.receive("a", "outer")
    cluster.start("a")
    assert cluster.series("outer", "q1").in_progress == 0
    receive(cluster, "inner", worker)
    cluster.start("a", worker)
    cluster.end("a", hostname=worker)
    assert counts(cluster, "outer", "q1") == (1, 1, 1, 0, 0)
    assert counts(cluster, "inner", "q2") == (1, 1, 1, 1, 0)
    assert len(cluster.tracker.tasks.runs) == 0


MERGED = sorted(
    {
        order
        for order in permutations((*OUTER, *INNER))
        if [step for step in order if step in OUTER] == list(OUTER)
        and [step for step in order if step in INNER] == list(INNER)
    }
)


@pytest.mark.parametrize("order", MERGED, ids=", ".join)
def test_events_of_two_workers_may_come_in_any_order(cluster: Cluster, order: tuple[str, ...]) -> None:
    """Those of each worker come in theirs."""
    cluster.publish("a", "outer", "q1")
    replace(cluster)
    for step in order:
        name, kind = step.split()
        hostname = WORKER if name == "outer" else OTHER_WORKER
        fields = {"name": name, "retries": 0} if kind == "received" else {}
        if step == "inner received":
            fields["parent_id"] = "a"
        cluster.send(f"task-{kind}", hostname, uuid="a", **fields)
    cluster.pass_time(3)
    assert counts(cluster, "outer", "q1") == (1, 1, 1, 0, 0)
    assert counts(cluster, "inner", "q2") == (1, 1, 1, 1, 0)
    assert not cluster.tracker.tasks.counts.duplicates


@pytest.mark.parametrize("worker", [WORKER, OTHER_WORKER])
def test_a_replacement_is_seen_without_task_sent(cluster: Cluster, worker: str) -> None:
    """Another name under the same uuid is another task."""
    cluster.answer(WORKER, queues=("q1",))
    cluster.answer(OTHER_WORKER, queues=("q1",))
    cluster.receive("a", "outer")
    cluster.start("a")
    cluster.pass_time(3, beating=(WORKER, OTHER_WORKER))
    receive(cluster, "inner", worker)
    cluster.start("a", worker)
    cluster.end("a", hostname=worker)
    cluster.pass_time(3, beating=(WORKER, OTHER_WORKER))
    assert counts(cluster, "outer", "q1") == (0, 1, 1, 0, 0)
    assert counts(cluster, "inner", "q1") == (0, 1, 1, 1, 0)
    assert len(cluster.tracker.tasks.runs) == 0


@pytest.mark.parametrize("sent_first", [True, False])
def test_a_shadowed_name_is_no_replacement(cluster: Cluster, sent_first: bool) -> None:
    """`shadow_name` shows in what the worker reports; `task-sent` has the task's own name, which counts."""
    if sent_first:
        cluster.publish("a", "add", "q1")
    cluster.receive("a", "adding 1 and 2")
    cluster.start("a")
    if not sent_first:
        cluster.publish("a", "add", "q1")
    assert counts(cluster, "add", "q1") == (1, 1, 1, 0, 1)
    cluster.send("task-sent", POOL_CHILD, uuid="a", name="add", queue="q1", retries=1)
    cluster.end("a", "retried")
    cluster.receive("a", "adding 1 and 2", retries=1)
    cluster.start("a")
    cluster.receive("a", "adding 1 and 2", OTHER_WORKER, retries=1)  # redelivered
    cluster.start("a", OTHER_WORKER)
    cluster.end("a")
    cluster.end("a", hostname=OTHER_WORKER)
    series = cluster.series("add", "q1")
    assert (series.sent, series.received, series.started, series.retried, series.succeeded) == (2, 3, 3, 1, 2)
    assert {series.labels for series in cluster.tracker.task_series} == {("add", "q1")}


def test_the_same_id_may_be_sent_again_while_it_runs(cluster: Cluster) -> None:
    """Some applications choose their ids: the run that is under way goes on, and the next has its own queue."""
    start_outer(cluster)
    cluster.publish("a", "outer", "q2")
    assert cluster.series("outer", "q1").in_progress == 1
    cluster.end("a")
    cluster.receive("a", "outer", OTHER_WORKER)
    cluster.start("a", OTHER_WORKER)
    cluster.end("a", hostname=OTHER_WORKER)
    assert counts(cluster, "outer", "q1") == (1, 1, 1, 1, 0)
    assert counts(cluster, "outer", "q2") == (1, 1, 1, 1, 0)


def test_a_redelivered_replacement_is_not_replaced(cluster: Cluster) -> None:
    """It runs twice, and both runs end."""
    start_outer(cluster)
    replace(cluster)
    for worker in (WORKER, OTHER_WORKER):
        receive(cluster, "inner", worker)
        cluster.start("a", worker)
    for worker in (WORKER, OTHER_WORKER):
        cluster.end("a", hostname=worker)
    assert counts(cluster, "inner", "q2") == (1, 2, 2, 2, 0)


RETRY = ("sent", "retried", "received", "started")


@pytest.mark.parametrize(
    "order", [order for order in permutations(RETRY) if order.index("received") < order.index("started")], ids=", ".join
)
def test_a_retry_that_is_its_own_parent_is_no_replacement(cluster: Cluster, order: tuple[str, ...]) -> None:
    """Celery gives a retry the task that sends it as its parent, if it has no other: itself."""
    cluster.publish("a", "add", "q1")
    cluster.receive("a", "add")
    cluster.start("a")
    for kind in order:
        fields = {"name": "add", "queue": "q1", "retries": 1, "parent_id": "a"} if kind in ("sent", "received") else {}
        cluster.send(f"task-{kind}", POOL_CHILD if kind == "sent" else WORKER, uuid="a", **fields)
    cluster.end("a")
    assert counts(cluster, "add", "q1") == (2, 2, 2, 1, 0)
    assert cluster.series("add", "q1").retried == 1
    assert len(cluster.tracker.tasks.runs) == 0


def test_runs_that_a_worker_counts_by_a_shadow_name_are_counted_by_the_tasks_own(cluster: Cluster) -> None:
    """`inspect stats` knows no other; shadow names take no place among the names."""
    cluster.heartbeat(kind="worker-online", processed=0)
    for number in range(3):
        cluster.publish(str(number), "add")
        cluster.receive(str(number), f"adding to {number}")
    cluster.answer(totals={f"adding to {number}": 2 for number in range(3)})
    assert cluster.tracker.workers.accepted == {"add": 6}


def test_shadow_names_without_task_sent_use_up_no_names(cluster: Cluster) -> None:
    """Every run may have another: what the worker has not registered is folded, unless `inspect active` names it."""
    cluster.heartbeat()
    cluster.answer(queues=("q1",), registered=frozenset({"add"}))
    cluster.receive("known", "add")
    cluster.receive("own", "celery.chord_unlock")
    cluster.answer(
        queues=("q1",),
        registered=frozenset({"add"}),
        active=(ActiveTask("a", "adding to 1", cluster.now, "q1", registered_name="add"),),
    )
    for number in range(2000):
        cluster.receive(str(number), f"adding to {number}")
        cluster.start(str(number))
        cluster.end(str(number))
    cluster.pass_time(3)
    names = {series.labels[0]: series.received for series in cluster.tracker.task_series}
    assert names == {"add": 2, "celery.chord_unlock": 1, OTHER: 1999}
    assert cluster.tracker.task_series.folded == {"shadow": 1999}
    cluster.answer(queues=("q1",), registered=frozenset({"add"}), totals={f"adding to {n}": 1 for n in range(2000)})
    assert set(cluster.tracker.workers.accepted) == {"add", OTHER}


def test_a_shadow_name_that_overtakes_its_task_sent_is_not_folded(cluster: Cluster) -> None:
    """The queue is awaited anyway, and the event that names it has the task's own name."""
    cluster.heartbeat()
    cluster.answer(registered=frozenset({"add"}))
    cluster.receive("a", "adding to 1")
    cluster.publish("a", "add", "q1")
    cluster.start("a")
    cluster.end("a")
    assert counts(cluster, "add", "q1") == (1, 1, 1, 1, 0)
    assert not cluster.tracker.task_series.folded


def test_the_task_sent_of_a_replaced_task_may_come_after_that_of_its_replacement(cluster: Cluster) -> None:
    """From a producer that was not scheduled for a while; seen in Celery's canvas tests."""
    cluster.receive("a", "outer")
    cluster.start("a")
    replace(cluster)
    cluster.publish("a", "outer", "q1")
    receive(cluster, "inner")
    cluster.start("a")
    cluster.end("a")
    assert counts(cluster, "outer", "q1") == (1, 1, 1, 0, 0)
    assert counts(cluster, "inner", "q2") == (1, 1, 1, 1, 0)
    assert len(cluster.tracker.tasks.runs) == 0


def interleavings(*streams: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every order of all steps that keeps the order within each stream."""
    if not any(streams):
        yield ()
    for number, stream in enumerate(streams):
        if stream:
            for rest in interleavings(*streams[:number], stream[1:], *streams[number + 1 :]):
                yield (stream[0], *rest)


def test_client_both_workers_and_their_pool_may_be_heard_in_any_order() -> None:
    """Each of the four has a connection of its own; all that is sure is the order within one."""
    steps: dict[str, Callable[[Cluster], None]] = {
        "outer sent": lambda cluster: cluster.publish("a", "outer", "q1"),
        "outer received": lambda cluster: cluster.receive("a", "outer"),
        "outer started": lambda cluster: cluster.start("a"),
        "inner sent": replace,
        "inner received": lambda cluster: receive(cluster, "inner", OTHER_WORKER),
        "inner started": lambda cluster: cluster.start("a", OTHER_WORKER),
        "inner succeeded": lambda cluster: cluster.end("a", hostname=OTHER_WORKER),
    }
    outer, inner = ("outer received", "outer started"), ("inner received", "inner started", "inner succeeded")
    wrong = []
    for order in interleavings(("outer sent",), outer, ("inner sent",), inner):
        cluster = Cluster()
        for step in order:
            steps[step](cluster)
        found = counts(cluster, "outer", "q1"), counts(cluster, "inner", "q2"), len(cluster.tracker.tasks.runs)
        if found != ((1, 1, 1, 0, 0), (1, 1, 1, 1, 0), 0):
            wrong.append((order, found))
    assert not wrong, f"{len(wrong)} orders, such as {wrong[0]}"


@pytest.mark.parametrize("name", ["inner", "outer"])
def test_a_worker_may_receive_a_replacement_before_it_reports_the_start(cluster: Cluster, name: str) -> None:
    """Its pool process sends at once; the message can be back before the start's acknowledgement is read."""
    cluster.publish("a", "outer", "q1")
    cluster.receive("a", "outer")
    replace(cluster, name)
    receive(cluster, name)
    cluster.start("a")
    assert counts(cluster, "outer", "q1") == (1, 1, 1, 0, 0)
    cluster.start("a")
    assert counts(cluster, name, "q2") == (1, 1, 1, 0, 1)
    cluster.end("a")
    assert counts(cluster, name, "q2") == (1, 1, 1, 1, 0)
    assert len(cluster.tracker.tasks.runs) == 0


@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_task_that_replaces_itself_may_be_received_before_it_is_sent(cluster: Cluster, late: int) -> None:
    """Again and again under its own name: only the `task-sent` tells it from the same message once more."""
    cluster.publish("a", "outer", "q1")
    cluster.receive("a", "outer")
    cluster.start("a")
    replace(cluster, "outer", "q1")
    receive(cluster, "outer")
    cluster.start("a")
    receive(cluster, "outer")
    steps: list[Callable[[], None]] = [lambda: cluster.start("a"), lambda: cluster.end("a")]
    steps.insert(late, lambda: replace(cluster, "outer", "q1"))
    for step in steps:
        step()
    cluster.pass_time(3)
    assert counts(cluster, "outer", "q1") == (3, 3, 3, 1, 0)
    assert cluster.series("outer", "q1").redelivered == 0
    assert len(cluster.tracker.tasks.runs) == 0


@pytest.mark.parametrize("late", [0, 1, 2])
def test_an_id_that_is_sent_again_is_no_redelivery_although_it_is_received_first(cluster: Cluster, late: int) -> None:
    """Applying a signature twice repeats its id (`Signature.freeze`); seen in Celery's canvas tests."""
    cluster.run("a", "add", "q1")
    cluster.receive("a", "add")
    steps: list[Callable[[], None]] = [lambda: cluster.start("a"), lambda: cluster.end("a")]
    steps.insert(late, lambda: cluster.publish("a", "add", "q1"))
    for step in steps:
        step()
    cluster.pass_time(3)
    assert counts(cluster, "add", "q1") == (2, 2, 2, 2, 0)
    assert cluster.series("add", "q1").redelivered == 0


@pytest.mark.parametrize("sent_first", [True, False])
def test_tasks_of_one_id_that_are_revoked_while_they_wait(cluster: Cluster, sent_first: bool) -> None:
    """Celery's own tests of revoking by headers send and revoke several at once, some in a chain."""
    for parent in (None, None, "b", "c"):
        if sent_first:
            cluster.publish("a", "nap", "q1", parent_id=parent)
        cluster.receive("a", "nap", parent_id=parent)
        if not sent_first:
            cluster.publish("a", "nap", "q1", parent_id=parent)
    for _ in range(4):
        cluster.end("a", "revoked")
    series = cluster.series("nap", "q1")
    assert (series.sent, series.received, series.revoked) == (4, 4, 4)
    assert not cluster.tracker.tasks.counts.duplicates
    assert len(cluster.tracker.tasks.runs) == 0


@pytest.mark.parametrize("sent_late", [False, True])
def test_the_task_sent_of_a_replacement_may_be_the_first_event_of_a_task(cluster: Cluster, sent_late: bool) -> None:
    """A worker of the solo pool sends it before its own events of the run, which it keeps for later."""
    replace(cluster)
    cluster.receive("a", "outer")
    cluster.start("a")
    if sent_late:
        receive(cluster, "inner")
    cluster.publish("a", "outer", "q1")
    if not sent_late:
        receive(cluster, "inner")
    cluster.start("a")
    cluster.end("a")
    assert counts(cluster, "outer", "q1") == (1, 1, 1, 0, 0)
    assert counts(cluster, "inner", "q2") == (1, 1, 1, 1, 0)
    assert len(cluster.tracker.tasks.runs) == 0


def test_the_task_sent_of_a_retry_may_be_the_first_event_of_a_task(cluster: Cluster) -> None:
    """For the same reason; the retry of a task without a parent names the task itself as its parent."""
    cluster.send("task-sent", POOL_CHILD, uuid="a", name="outer", queue="q1", retries=1, parent_id="a")
    cluster.receive("a", "outer")
    cluster.start("a")
    cluster.end("a", "retried")
    cluster.publish("a", "outer", "q1")
    receive(cluster, "outer", retries=1)
    cluster.start("a")
    cluster.end("a")
    assert counts(cluster, "outer", "q1") == (2, 2, 2, 1, 0)
    assert cluster.series("outer", "q1").retried == 1
    assert len(cluster.tracker.tasks.runs) == 0


@pytest.mark.parametrize("retries", [0, 1])
def test_nothing_is_left_of_a_run_that_was_over_before_we_listened(cluster: Cluster, retries: int) -> None:
    """All that comes is of its replacement or its retry."""
    cluster.send("task-sent", POOL_CHILD, uuid="a", name="inner", queue="q2", retries=retries, parent_id="a")
    receive(cluster, "inner", retries=retries)
    cluster.start("a")
    cluster.end("a")
    assert counts(cluster, "inner", "q2") == (1, 1, 1, 1, 0)
    assert len(cluster.tracker.tasks.runs) == 0
    assert not cluster.tracker.tasks.runs.evicted


def test_ends_go_to_the_replacement_also_when_starts_got_lost(cluster: Cluster) -> None:
    """The pool of threads loses some before Celery 5.7."""
    cluster.publish("a", "outer", "q1")
    cluster.receive("a", "outer")
    replace(cluster, "outer", "q1")
    receive(cluster, "outer")
    replace(cluster)
    receive(cluster, "inner")
    cluster.end("a")
    assert counts(cluster, "outer", "q1") == (2, 2, 0, 0, 0)
    assert counts(cluster, "inner", "q2") == (1, 1, 0, 1, 0)
    assert len(cluster.tracker.tasks.runs) == 0


def leave_out(cluster: Cluster) -> None:
    """The worker's replies to `inspect active` do not list the task."""
    for _ in range(2):
        cluster.pass_time(8.0, beating=(WORKER,))
        cluster.answer(active=())


def test_a_task_replaced_by_a_chain_has_not_vanished(cluster: Cluster) -> None:
    """Only the last task of the chain has its id, and that is sent when the others are done."""
    start_outer(cluster)
    cluster.publish("first", "inner", "q2", parent_id="a")
    leave_out(cluster)
    assert counts(cluster, "outer", "q1") == (1, 1, 1, 0, 0)
    replace(cluster, "last", "q3", parent_id="first")
    receive(cluster, "last", parent="first")
    cluster.start("a")
    cluster.end("a")
    assert counts(cluster, "last", "q3") == (1, 1, 1, 1, 0)
    assert not cluster.tracker.tasks.runs.evicted


def test_the_last_task_of_that_chain_may_have_the_same_name(cluster: Cluster) -> None:
    """It is distinguished from another delivery of the first by its parent (Celery's `second_order_replace` tests)."""
    cluster.publish("a", "outer", "q1", parent_id="root")
    cluster.receive("a", "outer", parent_id="root")
    cluster.start("a")
    replace(cluster, "outer", "q1", parent_id="first")
    assert cluster.series("outer", "q1").in_progress == 0
    receive(cluster, "outer", parent="first")
    cluster.start("a")
    cluster.end("a")
    assert counts(cluster, "outer", "q1") == (2, 2, 2, 1, 0)
    assert cluster.series("outer", "q1").redelivered == 0
    assert len(cluster.tracker.tasks.runs) == 0


def test_a_task_that_sent_others_vanishes_when_nothing_replaces_it(cluster: Cluster) -> None:
    """After an hour; an end that comes sooner counts."""
    start_outer(cluster)
    cluster.publish("child", "inner", "q2", parent_id="a")
    leave_out(cluster)
    assert not cluster.tracker.tasks.runs.evicted
    cluster.pass_time(3700.0)
    assert cluster.tracker.tasks.runs.evicted == {"vanished": 1}


def test_an_end_that_comes_late_is_counted_of_a_task_that_sent_others(cluster: Cluster) -> None:
    """It was left out of a reply because its end was on the way."""
    start_outer(cluster)
    cluster.publish("child", "inner", "q2", parent_id="a")
    leave_out(cluster)
    cluster.end("a")
    assert counts(cluster, "outer", "q1") == (1, 1, 1, 1, 0)
    cluster.receive("child", "inner", parent_id="a")
    cluster.pass_time(3700.0)
    assert not cluster.tracker.tasks.runs.evicted


def test_the_task_sent_of_a_retried_task_may_come_after_its_retry_was_received(cluster: Cluster) -> None:
    """Another sequence from Celery's own tests, on a machine with much to do."""
    cluster.receive("a", "outer")
    cluster.send("task-sent", POOL_CHILD, uuid="a", name="outer", queue="q1", retries=1, parent_id="a")
    cluster.start("a")
    receive(cluster, "outer", retries=1)
    cluster.publish("a", "outer", "q1")
    cluster.end("a", "retried")
    cluster.start("a")
    cluster.end("a")
    assert counts(cluster, "outer", "q1") == (2, 2, 2, 1, 0)
    assert cluster.series("outer", "q1").retried == 1
    assert len(cluster.tracker.tasks.runs) == 0


@pytest.mark.parametrize(
    "order",
    [
        ("publish", "retried", "receive", "start"),
        ("receive", "publish", "start", "retried"),
        ("receive", "start", "publish", "retried"),
        ("receive", "start", "retried", "publish"),
        ("retried", "receive", "start", "publish"),
    ],
)
def test_a_retry_may_go_to_another_queue(cluster: Cluster, order: tuple[str, ...]) -> None:
    """`Task.retry(queue=…)`: its `task-sent` says where, although the other worker may be faster than that."""
    cluster.publish("a", "outer", "q1")
    cluster.receive("a", "outer")
    cluster.start("a")
    steps = {
        "publish": lambda: cluster.publish("a", "outer", "q2", retries=1, parent_id="a"),
        "receive": lambda: cluster.receive("a", "outer", OTHER_WORKER, retries=1, parent_id="a"),
        "start": lambda: cluster.start("a", OTHER_WORKER),
        "retried": lambda: cluster.end("a", "retried"),
    }
    for step in order:
        steps[step]()
    cluster.end("a", hostname=OTHER_WORKER)
    cluster.pass_time(3, beating=(WORKER, OTHER_WORKER))
    first, second = cluster.series("outer", "q1"), cluster.series("outer", "q2")
    assert (first.sent, first.received, first.started, first.retried, first.succeeded) == (1, 1, 1, 1, 0)
    assert (second.sent, second.received, second.started, second.retried, second.succeeded) == (1, 1, 1, 0, 1)
    assert cluster.tracker.in_progress(cluster.now).by_worker == {}


def test_a_retry_whose_task_sent_never_comes_stays_in_its_queue(cluster: Cluster) -> None:
    """The worker does not send these events, the client did."""
    cluster.publish("a", "outer", "q1")
    cluster.receive("a", "outer")
    cluster.start("a")
    cluster.receive("a", "outer", OTHER_WORKER, retries=1, parent_id="a")
    cluster.end("a", "retried")
    cluster.start("a", OTHER_WORKER)
    cluster.pass_time(3, beating=(WORKER, OTHER_WORKER))
    series = cluster.series("outer", "q1")
    assert (series.sent, series.received, series.started, series.retried, series.in_progress) == (1, 2, 2, 1, 1)


def test_a_retry_that_no_event_addresses_is_in_a_queue_of_its_worker(cluster: Cluster) -> None:
    """Without any `task-sent`, as is Celery's default."""
    cluster.heartbeat(WORKER)
    cluster.heartbeat(OTHER_WORKER)
    cluster.answer(WORKER, queues=("q1", "q3"))
    cluster.answer(OTHER_WORKER, queues=("q2",))
    cluster.receive("a", "outer")
    cluster.start("a")
    cluster.receive("a", "outer", OTHER_WORKER, retries=1, parent_id="a")
    cluster.start("a", OTHER_WORKER)
    cluster.end("a", "retried")
    cluster.pass_time(3, beating=(WORKER, OTHER_WORKER))
    assert counts(cluster, "outer", "q2") == (0, 1, 1, 0, 1)


def test_a_reply_that_overtakes_the_events_of_a_replaced_task(cluster: Cluster) -> None:
    """It lists the task before its `task-started` has come, and the replacement is sent by another process."""
    cluster.heartbeat(kind="worker-online")
    cluster.publish("a", "outer", "q")
    cluster.pass_time(3, beating=(WORKER,))
    began = ActiveTask("a", "outer", cluster.now + 0.1, "q")
    cluster.answer(active=(began,), queues=("q", "r"))
    cluster.publish("a", "inner", "q", parent_id="a")
    cluster.receive("a", "outer")
    cluster.start("a")
    cluster.receive("a", "inner", parent_id="a")
    cluster.start("a")
    cluster.end("a")
    cluster.pass_time(20, beating=(WORKER,))
    found = {s.labels[:2]: (s.sent, s.received, s.started, s.succeeded) for s in cluster.tracker.task_series}
    assert found == {("outer", "q"): (1, 1, 1, 0), ("inner", "q"): (1, 1, 1, 1)}
    assert sum(series.in_progress + series.redelivered for series in cluster.tracker.task_series) == 0
