"""The version of the application, from a real worker to the page: dashboards mark when it changes."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from tests.apps.worker_app import STAMP
from tests.integration.exporter.conftest import StartExporter, StartWorker
from tests.revocation.releases import INSTALLED, OTHERS, Setting
from tests.scrape import ExporterProcess

from celerymeter.demo.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def shown(exporter: ExporterProcess) -> Mapping[str, float]:
    """The versions on the page, with their values."""
    labels = exporter.scrape().by("celery_worker_application_info", "hostname", "version")
    return {version: value for (hostname, version), value in labels.items() if hostname == "w1@test"}


@pytest.mark.parametrize("way", ["stamp", "aggregate", "stamp-aggregate", "push"])
def test_a_worker_tells_the_version_that_was_given_to_either_hook(
    way: str, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """The next version replaces it; it needs no task events."""
    exporter = new_exporter(*(["--open-push"] if way == "push" else []))

    def options(version: str) -> Mapping[str, object]:
        given = {"version": version}
        found: Mapping[str, Mapping[str, object]] = {
            "stamp": {"env": {STAMP: json.dumps(given)}, "events": False},
            "stamp-aggregate": {"env": {STAMP: json.dumps(given)}, "aggregate": {}},
            "aggregate": {"aggregate": given},
            "push": {"aggregate": {**given, "push_url": f"{exporter.url}/-/push"}},
        }
        return found[way]

    worker = new_worker("w1@test", **options("1.4.2"))
    wait_until(lambda: shown(exporter) == {"1.4.2": 1})
    worker.stop(20)
    new_worker("w1@test", **options("1.5.0"))
    wait_until(lambda: shown(exporter) == {"1.5.0": 1})


@pytest.mark.parametrize("release", [INSTALLED, *OTHERS])
def test_each_celery_does(release: str, new_worker: StartWorker, new_exporter: StartExporter) -> None:
    """It takes the field into its heartbeats."""
    exporter = new_exporter()
    env = {**Setting(release=release).environment(), STAMP: json.dumps({"version": "1.4.2"})}
    new_worker("w1@test", env=env)
    wait_until(lambda: shown(exporter) == {"1.4.2": 1})


def test_without_a_version_there_is_no_series(new_worker: StartWorker, new_exporter: StartExporter) -> None:
    """Of a worker with the stamp alone."""
    exporter = new_exporter()
    new_worker("w1@test", env={STAMP: "{}"})
    wait_until(lambda: exporter.scrape().get("celery_worker_up", hostname="w1@test") == 1)
    assert shown(exporter) == {}
