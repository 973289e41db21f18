"""Evidence beside the workers' own words: the result backend, and the lists in which Redis keeps queues."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import redis
from celery import Celery
from celery.backends.base import BaseKeyValueStoreBackend

from celerymeter.broker import REDIS_TRANSPORTS, RedisBroker, connect_redis, reaching
from celerymeter.errors import BrokerUnavailable, SettingsError
from celerymeter.polling.redis_messages import parse_head
from celerymeter.polling.redis_queues import Scripts
from celerymeter.settings import BrokerSettings
from celerymeter.urls import without_password

MOST_MESSAGES: Final = 10_000
LONGEST: Final = 1.0
PAGE: Final = 500
TAIL: Final = 1024
"""Bytes that hold the properties at a message's end, the task's id among them."""
_PAGE = """
local tails = {}
for place, message in ipairs(redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[2])) do
  tails[place] = string.sub(message, -tonumber(ARGV[3]))
end
return tails
"""

log = logging.getLogger(__name__)


class States(Protocol):
    """Where results are stored."""

    def states(self, task_ids: Sequence[str]) -> Mapping[str, str]:
        """The stored states; what cannot be known now is left out."""


class NoBackend:
    """None is configured."""

    def states(self, task_ids: Sequence[str]) -> Mapping[str, str]:  # noqa: ARG002 - it knows of none
        """Nothing is known."""
        return {}


class ResultBackend:
    """A key-value result backend, asked by one MGET; raises `SettingsError` for one of another kind."""

    def __init__(self, url: str, broker: BrokerSettings) -> None:
        app = Celery("celerymeter", backend=url, set_as_current=False, fixups=[])
        app.conf.update(broker.celery_settings)
        app.conf.update(
            accept_content=["json"],
            result_serializer="json",
            redis_socket_timeout=LONGEST,
            redis_socket_connect_timeout=LONGEST,
            redis_retry_on_timeout=False,
        )
        try:
            backend: Any = app.backend
        except Exception as error:  # a driver that is not installed raises what it likes
            raise SettingsError(f"--result-backend-url {without_password(url)}: cannot be used") from error
        if not isinstance(backend, BaseKeyValueStoreBackend):
            raise SettingsError(f"--result-backend-url {without_password(url)}: not a key-value backend (redis://, …)")
        self._backend: Any = backend

    def states(self, task_ids: Sequence[str]) -> Mapping[str, str]:
        """See `States`."""
        if not task_ids:
            return {}
        try:
            stored = self._backend.mget([self._backend.get_key_for_task(task_id) for task_id in task_ids])
        except Exception as error:  # noqa: BLE001 - every backend has errors of its own; other evidence has to do
            log.warning("the result backend does not answer (%s)", type(error).__name__)
            return {}
        found = {task_id: self._state(value) for task_id, value in zip(task_ids, stored, strict=False) if value}
        return {task_id: state for task_id, state in found.items() if state}

    def _state(self, value: Any) -> str | None:
        try:
            meta = self._backend.decode(value)
        except Exception:  # noqa: BLE001 - not JSON, compressed, somebody else's: it tells nothing
            return None
        status = meta.get("status") if isinstance(meta, dict) else None
        return status if isinstance(status, str) else None


class QueueLists(Protocol):
    """Where messages wait."""

    def find(self, task_ids: Collection[str], queues: Collection[str]) -> Mapping[str, str]:
        """The queues of those ids that were seen waiting."""


class HiddenQueues:
    """A broker that shows nobody what waits."""

    def find(self, task_ids: Collection[str], queues: Collection[str]) -> Mapping[str, str]:  # noqa: ARG002 - as above
        """Nothing is known."""
        return {}


class RedisLists:
    """The lists of all priorities, at most 10,000 messages in a second; an absent broker shows nothing."""

    def __init__(self, broker: BrokerSettings) -> None:
        self._settings = broker
        self._broker: RedisBroker | None = None
        self._scripts = Scripts()

    def find(self, task_ids: Collection[str], queues: Collection[str]) -> Mapping[str, str]:
        """See `QueueLists`."""
        try:
            with reaching(self._settings):
                self._broker = self._broker or connect_redis(self._settings)
                return self._search(self._broker, set(task_ids), sorted(queues))
        except (BrokerUnavailable, redis.ResponseError) as error:
            self._broker = None
            log.warning("the queues' lists cannot be read: %s", error)
            return {}

    def _search(self, broker: RedisBroker, wanted: set[str], queues: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        end, left = time.monotonic() + LONGEST, MOST_MESSAGES
        lists = [(queue, name) for queue in queues for name in broker.keys.queue(queue)]
        for queue, name in lists:
            start = 0
            while left > 0 and len(found) < len(wanted) and time.monotonic() < end:
                tails = self._page(broker, name, start)
                ids = (parse_head(tail).uuid for tail in tails)
                found.update({task_id: queue for task_id in ids if task_id in wanted})
                start, left = start + PAGE, left - len(tails)
                if len(tails) < PAGE:
                    break
        return found

    def _page(self, broker: RedisBroker, name: str, start: int) -> list[bytes]:
        """From the end that workers take from."""
        arguments = (-start - PAGE, -start - 1, TAIL)
        return self._scripts.run(broker.client, _PAGE, [((name,), arguments)])[0] or []


def open_lists(broker: BrokerSettings) -> QueueLists:
    """What fits the broker."""
    return RedisLists(broker) if broker.transport in REDIS_TRANSPORTS else HiddenQueues()


def open_states(url: str | None, broker: BrokerSettings) -> States:
    """What fits the setting; raises `SettingsError`."""
    return ResultBackend(url, broker) if url else NoBackend()
