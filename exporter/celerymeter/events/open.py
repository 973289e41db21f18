"""Which reader reads which broker."""

from __future__ import annotations

from celerymeter.broker import REDIS_TRANSPORTS
from celerymeter.errors import UnsupportedTransport
from celerymeter.events.redis import RedisReader
from celerymeter.events.stream import EventSink, Reader
from celerymeter.settings import BrokerSettings

AMQP_TRANSPORTS = frozenset({"amqp", "amqps", "pyamqp"})


def open_reader(broker: BrokerSettings, sink: EventSink) -> Reader:
    """The reader for this broker, not yet connected; raises `SettingsError` or `UnsupportedTransport`."""
    if broker.transport in REDIS_TRANSPORTS:
        return RedisReader(broker, sink)
    raise UnsupportedTransport(
        f"no Celery events over {broker.transport or broker.safe_url}://; "
        f"transports with events: {', '.join(sorted(REDIS_TRANSPORTS | AMQP_TRANSPORTS))}"
    )
