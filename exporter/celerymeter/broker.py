"""Connects to the broker: to Redis directly, to everything else through Celery.

kombu itself reads the URL and the transport options, so password, ACL user, TLS, unix socket, Sentinel, database and
key prefix mean here exactly what they mean to the workers.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import uuid4

import click
import redis
from amqp.exceptions import Blocked
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from celerymeter.connection_errors import UNREACHABLE, describe, why_useless
from celerymeter.errors import BrokerUnavailable, CelerymeterError, SettingsError
from celerymeter.kinds import BROKER_URL
from celerymeter.options import read_secret
from celerymeter.settings import BrokerSettings

REDIS_TRANSPORTS = frozenset({"redis", "rediss", "sentinel"})
AMQP_TRANSPORTS = frozenset({"amqp", "amqps", "pyamqp"})
CONNECT_TIMEOUT = 5.0
REPLY_TIMEOUT = 10.0
NEVER = 10 * 365 * 86400
"""Seconds: our own connections redeliver nothing that a worker holds, however short our visibility timeout is."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RedisKeys:
    """The names that kombu uses in Redis (`kombu.transport.redis.Channel`); every name comes with the prefix.

    The database number is part of the names of pub/sub channels alone.
    """

    db: int
    prefix: str
    separator: str
    priority_steps: tuple[int, ...]
    unacked: str
    unacked_index: str
    fanout: str
    """Before an exchange's name in a pub/sub channel (``/0.``); with `fanout_patterns` a routing key follows it."""
    fanout_patterns: bool
    visibility_timeout: float
    old_fanout: str | None = None
    """The same as kombu before 5.4 has it under Sentinel, where it forgot to fill in the database (``/{db}.``)."""

    def queue(self, name: str) -> tuple[str, ...]:
        """Return the lists that hold a queue, in the order in which workers empty them."""
        steps = (f"{self.separator}{step}" if step else "" for step in self.priority_steps)
        return tuple(f"{self.prefix}{name}{step}" for step in steps)

    def bindings(self, exchange: str) -> str:
        """Return the set of an exchange's bindings; ``*`` gives the pattern of them all."""
        return f"{self.prefix}_kombu.binding.{exchange}"

    def topic(self, exchange: str, routing_key: str = "") -> str:
        """Return the pub/sub channel of a fanout exchange; ``*`` as routing key gives a pattern for PSUBSCRIBE."""
        name = f"{self.prefix}{self.fanout}{exchange}"
        return f"{name}/{routing_key}" if routing_key and self.fanout_patterns else name

    @property
    def old(self) -> RedisKeys | None:
        """Return the names of kombu before 5.4, if they are others."""
        return None if self.old_fanout is None else replace(self, fanout=self.old_fanout, old_fanout=None)


@dataclass(frozen=True, slots=True)
class RedisBroker:
    """A client that adds no prefix (kombu's own misses some commands), and the names to use with it.

    The client reconnects by itself, with Sentinel to whichever master there is then.
    """

    client: redis.Redis
    keys: RedisKeys


def newest(broker: BrokerSettings) -> BrokerSettings:
    """Return the settings with the URL that stands in its file now: the password may have been changed meanwhile."""
    path = broker.url_file
    if path is None or not path.is_file():  # a pipe is read once
        return broker
    try:
        url = BROKER_URL.convert(read_secret(path, flag="--broker-url-file"), None, None)
    except (SettingsError, click.BadParameter) as error:
        log.warning("--broker-url-file: the URL stays as it was: %s", error)
        return broker
    changed = replace(broker, url=url)
    if changed.transport != broker.transport:
        log.warning("--broker-url-file: the URL stays as it was: %s is for another kind of broker", changed.safe_url)
        return broker
    return changed


def connect_redis(broker: BrokerSettings) -> RedisBroker:
    """Reach Redis once and return a client; raises `BrokerUnavailable` or `SettingsError`."""
    if broker.transport == "sentinel" and "master_name" not in broker.transport_options:
        raise SettingsError("a sentinel:// broker needs --transport-option master_name=NAME")
    with reaching(broker), _checking_settings(broker), celery_app(broker).connection_for_read() as connection:
        _connect(connection)
        channel = connection.default_channel
        keys, pool = _keys(channel, broker), channel.pool
    # The end of the block closes kombu's own sockets; the pool stays usable and opens new ones on demand.
    pool.connection_kwargs["retry"] = Retry(NoBackoff(), 1)
    pool.max_connections = 2**31  # a pool counts each that was ever made, and kombu's limit is 10
    return RedisBroker(redis.Redis(connection_pool=pool), keys)


