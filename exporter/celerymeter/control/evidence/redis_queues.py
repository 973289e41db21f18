"""The lists and the unacknowledged messages of a Redis broker: where a task waits, and that some worker holds it.

Scripts inside Redis compare ids, so that only messages that match leave it. Every look is bounded: 10,000 messages of
lists, as many unacknowledged ones, one second. Of a longer list both ends are read: the head runs next, and what was
sent a moment ago is at the tail.
"""

from __future__ import annotations

import json
import logging
import re
import time
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import redis

from celerymeter.broker import RedisBroker, connect_redis, reaching
from celerymeter.connection_errors import describe
from celerymeter.control.evidence.task import UnackedMessage, WaitingMessage
from celerymeter.errors import BrokerUnavailable
from celerymeter.polling.redis_messages import parse_head
from celerymeter.polling.redis_queues import BindingDiscovery, read_index
from celerymeter.polling.redis_scripts import Scripts, run
from celerymeter.settings import BrokerSettings

LOOKUP_TIMEOUT: Final = 1.0
MAX_MESSAGES: Final = 10_000
MAX_QUEUES: Final = 1000
DISCOVERY_INTERVAL: Final = 10.0
PAGE: Final = 500
UNACKED_PAGE: Final = 200
TAIL: Final = 1024
"""Bytes at a message's end that hold its properties, the task's id among them."""
# Inside a JSON string a quote is escaped, so that this matches the key only. A message whose id is not plain text (a
# UUID object, a number, or with escapes) is returned too, for Python to read.
_MATCH: Final = """
local wanted, found, NEAR, KEY = {}, {}, 400, '"correlation_id": ?"([^"\\\\]*)"'
for i = FIRST, #ARGV do wanted[ARGV[i]] = true end
local function look(index, message)
  local id = string.match(string.sub(message, -NEAR), KEY)
  local tail = nil
  if id == nil then
    tail = string.sub(message, -tonumber(ARGV[1]))
    id = string.match(tail, KEY)
  end
  if id == nil or wanted[id] then
    found[#found + 1] = index
    found[#found + 1] = tail or string.sub(message, -tonumber(ARGV[1]))
  end
end
"""
_LIST_SCRIPT: Final = (
    _MATCH.replace("FIRST", "4")
    + """
local page = redis.call('LRANGE', KEYS[1], ARGV[2], ARGV[3])
for index, message in ipairs(page) do look(#page - index, message) end
return {#page, found}
"""
)
_UNACKED_SCRIPT: Final = (
    _MATCH.replace("FIRST", "tonumber(ARGV[2]) + 3")
    + """
for i = 3, tonumber(ARGV[2]) + 2 do
  local message = redis.call('HGET', KEYS[1], ARGV[i])
  if message then look(i - 3, message) end
end
return found
"""
)
_NOT_TEXT: Final = re.compile(rb'"correlation_id": ?[{0-9-]')
T = TypeVar("T")
_NOBODY: Final = "nobody@celerymeter"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RedisLook:
    """The result of one look; ``lists_read`` and ``unacked_read`` are False when not everything was read."""

    waiting: Mapping[str, WaitingMessage] = field(default_factory=dict)
    unacked: Mapping[str, UnackedMessage] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)
    lists_read: bool = False
    unacked_read: bool = False


class RedisQueues:
    """Reads the broker; its methods raise `BrokerUnavailable`, but for `find`. Changes nothing."""

    def __init__(self, broker: BrokerSettings) -> None:
        self._settings = broker
        self._broker: RedisBroker | None = None
        self._discovery = BindingDiscovery(str(broker.celery_settings.get("event_exchange", "celeryev")), Scripts())
        self._discovered: set[str] = set()
        self._discover_at = 0.0

    def find(self, task_ids: Collection[str], queues: Collection[str]) -> Mapping[str, WaitingMessage]:
        """Return the message of each id that waits in these queues; none while the broker is away."""
        try:
            with self._reading() as broker:
                return _Search(broker, task_ids).lists(sorted(queues)).waiting
        except BrokerUnavailable as error:
            log.warning("the queues' lists cannot be read: %s", error)
            return {}

    def look(self, task_ids: Collection[str], queues: Sequence[str]) -> RedisLook:
        """Look for tasks in the lists of these queues, in this order, then of all that are declared on the broker, and
        among the unacknowledged messages.
        """
        with self._reading() as broker:
            search = _Search(broker, task_ids)
            first = search.lists(queues)
            if len(first.waiting) < len(set(task_ids)):
                others = sorted(self._discover(broker).difference(queues))
                search.lists(others[:MAX_QUEUES], all_known=self._discovery.complete and len(others) <= MAX_QUEUES)
            return search.unacked()

    def _discover(self, broker: RedisBroker) -> set[str]:
        """Return the queues that are declared: what no worker consumes is named by nobody else."""
        if not self._discovery.complete or time.monotonic() >= self._discover_at:
            self._discover_at = time.monotonic() + DISCOVERY_INTERVAL
            self._discovered = self._discovery.routes(broker.client, broker.keys).queues
        return self._discovered

    def listeners(self, control_exchange: str) -> int:
        """Return how many connections listen to remote control: a command for a worker that does not exist."""
        command: dict[str, object] = {
            "method": "ping",
            "arguments": {},
            "destination": [_NOBODY],
            "pattern": None,
            "matcher": None,
        }
        exchange = f"{control_exchange}.pidbox"
        envelope = {
            "body": b64encode(json.dumps(command).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"clock": 0, "expires": time.time() + 10},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": exchange, "routing_key": ""},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": _NOBODY,
            },
        }
        with self._reading() as broker:
            names = [keys.topic(exchange) for keys in (broker.keys, broker.keys.old) if keys is not None]
            return sum(int(broker.client.publish(name, json.dumps(envelope))) for name in names)

    @contextmanager
    def _reading(self) -> Iterator[RedisBroker]:
        try:
            with reaching(self._settings):
                self._broker = self._broker or connect_redis(self._settings)
                yield self._broker
        except BrokerUnavailable:
            self._broker = None  # of several URLs another one may answer
            raise
        except redis.ResponseError as error:
            raise BrokerUnavailable(f"{self._settings.safe_url}: {describe(error)}") from error
        finally:
            if self._broker is not None:  # a server that is no longer the master goes on answering, with old lists
                self._broker.client.connection_pool.disconnect()


