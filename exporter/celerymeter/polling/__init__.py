"""Polls what a broker's queues hold and what its workers say about themselves."""

from __future__ import annotations

from celerymeter.broker import REDIS_TRANSPORTS
from celerymeter.polling.queues import KnownQueues, QueuePoller
from celerymeter.settings import ExporterSettings


def open_queue_poller(settings: ExporterSettings, known: KnownQueues | None = None) -> QueuePoller:
    """Return the poller for the broker's transport; it does not connect yet. Redis itself knows the queues."""
    # Imported here, for an exporter on Redis does not need the memory of requests.
    if settings.broker.transport in REDIS_TRANSPORTS:
        from celerymeter.polling.redis_queues import RedisQueuePoller

        return RedisQueuePoller(settings)
    from celerymeter.polling.amqp_queues import AmqpQueuePoller

    return AmqpQueuePoller(settings, known)
