"""The reader under Sentinel: it follows the master."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.events.running import Readers, app_of, emit_until_received
from tests.events.sinks import RecordingSink

from celerymeter.demo.processes import Process, free_port, wait_until
from celerymeter.demo.servers import Redis, listens, redis_binary
from celerymeter.errors import SettingsError
from celerymeter.events import open_reader
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration

PASSWORD = "s3cret"  # of the Redis servers
SENTINEL_PASSWORD = "gu4rd"


class Cluster:
    """A master, a replica, and a Sentinel that watches them."""

    def __init__(self, folder: Path) -> None:
        guarded = ["--requirepass", PASSWORD, "--masterauth", PASSWORD]
        self.master = Redis(folder / "master", options=guarded)
        following = ["--replicaof", "127.0.0.1", str(self.master.port), "--repl-diskless-sync-delay", "0"]
        self.replica = Redis(folder / "replica", options=[*guarded, *following])
        self.port = free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\nrequirepass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor shop 127.0.0.1 {self.master.port} 1\nsentinel auth-pass shop {PASSWORD}\n"
            "sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 3000\n"
        )
        self.sentinel = Process("sentinel", [redis_binary(), str(config), "--sentinel"], log=folder / "sentinel.log")

    @property
    def url(self) -> str:
        """The Sentinel that lives."""
        return f"sentinel://:{PASSWORD}@127.0.0.1:{self.port}/0"

    @property
    def url_with_a_dead_sentinel(self) -> str:
        """Two Sentinels, the first of which is dead."""
        return f"sentinel://:{PASSWORD}@127.0.0.1:1/0;{self.url}"

    def __enter__(self) -> Cluster:
        self.master.up()
        self.replica.up()
        self.sentinel.start(ready=lambda: listens(self.port))
        with redis.Redis(port=self.port, password=SENTINEL_PASSWORD) as client:
            wait_until(lambda: client.sentinel_slaves("shop"), timeout=20, what="Sentinel knows the replica")
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.sentinel, self.replica, self.master):
            process.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of this test's own."""
    with Cluster(tmp_path) as running:
        yield running


def test_a_failover_is_followed(cluster: Cluster, readers: Readers) -> None:
    """The master is killed; events of workers that follow the new one arrive, on the same reader."""
    options: dict[str, Any] = {"master_name": "shop", "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}
    sink = RecordingSink()
    broker = BrokerSettings(url=cluster.url_with_a_dead_sentinel, transport_options=options)
    readers.start(open_reader(broker, sink))
    sink.await_connections()
    emit_until_received(app_of(cluster.url, **options), sink)

    cluster.master.kill()
    sink.await_loss()
    sink.await_connections(2, timeout=30)

    emit_until_received(app_of(cluster.url, **options), sink)
    assert not any(secret in told for _, told in sink.losses for secret in (PASSWORD, SENTINEL_PASSWORD))


@pytest.mark.parametrize(
    "options",
    [{"master_name": "unheard-of", "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}, {"master_name": "shop"}],
    ids=["unknown master", "Sentinel's password missing"],
)
def test_a_master_that_cannot_be_found_is_told(cluster: Cluster, readers: Readers, options: dict[str, object]) -> None:
    """Attempts go on, and the reason holds no password."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=cluster.url, transport_options=options), sink))

    told = sink.await_loss()

    assert not any(secret in told for secret in (PASSWORD, SENTINEL_PASSWORD))


def test_a_sentinel_url_needs_the_masters_name() -> None:
    """Said at once, not at every attempt."""
    with pytest.raises(SettingsError, match="master_name"):
        open_reader(BrokerSettings(url="sentinel://127.0.0.1:26379/0"), RecordingSink())
