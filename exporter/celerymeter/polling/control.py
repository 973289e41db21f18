"""Questions to workers over Celery's remote control, and their replies, unread.

Celery's own client waits for each command by itself and its whole time-out, and one reply that is not JSON ends it.
Here several commands go out together, each reply is handed over as it comes, and nothing but bytes is touched.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import uuid4

from celerymeter.broker import HeldConnection
from celerymeter.settings import BrokerSettings

PATIENCE = 1.0
"""Seconds without a reply after which those who are silent will stay so."""
LONGEST = 10.0

Receive: TypeAlias = Callable[[str, "bytes | str"], None]
"""Takes a command's name and the JSON of one reply to it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """A command (`celery.worker.control`), to all workers or to those named."""

    method: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    destination: Collection[str] | None = None


class RemoteControl:
    """Talks to the workers of one broker; its methods raise `BrokerUnavailable`. One thread at a time."""

    def __init__(self, broker: BrokerSettings) -> None:
        self._held = HeldConnection(broker)
        self._turn = threading.Lock()

    def ask(
        self, commands: Collection[Command], receive: Receive, *, enough: Callable[[], bool], patience: float = PATIENCE
    ) -> None:
        """Send the commands together and hand over the replies until there are ``enough`` or no more come."""
        with self._turn:
            self._held.use(lambda connection: self._ask(connection, commands, receive, (enough, patience)))

    def tell(self, command: Command) -> None:
        """Send a command that nobody answers."""
        with self._turn:
            self._held.use(lambda connection: self._publish(self._mailbox(connection), command, {}))

    def close(self) -> None:
        """Drop the connection; the next question opens another."""
        with self._turn:
            self._held.close()

    def _ask(
        self,
        connection: Any,
        commands: Collection[Command],
        receive: Receive,
        until: tuple[Callable[[], bool], float],
    ) -> None:
        mailbox = self._mailbox(connection)
        tickets = {str(uuid4()): command for command in commands}
        inbox = _Inbox({ticket: command.method for ticket, command in tickets.items()}, receive)
        channel = connection.default_channel
        try:
            with connection.Consumer([mailbox.reply_queue], channel, on_message=inbox.take, no_ack=True):
                for ticket, command in tickets.items():
                    reply_to = {"exchange": mailbox.reply_exchange.name, "routing_key": mailbox.oid}
                    self._publish(mailbox, command, {"ticket": ticket, "reply_to": reply_to})
                _drain(connection, inbox, *until)
        finally:
            # On Redis nobody else removes the queue and its binding.
            channel.after_reply_message_received(mailbox.reply_queue.name)

    def _mailbox(self, connection: Any) -> Any:
        return self._held.app.control.mailbox(connection)

    def _publish(self, mailbox: Any, command: Command, reply: Mapping[str, object]) -> None:
        """As `kombu.pidbox` writes it; a worker that was busy for longer than we wait need not answer any more."""
        message = {
            "method": command.method,
            "arguments": dict(command.arguments),
            "destination": None if command.destination is None else list(command.destination),
            "pattern": None,
            "matcher": None,
            **reply,
        }
        headers = {"clock": self._held.app.clock.forward(), "expires": time.time() + LONGEST}
        mailbox.connection.Producer(auto_declare=False).publish(
            message, exchange=mailbox.exchange.name, declare=[mailbox.exchange], headers=headers, serializer="json"
        )


class _Inbox:
    """Hands over replies to our own questions; late ones to earlier questions are none of them."""

    def __init__(self, methods: Mapping[str, str], receive: Receive) -> None:
        self.last = time.monotonic()
        self._methods = methods
        self._receive = receive

    def take(self, message: Any) -> None:
        """Called by kombu with a message that it has not decoded."""
        method = self._methods.get(message.headers.get("ticket"))
        if method is None:
            return
        self.last = time.monotonic()
        if message.content_type == "application/json":
            self._receive(method, message.body)
        else:
            _log.warning("a worker answers %s in %r; only JSON is read", method, message.content_type)


def _drain(connection: Any, inbox: _Inbox, enough: Callable[[], bool], patience: float) -> None:
    end = time.monotonic() + LONGEST
    while not enough():
        remaining = min(inbox.last + patience, end) - time.monotonic()
        if remaining <= 0:
            return
        try:
            connection.drain_events(timeout=remaining)
        except TimeoutError:
            return
