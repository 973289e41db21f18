"""The reader under Sentinel: it follows the master."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.events.running import Readers, app_of, emit, emit_until_received
from tests.events.sentinel import PASSWORD, SENTINEL_PASSWORD, SentinelCluster
from tests.events.sinks import RecordingSink

from celerymeter.broker import connect_redis
from celerymeter.demo.processes import wait_until
from celerymeter.errors import SettingsError
from celerymeter.events import open_reader
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SentinelCluster]:
    """A cluster of this test's own."""
    with SentinelCluster(tmp_path) as running:
        yield running


def test_a_failover_is_followed(cluster: SentinelCluster, readers: Readers) -> None:
    """The master is killed; events of workers that follow the new one arrive, on the same reader."""
    options: dict[str, Any] = {"master_name": "shop", "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}
    sink = RecordingSink()
    broker = BrokerSettings(url=cluster.url_with_a_dead_sentinel, transport_options=options)
    readers.start(open_reader(broker, sink))
    sink.await_connections()
    emit_until_received(app_of(cluster.url, **options), sink)

    cluster.master.kill()
    sink.await_loss()
    sink.await_connections(2)

    app, before = app_of(cluster.url, **options), len(sink.received)

    def heard_again() -> bool:
        emit(app)  # one may be published to a server that another failover has just made a replica
        return len(sink.received) > before

    wait_until(heard_again, interval=0.5, what="events of the new master")
    assert not any(secret in loss for _, loss in sink.losses for secret in (PASSWORD, SENTINEL_PASSWORD))


def test_workers_with_kombu_before_5_4_are_heard(cluster: SentinelCluster, readers: Readers) -> None:
    """They publish on channels whose name begins with `/{db}.`, literally; others are heard beside them."""
    options: dict[str, Any] = {"master_name": "shop", "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=cluster.url, transport_options=options), sink))
    sink.await_connections()
    emit_until_received(app_of(cluster.url, **options, fanout_prefix="/{{db}}."), sink)
    emit_until_received(app_of(cluster.url, **options), sink)
    assert len(sink.received) == 2


def test_an_event_on_both_channels_counts_once(cluster: SentinelCluster, readers: Readers) -> None:
    """As kombu publishes it with `sentinel_fanout_compat`."""
    options: dict[str, Any] = {"master_name": "shop", "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}
    sink = RecordingSink()
    compatible = {**options, "sentinel_fanout_compat": True}
    readers.start(open_reader(BrokerSettings(url=cluster.url, transport_options=compatible), sink))
    sink.await_connections()
    app = app_of(cluster.url, **compatible)
    emit(app, *["shop-opened"] * 50)
    emit(app, "shop-closed")
    wait_until(lambda: sink.types()["shop-closed"])
    assert sink.types() == {"shop-opened": 50, "shop-closed": 1}


def test_an_account_without_the_right_to_the_old_channels_hears_the_others(
    cluster: SentinelCluster, readers: Readers
) -> None:
    """Redis refuses both subscriptions then, so the usual one is made alone."""
    options: dict[str, Any] = {"master_name": "shop", "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}
    admin = connect_redis(BrokerSettings(url=cluster.url, transport_options=options)).client
    admin.acl_setuser(
        "meter", enabled=True, passwords=["+pw"], keys=["*"], channels=["/0.celeryev/*"], categories=["+@all"]
    )
    sink = RecordingSink()
    url = cluster.url.replace(f":{PASSWORD}@", "meter:pw@")
    readers.start(open_reader(BrokerSettings(url=url, transport_options=options), sink))
    sink.await_connections()
    emit_until_received(app_of(cluster.url, **options), sink)


@pytest.mark.parametrize(
    "options",
    [{"master_name": "unheard-of", "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}, {"master_name": "shop"}],
    ids=["unknown master", "Sentinel's password missing"],
)
def test_a_master_that_cannot_be_found_is_reported(
    cluster: SentinelCluster, readers: Readers, options: dict[str, object]
) -> None:
    """Attempts go on, and the reason holds no password."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=cluster.url, transport_options=options), sink))

    loss = sink.await_loss()

    assert not any(secret in loss for secret in (PASSWORD, SENTINEL_PASSWORD))


def test_a_sentinel_url_needs_the_masters_name() -> None:
    """Said at once, not at every attempt."""
    with pytest.raises(SettingsError, match="master_name"):
        open_reader(BrokerSettings(url="sentinel://127.0.0.1:26379/0"), RecordingSink())
