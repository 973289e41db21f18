"""The workload of `make celery-workload` in a short form, on Redis: every count is right."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.celery_workload.cluster import SENTINEL, Cluster
from tools.celery_workload.mixed import run_mixed
from tools.celery_workload.releases import find_release
from tools.celery_workload.suite import run_suite

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
@pytest.mark.parametrize("release", ["5.7", "5.3"])
def test_a_mixed_workload_is_counted_to_the_event(release: str, pool: str, tmp_path: Path) -> None:
    """Ends of every kind and every kind of canvas, with the newest and the oldest release, on every pool."""
    result = run_mixed(Cluster(tmp_path, "redis", pool, find_release(release)), rounds=2)
    assert not result.differences, result.text()
    assert result.truth.types["task-sent"] >= 80


@pytest.mark.timeout(900)
def test_celerys_own_tests_of_replaced_tasks_are_counted_to_the_event(tmp_path: Path) -> None:
    """Those of its canvas tests that have to do with replacing; `make celery-workload` runs them all."""
    result = run_suite(Cluster(tmp_path, "redis", "prefork", find_release("5.7")), ["test_canvas.py", "-k", "replace"])
    assert not result.differences, result.text()
    assert result.truth.steps["started"].total() > 100


@pytest.mark.timeout(400)
@pytest.mark.parametrize("release", ["5.7", "5.3"])
def test_a_mixed_workload_is_counted_to_the_event_although_the_master_dies_under_sentinel(
    release: str, tmp_path: Path
) -> None:
    """The rounds before and after it are whole; tasks run while it dies."""
    result = run_mixed(Cluster(tmp_path, SENTINEL, "gevent", find_release(release)), rounds=1)
    assert not result.differences, result.text()
    assert result.truth.steps["started"]["tests.sleep", "mixed"] >= 4
