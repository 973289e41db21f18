"""Workers whose answers to remote control are known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.fake_remote_control import FakeRemoteControl, Wait, add_reply

from celerymeter.control.desired_state import DesiredStateStore
from celerymeter.control.live_workers import LiveWorkers
from celerymeter.control.store import Store
from celerymeter.control.task_events import TaskEventSwitch
from celerymeter.errors import BrokerUnavailable
from celerymeter.inspect_replies import Replies
from celerymeter.model import Event
from celerymeter.remote_control import Command


@dataclass
class FakeWorker:
    """A worker that gets commands. ``always``: started with ``-E``; ``mute``: its dispatcher is off."""

    always: bool = False
    mute: bool = False
    deaf: bool = False
    on: bool = False

    def reply(self, method: str) -> str | None:
        """Do the command and return the words of the reply."""
        enable = method == "enable_events"
        if self.deaf:
            return None
        done = "enabled" if enable else "disabled"
        if self.always or self.on == enable:
            return f"task events already {done}"
        self.on = enable
        return f"task events {done}"


@dataclass
class FakeRemote(FakeRemoteControl):
    """Remote control of fake workers, which answer a request for heartbeats through the switch.

    ``restarting``: a worker that starts again, with ``-E``, once it has replied to the next command.
    """

    workers: dict[str, FakeWorker] = field(default_factory=dict)
    asked: list[tuple[str, tuple[str, ...] | None]] = field(default_factory=list)
    away: bool = False
    switch: TaskEventSwitch | None = None
    restarting: str | None = None

    def deliver(self, commands: Sequence[Command], replies: Replies, wait: Wait) -> None:
        (command,) = commands
        self.asked.append((command.method, None if command.destination is None else tuple(command.destination)))
        if self.away:
            raise BrokerUnavailable("away")
        for name, worker in self.workers.items():
            wanted = command.destination is None or name in command.destination
            if wanted and (words := worker.reply(command.method)):
                add_reply(replies, command, name, {"ok": words})
        if self.restarting is not None and self.switch is not None:
            name, self.restarting = self.restarting, None
            self.workers[name] = FakeWorker(always=True)
            send(self.switch, "worker-online", name)

    def send(self, command: Command, *, once: bool = False) -> None:
        assert command.method == "heartbeat"
        for name, worker in self.workers.items():
            if not worker.mute and self.switch:
                send(self.switch, "worker-heartbeat", name)


def subscribed_switch(store: Store, remote: FakeRemote) -> TaskEventSwitch:
    """A switch that gets the events of the remote's workers."""
    switch = TaskEventSwitch(remote, DesiredStateStore(store), LiveWorkers())
    subscribe(switch, remote)
    return switch


def subscribe(switch: TaskEventSwitch, remote: FakeRemote) -> None:
    """The subscription to events is confirmed."""
    remote.switch = switch
    connect(switch)


def connect(switch: TaskEventSwitch) -> None:
    """The subscription is there, for the first time or again."""
    switch.workers.connected(time.time())
    switch.connected(time.time())


def disconnect(switch: TaskEventSwitch) -> None:
    """The subscription is gone."""
    switch.workers.disconnected(time.time(), "gone")
    switch.disconnected(time.time(), "gone")


def send(switch: TaskEventSwitch, kind: str, hostname: str) -> None:
    """An event arrives."""
    batch = [Event(type=kind, hostname=hostname, timestamp=time.time(), pid=1)]
    switch.workers.events(batch, time.time())
    switch.events(batch, time.time())
