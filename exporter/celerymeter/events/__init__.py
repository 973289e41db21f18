"""Reads Celery events: bytes off the broker become `Event` values, nothing else."""

from __future__ import annotations

from celerymeter.broker import AMQP_TRANSPORTS, REDIS_TRANSPORTS, celery_app
from celerymeter.errors import SettingsError, UnsupportedTransport
from celerymeter.events.amqp import KombuReader
from celerymeter.events.readahead import LIMIT
from celerymeter.events.reader import EventSink, Reader
from celerymeter.events.redis import RedisReader
from celerymeter.settings import BrokerSettings

__all__ = ["EventSink", "Reader", "open_reader"]

_NAMING_OPTIONS: dict[str, tuple[type, ...]] = {
    "fanout_prefix": (bool, str),
    "fanout_patterns": (bool,),
    "global_keyprefix": (str,),
    "master_name": (str,),
}


def open_reader(broker: BrokerSettings, sink: EventSink, *, read_ahead: int = LIMIT) -> Reader:
    """Return the reader for this broker, not yet connected; raises `SettingsError` or `UnsupportedTransport`.

    On Redis ``read_ahead`` bytes may wait in memory in a burst; beyond them Redis may drop the subscription.
    """
    if broker.transport in REDIS_TRANSPORTS:
        _check_options(broker)
        _check_url(broker)
        return RedisReader(broker, sink, read_ahead=read_ahead)
    if broker.transport in AMQP_TRANSPORTS:
        _check_url(broker)
        return KombuReader(broker, sink)
    raise UnsupportedTransport(
        f"no Celery events over {broker.transport or 'this'}://; "
        f"transports with events: {', '.join(sorted(AMQP_TRANSPORTS | REDIS_TRANSPORTS))}"
    )


def _check_options(broker: BrokerSettings) -> None:
    """Check the types of the transport options that decide channel names."""
    options = broker.transport_options
    for name, kinds in _NAMING_OPTIONS.items():
        if name in options and not isinstance(options[name], kinds):
            raise SettingsError(f"transport option {name}: expected {' or '.join(kind.__name__ for kind in kinds)}")
    if broker.transport == "sentinel" and not options.get("master_name"):
        raise SettingsError("a sentinel:// broker needs --transport-option master_name=NAME")
    try:
        str(options.get("fanout_prefix", "")).format(db=0)
    except (LookupError, ValueError, AttributeError) as error:
        raise SettingsError("transport option fanout_prefix: expected text with no placeholder but {db}") from error


def _check_url(broker: BrokerSettings) -> None:
    try:
        with celery_app(broker).connection_for_read() as connection:
            if broker.transport in REDIS_TRANSPORTS:
                int(str(connection.virtual_host or "").strip("/") or 0)
    except (ValueError, KeyError, TypeError) as error:  # kombu quotes parts of the URL, so its text is not repeated
        raise SettingsError(f"{broker.safe_url}: not a usable broker URL") from error
