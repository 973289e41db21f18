"""The stream: bytes off the broker → typed events; nothing else. `open_reader` chooses the reader for a broker."""

from celerymeter.events.open import open_reader
from celerymeter.events.stream import EventSink, Reader

__all__ = ["EventSink", "Reader", "open_reader"]
