"""Where else on a Redis Celery has its queues: looked for when nobody is where we were told to look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import redis

from celerymeter.broker import connect_redis
from celerymeter.doctor.evidence import BrokerEvidence
from celerymeter.errors import CelerymeterError
from celerymeter.settings import BrokerSettings

MAX_DATABASES = 16
MAX_KEYS = 20_000
"""Keys looked at in each database: enough to meet a binding, few enough for a broker that is at work."""
_BINDING, _RESULT = b"_kombu.binding.", b"celery-task-meta-"


def with_other_places(found: BrokerEvidence, broker: BrokerSettings) -> BrokerEvidence:
    """The evidence with what the broker's keys tell; as it is for other brokers, and where looking is not allowed."""
    if broker.transport not in ("redis", "rediss"):
        return found
    with suppress(CelerymeterError, redis.RedisError):
        here = connect_redis(broker)
        spaces = here.client.info("keyspace")
        places: set[str] = set()
        results = False
        for database in [int(name.removeprefix("db")) for name in spaces][:MAX_DATABASES]:
            with redis.Redis(connection_pool=_pool(here.client, database)) as client:
                bindings, held = _look(client)
            places |= {
                _place(database, prefix)
                for prefix in bindings
                if (database, prefix) != (here.keys.db, here.keys.prefix)
            }
            results = results or (database == here.keys.db and held and not bindings)
        return replace(found, elsewhere=tuple(sorted(places)), only_results=results)
    return found


def _pool(client: redis.Redis, database: int) -> redis.ConnectionPool:
    """Connections as the given client has them, to another database."""
    pool = client.connection_pool
    options: dict[str, Any] = {**pool.connection_kwargs, "db": database}
    return redis.ConnectionPool(connection_class=pool.connection_class, **options)


def _look(client: redis.Redis) -> tuple[set[str], bool]:
    """The key prefixes under which there are bindings, and whether there are results."""
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


def _place(database: int, prefix: str) -> str:
    return f"database {database}" + (f" with global_keyprefix={prefix}" if prefix else "")
