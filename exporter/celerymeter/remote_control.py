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

import redis

from celerymeter.broker import HeldConnection
from celerymeter.connection_errors import UNREACHABLE
from celerymeter.inspect_replies import MAX_REPLY, Replies
from celerymeter.redis_parser import limit_values
from celerymeter.settings import BrokerSettings

SILENCE = 1.0
"""Seconds without a reply after which the workers that are still silent are given up."""
TIMEOUT = 10.0
LONGEST = MAX_REPLY * 4 // 3 + 64 * 1024
"""Bytes of a reply as it waits in Redis: base64 in an envelope of JSON."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """A command (`celery.worker.control`): to all workers, to those named, or to those whose names match a glob."""

    method: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    destination: Collection[str] | None = None
    pattern: str | None = None


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
        replies: Replies | None = None,
    ) -> Replies:
        """Send the commands together and return the replies, or add them to those given.

        Returns when every ``expected`` worker replied to every command that it was sent, when nobody replied for
        ``silence`` seconds, or after ``timeout`` seconds. Without ``expected`` it always waits for the silence.
        """
        with self._lock:
            inbox = self._held.use(
                lambda connection: self._ask(
                    connection,
                    commands,
                    _Inbox(expected, Replies() if replies is None else replies),
                    (silence, timeout),
                ),
                once=once,
            )
            if not inbox.heard:
                self._held.close()  # a connection may be dead and not say so
        return inbox.replies

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

    def _ask(self, connection: Any, commands: Sequence[Command], inbox: _Inbox, limits: tuple[float, float]) -> _Inbox:
        mailbox = self._held.app.control.mailbox(connection)
        _limit_replies(connection)
        inbox.tickets = {str(uuid4()): command for command in commands}
        channel, queue = connection.default_channel, mailbox.reply_queue
        # kombu names it after the calling thread. On Redis the BRPOP of a call that ended by silence is under way for
        # up to a second more, and hears no replies in another queue. A new connection needs another one: RabbitMQ may
        # not have given up the connection before, to which the queue belongs.
        queue.routing_key = self._held.connection_id
        queue.name = f"{queue.routing_key}.{mailbox.reply_exchange.name}"
        if connection.transport.driver_type == "amqp":
            # Celery before 5.7 makes none exclusive, and RabbitMQ 4.3 accepts no others that are not durable.
            queue.exclusive = True
        try:
            with connection.Consumer([queue], channel, on_message=inbox.take, no_ack=True):
                for ticket, command in inbox.tickets.items():
                    reply_to = {"exchange": mailbox.reply_exchange.name, "routing_key": queue.routing_key}
                    self._publish(mailbox, command, {"ticket": ticket, "reply_to": reply_to})
                inbox.drain(connection, *limits)
        finally:
            # On Redis nobody else removes the queue and its binding.
            channel.after_reply_message_received(queue.name)
        return inbox

    def _publish(self, mailbox: Any, command: Command, reply: Mapping[str, object]) -> None:
        """Publish as `kombu.pidbox` does. Workers do not look at ``expires``: a busy one replies later, to nobody."""
        message = {
            "method": command.method,
            "arguments": dict(command.arguments),
            "destination": None if command.destination is None else list(command.destination),
            "pattern": command.pattern,
            "matcher": None if command.pattern is None else "glob",
            **reply,
        }
        headers = {"clock": self._held.app.clock.forward(), "expires": time.time() + TIMEOUT}
        producer = mailbox.connection.Producer(auto_declare=False)
        if command.destination is None or mailbox.connection.transport.driver_type != "amqp":
            producer.publish(
                message, exchange=mailbox.exchange.name, declare=[mailbox.exchange], headers=headers, serializer="json"
            )
            return
        # A worker that accepts no JSON logs an error for each command that it gets, also for those to others. So others
        # get theirs through their own queues (`kombu.pidbox.Mailbox.get_queue`); on Redis all share a channel.
        for hostname in command.destination:
            key = f"{hostname}.{mailbox.exchange.name}"
            producer.publish(message, exchange="", routing_key=key, headers=headers, serializer="json")


class _Inbox:
    """Collects the replies to the commands of one call; late replies to earlier calls have other tickets."""

    def __init__(self, expected: Collection[str], replies: Replies) -> None:
        self.replies = replies
        self.tickets: dict[str, Command] = {}
        self.heard = False
        self._last_at = 0.0
        self._expected = frozenset(expected)

    @property
    def complete(self) -> bool:
        """True when every expected worker replied to every command that it was sent."""
        return bool(self._expected) and all(
            self._expected.intersection(command.destination or self._expected) <= self.replies.settled(command.method)
            for command in self.tickets.values()
        )

    def take(self, message: Any) -> None:
        """Take a message that kombu has not decoded."""
        ticket = message.headers.get("ticket") if isinstance(message.headers, dict) else None
        command = self.tickets.get(ticket) if isinstance(ticket, str) else None
        if command is None:
            return
        self.heard, self._last_at = True, time.monotonic()
        if message.content_type == "application/json":
            self.replies.receive(command.method, message.body)
        else:
            self.replies.receive_other(command.method, message.content_type, message.body)

    def drain(self, connection: Any, silence: float, timeout: float) -> None:
        """Take replies until they are complete, or no more arrive."""
        self._last_at, unreadable = time.monotonic(), False
        end = self._last_at + timeout
        while not self.complete:
            remaining = min(self._last_at + silence, end) - time.monotonic()
            if remaining <= 0:
                return
            try:
                connection.drain_events(timeout=remaining)
            except TimeoutError:
                return
            except Exception as error:
                # A client wrote into the queue what is no message, and kombu raises anything for that. On AMQP the
                # broker has checked it, and pyamqp raises anything for a lost connection.
                if isinstance(error, (*UNREACHABLE, redis.RedisError)) or connection.transport.driver_type == "amqp":
                    raise
                level = logging.DEBUG if unreadable else logging.WARNING
                log.log(level, "a reply is no message, or too long: %s", type(error).__name__)
                unreadable = True
                self.replies.malformed += 1


class _AsItCame:
    """Keeps kombu's message from decompressing its body: a few kilobytes may become gigabytes, and no reply does it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.errors: list[object] = [None]  # with an error, kombu leaves the body alone
        super().__init__(*args, **kwargs)
        self.errors = []


def _limit_replies(connection: Any) -> None:
    """Bound the memory of one reply. RabbitMQ does so itself (its `max_message_size`)."""
    channel = connection.default_channel
    _keep_as_they_come(channel)
    if connection.transport.driver_type == "redis":
        limit_values(channel.async_pool, LONGEST)


def _keep_as_they_come(channel: Any) -> None:
    if not issubclass(channel.Message, _AsItCame):
        channel.Message = type("Message", (_AsItCame, channel.Message), {})
