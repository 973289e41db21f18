"""The switch for task events, with workers whose answers are known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.control_live.workers import FakeRemote, FakeWorker, send

from celerymeter.control.store import Store
from celerymeter.control.switching.remote import Reply, understood
from celerymeter.control.switching.switch import Switch
from celerymeter.control.switching.wishes import Wishes
from celerymeter.demo.processes import wait_until
from celerymeter.errors import BrokerUnavailable


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


def made(store: Store, remote: FakeRemote) -> Switch:
    """A switch that is subscribed and hears what workers send."""
    switch = Switch(remote, Wishes(store))
    switch.connected(time.time())
    remote.beat = lambda name: send(switch, "worker-heartbeat", name)
    return switch


def states(switch: Switch) -> dict[str, str]:
    """State by worker."""
    return {found.hostname: found.task_events for found in switch.judgements()}


def test_start_says_what_became_of_it_per_worker(store: Store, remote: FakeRemote) -> None:
    """On where it was off, left where it was on, and impossible where nothing comes."""
    remote.workers["mute"] = FakeWorker(mute=True)
    found = {judgement.hostname: judgement.task_events for judgement in made(store, remote).turn_on()}

    assert found == {"plain": "enabled", "always": "always_on", "mute": "impossible"}


def test_starting_again_changes_nothing(store: Store, remote: FakeRemote) -> None:
    """A worker that we turned on stays ours."""
    switch = made(store, remote)
    switch.turn_on()

    assert {found.hostname: found.task_events for found in switch.turn_on()} == {
        "plain": "enabled",
        "always": "always_on",
    }


def test_stop_withdraws_only_what_start_turned_on(store: Store, remote: FakeRemote) -> None:
    """A worker that was on before is not told."""
    switch = made(store, remote)
    remote.workers["human"] = FakeWorker(on=True)
    switch.turn_on()
    found = {judgement.hostname: judgement.task_events for judgement in switch.withdraw()}

    assert remote.asked[-1] == ("disable_events", ("plain",))
    assert found == {"plain": "disabled", "always": "always_on", "human": "always_on"}
    assert (remote.workers["plain"].on, remote.workers["human"].on) == (False, True)


def test_it_remembers_over_a_restart(store: Store, remote: FakeRemote) -> None:
    """Another process of the same state directory withdraws what the first turned on."""
    made(store, remote).turn_on()
    made(store, remote).withdraw()

    assert not remote.workers["plain"].on


def test_a_broker_that_is_away_changes_no_wish(store: Store, remote: FakeRemote) -> None:
    """The request fails and nothing is claimed."""
    switch = made(store, remote)
    remote.away = True

    with pytest.raises(BrokerUnavailable):
        switch.turn_on()
    assert Wishes(store).get().events == "untouched"


def test_nothing_is_judged_without_an_event_stream(store: Store, remote: FakeRemote) -> None:
    """While the subscription is down every worker is unknown."""
    switch = made(store, remote)
    switch.turn_on()
    switch.disconnected(time.time(), "gone")

    assert set(states(switch).values()) == {"unknown"}


def test_a_worker_that_joins_later_is_told_until_it_acknowledges(store: Store, remote: FakeRemote) -> None:
    """It says that it is online before it listens."""
    switch = made(store, remote)
    switch.turn_on()
    switch.start()
    try:
        remote.workers["late"] = FakeWorker(deaf=True)
        send(switch, "worker-online", "late")
        wait_until(lambda: [names for _, names in remote.asked].count(("late",)) >= 2)
        remote.workers["late"].deaf = False
        wait_until(lambda: remote.workers["late"].on)
        wait_until(lambda: states(switch)["late"] == "enabled")
        told = len(remote.asked)
        time.sleep(0.7)
        assert len(remote.asked) == told
    finally:
        switch.stop()


def test_a_worker_that_reconnects_is_told_again(store: Store, remote: FakeRemote) -> None:
    """A reconnect makes it forget; so does a restart with -E, which is its own from then on."""
    switch = made(store, remote)
    switch.turn_on()
    switch.start()
    try:
        remote.workers["plain"].on = False
        send(switch, "worker-online", "plain")
        wait_until(lambda: remote.workers["plain"].on)
        remote.workers["plain"].always = True
        time.sleep(0.01)
        send(switch, "worker-online", "plain")
        wait_until(lambda: states(switch)["plain"] == "always_on")
    finally:
        switch.stop()
    switch.withdraw()
    assert remote.asked[-1][0] == "enable_events" or "plain" not in (remote.asked[-1][1] or ())


def test_whoever_may_have_been_missed_is_told_after_a_reconnect_of_ours(store: Store, remote: FakeRemote) -> None:
    """Events that came while we were away are lost, joins among them."""
    switch = made(store, remote)
    switch.turn_on()
    switch.start()
    try:
        remote.workers["plain"].on = False
        switch.disconnected(time.time(), "gone")
        switch.connected(time.time())
        wait_until(lambda: remote.workers["plain"].on)
    finally:
        switch.stop()


def test_untouched_monitoring_tells_nobody(store: Store, remote: FakeRemote) -> None:
    """Without a start no worker hears of us."""
    switch = made(store, remote)
    switch.start()
    try:
        send(switch, "worker-online", "plain")
        time.sleep(0.3)
        assert remote.asked == []
    finally:
        switch.stop()


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        (
            [{"a": {"ok": "task events enabled"}}, {"b": {"ok": "task events already enabled"}}],
            {"a": "changed", "b": "already"},
        ),
        ([{"a": {"error": "event dispatcher unavailable"}}], {"a": "failed"}),
        (None, {}),
        ([{"a": None}, {"b": {"ok": 1}}, "x", {3: {"ok": "task events enabled"}}], {"b": "failed"}),
    ],
)
def test_replies_are_read_with_care(replies: object, expected: dict[str, Reply]) -> None:
    """Errors and nonsense are no acknowledgement."""
    assert understood(replies) == expected
