"""Searches a Redis broker's keys: for lists that clients left behind, and for queues in other places."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import redis

from celerymeter.broker import connect_redis
from celerymeter.doctor.evidence import BrokerEvidence, Orphan
from celerymeter.errors import CelerymeterError
from celerymeter.settings import BrokerSettings

MAX_DATABASES = 16
MAX_KEYS = 20_000
"""Keys that are read of each database: enough to find a binding, few enough for a busy broker."""
MAX_LISTS = 1000
_BINDING, _RESULT = b"_kombu.binding.", b"celery-task-meta-"
_EVENTS, _REPLIES = b"celeryev.", b".reply.celery.pidbox"


def orphaned_lists(broker: BrokerSettings) -> tuple[Orphan, ...]:
    """Return the lists of event receivers and of replies that hold messages; their readers normally empty them at once.

    Events on Redis go through pub/sub, so only old clients have such lists, and replies to a client that has ended
    are never deleted.
    """
    if broker.transport not in ("redis", "rediss"):
        return ()
    with suppress(CelerymeterError, redis.RedisError):
        here = connect_redis(broker)
        events = here.keys.prefix.encode() + _EVENTS
        keys = [key for key in _keys(here.client) if key.startswith(events) or key.endswith(_REPLIES)]
        return tuple(found for found in _read_lists(here.client, keys[:MAX_LISTS]) if found.length)
    return ()


def still_orphaned(broker: BrokerSettings, seen: Collection[Orphan]) -> tuple[Orphan, ...]:
    """Return those of the lists that nobody has read meanwhile."""
    if not seen:
        return ()
    with suppress(CelerymeterError, redis.RedisError):
        now = _read_lists(connect_redis(broker).client, [found.name.encode() for found in seen])
        return tuple(found for found, before in zip(now, seen, strict=True) if found.length >= before.length)
    return ()


def _read_lists(client: redis.Redis, keys: Collection[bytes]) -> list[Orphan]:
    """Read length and size; an ACL may forbid either, and a key of another type has no length."""
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.llen(key)
        pipeline.memory_usage(key)
    answers = [answer if isinstance(answer, int) else None for answer in pipeline.execute(raise_on_error=False)]
    return [
        Orphan(key.decode(errors="replace"), length or 0, size)
        for key, length, size in zip(keys, answers[::2], answers[1::2], strict=True)
    ]


def with_other_places(found: BrokerEvidence, broker: BrokerSettings) -> BrokerEvidence:
    """Add where else on this Redis Celery has queues; unchanged for other brokers, and where reading is not allowed."""
    if broker.transport not in ("redis", "rediss"):
        return found
    with suppress(CelerymeterError, redis.RedisError):
        here = connect_redis(broker)
        places: set[str] = set()
        only_results = False
        for name in list(here.client.info("keyspace"))[:MAX_DATABASES]:
            database = int(name.removeprefix("db"))
            with redis.Redis(connection_pool=_pool(here.client, database)) as client:
                prefixes, results = _bindings(client)
            places |= {
                f"database {database}" + (f" with global_keyprefix={prefix}" if prefix else "")
                for prefix in prefixes
                if (database, prefix) != (here.keys.db, here.keys.prefix)
            }
            only_results = only_results or (database == here.keys.db and results and not prefixes)
        return replace(found, elsewhere=tuple(sorted(places)), only_results=only_results)
    return found


def _pool(client: redis.Redis, database: int) -> redis.ConnectionPool:
    """Return a pool with the connection settings of a client, for another database."""
    pool = client.connection_pool
    options: dict[str, Any] = {**pool.connection_kwargs, "db": database}
    return redis.ConnectionPool(connection_class=pool.connection_class, **options)


def _bindings(client: redis.Redis) -> tuple[set[str], bool]:
    """Return the key prefixes that have bindings, and whether there are results."""
    prefixes: set[str] = set()
    results = False
    for key in _keys(client):
        prefix, binding, _ = key.partition(_BINDING)
        if binding:
            prefixes.add(prefix.decode(errors="replace"))
        results = results or _RESULT in key
    return prefixes, results


def _keys(client: redis.Redis) -> Iterator[bytes]:
    for number, key in enumerate(client.scan_iter(count=1000)):
        if number >= MAX_KEYS:
            return
        yield key
