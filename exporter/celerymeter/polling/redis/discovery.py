"""What queues the broker itself knows: workers leave a set ``_kombu.binding.EXCHANGE`` when they declare queues."""

from __future__ import annotations

import re

import redis

from celerymeter.broker import RedisKeys
from celerymeter.polling.redis.bindings import Binding, Routes, as_text, parse_bindings
from celerymeter.polling.redis.commands import run

SCAN_STEPS = 20
SCAN_COUNT = 2000


class Discovery:
    """Looks for binding sets, a bounded number of keys a poll: the database may hold millions of task results too."""

    def __init__(self, event_exchange: str) -> None:
        self._event_exchange = event_exchange
        self._cursor = 0
        self._found: set[str] = set()

    def routes(self, client: redis.Redis, keys: RedisKeys) -> Routes:
        """The bindings of all exchanges found so far."""
        self._look_further(client, keys)
        exchanges = sorted(self._found)
        replies = run(client, [("SMEMBERS", keys.bindings(exchange)) for exchange in exchanges])
        bindings: dict[str, tuple[Binding, ...]] = {
            exchange: parse_bindings(members, keys.separator)
            for exchange, members in zip(exchanges, replies, strict=True)
            if not isinstance(members, redis.ResponseError)
        }
        self._found = {exchange for exchange in exchanges if bindings.get(exchange)}
        return Routes(bindings)

    def _look_further(self, client: redis.Redis, keys: RedisKeys) -> None:
        """Go on where the last poll stopped; one round over the keyspace may take many polls."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", keys.bindings("")) + "*"
        for _ in range(SCAN_STEPS):
            self._cursor, page = client.scan(self._cursor, match=pattern, count=SCAN_COUNT)
            names = (as_text(key)[len(keys.bindings("")) :] for key in page)
            self._found.update(name for name in names if self._holds_tasks(name))
            if self._cursor == 0:
                return

    def _holds_tasks(self, exchange: str) -> bool:
        return not exchange.endswith(".pidbox") and exchange != self._event_exchange