class _Search:
    """One bounded search for some ids."""

    def __init__(self, broker: RedisBroker, task_ids: Collection[str]) -> None:
        self._client, self._keys, self._scripts = broker.client, broker.keys, Scripts()
        self._wanted = sorted(task_ids)
        self._until = time.monotonic() + LOOKUP_TIMEOUT
        self._budget = MAX_MESSAGES
        self._read = 0
        self._complete = True
        self._waiting: dict[str, WaitingMessage] = {}
        self._look = RedisLook()

    def lists(self, queues: Sequence[str], *, all_known: bool = False) -> RedisLook:
        """Look in the lists of these queues, and add to what was found; ``all_known``: there are no others."""
        waiting = self._waiting
        found = self._lengths(queues)
        lengths = {queue: sum(lists.values()) for queue, lists in found.items()}
        complete = self._complete
        for queue, lists in found.items():
            before = 0
            for priority, (key, length) in enumerate(lists.items()):
                for start, stop in _ends(length, self._budget):
                    for index, tail in self._list(key, start, stop):
                        step = self._keys.priority_steps[priority]
                        is_object = _NOT_TEXT.search(tail) is not None
                        message = WaitingMessage(queue, before + index + 1, lengths[queue], step, is_object)
                        self._note(tail, message, waiting)
                    if self._all_found():
                        break
                complete = complete and self._read >= length
                self._read = 0
                before += length
        self._complete = complete
        lengths = {**self._look.lengths, **lengths}
        self._look = replace(self._look, waiting=dict(waiting), lengths=lengths, lists_read=complete and all_known)
        return self._look

    def unacked(self) -> RedisLook:
        """Look among the unacknowledged messages: the oldest and the newest."""
        total = int(self._client.zcard(self._keys.unacked_index))
        unacked: dict[str, UnackedMessage] = {}
        self._read, self._budget = 0, MAX_MESSAGES
        for start, stop in _ends(total, self._budget):
            held = read_index(self._client, self._scripts, self._keys, start, stop - 1)
            for page in (held[at : at + UNACKED_PAGE] for at in range(0, len(held), UNACKED_PAGE)):
                if time.monotonic() > self._until:
                    break
                arguments: list[str | bytes | int] = [TAIL, len(page), *(tag for tag, _ in page), *self._wanted]
                found: Any = self._client.eval(_UNACKED_SCRIPT, 1, self._keys.unacked, *arguments)
                self._read += len(page)
                for index, tail in zip(found[::2], found[1::2], strict=True):
                    at = float(page[index][1])
                    self._note(tail, UnackedMessage(at, at + self._keys.visibility_timeout), unacked)
        return replace(self._look, unacked=unacked, unacked_read=self._read >= total)

    def _lengths(self, queues: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return the lengths of each queue's lists, in the order in which workers empty them; 0 of what is no list."""
        lists = {queue: self._keys.queue(queue) for queue in queues}
        replies = iter(run(self._client, [("LLEN", key) for keys in lists.values() for key in keys]))
        lengths = {queue: {key: next(replies) for key in keys} for queue, keys in lists.items()}
        return {
            queue: {key: length if isinstance(length, int) else 0 for key, length in found.items()}
            for queue, found in lengths.items()
        }

    def _list(self, key: str, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield the place from the head, and the end, of each message between two places that may be wanted."""
        for at in range(start, stop, PAGE):
            if time.monotonic() > self._until:
                return
            # Backwards: kombu pushes on the left and workers take from the right (`kombu.transport.redis`).
            last = min(at + PAGE, stop)
            found: Any = self._client.eval(_LIST_SCRIPT, 1, key, TAIL, -last, -at - 1, *self._wanted)
            self._budget -= last - at
            self._read += last - at
            yield from ((at + index, tail) for index, tail in zip(found[1][::2], found[1][1::2], strict=True))
            if self._all_found():
                return

    def _all_found(self) -> bool:
        return len(self._waiting) == len(self._wanted)

    def _note(self, tail: bytes, message: T, into: dict[str, T]) -> None:
        task_id = parse_head(tail).uuid
        if task_id is not None and task_id in self._wanted and task_id not in into:
            into[task_id] = message


def _ends(length: int, budget: int) -> list[tuple[int, int]]:
    """Return what to read of so many messages, as (start, stop) from the head: all, or both ends."""
    if length <= budget:
        return [(0, length)]
    half = max(budget // 2, 0)
    return [(0, half), (length - half, length)]
