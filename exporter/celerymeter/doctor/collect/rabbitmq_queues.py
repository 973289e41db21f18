"""Reads RabbitMQ's management API for queues that clients left behind."""

from __future__ import annotations

import logging
from collections.abc import Collection

from celerymeter.doctor.evidence import Orphan
from celerymeter.errors import PollError
from celerymeter.polling.amqp_queues import Management, is_orphaned
from celerymeter.settings import BrokerSettings

log = logging.getLogger(__name__)


class OrphanedQueues:
    """Queues of event receivers and of replies that hold messages and have no consumer, at two looks.

    A receiver that declared its queue durable or without ``expires``, and ended, gets every event of the cluster for
    ever (https://github.com/celery/celery/issues/269). Raises `SettingsError` for a URL that cannot be right.
    """

    def __init__(self, url: str | None, broker: BrokerSettings) -> None:
        self._management = Management(url, broker_url=broker.url) if url else None
        self._before = {queue.name for queue in self._look()}

    def still(self) -> tuple[Orphan, ...]:
        """Look again, and return those that were there at the first look, too."""
        return tuple(queue for queue in self._look() if queue.name in self._before)

    def _look(self) -> Collection[Orphan]:
        if self._management is None:
            return ()
        try:
            listed = self._management.queues().values()
        except PollError as error:  # what the doctor says of the queues names it, too
            log.debug("cannot look for orphaned queues: %s", error)
            return ()
        return [Orphan(queue.name, queue.messages or 0, queue.message_bytes) for queue in listed if is_orphaned(queue)]
