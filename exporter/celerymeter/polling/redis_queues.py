"""Polls queues on Redis: lengths, heads and unacknowledged messages of any number of queues in a few round trips.

Every command only reads. Small scripts inside Redis cut messages to their end, so that a poll's traffic is bounded
whatever the payloads are; the account needs the right to run EVAL.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import redis

from celerymeter.broker import RedisBroker, RedisKeys, connect_redis, reaching
from celerymeter.errors import BrokerUnavailable
from celerymeter.model import QueueHead, QueuesSnapshot, QueueState
from celerymeter.polling.queues import chosen
from celerymeter.polling.redis_memory import RedisMemory
from celerymeter.polling.redis_messages import (
    HEAD_TAIL,
    UNACKED_TAIL,
    HeadMessage,
    Routes,
    as_text,
    parse_bindings,
    parse_destination,
    parse_head,
)
from celerymeter.polling.redis_scripts import Scripts, run, scan, some_members
from celerymeter.routing import MAX_KEY
from celerymeter.settings import ExporterSettings

UNACKED_LIMIT = 20_000
"""Unacknowledged messages that one poll reads; the others are only counted."""
MAX_EXCHANGES = 1000
MAX_BINDINGS = 5000
"""Bindings of an exchange that are read; of more a random choice."""
MAX_ALL_BINDINGS = 20_000
"""Bindings of all exchanges; where these are many, fewer are read of each."""
MAX_MEMBER = 1024
"""Bytes of a binding, a tag, or the name of a key; longer ones, of which kombu makes none, never leave Redis."""
SCAN_STEPS = 20
HEADS_PAGE = 50
UNACKED_PAGE = 200
"""Lists or messages a script looks at: it holds up every other client for about a millisecond."""

_READ_HEADS = """
local tails = {}
for i = 1, #KEYS do
  local message = redis.call('LINDEX', KEYS[i], -1)
  tails[i] = message and string.sub(message, -tonumber(ARGV[1])) or ''
end
return tails
"""
_READ_UNACKED = """
local tails = {}
for i = 2, #ARGV do
  local message = redis.call('HGET', KEYS[1], ARGV[i])
  tails[i - 1] = message and string.sub(message, -tonumber(ARGV[1])) or ''
end
return tails
"""

_READ_INDEX = """
local held = redis.pcall('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES')
local found = {}
for i = 1, #held, 2 do
  if #held[i] <= tonumber(ARGV[3]) then found[#found + 1] = held[i]; found[#found + 1] = held[i + 1] end
end
return found
"""
Lists: TypeAlias = dict[str, int]
"""Lengths of a queue's lists, one for each priority, in the order in which workers empty them."""
Destination: TypeAlias = tuple[str, str] | None
"""Exchange and routing key; ``None`` where a message does not say."""

log = logging.getLogger(__name__)


class RedisQueuePoller:
    """A `QueuePoller` for Redis, over TLS, a unix socket or Sentinel too."""

    def __init__(self, settings: ExporterSettings, *, unacked_limit: int = UNACKED_LIMIT) -> None:
        self._settings = settings
        self._broker: RedisBroker | None = None
        event_exchange = settings.broker.celery_settings.get("event_exchange", "celeryev")
        self._scripts = Scripts()
        self._discovery = BindingDiscovery(str(event_exchange), self._scripts)
        self._unacked = UnackedReader(self._scripts, limit=unacked_limit)
        self._head_ages = HeadAges()
        self._memory = RedisMemory(self._scripts)

    def poll(self, names: Collection[str], *, now: float) -> QueuesSnapshot:
        """See `QueuePoller.poll`."""
        with self._reading() as broker:
            routes = self._discovery.routes(broker.client, broker.keys)
            unacked = self._unacked.read(broker.client, broker.keys, routes)
            lengths = _read_lengths(broker, chosen(self._settings, names, routes.queues, unacked.counts))
            filled = [name for lists in lengths.values() for name, length in lists.items() if length]
            heads = self._head_ages.observe(_read_heads(broker.client, self._scripts, filled), now=now)
            memory = self._memory.read(broker.client, broker.keys)
        return QueuesSnapshot(
            at=now,
            queues=tuple(_state(queue, lists, heads, unacked) for queue, lists in lengths.items()),
            unacked_other=unacked.unread,
            unacked_unknown=unacked.unknown,
            visibility_timeout=broker.keys.visibility_timeout,
            memory=memory,
        )

    def close(self) -> None:
        """See `QueuePoller.close`."""
        if self._broker is not None:
            self._broker.client.connection_pool.disconnect()
            self._broker = None

    @contextmanager
    def _reading(self) -> Iterator[RedisBroker]:
        try:
            with reaching(self._settings.broker):
                self._broker = self._broker or connect_redis(self._settings.broker)
                yield self._broker
        except BrokerUnavailable:
            self.close()  # of several URLs the next one may answer
            raise
        finally:
            if self._broker is not None:
                # A server that is no longer the master goes on answering, with what nobody changes any more. So each
                # poll has a new connection: wherever the address, or Sentinel, leads to by then.
                self._broker.client.connection_pool.disconnect()


