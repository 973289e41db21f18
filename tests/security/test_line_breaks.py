"""A task whose name has a line break is counted like every other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.engines import NAMES, Canned, start_engine

from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope
from celerymeter.reports.request import Filters

pytestmark = pytest.mark.integration

AT = 1_700_000_000.0
TASKS = ["shop.pay", "shop\npay", "\n", "shop.pay\r\n", "a\u2028b", 'a"\\\nb', "", ".*"]


@pytest.fixture(scope="module", params=NAMES)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusClient]:
    """An engine that holds a run of each task."""
    series = [
        Canned("celery_task_succeeded_total", {"name": name, "queue_name": f"q{name}"}, [(AT, 1.0)]) for name in TASKS
    ]
    server, url = start_engine(request.param, tmp_path_factory.mktemp(request.param) / "data", series)
    with server:
        yield PrometheusClient(PrometheusSettings(url))


def counted(client: PrometheusClient, filters: Filters) -> float:
    """Return the runs that a query of a report counts."""
    query = "sum(last_over_time(celery_task_succeeded_total{SEL, name=~$name, queue_name=~$queue}[5m]))"
    return sum(sample.value for sample in client.instant(Scope().render(query, **filters.slots()), time=AT + 1))


def test_a_report_of_everything_counts_every_task(client: PrometheusClient) -> None:
    """93 of 99 runs were counted, and the report did not know it."""
    assert counted(client, Filters()) == len(TASKS)


@pytest.mark.parametrize("name", [name for name in TASKS if name])
def test_a_report_of_one_task_counts_that_one(client: PrometheusClient, name: str) -> None:
    """Whatever its name is made of."""
    assert counted(client, Filters(task=name)) == 1
    assert counted(client, Filters(queue=f"q{name}")) == 1
