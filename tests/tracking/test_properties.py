"""Whatever comes in whatever order: counters never fall, nothing is negative, memory is bounded."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scrape import Scrape, text_of
from tests.tracking.cluster import Cluster, make_settings
from tests.tracking.test_loss import Office

from celerymeter.exposition.page import Page
from celerymeter.exposition.scrape import Build
from celerymeter.model import ActiveTask
from celerymeter.settings import Limits

KINDS = ("sent", "received", "started", "succeeded", "failed", "retried", "rejected", "revoked", "cancelled", "odd")
COUNTERS = (
    *("sent", "received", "started", "finished", "retried", "rejected_requeued"),
    *("redelivered", "without_result", "process_lost", "polled", "shutdown_lost"),
)
STEPS = st.one_of(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(("a", "b", "c", "d")),
        st.sampled_from(("celery@one", "celery@two")),
        st.integers(0, 2),
        st.booleans(),
    ),
    st.tuples(st.sampled_from(("heartbeat", "online", "offline")), st.integers(0, 3), st.integers(0, 9)),
    st.tuples(st.just("answer"), st.lists(st.sampled_from(("a", "b", "z")), max_size=2, unique=True)),
    st.tuples(st.just("time"), st.floats(-7200, 7200)),
)


def play(cluster: Cluster, step: tuple[object, ...]) -> None:
    """Let one thing happen."""
    match step:
        case ("time", float(seconds)):
            cluster.now += seconds
            cluster.tracker.tick(cluster.now)
        case ("answer", list(uuids)):
            active = tuple(ActiveTask(str(uuid), "add", cluster.now - 1, None) for uuid in uuids)
            cluster.answer(active=active, totals={"add": len(uuids)}, queues=("mail",))
        case (("heartbeat" | "online" | "offline") as kind, int(pid), int(processed)):
            cluster.heartbeat(kind=f"worker-{kind}", pid=pid, processed=processed)
        case (str(kind), str(uuid), str(hostname), int(retries), bool(flag)):
            queue = "mail" if flag else None
            fields = {"name": "add", "queue": queue, "retries": retries, "requeue": flag, "runtime": 0.5}
            cluster.send(f"task-{kind}", hostname, uuid=uuid, **fields)


def counters(cluster: Cluster) -> dict[str, float]:
    """Every number that may only grow."""
    tracker = cluster.tracker
    found: dict[str, float] = {f"duplicate {k}": v for k, v in tracker.tasks.counts.duplicates.items()}
    found |= {f"evicted {k}": v for k, v in tracker.tasks.runs.evicted.items()}
    found |= {f"unmeasured {k}": v for k, v in tracker.tasks.counts.waits_unmeasured.items()}
    for series in tracker.task_series:
        for name in (
            "sent",
            "received",
            "started",
            "finished",
            "retried",
            "rejected_requeued",
            "redelivered",
            "without_result",
        ):
            found[f"{series.labels} {name}"] = getattr(series, name)
        found[f"{series.labels} waits"] = sum(series.wait.counts)
        found[f"{series.labels} wait"] = series.wait.sum
        found[f"{series.labels} busy"] = series.busy.seconds(0.0)
        found[f"{series.labels} failed runtime"] = series.failed_runtime_sum
    for worker in tracker.workers:
        found[f"{worker.hostname} processed"] = worker.processed_total
        found[f"{worker.hostname} missed"] = worker.loss.missed
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_counters_never_fall_and_nothing_is_negative(steps: list[tuple[object, ...]]) -> None:
    """Any order, duplicates, losses and jumping clocks."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=20, task_pairs=3), worker_retention=1e9))
    before: dict[str, float] = {}
    for step in steps:
        play(cluster, step)
        after = counters(cluster)
        assert all(value >= 0 for value in after.values())
        assert all(after.get(name, 0) >= value for name, value in before.items())
        assert len(cluster.tracker.tasks.runs) <= 20 + 1
        assert len(cluster.tracker.task_series) <= 3 + 1
        before = after


@settings(max_examples=25)
@given(st.lists(STEPS, max_size=25))
def test_every_page_can_be_read_and_none_of_its_counters_falls(steps: list[tuple[object, ...]]) -> None:
    """As a scraper sees it; only a clock may be behind ours."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=20, task_pairs=3, workers=1), worker_retention=1e9))
    page = Page(cluster.tracker, build=Build(version="1", python="3", celery="5"))
    before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for step in steps:
        play(cluster, step)
        scrape = Scrape(text_of(page, cluster.now))
        after = scrape.counters()
        assert all(value >= 0 for value in after.values())
        gone = {
            key for key in before.keys() - after.keys() if "hostname" in dict(key[1])
        }  # made room for another worker
        assert all(after.get(key, 0) >= value for key, value in before.items() if key not in gone)
        for gauge in ("celery_task_in_progress", "celerymeter_tracked_tasks", "celerymeter_events_unexplained"):
            assert all(value >= 0 for value in scrape.by(gauge).values())
        before = after


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=40), st.integers(0, 9))
def test_losses_are_never_counted_as_more(rounds: list[tuple[int, int]], silent: int) -> None:
    """Whatever is heard, lost or sent without events between heartbeats: missed never exceeds what was lost."""
    office = Office()
    for heard, lost in rounds:
        office.round(heard=heard, lost=lost, silent=silent)
        office.poll()
        assert office.missed <= office.lost
    for _ in range(4):
        office.round(heard=1)
        office.poll()
    assert office.missed <= office.lost


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.booleans()), max_size=40))
def test_losses_are_counted_exactly(rounds: list[tuple[int, int, bool]]) -> None:
    """All tasks must send events, and two heartbeats must have come; it does not matter when the worker is asked."""
    office = Office()
    for _ in range(2):
        office.round(heard=1)
    for heard, lost, polled in rounds:
        office.round(heard=heard, lost=lost)
        if polled:
            office.poll()
    for _ in range(3):
        office.round(heard=1)
    office.poll()
    assert (office.missed, office.unexplained) == (office.lost, 0)


@settings(max_examples=50, deadline=None)
@given(st.permutations(["sent", "received", "started", "succeeded"]))
def test_any_order_of_one_life_counts_it_once(order: list[str]) -> None:
    """All four events of one task, shuffled within the grace, end as one of each under its queue."""
    cluster = Cluster()
    for kind in order:
        fields = {"name": "add", "queue": "mail"} if kind in ("sent", "received") else {}
        cluster.send(f"task-{kind}", "gen1@web" if kind == "sent" else "celery@one", uuid="a", **fields)
    cluster.pass_time(3)
    assert cluster.series(queue="mail").sent == 1
    for name in ("received", "started", "succeeded"):
        assert sum(getattr(series, name) for series in cluster.tracker.task_series) == 1
    assert not any(series.in_progress for series in cluster.tracker.task_series)
