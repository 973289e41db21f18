"""Celery's remote control for the monitoring: tell workers to turn task events on or off, and hear who acknowledged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Literal, Protocol

from celerymeter.broker import HeldConnection
from celerymeter.settings import BrokerSettings

Command = Literal["enable_events", "disable_events"]
Reply = Literal["changed", "already", "failed"]

REPLY_TIMEOUT = 1.0
"""Seconds; a busy solo worker answers when its task is done, and is asked again."""


class Remote(Protocol):
    """How workers are told. Raises `BrokerUnavailable`."""

    def tell(self, command: Command, workers: Sequence[str] | None = None) -> Mapping[str, Reply]:
        """What the workers that answered in time said, by hostname; ``None`` asks all of them."""

    def provoke(self) -> None:
        """Have every worker send a heartbeat event now, if it can send events at all."""


class CeleryRemote:
    """Over one connection of its own; thread-safe."""

    def __init__(self, broker: BrokerSettings) -> None:
        self._connection = HeldConnection(broker)
        self._lock = Lock()

    def tell(self, command: Command, workers: Sequence[str] | None = None) -> Mapping[str, Reply]:
        """Broadcast, and wait for as many replies as there can be, at most a second."""
        if workers is not None and not workers:
            return {}
        limit = None if workers is None else len(workers)

        def ask(connection: Any) -> Any:
            return self._connection.app.control.broadcast(
                command, destination=workers, connection=connection, reply=True, timeout=REPLY_TIMEOUT, limit=limit
            )

        with self._lock:
            replies = self._connection.use(ask)
        return understood(replies)

    def provoke(self) -> None:
        """Broadcast without waiting."""
        with self._lock:
            self._connection.use(lambda connection: self._connection.app.control.heartbeat(connection=connection))

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._connection.close()


def understood(replies: object) -> dict[str, Reply]:
    """What workers answered: ``[{hostname: {"ok": "task events already enabled"}}, …]``, or ``error`` for ``ok``."""
    found: dict[str, Reply] = {}
    for reply in replies if isinstance(replies, list) else ():
        for hostname, answer in reply.items() if isinstance(reply, dict) else ():
            if isinstance(hostname, str) and isinstance(answer, dict):
                found[hostname] = _meaning(answer.get("ok"))
    return found


def _meaning(words: object) -> Reply:
    if not isinstance(words, str):
        return "failed"
    return "already" if "already" in words else "changed"
