"""The lists in which Redis keeps queues: where a task waits that no worker has received."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import redis

from celerymeter.broker import RedisBroker, connect_redis, reaching
from celerymeter.connection_errors import why_useless
from celerymeter.errors import BrokerUnavailable
from celerymeter.polling.redis_messages import parse_head
from celerymeter.settings import BrokerSettings

LOOKUP_TIMEOUT: Final = 1.0
MAX_MESSAGES: Final = 10_000
PAGE: Final = 500
TAIL: Final = 1024
"""Bytes at a message's end that hold its properties, the task's id among them."""
_PAGE_SCRIPT: Final = """
local tails = {}
for index, message in ipairs(redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[2])) do
  tails[index] = string.sub(message, -tonumber(ARGV[3]))
end
return tails
"""

log = logging.getLogger(__name__)


class RedisQueues:
    """The lists in which Redis keeps queues, of all priorities: at most 10,000 messages, and one second."""

    def __init__(self, broker: BrokerSettings) -> None:
        self._settings = broker
        self._broker: RedisBroker | None = None

    def find(self, task_ids: Collection[str], queues: Collection[str]) -> Mapping[str, str]:
        """Return the queue of each id that waits; none while the broker is away."""
        try:
            with reaching(self._settings):
                self._broker = self._broker or connect_redis(self._settings)
                return self._search(self._broker, set(task_ids), sorted(queues))
        except BrokerUnavailable as error:
            self._broker = None
            log.warning("the queues' lists cannot be read: %s", error)
            return {}
        finally:
            if self._broker is not None:  # a server that is no longer the master goes on answering, with old lists
                self._broker.client.connection_pool.disconnect()

    def _search(self, broker: RedisBroker, wanted: set[str], queues: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        end, budget = time.monotonic() + LOOKUP_TIMEOUT, MAX_MESSAGES
        for queue, key in [(name, key) for name in queues for key in broker.keys.queue(name)]:
            start = 0
            while budget > 0 and len(found) < len(wanted) and time.monotonic() < end:
                # Backwards: kombu pushes on the left and workers take from the right (`kombu.transport.redis`).
                try:
                    tails: Any = broker.client.eval(_PAGE_SCRIPT, 1, key, -start - PAGE, -start - 1, TAIL)
                except redis.ResponseError as error:  # not a list, or the account may not run scripts
                    if (useless := why_useless(error)) is not None and useless.kind != "forbidden":
                        raise
                    log.warning("the list %s cannot be read: %s", key, error)
                    break
                ids = (parse_head(tail).uuid for tail in tails)
                found.update({task_id: queue for task_id in ids if task_id in wanted})
                start, budget = start + PAGE, budget - len(tails)
                if len(tails) < PAGE:
                    break
        return found
