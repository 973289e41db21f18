"""Reads the memory of Redis: its limit, what it deleted to stay below, and lists that clients left behind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import redis

from celerymeter.broker import RedisKeys
from celerymeter.model import BrokerMemory
from celerymeter.polling.redis_scripts import Scripts, scan

MAX_LISTS = 1000
MAX_NAME = 1024
"""Bytes of the name of such a list; others are not measured."""
SCAN_STEPS = 5


class RedisMemory:
    """The memory of Redis, in one INFO a poll. What the account may not ask is not known."""

    def __init__(self, scripts: Scripts) -> None:
        self._evictions = Evictions()
        self._orphans = OrphanedLists(scripts)

    def read(self, client: redis.Redis, keys: RedisKeys) -> BrokerMemory:
        """Return what is known now."""
        info: Mapping[str, Any] = {}
        with suppress(redis.ResponseError):
            info = client.info()
        limit = _number(info, "maxmemory") or None
        used = _number(info, "used_memory")
        return BrokerMemory(
            used=used,
            limit=limit,
            blocked=_is_full(info, used, limit),
            evicted=self._evictions.count(str(info.get("run_id")), _number(info, "evicted_keys")),
            orphaned=self._orphans.size(client, keys),
        )


def _number(info: Mapping[str, Any], name: str) -> int | None:
    value = info.get(name)
    return value if isinstance(value, int) else None


def _is_full(info: Mapping[str, Any], used: int | None, limit: int | None) -> bool | None:
    """Return whether Redis refuses what needs memory: it is at its limit and may, or can, delete nothing."""
    if used is None:
        return None
    if limit is None or used - (_number(info, "mem_not_counted_for_evict") or 0) < limit:
        return False
    policy = str(info.get("maxmemory_policy"))
    expiring = sum(
        database.get("expires", 0)
        for name, database in info.items()
        if re.fullmatch(r"db\d+", name) and isinstance(database, dict)
    )
    return policy == "noeviction" or (policy.startswith("volatile") and not expiring)


class Evictions:
    """Adds up evicted keys from 0 at the first poll: what Redis evicted before is nobody's news.

    Redis counts since its start. After a restart or a failover another process counts, whose past is not news either.
    """

    def __init__(self) -> None:
        self._process = ""
        self._last = 0
        self._total: int | None = None

    def count(self, process: str, evicted: int | None) -> int | None:
        """Take the number of one poll; return the total, or ``None`` if Redis has never reported it."""
        if evicted is None:
            return self._total
        known = self._total is not None and process == self._process
        grown = evicted - self._last if evicted >= self._last else evicted  # CONFIG RESETSTAT sets it to 0
        self._total = (self._total or 0) + (grown if known else 0)
        self._process, self._last = process, evicted
        return self._total


class OrphanedLists:
    """The size of the lists of event receivers and of replies to remote control that nobody empties.

    Their readers empty them at once, so a list is orphaned when it has not become shorter between two polls. Replies to
    a client that has ended stay for ever (https://github.com/celery/celery/issues/6089). The keys are found with a
    bounded number of SCAN steps a poll.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._cursors: dict[str, int] = {}
        self._lengths: dict[bytes, int] = {}

    def size(self, client: redis.Redis, keys: RedisKeys) -> int | None:
        """Return the size in bytes, or ``None`` where Redis refuses to say."""
        prefix = re.sub(r"([*?\[\]\\])", r"\\\1", keys.prefix)
        found = dict.fromkeys(self._lengths)
        for pattern in (f"{prefix}celeryev.*", f"{prefix}*.reply.celery.pidbox"):
            found.update(dict.fromkeys(self._scan(client, pattern)))
        names = [key for key in found if b"_kombu.binding." not in key][:MAX_LISTS]
        pipe = client.pipeline(transaction=False)
        for key in names:
            pipe.llen(key)
            pipe.memory_usage(key)
        replies = pipe.execute(raise_on_error=False)
        lengths = {key: reply for key, reply in zip(names, replies[::2], strict=True) if isinstance(reply, int)}
        sizes = dict(zip(names, replies[1::2], strict=True))
        before, self._lengths = self._lengths, {key: length for key, length in lengths.items() if length}
        orphaned = [sizes[key] for key, length in self._lengths.items() if length >= before.get(key, length + 1)]
        if any(isinstance(size, redis.ResponseError) for size in orphaned):
            return None
        return sum(size or 0 for size in orphaned)

    def _scan(self, client: redis.Redis, pattern: str) -> list[bytes]:
        """Go on where the last poll stopped."""
        found: list[bytes] = []
        for _ in range(SCAN_STEPS):
            cursor = self._cursors.get(pattern, 0)
            self._cursors[pattern], page = scan(client, self._scripts, cursor, pattern, longest=MAX_NAME)
            found += page
            if self._cursors[pattern] == 0:
                break
        return found
