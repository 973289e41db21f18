"""Two exporters on one broker say what one says, also while one of them is away; beside them a third, alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.scaling.series import Labels, Series, alerts, await_equal, names, recorded, value
from tests.scaling.shipped import QUICK, configured, quick_rules
from tests.scaling.site import Site
from tests.scrape import ExporterProcess

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Prometheus

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

WAITING = 6
"""Messages that nobody has taken yet."""


@dataclass
class ExporterPair:
    """The pair is the cluster ``main``, as shipped; the witness, on the same broker, is the cluster ``alone``."""

    site: Site
    exporters: tuple[ExporterProcess, ExporterProcess]
    prometheus: Prometheus
    sent: int = 1

    def work(self, *, sleep: float = 0.01) -> None:
        """Fifty runs, ten of them failures, to their end."""
        self.sent += 50
        self.site.send("tests.fail", queue="fast", count=10)
        self.site.send("tests.add", 1, 2, queue="fast", count=30)
        self.site.send("tests.sleep", sleep, queue="fast", count=10)
        wait_until(lambda: self.ended("alone") == self.sent, what="all runs, recorded")

    def agree(self) -> Series:
        """Wait until the pair and the witness have the same recorded series; return these."""
        url = self.prometheus.url
        return await_equal({"pair": lambda: recorded(url, "main"), "witness": lambda: recorded(url, "alone")})

    def ended(self, cluster: str) -> float | None:
        """Runs within 5 minutes."""
        return value(self.prometheus.url, f'sum(celery:task_ended:increase5m{{cluster="{cluster}"}})')

    def extra_alerts(self, *, state: str = "pending|firing") -> set[Labels]:
        """Return the alerts that the pair ever had and the witness never."""
        url = self.prometheus.url
        return alerts(url, "main", ever=True, state=state) - alerts(url, "alone", ever=True)

    def most(self, expr: str) -> float | None:
        """The highest value that was ever recorded of the pair."""
        return value(self.prometheus.url, f'max_over_time(sum({expr}{{cluster="main"}})[10m:1s])')


@pytest.fixture
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ExporterPair]:
    """Three exporters on a broker with two workers, one of which is busy for good."""
    quick: bool = request.param
    with Site(tmp_path) as site:
        with ThreadPoolExecutor(3) as pool:
            first, second, witness = pool.map(site.exporter, ("first", "second", "witness"))
        with ThreadPoolExecutor(2) as pool:
            pool.submit(site.worker, "slow@test", "slow", concurrency=1)
            pool.submit(site.worker, "fast@test", "fast")
        site.send("tests.add", 1, 2, queue="fast")  # a queue that never started anything would look stalled
        site.send("tests.sleep", 3600, queue="slow", count=2)
        wait_until(lambda: witness.scrape().sum("celery_worker_tasks_reserved", hostname="slow@test") == 1)
        wait_until(lambda: witness.scrape().sum("celery_task_succeeded_total") == 1)
        site.send("tests.add", 1, 2, queue="slow", count=WAITING)
        addresses = {
            f"exporter-{letter}:9808": f"127.0.0.1:{one.port}"
            for letter, one in zip("ab", (first, second), strict=True)
        }
        config = configured("two-exporters/prometheus.yml", tmp_path, {**addresses, **(QUICK if quick else {})})
        alone = {"targets": [f"127.0.0.1:{witness.port}"], "labels": {"cluster": "alone"}}
        content = yaml.safe_load(config.read_text())
        content["scrape_configs"].append({"job_name": "witness", "static_configs": [alone]})
        config.write_text(yaml.safe_dump(content))
        quick_rules(tmp_path)
        with Prometheus(tmp_path / "prometheus", config=config).up() as prometheus:
            yield ExporterPair(site, (first, second), prometheus)


def recorded_of(samples: Series) -> dict[str, float | None]:
    """Return the values that the work which was sent determines."""

    def value_of(what: str, /, **labels: str) -> float | None:
        return samples.get(frozenset({("__name__", f"celery:{what}"), *labels.items()}))

    return {
        "workers": value_of("workers_up:count"),
        "slots": value_of("pool_slots:sum"),
        "busy": value_of("pool_busy:sum"),
        "waiting": value_of("queue_length:max", queue_name="slow"),
        "failed": value_of("task_failed:increase5m", name="tests.fail"),
    }


def work_is_counted(pair: ExporterPair, **work: float) -> None:
    """More work: the pair and the witness are not only alike, but right."""
    pair.work(**work)
    expected = {
        "workers": 2,
        "slots": 3,
        "busy": pytest.approx(1, abs=0.05),
        "waiting": WAITING,
        "failed": pair.sent // 5,
    }
    with suppress(TimeoutError):
        wait_until(lambda: recorded_of(pair.agree()) == expected)
    assert recorded_of(pair.agree()) == expected


@pytest.mark.parametrize("pair", [True], indirect=True, ids=["quick"])
def test_a_pair_counts_what_one_counts_while_one_is_killed_and_comes_back(pair: ExporterPair) -> None:
    """Every recorded series and every alert, but those about the exporter that died."""
    work_is_counted(pair)

    pair.exporters[0].kill()
    wait_until(lambda: "CeleryExporterDown" in names(alerts(pair.prometheus.url, "main")))
    work_is_counted(pair)

    pair.exporters[0].up()
    up = 'count(up{cluster="main"} == 1)'
    wait_until(lambda: value(pair.prometheus.url, up) == 2, what="a scrape of the new one")
    work_is_counted(pair, sleep=0.3)

    assert pair.most("celery:task_started:increase5m") == pair.sent + 1, "the one that sleeps is a run too"
    assert 0 < (pair.most("celery:queue_wait:increase5m") or 0) <= pair.sent + 1
    assert "CeleryExporterDown" in names(pair.extra_alerts())
    extra = [dict(one) for one in pair.extra_alerts(state="firing")]  # for a moment one scrape is ahead of another
    assert [alert for alert in extra if alert["area"] != "exporter"] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("pair", [False], indirect=True, ids=["as shipped"])
def test_nothing_fires_but_the_loss_of_the_one(pair: ExporterPair) -> None:
    """At the pace of the shipped files: a warning while it is away, and its end."""
    firing = 'ALERTS{cluster="main",alertname="CeleryExporterDown",alertstate="firing",severity="warning"}'
    work_is_counted(pair)

    pair.exporters[0].kill()
    wait_until(lambda: value(pair.prometheus.url, firing) == 1, timeout=400, interval=2, what="the warning")
    pair.exporters[0].up()
    wait_until(lambda: value(pair.prometheus.url, firing) is None, timeout=400, interval=2, what="its end")

    pair.agree()
    extra = {(dict(one)["alertname"], dict(one)["severity"]) for one in pair.extra_alerts()}
    assert extra == {("CeleryExporterDown", "warning")}
