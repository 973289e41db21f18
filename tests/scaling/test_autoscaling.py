"""KEDA and prometheus-adapter get the right numbers of a real Prometheus, from an unknown queue to its last worker.

Neither can run here: this asks as they do, with the queries of their manifests, and judges answers as they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from tests.integration.alerts.pace import write_rules
from tests.scaling.series import query
from tests.scaling.site import Site

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Prometheus

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
MANIFESTS = Path(__file__).parents[2] / "deploy" / "autoscaling"
QUICKER = 30
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules/*.yml]
scrape_configs:
  - job_name: celery
    static_configs: [{{targets: ["127.0.0.1:{port}"], labels: {{cluster: main}}}}]
"""


def manifest(name: str) -> Mapping[str, Any]:
    """A file of deploy/autoscaling."""
    found: Mapping[str, Any] = yaml.safe_load((MANIFESTS / name).read_text())
    return found


def keda(prometheus: str) -> float | None:
    """Return the number KEDA scales by; ``None`` where it counts a failure, since the answer is empty."""
    (trigger,) = manifest("keda.yaml")["spec"]["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    found = query(prometheus, trigger["metadata"]["query"])
    assert len(found) <= 1, "KEDA takes one series"
    return float(found[0]["value"][1]) if found else None


def adapter(prometheus: str) -> float | None:
    """Return the number the autoscaler gets of prometheus-adapter; ``None`` where it gets no metric."""
    (rule,) = manifest("prometheus-adapter.yaml")["rules"]["external"]
    (metric,) = manifest("hpa.yaml")["spec"]["metrics"]
    wanted = metric["external"]["metric"]
    assert (rule["name"]["as"], rule["resources"]["namespaced"]) == (wanted["name"], False)
    series = {"match[]": rule["seriesQuery"]}
    known = requests.get(f"{prometheus}/api/v1/series", params=series, timeout=30).json()["data"]
    if not known:
        return None
    matchers = ",".join(f'{name}="{value}"' for name, value in wanted["selector"]["matchLabels"].items())
    found = query(prometheus, rule["metricsQuery"].replace("<<.LabelMatchers>>", matchers))
    return sum(float(each["value"][1]) for each in found) if found else None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A broker that nobody has used."""
    with Site(tmp_path) as site:
        yield site


def test_from_a_queue_that_nobody_knows_to_its_last_worker(site: Site, tmp_path: Path) -> None:
    """No value while the queue is unknown, one slot for a first message without any worker, none once all is done."""
    exporter = site.exporter("exporter")
    write_rules(tmp_path / "rules", factor=QUICKER, overrides=[])
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.format(port=exporter.port))
    with ExitStack() as stack:
        url = stack.enter_context(Prometheus(tmp_path / "prometheus", config=config)).up().url
        wait_until(lambda: bool(query(url, "celery:workers_up:count or celerymeter_broker_up == 1")), what="scrapes")

        def both() -> tuple[float | None, float | None]:
            return keda(url), adapter(url)

        assert both() == (None, None)
        site.send("tests.add", 1, 2, queue="orders", count=3)
        wait_until(lambda: both() == (1, 1), what="a slot without a worker")
        worker = site.worker("w1@test", "orders")
        wait_until(lambda: both() == (0, 0), what="nothing to do")
        worker.stop(20)
        wait_until(lambda: bool(query(url, "celery:workers_up:count == 0")), what="no worker")
        assert both() == (0, 0)
        site.send("tests.sleep", 600, queue="orders", count=2)
        wait_until(lambda: (keda(url) or 0) >= 1 and adapter(url) == keda(url), what="up from none again")
        site.worker("w2@test", "orders")
        wait_until(lambda: both() == (2, 2), what="a slot for each task that runs")
        exporter.stop()
        wait_until(lambda: both() == (None, None), what="unknown, and not zero")
