"""Queries of dashboards and alerts for danihodovic/celery-exporter, on a real Prometheus that holds our page.

The selectors, labels and operations are those of that project's mixin (its alerts, and the dashboards 17508 and 17509);
what they must give is known from what the make-believe cluster did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from tests.compat.history import END, EVERY_MINUTE, LOST, MAILS, MINUTES, RUNTIMES, canned
from tests.engines import start_engine

from celerymeter.prometheus import PrometheusClient, PrometheusSettings

pytestmark = pytest.mark.integration

TARGET = {"job": "celery-exporter", "namespace": "shop", "instance": "exporter:9808"}
JOB = 'job=~".*celery.*"'
QUEUES = 'job="celery-exporter", queue_name=~"celery|mail"'
FAILED = 2 + 1
"""Failed runs of a minute, both exceptions."""
RECEIVED = sum(EVERY_MINUTE.values()) + 1 + MAILS
SUCCEEDED = EVERY_MINUTE["succeeded"] + MAILS


def grown(what: str, window: str, *, by: str = "", matchers: str = QUEUES) -> str:
    """The growth of one of their task counters, rounded as their panels do."""
    inner = f"round(increase(celery_task_{what}_total{{{matchers}}}[{window}]))"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def quantile(q: float, family: str, window: str, *, by: str = "le") -> str:
    """A quantile of one of their histograms."""
    return f"histogram_quantile({q}, sum by ({by}) (rate({family}_bucket{{{QUEUES}}}[{window}])))"


def mean(window: str, by: str) -> str:
    """Their average run time."""
    parts = [f"sum by ({by}) (rate(celery_task_runtime_{part}{{{QUEUES}}}[{window}]))" for part in ("sum", "count")]
    return " / ".join(parts) + " > 0"


def fail_rate(window: str) -> str:
    """The percentage that their alert compares with its limit."""
    by = "by (job, namespace, queue_name, name)"
    none = f'{JOB}, queue_name!~"None", name!~"None"'
    failed, succeeded = (
        f"sum {by} (increase(celery_task_{what}_total{{{none}}}[{window}]))" for what in ("failed", "succeeded")
    )
    return f"{failed} / ({failed} + {succeeded}) * 100"


@dataclass(frozen=True)
class Asked:
    """A query, the labels by which its samples are told apart, and what they must be (`increase()` extrapolates)."""

    query: str
    by: tuple[str, ...]
    expected: dict[tuple[str, ...], float]


ALERT = ("job", "namespace", "queue_name")
HISTORY = {
    "alert: task fail rate": Asked(
        fail_rate("10m"),
        (*ALERT, "name"),
        {
            ("celery-exporter", "shop", "celery", "pay"): 100 * FAILED / (FAILED + EVERY_MINUTE["succeeded"]),
            ("celery-exporter", "shop", "mail", "mail"): 0,
        },
    ),
    "alert: queue length": Asked(
        f'sum by (job, namespace, queue_name) (celery_queue_length{{{JOB}, queue_name!~"None"}}) > 100',
        ALERT,
        {("celery-exporter", "shop", "mail"): 150},
    ),
    "alert: worker down": Asked(
        f"max_over_time(celery_worker_up{{{JOB}}}[15m]) == 0", ("job", "hostname"), {("celery-exporter", LOST): 0}
    ),
    "workers": Asked('count(celery_worker_up{job="celery-exporter"} == 1)', (), {(): 1}),
    "tasks active": Asked('sum(celery_worker_tasks_active{job="celery-exporter"})', (), {(): 0}),
    "queues": Asked(f"count(group by (queue_name) (celery_queue_length{{{QUEUES}}}))", (), {(): 2}),
    "queue length": Asked(
        f"sum by (job, queue_name) (celery_queue_length{{{QUEUES}}})",
        ("job", "queue_name"),
        {("celery-exporter", "celery"): 7, ("celery-exporter", "mail"): 150},
    ),
    "tasks received": Asked(grown("received", "10m"), (), {(): 10 * RECEIVED}),
    "success rate": Asked(
        f"{grown('succeeded', '1w')} / ({grown('succeeded', '1w')} + {grown('failed', '1w')})",
        (),
        {(): MINUTES * SUCCEEDED / (MINUTES * SUCCEEDED + MINUTES * 2 + (MINUTES - 10))},
    ),
    **{
        f"{what} by task": Asked(grown(what, "10m", by="name") + " > 0", ("name",), {("pay",): 10 * count})
        for what, count in {"failed": FAILED, "retried": 1, "revoked": 1, "rejected": 1}.items()
    },
    "exceptions": Asked(
        grown("failed", "10m", by="job, exception") + " > 0",
        ("job", "exception"),
        {("celery-exporter", "ValueError"): 20, ("celery-exporter", "KeyError"): 10},
    ),
    "average run time": Asked(
        mean("1w", by="name"), ("name",), {("pay",): RUNTIMES["pay"], ("mail",): RUNTIMES["mail"]}
    ),
    "run time p50": Asked(
        quantile(0.5, "celery_task_runtime", "10m", by="job, name, le"),
        ("name",),
        {("pay",): 0.1 + 0.5 * 0.4, ("mail",): 0.5 + 0.5 * 4.5},
    ),
    "run time p95 of late": Asked(
        f"histogram_quantile(0.95, sum by (job, le) (irate(celery_task_runtime_bucket{{{QUEUES}}}[5m]) > 0))", (), {}
    ),
    "queue wait p95": Asked(quantile(0.95, "celery_task_queue_wait_time", "10m"), (), {(): 0.5 + 0.95 * 1.5}),
    "busiest": Asked(
        f"topk(1, sum by (name) (rate(celery_task_received_total{{{QUEUES}}}[10m])))",
        ("name",),
        {("pay",): (RECEIVED - MAILS) / 60},
    ),
    "consumers": Asked("celery_active_consumer_count", ("queue_name",), {("celery",): 2, ("mail",): 2}),
    "workers of a queue": Asked("celery_active_worker_count", ("queue_name",), {("celery",): 1, ("mail",): 1}),
    "processes of a queue": Asked("celery_active_process_count", ("queue_name",), {("celery",): 4, ("mail",): 4}),
}


@pytest.fixture(scope="module", params=["prometheus", "prometheus-newer"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusClient]:
    """A Prometheus that scraped the exporter as their job."""
    folder = tmp_path_factory.mktemp("compat") / "engine"
    server, url = start_engine(str(request.param), folder, canned("celery-exporter", **TARGET))
    with server, PrometheusClient(PrometheusSettings(url)) as client:
        yield client


@pytest.mark.parametrize("asked", HISTORY.values(), ids=HISTORY)
def test_their_query_gives_what_happened(client: PrometheusClient, asked: Asked) -> None:
    """No more samples, no fewer, and the right values."""
    found = {sample.key(*asked.by): sample.value for sample in client.instant(asked.query, time=END)}
    assert found == pytest.approx(asked.expected, rel=0.06)


def test_their_variables_offer_what_is_there(client: PrometheusClient) -> None:
    """The dropdowns of their dashboards."""

    def values(label: str, *, match: str) -> tuple[str, ...]:
        parameters: dict[str, str | float] = {"match[]": match, "start": END - 3600, "end": END}
        url = f"{client.settings.url}/api/v1/label/{label}/values"
        return tuple(requests.get(url, params=parameters, timeout=30).json()["data"])

    assert values("job", match="celery_worker_up") == ("celery-exporter",)
    assert values("queue_name", match='celery_task_received_total{job="celery-exporter"}') == ("celery", "mail")
    assert values("name", match="celery_task_sent_total") == ("mail", "pay")
