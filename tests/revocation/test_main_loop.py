"""A broadcast of a thousand ids, and workers that go on with their work meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.apps import worker_app
from tests.revocation.cluster import TIMEOUT, Cluster, running_cluster
from tests.revocation.latency import far_away
from tests.revocation.releases import EVERYWHERE

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DELAY = 0.001
"""Seconds that each word to the result backend takes: a revoke costs a worker up to three for each id."""
IDS = [f"id-{number}" for number in range(1000)]


@pytest.fixture(params=EVERYWHERE)
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The API, and two workers that are far from their results."""
    with running_cluster(tmp_path, request.param) as cluster:
        backend_url = cluster.stack.enter_context(far_away(cluster.backend_url, delay=DELAY))
        for name in ("a@t", "b@t"):
            cluster.worker(name, env={worker_app.BACKEND: backend_url})
        cluster.becomes(cluster.revoke("before"), "flagged_unknown")
        yield cluster


def ping(cluster: Cluster) -> float:
    """Seconds until both workers have answered; what came before is done by then."""
    asked = time.monotonic()
    assert len(cluster.app.control.broadcast("ping", reply=True, limit=2, timeout=TIMEOUT)) == 2
    return time.monotonic() - asked


def test_no_worker_is_held_for_a_second(cluster: Cluster) -> None:
    """Pings are answered all the time until each id is flagged, also by the follow-up."""
    longest = [ping(cluster)]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(cluster.revoke, *IDS)
        while not answer.done():
            longest.append(ping(cluster))
    batch, count = answer.result(), len(longest)
    while cluster.follow(batch["batch_id"])["summary"] != "1000 flagged_unknown":
        longest.append(ping(cluster))
    assert count > 2
    assert max(longest) < 1.0
