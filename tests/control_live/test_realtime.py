"""The realtime metrics and the dashboard against real engines that hold known history."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.control_live.canned import ASKED, Exporter, all_series
from tests.engines import NAMES, Canned, start_engine

from celerymeter.control.cluster import promql
from celerymeter.control.cluster.models import Dashboard, RealtimeMetrics
from celerymeter.control.cluster.snapshot import ask
from celerymeter.errors import AmbiguousCluster, RequestRefused
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope

pytestmark = pytest.mark.integration

EVERY_SECOND = [(ago + 0.5, "shop.pay", "succeeded") for ago in range(390)]
FAILURES = [(float(ago), "shop.mail", "failed") for ago in (2, 12, 22, 32, 42, 52, 290, 295)]
WORKERS = {
    "w1@a": {"up": 1.0, "tasks_active": 3.0, "tasks_reserved": 4.0, "tasks_scheduled": 1.0, "pool_size": 4.0},
    "w2@a": {"up": 1.0, "tasks_active": 1.0, "tasks_reserved": 2.0, "tasks_scheduled": 0.0, "pool_size": 4.0},
    "gone@a": {"up": 0.0, "shutdown": 1.0, "tasks_active": 9.0},
    "dead@a": {"up": 0.0, "shutdown": 0.0, "tasks_active": 9.0},
}
BUSY = Exporter(
    counts=EVERY_SECOND + FAILURES,
    queues={"q": 7.0, "slow": 0.0},
    workers=WORKERS,
    busy={"w1@a": 2.0, "w2@a": 1.0, "dead@a": 4.0},
)
IDLE = Exporter(known=())


@pytest.fixture(scope="module", params=NAMES)
def holding(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., PrometheusClient]]:
    """A client of an engine that holds what these exporters exposed; engines live as long as the module."""
    with ExitStack() as stack:
        started: dict[str, PrometheusClient] = {}

        def client(*exporters: Exporter, more: Sequence[Canned] = ()) -> PrometheusClient:
            key = repr((exporters, more))
            if key not in started:
                folder: Path = tmp_path_factory.mktemp("engine") / "e"
                server, url = start_engine(request.param, folder, [*all_series(*exporters), *more])
                stack.enter_context(server)
                started[key] = stack.enter_context(PrometheusClient(PrometheusSettings(url)))
            return started[key]

        yield client


def read(client: PrometheusClient, scope: Scope | None = None, *, at: float = ASKED) -> RealtimeMetrics:
    """The metrics object."""
    scope = scope or Scope()
    found = ask(client, promql.snapshot_queries(scope), scope, time=at)
    return promql.realtime_metrics(found, scope, health="healthy")


def read_dashboard(client: PrometheusClient) -> Dashboard:
    """The dashboard object."""
    scope = Scope()
    found = ask(client, promql.dashboard_queries(scope), scope, time=ASKED)
    return promql.dashboard(found, scope, health="healthy", links={})


Holding = Callable[..., PrometheusClient]


def test_a_busy_cluster_is_reported_as_it_is(holding: Holding) -> None:
    """Every number is what the pages say, to the task."""
    found = read(holding(BUSY))

    assert (found.active_workers, found.processing_tasks) == (2, 4)
    assert (found.pending_tasks, found.queue_lengths) == (7, {"q": 7, "slow": 0})
    assert (found.finished_in_window, found.failed_in_window, found.window_seconds) == (66, 6, 60.0)
    assert found.current_throughput == pytest.approx(66 / 60)
    assert found.error_rate_percent == pytest.approx(100 * 6 / 66)
    assert found.avg_execution_time_ms == pytest.approx(250)
    assert (found.reserved_tasks, found.scheduled_tasks) == (6, 1)
    assert found.data_age_seconds == pytest.approx(3.0)
    assert found.p95_wait_ms is None


def test_busy_is_the_share_of_time_and_not_the_tasks_of_one_heartbeat(holding: Holding) -> None:
    """Three of eight slots worked over five minutes, though four tasks ran at the last heartbeats."""
    found = read_dashboard(holding(BUSY))

    assert found.real_time_metrics.busy_percent == 37.5
    assert {row.hostname: (row.busy_percent, row.active_tasks) for row in found.workers if row.status == "up"} == {
        "w1@a": (50.0, 3.0),
        "w2@a": (25.0, 1.0),
    }
    assert read(holding(IDLE)).busy_percent is None


def test_two_exporters_on_one_broker_never_double(holding: Holding) -> None:
    """Metrics are one exporter's, the one that saw the most; queues and workers are counted once."""
    half = [count for n, count in enumerate(EVERY_SECOND) if n % 2]
    other = Exporter(instance="b:9808", counts=half, queues={"q": 7.0}, workers=WORKERS)
    found = read(holding(BUSY, replace(other, busy=BUSY.busy)))

    assert found.busy_percent == 37.5
    assert (found.active_workers, found.processing_tasks, found.pending_tasks) == (2, 4, 7)
    assert found.finished_in_window == 66


