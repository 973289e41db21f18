"""Turning task events on and off at real workers of every kind: their states are what their events show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.apps.worker_app import make_app
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.control.desired_state import DesiredStateStore
from celerymeter.control.event_listener import EventListener
from celerymeter.control.live_workers import LiveWorkers
from celerymeter.control.store import Store
from celerymeter.control.task_events import TaskEventSwitch
from celerymeter.demo.processes import Process, wait_until
from celerymeter.demo.servers import Redis
from celerymeter.remote_control import RemoteControl
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration

PLAIN, ALWAYS, MUTE, LATE = "plain@t", "always@t", "mute@t", "late@t"
DISPATCHER_OFF = ("--without-heartbeat", "--without-gossip")


Broker = Redis | RabbitMQ


@pytest.fixture(params=[Redis, pytest.param(RabbitMQ, marks=pytest.mark.slow)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A broker with one worker of each kind, each on a queue of its own name."""
    with ExitStack() as stack:
        broker: Broker = stack.enter_context(request.param(tmp_path / "broker"))
        broker.up()
        for name, events, options in ((PLAIN, False, ()), (ALWAYS, True, ()), (MUTE, False, DISPATCHER_OFF)):
            stack.enter_context(
                start_worker(
                    broker.url, tmp_path, hostname=name, events=events, options=options, queues=[name], pool="threads"
                )
            )
        yield broker


@pytest.fixture
def switch(broker: Broker, tmp_path: Path) -> Iterator[TaskEventSwitch]:
    """A switch that is subscribed, over a state directory."""
    with ExitStack() as stack:
        store = Store(tmp_path / "state")
        stack.callback(store.close)
        settings = BrokerSettings(url=broker.url)
        remote = RemoteControl(settings)
        stack.callback(remote.close)
        workers = LiveWorkers()
        switch = TaskEventSwitch(remote, DesiredStateStore(store), workers)
        for part in (EventListener(settings, workers, switch), switch):
            part.start()
            stack.callback(part.stop)
        wait_until(lambda: workers.connected_at)
        yield switch


def states(switch: TaskEventSwitch) -> dict[str, tuple[str, bool]]:
    """State and whether it is proven, by worker."""
    return {found.hostname: (found.task_events, found.confirmed) for found in switch.states()}


def late_worker(broker: Broker, folder: Path) -> Process:
    """A worker that is started when events are wanted already."""
    return start_worker(broker.url, folder, hostname=LATE, events=False, queues=[LATE], pool="threads")


def run_tasks(broker: Broker, *workers: str) -> None:
    """One short task on each."""
    app = make_app(broker.url)
    for worker in workers:
        app.send_task("tests.add", (1, 2), queue=worker)
    app.close()


def test_the_state_of_every_worker_is_proven_by_events(broker: Broker, switch: TaskEventSwitch, tmp_path: Path) -> None:
    """On where they were off, also at a worker that comes later, and comes again; off again only there; all proven."""
    switch.turn_on()
    expected = {PLAIN: ("enabled", False), ALWAYS: ("always_on", False), MUTE: ("impossible", True)}
    wait_until(lambda: states(switch) == expected)

    with late_worker(broker, tmp_path):
        wait_until(lambda: states(switch).get(LATE) == ("enabled", False))
    wait_until(lambda: LATE not in states(switch) or states(switch)[LATE][0] != "enabled")
    with late_worker(broker, tmp_path):
        wait_until(lambda: states(switch).get(LATE) == ("enabled", False))
        run_tasks(broker, PLAIN, ALWAYS, MUTE, LATE)
        proven = {PLAIN: ("enabled", True), ALWAYS: ("always_on", True), LATE: ("enabled", True)}
        wait_until(lambda: states(switch) == {**proven, MUTE: ("impossible", True)})

        withdrawn = {worker.hostname: worker.task_events for worker in switch.withdraw()}
        assert withdrawn == {PLAIN: "disabled", ALWAYS: "always_on", MUTE: "impossible", LATE: "disabled"}

        def silent_runs_prove_it() -> bool:
            run_tasks(broker, PLAIN, LATE)
            return (states(switch)[PLAIN], states(switch)[LATE]) == (("disabled", True),) * 2

        wait_until(silent_runs_prove_it, interval=1.0)
        assert states(switch)[ALWAYS] == ("always_on", True)
