"""Lengths, heads and unacknowledged messages of any number of queues in a handful of round trips.

Every command only reads. Messages are cut to their end by small scripts inside Redis, so that a poll's traffic is
bounded whatever the payloads are; the account needs the right to run EVAL.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import redis

from celerymeter.broker import RedisBroker, connect_redis, reaching
from celerymeter.errors import BrokerUnavailable, PollError
from celerymeter.model import QueueHead, QueuesSnapshot, QueueState
from celerymeter.polling.queues import chosen
from celerymeter.polling.redis.commands import Scripts, run
from celerymeter.polling.redis.discovery import Discovery
from celerymeter.polling.redis.heads import HeadWatch, oldest, read_heads
from celerymeter.polling.redis.unacked import Unacked, UnackedReader
from celerymeter.settings import ExporterSettings

UNACKED_LIMIT = 20_000
"""Unacknowledged messages that one poll reads; the others are only counted."""

Lists: TypeAlias = dict[str, int]
"""Lengths of a queue's lists, one for each priority, in the order in which workers empty them."""


class RedisQueuePoller:
    """A `QueuePoller` for Redis, over TLS, a unix socket or Sentinel too."""

    def __init__(self, settings: ExporterSettings, *, unacked_limit: int = UNACKED_LIMIT) -> None:
        self._settings = settings
        self._broker: RedisBroker | None = None
        event_exchange = settings.broker.celery_settings.get("event_exchange", "celeryev")
        self._discovery = Discovery(str(event_exchange))
        self._scripts = Scripts()
        self._unacked = UnackedReader(self._scripts, limit=unacked_limit)
        self._watch = HeadWatch()

    def poll(self, names: Collection[str], *, now: float) -> QueuesSnapshot:
        """See `QueuePoller.poll`."""
        with self._reading() as broker:
            routes = self._discovery.routes(broker.client, broker.keys)
            unacked = self._unacked.read(broker.client, broker.keys, routes)
            lengths = _read_lengths(broker, chosen(self._settings, names, routes.queues, unacked.counts))
            heads = self._read_heads(broker, lengths, now)
        return QueuesSnapshot(
            at=now,
            queues=tuple(_state(queue, lists, heads, unacked) for queue, lists in lengths.items()),
            unacked_other=unacked.unread,
            unacked_unknown=unacked.unknown,
            visibility_timeout=broker.keys.visibility_timeout,
        )

    def close(self) -> None:
        """See `QueuePoller.close`."""
        if self._broker is not None:
            self._broker.client.connection_pool.disconnect()
            self._broker = None

    def _read_heads(self, broker: RedisBroker, lengths: Mapping[str, Lists], now: float) -> dict[str, QueueHead]:
        filled = [name for lists in lengths.values() for name, length in lists.items() if length]
        return self._watch.observe(read_heads(broker.client, self._scripts, filled), now=now)

    @contextmanager
    def _reading(self) -> Iterator[RedisBroker]:
        try:
            with reaching(self._settings.broker):
                self._broker = self._broker or connect_redis(self._settings.broker)
                yield self._broker
        except BrokerUnavailable:
            self.close()  # of several URLs the next one may answer
            raise
        except redis.ResponseError as error:
            raise PollError(f"Redis refuses to tell the queues: {error}") from error


def _read_lengths(broker: RedisBroker, queues: Sequence[str]) -> dict[str, Lists]:
    """By queue; a missing list is an empty one. A name that holds something else is no queue and left out."""
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