def test_a_cluster_that_never_ran_a_task_is_zeros(holding: Holding) -> None:
    """The six metrics are numbers, the rest is null."""
    found = read(holding(IDLE))

    assert (found.active_workers, found.pending_tasks, found.processing_tasks, found.queue_lengths) == (0, 0, 0, {})
    assert (found.current_throughput, found.error_rate_percent, found.finished_in_window) == (0.0, 0.0, 0)
    assert (found.avg_execution_time_ms, found.p95_wait_ms, found.reserved_tasks, found.scheduled_tasks) == (None,) * 4


def test_a_task_that_is_born_with_its_first_runs_counts_them(holding: Holding) -> None:
    """A series that appears at 5 counts 5, where increase() would say 0."""
    counts = [(ago, "shop.new", "failed") for ago in (41.0, 42.0, 43.0, 44.0, 45.0)]
    found = read(holding(Exporter(known=("shop.new",), born={"shop.new": 40.0}, counts=counts)))

    assert (found.finished_in_window, found.failed_in_window) == (5, 5)


def test_a_young_exporter_counts_from_its_start(holding: Holding) -> None:
    """With 25 s of life the window is these 25 s."""
    counts = [(ago + 0.5, "shop.pay", "succeeded") for ago in range(20)]
    found = read(holding(Exporter(age=25.0, span=20.0, before=0, counts=counts)))

    assert (found.finished_in_window, found.window_seconds) == (20, 25.0)


def test_slow_scrapes_give_the_nearest_window(holding: Holding) -> None:
    """With a scrape a minute metrics are of the last whole minute."""
    found = read(holding(Exporter(interval=60.0, counts=EVERY_SECOND)))

    assert (found.finished_in_window, found.window_seconds) == (60, 60.0)


@pytest.mark.parametrize(
    ("exporter", "window", "finished"),
    [
        (Exporter(span=30.0, counts=EVERY_SECOND), 20.0, 20),
        (Exporter(interval=100.0, counts=EVERY_SECOND), 100.0, 100),
        (Exporter(interval=240.0, span=480.0, counts=EVERY_SECOND), 240.0, 240),
    ],
    ids=["Prometheus has just started", "a scrape was missed", "scrapes are rare"],
)
def test_other_pages_serve_where_the_wanted_one_is_missing(
    holding: Holding, exporter: Exporter, window: float, finished: int
) -> None:
    """The span that there is, and what ended in it."""
    found = read(holding(exporter))

    assert (found.window_seconds, found.finished_in_window) == (window, finished)


@pytest.mark.parametrize(
    ("exporter", "code"),
    [
        (Exporter(broker_up=0.0), "broker_unavailable"),
        (Exporter(polled=0.0), "exporter_unavailable"),
        (Exporter(polled=None), "exporter_unavailable"),
        (Exporter(span=0.0), "exporter_unavailable"),
    ],
    ids=["broker away", "queue poll fails", "not polled yet", "scraped once"],
)
def test_what_cannot_be_known_is_said(holding: Holding, exporter: Exporter, code: str) -> None:
    """No number is made up: the object is refused with the reason."""
    with pytest.raises(RequestRefused) as caught:
        read(holding(exporter))

    assert caught.value.code == code
    assert caught.value.retry_after


