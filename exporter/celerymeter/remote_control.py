"""The one client of Celery's remote control.

Celery's own (`app.control`) waits the whole time-out for each command in turn, ends at one reply that is not JSON, and
cannot promise that a command is sent only once. Here several commands go out together, and replies are only decoded
by `celerymeter.inspect_replies`, never unpickled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from celerymeter.broker import HeldConnection
from celerymeter.inspect_replies import MAX_TEXT, Replies
from celerymeter.settings import BrokerSettings

SILENCE = 1.0
"""Seconds without a reply after which the workers that are still silent are given up."""
TIMEOUT = 10.0
MAX_REPLY = 64 * 1024 * 1024
"""Bytes. 20,000 reserved tasks are 8 MB."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """A command (`celery.worker.control`), to all workers or to those named."""

    method: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    destination: Collection[str] | None = None


class RemoteControl:
    """Sends commands to the workers of one broker; thread-safe, one call at a time.

    Its methods raise `BrokerUnavailable`. With ``once`` a command is never sent twice: it gets a new connection, and
    an error after that is raised, although the workers may have received the command. Without it a call whose
    connection was lost meanwhile is repeated on a new one.
    """

    def __init__(self, broker: BrokerSettings) -> None:
        self._held = HeldConnection(broker)
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Connect now rather than at the first command."""
        with self._lock:
            self._held.use(lambda connection: connection)

    def ask(
        self,
        commands: Sequence[Command],
        *,
        expected: Collection[str] = (),
        silence: float = SILENCE,
        timeout: float = TIMEOUT,
        once: bool = False,
    ) -> Replies:
        """Send the commands together and return the replies.

        Returns when every ``expected`` worker replied to every command, when nobody replied for ``silence`` seconds,
        or after ``timeout`` seconds. Without ``expected`` it always waits for the silence.
        """
        with self._lock:
            replies = self._held.use(
                lambda connection: self._ask(connection, commands, frozenset(expected), (silence, timeout)), once=once
            )
            if not replies.hostnames:
                self._held.close()  # a connection may be dead and not say so
        return replies

    def send(self, command: Command, *, once: bool = False) -> None:
        """Send a command and wait for no reply."""
        with self._lock:
            self._held.use(
                lambda connection: self._publish(self._held.app.control.mailbox(connection), command, {}), once=once
            )

    def close(self) -> None:
        """Drop the connection; the next call opens another."""
        with self._lock:
            self._held.close()

    def _ask(
        self, connection: Any, commands: Sequence[Command], expected: frozenset[str], limits: tuple[float, float]
    ) -> Replies:
        mailbox = self._held.app.control.mailbox(connection)
        tickets = {str(uuid4()): command.method for command in commands}
        inbox = _Inbox(tickets, expected)
        channel = connection.default_channel
        try:
            with connection.Consumer([mailbox.reply_queue], channel, on_message=inbox.take, no_ack=True):
                for ticket, command in zip(tickets, commands, strict=True):
                    reply_to = {"exchange": mailbox.reply_exchange.name, "routing_key": mailbox.oid}
                    self._publish(mailbox, command, {"ticket": ticket, "reply_to": reply_to})
                _drain(connection, inbox, *limits)
        finally:
            # On Redis nobody else removes the queue and its binding.
            channel.after_reply_message_received(mailbox.reply_queue.name)
        return inbox.replies

    def _publish(self, mailbox: Any, command: Command, reply: Mapping[str, object]) -> None:
        """Publish as `kombu.pidbox` does; the command expires, for a worker may be busy for longer than we wait."""
        message = {
            "method": command.method,
            "arguments": dict(command.arguments),
            "destination": None if command.destination is None else list(command.destination),
            "pattern": None,
            "matcher": None,
            **reply,
        }
        headers = {"clock": self._held.app.clock.forward(), "expires": time.time() + TIMEOUT}
        mailbox.connection.Producer(auto_declare=False).publish(
            message, exchange=mailbox.exchange.name, declare=[mailbox.exchange], headers=headers, serializer="json"
        )


class _Inbox:
    """Collects the replies to the commands of one call; late replies to earlier calls have other tickets."""

    def __init__(self, tickets: Mapping[str, str], expected: frozenset[str]) -> None:
        self.replies = Replies()
        self.last_at = time.monotonic()
        self._tickets = tickets
        self._expected = expected

    @property
    def complete(self) -> bool:
        """True when every expected worker replied to every command."""
        methods = self._tickets.values()
        return bool(self._expected) and all(self._expected <= self.replies.settled(method) for method in methods)

    def take(self, message: Any) -> None:
        """Take a message that kombu has not decoded."""
        method = self._tickets.get(message.headers.get("ticket"))
        if method is None:
            return
        self.last_at = time.monotonic()
        if message.content_type != "application/json":
            log.warning("a worker replied to %s in %r; only JSON is read", method, message.content_type)
            self.replies.unread.append((str(message.content_type), _begin(message.body)))
        elif len(message.body) > MAX_REPLY:
            log.warning("a worker's reply to %s has %d bytes; it is not read", method, len(message.body))
        else:
            self.replies.receive(method, message.body)
            return
        self.replies.malformed += 1


def _begin(body: bytes | str | memoryview) -> bytes:
    return body[:MAX_TEXT].encode(errors="replace") if isinstance(body, str) else bytes(body[:MAX_TEXT])


def _drain(connection: Any, inbox: _Inbox, silence: float, timeout: float) -> None:
    end = time.monotonic() + timeout
    while not inbox.complete:
        remaining = min(inbox.last_at + silence, end) - time.monotonic()
        if remaining <= 0:
            return
        try:
            connection.drain_events(timeout=remaining)
        except TimeoutError:
            return