class HeldConnection:
    """A kombu connection that is kept between uses; one that was lost meanwhile (time-out, restart) is replaced."""

    def __init__(self, broker: BrokerSettings) -> None:
        self.app = celery_app(broker)
        self._broker = broker
        self._connection: Any = None
        self.connection_id = ""
        """Another one for each connection."""

    def use(self, action: Callable[[Any], T], *, once: bool = False) -> T:
        """Return ``action(connection)``; raises `BrokerUnavailable` or `SettingsError`.

        The action is tried again on a new connection when the held one is lost, unless ``once``: then it gets a new
        connection in any case, for that a held one is dead often shows only after something was sent on it.
        """
        if once:
            self.close()
        with reaching(self._broker):
            if self._connection is not None:
                try:
                    return action(self._connection)
                except CelerymeterError:
                    raise
                except Exception as error:  # noqa: BLE001 - on a lost connection pyamqp and kombu raise anything
                    self.close()
                    log.warning("opening a new connection to %s: %s", self._broker.safe_url, describe(error))
            try:
                return action(self._open())
            except Exception:
                self.close()
                raise

    def _open(self) -> Any:
        # The connection before is in cycles, with a buffer of 128 KiB (`amqp.method_framing.frame_writer`); where no
        # worker replies there is a new one at each poll, and a collection by itself may be hours away.
        gc.collect(0)
        with _checking_settings(self._broker):
            self._connection = self.app.connection_for_read(newest(self._broker).url)
            _connect(self._connection)
        self.connection_id = str(uuid4())
        if self._connection.transport.driver_type == "amqp":
            self._connection.connection.on_blocked = _raise_blocked
        return self._connection

    def close(self) -> None:
        """Drop it without the closing handshake, which would wait for a dead broker; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # pyamqp raises anything while it takes a lost connection apart
                connection.collect()


@contextmanager
def reaching(broker: BrokerSettings) -> Iterator[None]:
    """Turn what clients raise for a broker that is of no use into `BrokerUnavailable`, in one line without secrets."""
    try:
        yield
    except UNREACHABLE as error:
        raise BrokerUnavailable(f"{broker.safe_url}: {describe(error)}") from error
    except redis.ResponseError as error:
        reason = describe(error) if why_useless(error) else f"Redis refuses a command: {error}"
        raise BrokerUnavailable(f"{broker.safe_url}: {reason}") from error


def _raise_blocked(reason: str) -> None:
    """End an action on a connection that RabbitMQ no longer reads from: the messages on it reach nobody for now."""
    raise Blocked(reason)


@contextmanager
def _checking_settings(broker: BrokerSettings) -> Iterator[None]:
    """Turn what kombu raises for an unusable URL or option into `SettingsError`; its text may quote a password."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{broker.safe_url}: not a usable broker URL with these transport options") from error


def _connect(connection: Any) -> None:
    """Connect, trying each of the broker's URLs once."""
    connection.ensure_connection(max_retries=max(1, len(connection.alt)), interval_start=0, interval_step=0)


def celery_app(broker: BrokerSettings) -> Celery:
    """Return a Celery app for remote control and connections: JSON only, never the process' current app."""
    app = Celery("celerymeter", broker=newest(broker).url, set_as_current=False, fixups=[])
    app.conf.update(broker.celery_settings)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        broker_transport_options=_transport_options(broker),
        broker_connection_timeout=CONNECT_TIMEOUT,
    )
    return app


def _transport_options(broker: BrokerSettings) -> dict[str, object]:
    """Return the cluster's transport options on top of time-outs (most transports wait for ever by default)."""
    defaults: dict[str, object] = {}
    if broker.transport in REDIS_TRANSPORTS:
        defaults = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": REPLY_TIMEOUT}
    elif broker.transport in AMQP_TRANSPORTS:
        defaults = {"read_timeout": REPLY_TIMEOUT, "write_timeout": REPLY_TIMEOUT}
    options = {**defaults, **broker.transport_options}
    if broker.transport in REDIS_TRANSPORTS:
        # Any kombu connection that waits for messages, ours for replies too, puts back what has been unacknowledged for
        # its own visibility timeout (`kombu.transport.redis.QoS.restore_visible`); the workers' may be far longer.
        options["visibility_timeout"] = NEVER
    if broker.transport == "sentinel":
        options["sentinel_kwargs"] = _sentinel_options(options)
        options.setdefault("sentinel_fanout_compat", True)  # commands reach workers with kombu before 5.4 too
    return options


def _sentinel_options(options: Mapping[str, object]) -> dict[str, object]:
    """Return the options of the connections to Sentinels: time-outs and no retries (redis-py pauses for seconds)."""
    timeouts = {name: options[name] for name in ("socket_connect_timeout", "socket_timeout")}
    given = options.get("sentinel_kwargs")
    return {**timeouts, "retry": Retry(NoBackoff(), 0), **(given if isinstance(given, Mapping) else {})}


def _keys(channel: Any, broker: BrokerSettings) -> RedisKeys:
    """Return the names that a connected kombu channel uses (untyped, hence Any), and the cluster's own timeout."""
    prefix, fanout, old_fanout = channel.global_keyprefix, channel.keyprefix_fanout, None
    timeout: Any = broker.transport_options.get("visibility_timeout", type(channel).visibility_timeout)
    if broker.transport == "sentinel" and channel.fanout_prefix:
        given = channel.fanout_prefix if isinstance(channel.fanout_prefix, str) else type(channel).keyprefix_fanout
        fanout = given.format(db=channel.pool.connection_kwargs["db"])
        old_fanout = given if given != fanout else None
    return RedisKeys(
        db=int(channel.pool.connection_kwargs["db"]),
        prefix=prefix,
        separator=channel.sep,
        priority_steps=tuple(channel.priority_steps),
        unacked=prefix + channel.unacked_key,
        unacked_index=prefix + channel.unacked_index_key,
        fanout=fanout,
        fanout_patterns=bool(channel.fanout_patterns),
        visibility_timeout=float(timeout),
        old_fanout=old_fanout,
    )