def test_an_exporter_that_is_not_scraped_is_said(holding: Holding) -> None:
    """Ten minutes after the last scrape there is no exporter, and no zero."""
    with pytest.raises(RequestRefused) as caught:
        read(holding(BUSY), at=ASKED + 600)

    assert caught.value.code == "exporter_unavailable"


def test_two_clusters_are_never_added_up(holding: Holding) -> None:
    """One must be chosen; a chosen one sees its own metrics only."""
    eu = Exporter(instance="e:1", cluster="eu", counts=EVERY_SECOND, queues={"q": 1.0})
    us = Exporter(instance="u:1", cluster="us", queues={"q": 5.0})
    client = holding(eu, us)

    with pytest.raises(AmbiguousCluster):
        read(client)
    assert read(client, Scope(cluster="us")).queue_lengths == {"q": 5}
    assert read(client, Scope(cluster="us")).finished_in_window == 0
    assert read(client, Scope(cluster="eu")).finished_in_window == 60
    with pytest.raises(RequestRefused):
        read(client, Scope(cluster='eu"} or {cluster="us'))


def test_a_label_that_is_added_needs_no_choice_after_five_minutes(holding: Holding) -> None:
    """Until then the same exporter counts as two clusters, one of which has no name."""
    counts = [count for count in EVERY_SECOND if count[0] < 270]
    labelled = Exporter(cluster="eu", span=270.0, counts=counts, queues={"q": 1.0})

    with pytest.raises(AmbiguousCluster, match='choose one with --cluster: "", eu \\(""'):
        read(holding(labelled, Exporter(ended=280.0, queues={"q": 1.0})))
    found = read(holding(labelled, Exporter(ended=310.0, counts=EVERY_SECOND, queues={"q": 1.0, "old": 5.0})))
    assert (found.queue_lengths, found.finished_in_window) == ({"q": 1}, 60)


def test_the_dashboard_lists_workers_queues_and_tasks(holding: Holding) -> None:
    """Down workers come first, the busiest and the most failing tasks on top."""
    found = read_dashboard(holding(BUSY))

    assert [(row.hostname, row.status) for row in found.workers] == [
        ("dead@a", "down"),
        ("gone@a", "shut_down"),
        ("w1@a", "up"),
        ("w2@a", "up"),
    ]
    assert (found.system_summary.total_workers, found.system_summary.down_workers) == (4, 1)
    assert [(queue.name, queue.length) for queue in found.queues] == [("q", 7.0), ("slow", 0.0)]
    assert [(task.name, task.finished) for task in found.busiest_tasks] == [("shop.pay", 300), ("shop.mail", 8)]
    assert [(task.name, task.failed) for task in found.most_failing_tasks] == [("shop.mail", 8)]
    assert found.system_summary.window_seconds == 300.0


def test_the_dashboard_of_an_empty_cluster_is_empty(holding: Holding) -> None:
    """Nothing to list is an empty list."""
    found = read_dashboard(holding(IDLE))

    assert (found.workers, found.queues, found.busiest_tasks, found.most_failing_tasks, found.firing_alerts) == (
        (),
    ) * 5


def test_firing_alerts_are_listed_since_when(holding: Holding) -> None:
    """Alerts of ours that fire, with the time since when."""
    labels = {"alertname": "CeleryQueueBacklog", "severity": "warning", "queue_name": "slow"}
    more = [
        Canned("ALERTS", labels | {"alertstate": "firing"}, [(ASKED - 3, 1.0)]),
        Canned("ALERTS", labels | {"alertstate": "pending", "queue_name": "q"}, [(ASKED - 3, 1.0)]),
        Canned("ALERTS", {"alertname": "NodeDown", "alertstate": "firing"}, [(ASKED - 3, 1.0)]),
        Canned("ALERTS_FOR_STATE", labels, [(ASKED - 3, ASKED - 100)]),
    ]
    (alert,) = read_dashboard(holding(IDLE, more=more)).firing_alerts

    assert (alert.name, alert.severity, alert.timestamp.timestamp()) == ("CeleryQueueBacklog", "warning", ASKED - 100)
    assert alert.message == "CeleryQueueBacklog queue_name=slow"
