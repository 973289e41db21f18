"""Batch revokes during a failover of the broker: Redis under Sentinel, whose master dies.

A worker that holds messages does not live through it: kombu 5.7 raises when it wants to give them back
(`restore_unacked`), and the worker shuts down. So that is a test of its own, with a supervisor.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.apps.worker_app import make_app
from tests.control.serving import Control
from tests.events.sentinel import SentinelCluster
from tests.integration.exporter.test_failover import OPTIONS, WORDS
from tests.lookup.watching import ON_THE_WAY, Lookups
from tests.revocation import rows
from tests.revocation.cluster import TIMEOUT, Cluster, statuses
from tests.revocation.test_resending import has_flag

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

SOON = {**OPTIONS, "visibility_timeout": 5}
"""Seconds after which Redis delivers again what the workers that went held."""

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[SentinelCluster]:
    """The broker."""
    with SentinelCluster(tmp_path / "redis") as started:
        yield started


@pytest.fixture
def cluster(tmp_path: Path, sentinel: SentinelCluster) -> Iterator[Cluster]:
    """The API and workers on it; results are stored elsewhere."""
    with ExitStack() as stack:
        backend = f"{stack.enter_context(Redis(tmp_path / 'backend')).up().url[:-1]}1"
        app = make_app(sentinel.url, transport_options=OPTIONS, backend=backend)
        stack.callback(app.close)
        argv = ("--broker-url", sentinel.url, "--result-backend-url", backend, *WORDS)
        control = stack.enter_context(Control(tmp_path, argv)).up()
        broker: Any = sentinel  # nobody here wants more of it than its URL
        cluster = Cluster(tmp_path, broker, backend, stack, app, control, {})
        stack.callback(cluster.let_go)
        yield cluster


def post_until_done(cluster: Cluster, *task_ids: str, **parameters: Any) -> list[dict[str, Any]]:
    """Post a batch again and again until it is answered with 200; return each answer that has a batch."""
    found = []
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        response = cluster.post(*task_ids, **parameters)
        assert response.status_code in (200, 503, 504), response.text
        if "batch_id" in response.json():
            found.append(response.json())
        if response.status_code == 200:
            return found
        time.sleep(0.2)
    raise AssertionError("no batch was answered")


def test_the_rows_during_a_failover(cluster: Cluster, sentinel: SentinelCluster) -> None:
    """A request that the old master could not take is refused or held, and everything ends as without a failover."""
    rows.start_workers(cluster, transport_options=OPTIONS)
    caused = rows.cause(cluster, held=False)
    sentinel.master.kill()
    gently = post_until_done(cluster, *caused.gently)
    deadly = post_until_done(cluster, *caused.terminate, terminate=True)
    for replies, wanted in ((gently, caused.gently), (deadly, caused.terminate)):
        claimed = set(statuses(replies[-1]).values())
        assert claimed <= {*wanted.values(), "pending", "partial", "terminate_sent", "already_revoked"}, claimed
        for reply in replies:
            followed(cluster, reply["batch_id"], wanted)
    cluster.let_go()
    lookups = Lookups(cluster.control)
    for task_id, status in caused.terminate.items():
        lookups.becomes(task_id, "revoked" if status == "terminated" else "succeeded", before=ON_THE_WAY)


def followed(cluster: Cluster, batch_id: str, wanted: Mapping[str, str]) -> None:
    """Wait until a batch has these statuses; a second one finds what the first one has terminated."""

    def there() -> bool:
        found = statuses(cluster.follow(batch_id))
        found = {key: "terminated" if status == "already_revoked" else status for key, status in found.items()}
        return found == wanted

    try:
        wait_until(there, interval=0.5)
    finally:
        assert there(), (cluster.follow(batch_id), wanted)


def test_flags_outlive_a_failover_that_ends_the_workers(cluster: Cluster, sentinel: SentinelCluster) -> None:
    """Those that are started again know no flag, and get what was held before: reserved, or for an ETA.

    What is there when a worker starts may run before the flag comes; that is said.
    """
    first = rows.start_workers(cluster, transport_options=SOON)
    held = cluster.hold("one")
    reserved, eta = (cluster.send("tests.add", 1, 2, queue="one", countdown=seconds) for seconds in (None, 50))
    queued = cluster.send("tests.add", 1, 2, queue="nowhere")
    for task_id in (reserved, eta, queued):
        cluster.knows(task_id)
    reply = cluster.becomes(cluster.revoke(reserved, eta, queued), "flagged")
    sentinel.master.kill()
    held.let_go()
    for worker in first:
        worker.stop()
    second = rows.start_workers(cluster, transport_options=SOON)
    for worker in second:
        wait_until(has_flag(worker, queued), what="the flags are sent again")
    cluster.app.control.add_consumer("nowhere", destination=["one@t"])
    ran = {True: "ran_anyway", False: "revoked"}
    wait_until(lambda: statuses(cluster.follow(reply["batch_id"]))[reserved] in ran.values())
    assert statuses(cluster.follow(reply["batch_id"]))[reserved] == ran[cluster.state(reserved) == "SUCCESS"]
    wanted = {reserved: ran[cluster.state(reserved) == "SUCCESS"], eta: "revoked", queued: "revoked"}
    cluster.becomes(reply, wanted)
    assert {cluster.state(eta), cluster.state(queued)} == {"REVOKED"}
