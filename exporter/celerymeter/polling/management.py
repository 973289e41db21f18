"""RabbitMQ's management API: the only place that tells unacknowledged messages. One request for all queues."""

from __future__ import annotations

import logging
from urllib.parse import quote, unquote, urlsplit

import msgspec
import requests

from celerymeter.urls import without_password

TIMEOUT = 5.0
MAX_PAGE = 32 * 2**20
"""Bytes of an answer; more than 100,000 queues fit."""

_log = logging.getLogger(__name__)


class _Queue(msgspec.Struct):
    name: str
    messages_unacknowledged: int | None = None


class Management:
    """The API at ``http://user:password@host:15672/vhost``; without a path the broker URL's virtual host."""

    def __init__(self, url: str, *, broker_url: str) -> None:
        parts = urlsplit(url)
        vhost = unquote(parts.path[1:] or urlsplit(broker_url.split(";", maxsplit=1)[0]).path[1:]) or "/"
        host = parts.netloc.rpartition("@")[2]
        # Not `enable_queue_totals`: with it RabbitMQ 3.10 says 0 for every quorum queue.
        self._url = f"{parts.scheme}://{host}/api/queues/{quote(vhost, safe='')}?columns=name,messages_unacknowledged"
        self._auth = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
        self._failing = False

    def unacked(self) -> dict[str, int | None]:
        """Unacknowledged messages by queue; empty, and said once, while the API does not answer.

        ``None`` where the broker collects no statistics, which newer releases let one turn off.
        """
        try:
            with requests.get(self._url, auth=self._auth, timeout=TIMEOUT, stream=True) as answer:
                answer.raise_for_status()
                queues = msgspec.json.decode(answer.raw.read(MAX_PAGE, decode_content=True), type=list[_Queue])
        except (requests.RequestException, msgspec.DecodeError, OSError) as error:
            self._say(error)
            return {}
        self._failing = False
        return {queue.name: queue.messages_unacknowledged for queue in queues}

    def _say(self, error: Exception) -> None:
        if not self._failing:
            _log.warning("no unacknowledged messages: %s: %s", without_password(self._url), error)
        self._failing = True
