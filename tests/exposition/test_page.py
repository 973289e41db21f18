"""The page: byte for byte, and as Prometheus' own parsers read it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.tracking.cluster import WORKER, Cluster, make_settings

from celerymeter.demo.servers import find_binary
from celerymeter.exposition.page import Page
from celerymeter.exposition.scrape import Build
from celerymeter.metrics import CATALOGUE
from celerymeter.model import ActiveTask, PollOutcome, QueueHead, QueuesSnapshot, QueueState
from celerymeter.settings import Limits

GOLDEN = Path(__file__).with_name("golden.prom")
BUILD = Build(version="1.2.3", python="3.11.7", celery="5.7.0")


def render(cluster: Cluster) -> str:
    """The page of a cluster, now."""
    return Page(cluster.tracker, build=BUILD).render(cluster.now).decode()


def busy() -> Cluster:
    """A cluster in which every family has something to say."""
    settings = make_settings(Limits(), runtime_buckets=(0.1, 1.0), wait_buckets=(1.0, 60.0))
    cluster = Cluster(settings)
    cluster.heartbeat(kind="worker-online", sw_ver="5.7.0", loadavg=(0.5, 0.4, 0.3))
    cluster.run("a", queue="mail")
    cluster.run("b", queue="mail", outcome="retried")
    cluster.publish("c", 'say "hi"\n')
    cluster.start("c")
    cluster.end("c", "failed", exception="ValueError('secret')")
    cluster.end("c", "failed")
    cluster.publish("d")
    cluster.start("d")
    cluster.pass_time(6, beating=(WORKER,))
    cluster.answer(
        pool="prefork",
        slots=4,
        reserved=2,
        scheduled=1,
        queues=("mail", "celery"),
        totals={"add": 7},
        active=(ActiveTask("d", "add", cluster.now - 6, "celery"),),
    )
    cluster.tracker.reject("body", 2)
    queues = (
        QueueState("mail", 3, unacked=1, head=QueueHead("x", None, cluster.now - 9), oldest_unacked_at=cluster.now - 4),
        QueueState("celery", 0, unacked=0),
    )
    cluster.tracker.queues_seen(
        QueuesSnapshot(cluster.now, queues, unacked_other=5, unacked_unknown=2, visibility_timeout=3600.0)
    )
    for collector in ("queues", "workers"):
        cluster.tracker.polled(PollOutcome(collector, True, cluster.now, 0.25))
    return cluster


def test_the_page_is_what_it_was() -> None:
    """Rewrite the golden file with CELERYMETER_GOLDEN=write when the contract changes, and read the difference."""
    page = render(busy())
    if os.environ.get("CELERYMETER_GOLDEN") == "write":
        GOLDEN.write_text(page)
    assert page == GOLDEN.read_text()


def test_every_family_of_the_catalogue_is_on_a_full_page() -> None:
    """With its declared type and labels; the control API has a page of its own."""
    families = {family.name: family for family in text_string_to_metric_families(render(busy()))}
    for family in CATALOGUE:
        if family.area == "control":
            continue
        parsed = families[family.name.removesuffix("_total") if family.kind == "counter" else family.name]
        assert parsed.type == family.kind
        assert parsed.documentation == family.help
        for sample in parsed.samples:
            assert set(sample.labels) - {"le"} == set(family.labels)


def test_a_page_without_history_is_valid_too() -> None:
    """Before the first event."""
    cluster = Cluster()
    cluster.tracker.disconnected()
    families = {family.name: family for family in text_string_to_metric_families(render(cluster))}
    assert families["celerymeter_broker_up"].samples[0].value == 0
    assert "celery_worker_up" not in families


@pytest.mark.integration
@pytest.mark.parametrize("make", [Cluster, busy])
def test_promtool_has_nothing_to_say(make: type[Cluster]) -> None:
    """`promtool check metrics` lints names, types and help texts."""
    check = subprocess.run(
        [find_binary("promtool"), "check", "metrics"], input=render(make()), text=True, capture_output=True, check=False
    )
    assert (check.returncode, check.stdout + check.stderr) == (0, "")


def test_a_gauge_of_a_poll_vanishes_when_it_is_stale() -> None:
    """Two intervals after the last success, and at once while the broker is away."""
    cluster = busy()
    assert "celery_queue_length{" in render(cluster)
    cluster.pass_time(31, beating=(WORKER,))
    page = render(cluster)
    assert "celery_queue_length{" not in page
    assert "celery_worker_pool_size{" not in page
    cluster = busy()
    cluster.tracker.disconnected()
    page = render(cluster)
    assert "celery_queue_length{" not in page
    assert "celery_worker_up{" not in page
    assert 'celery_task_succeeded_total{name="add",queue_name="mail"} 1' in page


def test_folded_queues_add_up() -> None:
    """Lengths are summed, timestamps take the minimum."""
    cluster = Cluster(make_settings(Limits(queues=1)))
    queues = tuple(
        QueueState(f"q{number}", number, head=QueueHead(None, None, cluster.now - number), consumers=2)
        for number in range(4)
    )
    cluster.tracker.queues_seen(QueuesSnapshot(cluster.now, queues))
    cluster.tracker.polled(PollOutcome("queues", True, cluster.now, 0.1))
    page = render(cluster)
    assert 'celery_queue_length{queue_name="__other__"} 6' in page
    assert 'celery_queue_consumers{queue_name="__other__"} 6' in page
    start = f'celery_queue_oldest_task_timestamp_seconds{{queue_name="__other__",source="observed"}} {cluster.now - 3}'
    assert start in page


def test_the_hostname_is_a_label_on_request() -> None:
    """Off by default: series times workers."""
    cluster = Cluster(make_settings(task_hostname_label=True))
    cluster.run("a")
    page = render(cluster)
    assert f'celery_task_succeeded_total{{name="add",queue_name="celery",hostname="{WORKER}"}} 1' in page
    assert 'celery_task_sent_total{name="add",queue_name="celery",hostname=""} 1' in page
