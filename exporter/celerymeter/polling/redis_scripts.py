"""Small scripts inside Redis, which let only the part of a value out that is needed.

Anybody who may write to Redis decides how long names and messages are. An account that may not run EVAL reads them over
a connection that cuts them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import redis

from celerymeter.connection_errors import why_useless
from celerymeter.redis_parser import ask_limited

BATCH = 2000
"""Commands a round trip: enough to make latency small, few enough to let other clients in between."""
SCAN_COUNT = 2000

_MEMBERS = """
local members = {}
for _, member in ipairs(redis.pcall('SRANDMEMBER', KEYS[1], ARGV[1])) do
  if #member <= tonumber(ARGV[2]) then members[#members + 1] = member end
end
return members
"""
_SCAN = """
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local found = {page[1]}
for _, key in ipairs(page[2]) do
  if #key <= tonumber(ARGV[4]) then found[#found + 1] = key end
end
return found
"""

Word: TypeAlias = str | bytes | int

log = logging.getLogger(__name__)


def run(client: redis.Redis, commands: Iterable[tuple[Word, ...]]) -> list[Any]:
    """Return the replies in order, as redis-py gives them; a refused command's is the `redis.ResponseError` itself.

    Raises it if the server refuses everything.
    """
    todo = list(commands)
    replies: list[Any] = []
    for start in range(0, len(todo), BATCH):
        with client.pipeline(transaction=False) as pipe:
            for command in todo[start : start + BATCH]:
                pipe.execute_command(*command)
            replies += pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, redis.ResponseError) and (row := why_useless(reply)) and row.kind != "forbidden":
            raise reply
    return replies


class Scripts:
    """Runs Lua inside Redis, where the account may; logs once when it may not."""

    def __init__(self) -> None:
        self._refused = False

    def run(
        self, client: redis.Redis, text: str, calls: Iterable[tuple[Sequence[str], Sequence[Word]]]
    ) -> list[list[bytes] | None]:
        """Return a list for each call (keys, arguments), or ``None`` where Redis refused."""
        replies = [
            None if isinstance(reply, redis.ResponseError) else reply
            for reply in run(client, [("EVAL", text, len(keys), *keys, *arguments) for keys, arguments in calls])
        ]
        if None in replies and not self._refused:
            log.warning(
                "Redis refuses EVAL to this user: ages of queues and unacknowledged messages are unknown; allow +eval"
            )
        if replies:
            self._refused = None in replies
        return replies


def scan(client: redis.Redis, scripts: Scripts, cursor: int, pattern: str, *, longest: int) -> tuple[int, list[bytes]]:
    """Return the next cursor, and a page of keys that match; those of more than so many bytes are left out."""
    [reply] = scripts.run(client, _SCAN, [([], [cursor, pattern, SCAN_COUNT, longest])])
    if reply:
        return int(reply[0]), reply[1:]
    [page] = ask_limited(client, [("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)], longest=longest + 1)
    if isinstance(page, redis.ResponseError):
        raise page
    return int(page[0]), [key for key in page[1] if len(key) <= longest]


def some_members(
    client: redis.Redis, scripts: Scripts, sets: Sequence[str], most: int, *, longest: int
) -> list[list[bytes]]:
    """Return at most so many members of each set, of more a random choice; too long ones are left out."""
    found = scripts.run(client, _MEMBERS, [([name], [most, longest]) for name in sets])
    if None not in found:
        return [members or [] for members in found]
    replies = ask_limited(client, [("SRANDMEMBER", name, most) for name in sets], longest=longest + 1)
    return [
        [member for member in reply if len(member) <= longest] if isinstance(reply, list) else [] for reply in replies
    ]
