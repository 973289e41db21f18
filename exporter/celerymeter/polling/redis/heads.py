"""The message that each list delivers next: workers take from the right end, producers add on the left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import redis

from celerymeter.model import QueueHead
from celerymeter.polling.redis.commands import Scripts
from celerymeter.polling.redis.messages import HEAD_TAIL, Head, parse_head

PAGE = 50
"""Lists a script looks at: it holds up everybody else for about a millisecond."""

_READ = """
local tails = {}
for i = 1, #KEYS do
  local message = redis.call('LINDEX', KEYS[i], -1)
  tails[i] = message and string.sub(message, -tonumber(ARGV[1])) or ''
end
return tails
"""


def read_heads(client: redis.Redis, scripts: Scripts, lists: Sequence[str]) -> dict[str, Head]:
    """The heads of these lists; one that is empty or may not be read has none."""
    pages = [lists[start : start + PAGE] for start in range(0, len(lists), PAGE)]
    heads: dict[str, Head] = {}
    for page, tails in zip(pages, scripts.run(client, _READ, [(page, [HEAD_TAIL]) for page in pages]), strict=True):
        heads.update({name: parse_head(tail) for name, tail in zip(page, tails or (), strict=False) if tail})
    return heads


class HeadWatch:
    """Remembers since when each list has had the same message at its head."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str | None, float]] = {}

    def observe(self, heads: Mapping[str, Head], *, now: float) -> dict[str, QueueHead]:
        """The heads with the time since when they were seen; lists not among ``heads`` are forgotten."""
        seen: dict[str, tuple[str | None, float]] = {}
        for name, head in heads.items():
            identity = head.delivery_tag or head.uuid
            before = self._seen.get(name, (None, now))
            seen[name] = before if identity is not None and before[0] == identity else (identity, now)
        self._seen = seen
        return {name: QueueHead(head.uuid, head.stamped_at, seen[name][1]) for name, head in heads.items()}


def oldest(heads: Sequence[QueueHead]) -> QueueHead | None:
    """The head that is known to be oldest, of a queue's lists in the order of their priority.

    Each list is first in, first out, so the oldest message of a queue is one of its heads; a message waits at least
    as long as it has been seen. Among equals the least urgent one, for it may be starving.
    """
    return min(reversed(heads), key=lambda head: head.stamped_at or head.seen_since, default=None)
