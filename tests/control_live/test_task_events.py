"""Turning task events on and off, with workers whose answers are known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.control_live.workers import FakeRemote, FakeWorker, connect, disconnect, send, subscribed_switch

from celerymeter.control.desired_state import DesiredStateStore
from celerymeter.control.store import Store
from celerymeter.control.task_events import Reply, TaskEventSwitch, event_replies
from celerymeter.demo.processes import wait_until
from celerymeter.errors import BrokerUnavailable
from celerymeter.inspect_replies import Replies
from celerymeter.model import Event


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A state directory."""
    store = Store(tmp_path / "state")
    yield store
    store.close()


@pytest.fixture
def remote() -> FakeRemote:
    """One worker that was started without ``-E``, and one with it."""
    return FakeRemote({"plain": FakeWorker(), "always": FakeWorker(always=True)})


def states(switch: TaskEventSwitch) -> dict[str, str]:
    """State by worker."""
    return {found.hostname: found.task_events for found in switch.states()}


def test_start_says_what_became_of_it_per_worker(store: Store, remote: FakeRemote) -> None:
    """On where it was off, left where it was on, and impossible where nothing comes."""
    remote.workers["mute"] = FakeWorker(mute=True)
    found = {worker.hostname: worker.task_events for worker in subscribed_switch(store, remote).turn_on()}

    assert found == {"plain": "enabled", "always": "always_on", "mute": "impossible"}


def test_starting_again_changes_nothing(store: Store, remote: FakeRemote) -> None:
    """A worker that we turned on stays ours."""
    switch = subscribed_switch(store, remote)
    switch.turn_on()

    assert {found.hostname: found.task_events for found in switch.turn_on()} == {
        "plain": "enabled",
        "always": "always_on",
    }


def test_stop_withdraws_only_what_start_turned_on(store: Store, remote: FakeRemote) -> None:
    """A worker that was on before gets no command."""
    switch = subscribed_switch(store, remote)
    remote.workers["human"] = FakeWorker(on=True)
    switch.turn_on()
    found = {worker.hostname: worker.task_events for worker in switch.withdraw()}

    assert remote.asked[-1] == ("disable_events", ("plain",))
    assert found == {"plain": "disabled", "always": "always_on", "human": "always_on"}
    assert (remote.workers["plain"].on, remote.workers["human"].on) == (False, True)


def test_it_remembers_over_a_restart(store: Store, remote: FakeRemote) -> None:
    """Another process of the same state directory withdraws what the first turned on."""
    subscribed_switch(store, remote).turn_on()
    subscribed_switch(store, remote).withdraw()

    assert not remote.workers["plain"].on


def test_a_broker_that_is_away_changes_nothing(store: Store, remote: FakeRemote) -> None:
    """The request fails and nothing is claimed."""
    switch = subscribed_switch(store, remote)
    remote.away = True

    with pytest.raises(BrokerUnavailable):
        switch.turn_on()
    assert DesiredStateStore(store).get().events == "untouched"


def test_nothing_is_judged_without_an_event_stream(store: Store, remote: FakeRemote) -> None:
    """While the subscription is down every worker is unknown."""
    switch = subscribed_switch(store, remote)
    switch.turn_on()
    disconnect(switch)

    assert set(states(switch).values()) == {"unknown"}


def test_a_worker_that_joins_later_gets_the_command_until_it_acknowledges(store: Store, remote: FakeRemote) -> None:
    """It says that it is online before it listens."""
    switch = subscribed_switch(store, remote)
    switch.turn_on()
    switch.start()
    try:
        remote.workers["late"] = FakeWorker(deaf=True)
        send(switch, "worker-online", "late")
        wait_until(lambda: [names for _, names in remote.asked].count(("late",)) >= 2)
        remote.workers["late"].deaf = False
        wait_until(lambda: remote.workers["late"].on)
        wait_until(lambda: states(switch)["late"] == "enabled")
        asked = len(remote.asked)
        time.sleep(0.7)
        assert len(remote.asked) == asked
    finally:
        switch.stop()


def test_a_worker_that_reconnects_gets_the_command_again(store: Store, remote: FakeRemote) -> None:
    """A reconnect makes it forget; so does a restart with `-E`, which is its own from then on."""
    switch = subscribed_switch(store, remote)
    switch.turn_on()
    switch.start()
    try:
        remote.workers["plain"].on = False
        send(switch, "worker-online", "plain")
        wait_until(lambda: states(switch)["plain"] == "enabled")
        assert remote.workers["plain"].on
        remote.workers["plain"].always = True
        send(switch, "worker-online", "plain")
        wait_until(lambda: states(switch)["plain"] == "always_on")
    finally:
        switch.stop()


def test_a_worker_that_restarts_after_its_reply_gets_the_command_again(store: Store, remote: FakeRemote) -> None:
    """Its reply was of the process before; if it has `-E` now, that is its own, and nobody turns it off."""
    switch = subscribed_switch(store, remote)
    remote.restarting = "plain"
    switch.turn_on()
    switch.start()
    try:
        wait_until(lambda: states(switch)["plain"] == "always_on")
    finally:
        switch.stop()
    switch.withdraw()
    assert remote.asked[-1][0] == "enable_events"


def test_all_workers_get_the_command_again_when_the_subscription_is_back(store: Store, remote: FakeRemote) -> None:
    """Events that came while we were away are lost, joins among them."""
    switch = subscribed_switch(store, remote)
    switch.turn_on()
    switch.start()
    try:
        remote.workers["plain"].on = False
        disconnect(switch)
        connect(switch)
        wait_until(lambda: remote.workers["plain"].on)
    finally:
        switch.stop()


def test_the_last_events_of_a_replaced_process_prove_nothing(store: Store, remote: FakeRemote) -> None:
    """They may come in one batch with the first event of the process that took its place."""
    switch, now = subscribed_switch(store, remote), time.time()
    batch = [
        Event(type="task-started", hostname="plain", timestamp=now, pid=1),
        Event(type="worker-online", hostname="plain", timestamp=now, pid=2),
    ]
    for consumer in (switch.workers, switch):
        consumer.events(batch, now)

    assert states(switch) == {"plain": "unknown"}


def test_untouched_monitoring_sends_no_command(store: Store, remote: FakeRemote) -> None:
    """Without a start no worker hears of us."""
    switch = subscribed_switch(store, remote)
    switch.start()
    try:
        send(switch, "worker-online", "plain")
        time.sleep(0.3)
        assert remote.asked == []
    finally:
        switch.stop()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"a": {"ok": "task events enabled"}}', {"a": "changed"}),
        ('{"b": {"ok": "task events already enabled"}}', {"b": "already"}),
        ('{"a": {"error": "event dispatcher unavailable"}}', {"a": "failed"}),
        ('{"a": null}', {}),
        ('{"b": {"ok": 1}}', {"b": "failed"}),
        ('{"b": "task events enabled"}', {"b": "failed"}),
        ("nonsense", {}),
    ],
)
def test_replies_are_read_with_care(body: str, expected: dict[str, Reply]) -> None:
    """Errors and nonsense are no acknowledgement."""
    replies = Replies()
    replies.receive("enable_events", body)

    assert event_replies(replies, "enable_events") == expected
