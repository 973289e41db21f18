"""Workers whose answers to remote control are known."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from celerymeter.control.switching.remote import Command, Reply
from celerymeter.control.switching.switch import Switch
from celerymeter.errors import BrokerUnavailable
from celerymeter.model import Event


@dataclass
class FakeWorker:
    """A worker as the broadcasts find it. ``always``: started with ``-E``; ``mute``: its dispatcher is off."""

    always: bool = False
    mute: bool = False
    deaf: bool = False
    on: bool = False

    def told(self, command: Command) -> Reply | None:
        """What it replies."""
        wanted = command == "enable_events"
        if self.deaf:
            return None
        if self.always or self.on == wanted:
            return "already"
        self.on = wanted
        return "changed"


@dataclass
class FakeRemote:
    """A `Remote` over fake workers, which answer a request for heartbeats through the switch."""

    workers: dict[str, FakeWorker] = field(default_factory=dict)
    asked: list[tuple[Command, tuple[str, ...] | None]] = field(default_factory=list)
    away: bool = False
    beat: Callable[[str], None] = lambda _: None

    def tell(self, command: Command, workers: Sequence[str] | None = None) -> Mapping[str, Reply]:
        self.asked.append((command, None if workers is None else tuple(workers)))
        if self.away:
            raise BrokerUnavailable("away")
        names = list(self.workers) if workers is None else [name for name in workers if name in self.workers]
        return {name: reply for name in names if (reply := self.workers[name].told(command))}

    def provoke(self) -> None:
        for name, worker in self.workers.items():
            if not worker.mute:
                self.beat(name)


def send(switch: Switch, kind: str, hostname: str) -> None:
    """An event arrives."""
    switch.events([Event(type=kind, hostname=hostname, timestamp=time.time(), pid=1)], time.time())
