"""Many commands in few round trips."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import redis

_log = logging.getLogger(__name__)

BATCH = 2000
"""Commands a round trip: enough to make latency small, few enough to let others in between."""

Word: TypeAlias = str | bytes | int
Command: TypeAlias = tuple[Word, ...]


def run(client: redis.Redis, commands: Iterable[Command]) -> list[Any]:
    """The replies in order, as redis-py gives them; that of a refused command is the `redis.ResponseError` itself."""
    todo = list(commands)
    replies: list[Any] = []
    for start in range(0, len(todo), BATCH):
        with client.pipeline(transaction=False) as pipe:
            for command in todo[start : start + BATCH]:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
            replies += pipe.execute(raise_on_error=False)
    return replies


class Scripts:
    """Runs Lua inside Redis, where the account may; says once when it may not."""

    def __init__(self) -> None:
        self._refused = False

    def run(
        self, client: redis.Redis, text: str, calls: Iterable[tuple[Sequence[str], Sequence[Word]]]
    ) -> list[list[bytes] | None]:
        """A list for each call (keys, arguments), or ``None`` where Redis refused."""
        replies = [
            None if isinstance(reply, redis.ResponseError) else reply
            for reply in run(client, [("EVAL", text, len(keys), *keys, *arguments) for keys, arguments in calls])
        ]
        if None in replies and not self._refused:
            _log.warning("Redis refuses EVAL to this account: the heads and owners of queued messages stay unknown")
        if replies:
            self._refused = None in replies
        return replies
