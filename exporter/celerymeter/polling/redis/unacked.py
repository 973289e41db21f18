"""Messages that workers hold and have not acknowledged: running, prefetched, or waiting for their ETA.

kombu keeps them in the hash ``unacked`` and their delivery times in the sorted set ``unacked_index``. They are read
in the order of delivery, so that the oldest is exact also when there are more than a poll may read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import redis

from celerymeter.broker import RedisKeys
from celerymeter.polling.redis.bindings import Routes
from celerymeter.polling.redis.commands import Scripts
from celerymeter.polling.redis.messages import UNACKED_TAIL, parse_destination

PAGE = 200
"""Messages a script looks at: it holds up everybody else for about a millisecond."""

_READ = """
local tails = {}
for i = 2, #ARGV do
  local message = redis.call('HGET', KEYS[1], ARGV[i])
  tails[i - 1] = message and string.sub(message, -tonumber(ARGV[1])) or ''
end
return tails
"""

Destination: TypeAlias = tuple[str, str] | None
"""Exchange and routing key; ``None`` where a message does not tell."""


@dataclass(slots=True)
class Unacked:
    """Counts and the oldest delivery (UTC seconds by the worker's clock) by queue."""

    counts: Counter[str] = field(default_factory=Counter)
    oldest: dict[str, float] = field(default_factory=dict)
    unknown: int = 0
    """Read, but bound to no queue or to several."""
    unread: int = 0
    """Only counted: beyond the limit, or refused."""
    refused: bool = False
    """The account may not run scripts, so no queue's count is known."""


class UnackedReader:
    """Reads each message once: where it came from is remembered while it stays unacknowledged.

    So a poll costs what is new, also with many tasks that wait for hours.
    """

    def __init__(self, scripts: Scripts, *, limit: int) -> None:
        self._limit = limit
        self._scripts = scripts
        self._destinations: dict[bytes, Destination] = {}

    def read(self, client: redis.Redis, keys: RedisKeys, routes: Routes) -> Unacked:
        """Look at no more messages than the limit, the oldest first."""
        total = client.zcard(keys.unacked_index)
        held: Any = client.zrange(keys.unacked_index, 0, self._limit - 1, withscores=True)
        self._destinations = self._look(client, keys, [tag for tag, _ in held])
        unacked = Unacked(refused=bool(held) and not self._destinations)
        for tag, delivered_at in held:
            if tag in self._destinations:
                _add(unacked, self._destinations[tag], delivered_at, routes)
        unacked.unread = max(0, total - unacked.unknown - sum(unacked.counts.values()))
        return unacked

    def _look(self, client: redis.Redis, keys: RedisKeys, tags: Sequence[bytes]) -> dict[bytes, Destination]:
        """The destinations of these messages and of no others; those that Redis refuses to show are left out."""
        known = self._destinations
        new = [tag for tag in tags if tag not in known]
        pages = [new[start : start + PAGE] for start in range(0, len(new), PAGE)]
        shared: dict[Destination, Destination] = {}
        found: dict[bytes, Destination] = {}
        replies = self._scripts.run(client, _READ, [([keys.unacked], [UNACKED_TAIL, *page]) for page in pages])
        for page, tails in zip(pages, replies, strict=True):
            for tag, tail in zip(page, tails or (), strict=False):
                destination = parse_destination(tail)
                found[tag] = shared.setdefault(destination, destination)
        return {tag: known[tag] if tag in known else found[tag] for tag in tags if tag in known or tag in found}


def _add(unacked: Unacked, destination: Destination, delivered_at: float, routes: Routes) -> None:
    queue = routes.queue(*destination) if destination else None
    if queue is None:
        unacked.unknown += 1
    else:
        unacked.counts[queue] += 1
        unacked.oldest.setdefault(queue, delivered_at)
