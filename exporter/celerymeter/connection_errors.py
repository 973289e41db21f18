"""The errors by which client libraries say that a connection to the broker has become useless: one table of them all.

A connection can stay open and be of no use for ever: its server has become a replica, was given other credentials, or
takes no writes. The holder of a connection drops it at any of these errors and opens another one when it is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import redis
from amqp import exceptions as amqp
from kombu.exceptions import KombuError, OperationalError
from redis import exceptions
from redis.sentinel import MasterNotFoundError

UNREACHABLE = (redis.ConnectionError, redis.TimeoutError, amqp.AMQPError, KombuError, OSError)
"""Exceptions of clients whose broker is down, refuses a connection, or does not reply in time."""

Kind = Literal[
    "replica", "no_master", "password", "forbidden", "loading", "full", "blocked", "cluster", "clients", "closed"
]


@dataclass(frozen=True, slots=True)
class Useless:
    """A reason for which connections are of no use, and how it shows: by a class, or by a word of the server's text.

    Inside Lua, and with older servers, the word is all there is.
    """

    kind: Kind
    raised: tuple[type[BaseException], ...]
    word: str
    meaning: str


def _row(kind: Kind, raised: type[BaseException] | tuple[type[BaseException], ...], word: str, meaning: str) -> Useless:
    return Useless(kind, raised if isinstance(raised, tuple) else (raised,), word, meaning)


TABLE = (
    _row("replica", exceptions.ReadOnlyError, "READONLY", "this Redis has become a replica and takes no writes"),
    _row("replica", exceptions.MasterDownError, "MASTERDOWN", "this Redis has become a replica and lost its master"),
    _row("replica", (), "UNBLOCKED", "this Redis has become a replica"),
    _row("no_master", MasterNotFoundError, "", "no Sentinel knows a reachable master of this master_name"),
    _row("loading", exceptions.BusyLoadingError, "LOADING", "this Redis is loading its data"),
    _row("loading", (), "BUSY Redis", "this Redis is running a script that does not end"),
    _row("full", exceptions.OutOfMemoryError, "OOM", "this Redis has reached maxmemory and takes no writes"),
    _row("full", (), "MISCONF", "this Redis cannot save its data and takes no writes"),
    _row("full", (), "NOREPLICAS", "this Redis has fewer replicas than min-replicas-to-write and takes no writes"),
    _row("cluster", exceptions.ClusterDownError, "CLUSTERDOWN", "this Redis Cluster does not serve our keys"),
    _row("cluster", exceptions.AskError, "MOVED", "another node of this Redis Cluster serves our keys"),
    _row("clients", (), "max number of clients", "this Redis has reached maxclients"),
    _row("forbidden", exceptions.NoPermissionError, "NOPERM", "Redis refuses a command to this user"),
    _row("password", exceptions.AuthenticationError, "NOAUTH", "the broker refuses user or password"),
    _row("password", exceptions.AuthorizationError, "WRONGPASS", "the broker refuses user or password"),
    _row("password", (), "Login was refused", "the broker refuses user or password"),
    _row("forbidden", (amqp.AccessRefused, amqp.NotAllowed), "", "the broker refuses this user"),
    _row("blocked", amqp.Blocked, "", "RabbitMQ takes no messages: it is short of memory or disk space"),
    _row("closed", amqp.ConnectionForced, "", "the broker closed the connection"),
    _row("closed", amqp.ConsumerCancelled, "", "the broker removed the queue"),
)


def why_useless(error: BaseException) -> Useless | None:
    """Return the row of an error, or ``None`` for one of another kind: the network, or a command that is wrong."""
    error = cause_of(error)
    text = str(error)
    return next((row for row in TABLE if isinstance(error, row.raised) or _says(text, row.word)), None)


def describe(error: BaseException) -> str:
    """Return what an error means and the first line of its text, without secrets."""
    cause, row = cause_of(error), why_useless(error)
    text = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    if row is None:
        return text
    # The text of this one shows how the Sentinels are reached, secrets included.
    return row.meaning if isinstance(cause, MasterNotFoundError) else f"{row.meaning} ({text})"


def cause_of(error: BaseException) -> BaseException:
    """Return the transport's own error, which kombu wraps."""
    return error.__cause__ if isinstance(error, OperationalError) and error.__cause__ else error


def _says(text: str, word: str) -> bool:
    return bool(word) and re.search(rf"\b{word}\b", text) is not None