class BindingDiscovery:
    """Finds the sets ``_kombu.binding.EXCHANGE`` that workers leave when they declare queues.

    It scans a bounded number of keys a poll: the database may hold millions of task results too.
    """

    def __init__(self, event_exchange: str, scripts: Scripts) -> None:
        self._event_exchange = event_exchange
        self._scripts = scripts
        self._cursor = 0
        self._found: set[str] = set()
        self.complete = False
        """True once the whole keyspace has been scanned."""

    def routes(self, client: redis.Redis, keys: RedisKeys) -> Routes:
        """Return the bindings of all exchanges found so far."""
        self._scan(client, keys)
        exchanges = sorted(self._found)[:MAX_EXCHANGES]
        most = min(MAX_BINDINGS, MAX_ALL_BINDINGS // max(1, len(exchanges)))
        names = [keys.bindings(exchange) for exchange in exchanges]
        members = some_members(client, self._scripts, names, most, longest=MAX_MEMBER)
        bindings = {
            exchange: parse_bindings(found, keys.separator) for exchange, found in zip(exchanges, members, strict=True)
        }
        self._found = {exchange for exchange in exchanges if bindings[exchange]}
        return Routes(bindings)

    def _scan(self, client: redis.Redis, keys: RedisKeys) -> None:
        """Go on where the last poll stopped; one round over the keyspace may take many polls."""
        prefix = keys.bindings("")
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
        for _ in range(SCAN_STEPS):
            self._cursor, page = scan(client, self._scripts, self._cursor, pattern, longest=len(prefix) + MAX_KEY)
            names = (as_text(key)[len(prefix) :] for key in page)
            self._found.update(name for name in names if not name.endswith(".pidbox") and name != self._event_exchange)
            if self._cursor == 0:
                self.complete = True
                return


@dataclass(slots=True)
class Unacked:
    """Messages that workers hold and have not acknowledged: running, prefetched, or waiting for their ETA.

    By queue: counts, and the oldest delivery in UTC seconds by the worker's clock.
    """

    counts: Counter[str] = field(default_factory=Counter)
    oldest: dict[str, float] = field(default_factory=dict)
    unknown: int = 0
    """Read, but bound to no queue or to several."""
    unread: int = 0
    """Only counted: beyond the limit, or refused."""
    refused: bool = False
    """The account may not run scripts, so no queue's count is known."""


def read_index(
    client: redis.Redis, scripts: Scripts, keys: RedisKeys, first: int, last: int
) -> list[tuple[bytes, float]]:
    """Return tags and times of delivery of unacknowledged messages, the oldest first; none without scripts."""
    [found] = scripts.run(client, _READ_INDEX, [([keys.unacked_index], [first, last, MAX_MEMBER])])
    held = found or []
    return [(tag, float(at)) for tag, at in zip(held[::2], held[1::2], strict=True)]


class UnackedReader:
    """Reads each unacknowledged message once and remembers where it came from while it stays unacknowledged.

    So a poll costs what is new, also with many tasks that wait for hours. kombu keeps the messages in the hash
    ``unacked`` and their delivery times in the sorted set ``unacked_index``. They are read in the order of delivery,
    so that the oldest is exact also when there are more than a poll may read.
    """

    def __init__(self, scripts: Scripts, *, limit: int) -> None:
        self._limit = limit
        self._scripts = scripts
        self._destinations: dict[bytes, Destination] = {}

    def read(self, client: redis.Redis, keys: RedisKeys, routes: Routes) -> Unacked:
        """Look at no more messages than the limit, the oldest first."""
        total = client.zcard(keys.unacked_index)
        held = read_index(client, self._scripts, keys, 0, self._limit - 1)
        self._destinations = self._look_up(client, keys, [tag for tag, _ in held])
        unacked = Unacked(refused=total > 0 and not self._destinations)
        for tag, delivered_at in held:
            if tag not in self._destinations:
                continue
            destination = self._destinations[tag]
            queue = routes.queue(*destination) if destination else None
            if queue is None:
                unacked.unknown += 1
            else:
                unacked.counts[queue] += 1
                unacked.oldest.setdefault(queue, delivered_at)
        unacked.unread = max(0, total - unacked.unknown - sum(unacked.counts.values()))
        return unacked

    def _look_up(self, client: redis.Redis, keys: RedisKeys, tags: Sequence[bytes]) -> dict[bytes, Destination]:
        """Return the destinations of these messages only, without those that Redis refuses to show."""
        known = self._destinations
        new = [tag for tag in tags if tag not in known]
        pages = [new[start : start + UNACKED_PAGE] for start in range(0, len(new), UNACKED_PAGE)]
        shared: dict[Destination, Destination] = {}
        found: dict[bytes, Destination] = {}
        replies = self._scripts.run(client, _READ_UNACKED, [([keys.unacked], [UNACKED_TAIL, *page]) for page in pages])
        for page, tails in zip(pages, replies, strict=True):
            for tag, tail in zip(page, tails or (), strict=False):
                destination = parse_destination(tail)
                found[tag] = shared.setdefault(destination, destination)
        return {tag: known[tag] if tag in known else found[tag] for tag in tags if tag in known or tag in found}


class HeadAges:
    """Remembers since when each list has had the same message at its head."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str | None, float]] = {}

    def observe(self, heads: Mapping[str, HeadMessage], *, now: float) -> dict[str, QueueHead]:
        """Return the heads with the time since when they were seen; lists not among ``heads`` are forgotten."""
        seen: dict[str, tuple[str | None, float]] = {}
        for name, head in heads.items():
            identity = head.delivery_tag or head.uuid
            before = self._seen.get(name, (None, now))
            seen[name] = before if identity is not None and before[0] == identity else (identity, now)
        self._seen = seen
        return {name: QueueHead(head.uuid, head.stamped_at, seen[name][1]) for name, head in heads.items()}


def oldest(heads: Sequence[QueueHead]) -> QueueHead | None:
    """Return the head that is known to be oldest, of a queue's lists in the order of their priority.

    Each list is first in, first out, so the oldest message of a queue is one of its heads; a message waits at least
    as long as it has been seen. Among equals the least urgent one, for it may be starving.
    """
    return min(reversed(heads), key=lambda head: head.stamped_at or head.seen_since, default=None)


def _read_heads(client: redis.Redis, scripts: Scripts, lists: Sequence[str]) -> dict[str, HeadMessage]:
    """Return the message that each list delivers next: workers take from the right end, producers add on the left."""
    pages = [lists[start : start + HEADS_PAGE] for start in range(0, len(lists), HEADS_PAGE)]
    replies = scripts.run(client, _READ_HEADS, [(page, [HEAD_TAIL]) for page in pages])
    heads: dict[str, HeadMessage] = {}
    for page, tails in zip(pages, replies, strict=True):
        heads.update({name: parse_head(tail) for name, tail in zip(page, tails or (), strict=False) if tail})
    return heads


def _read_lengths(broker: RedisBroker, queues: Sequence[str]) -> dict[str, Lists]:
    """Return lengths by queue; a missing list is an empty one, a key of another type is not a queue."""
    lists = {queue: broker.keys.queue(queue) for queue in queues}
    replies = iter(run(broker.client, [("LLEN", name) for names in lists.values() for name in names]))
    lengths = {queue: {name: next(replies) for name in names} for queue, names in lists.items()}
    refused = [
        reply for found in lengths.values() for reply in found.values() if isinstance(reply, redis.ResponseError)
    ]
    known = {queue: found for queue, found in lengths.items() if all(isinstance(n, int) for n in found.values())}
    if refused and not known:
        raise refused[0]
    return known


def _state(queue: str, lists: Lists, heads: Mapping[str, QueueHead], unacked: Unacked) -> QueueState:
    return QueueState(
        name=queue,
        length=sum(lists.values()),
        unacked=None if unacked.refused else unacked.counts[queue],
        head=oldest([heads[name] for name in lists if name in heads]),
        oldest_unacked_at=unacked.oldest.get(queue),
    )
