"""Messages of the feed, and the data of those that have no model elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from celerymeter.control.cluster.models import RealtimeMetrics
from celerymeter.errors import AmbiguousCluster, CelerymeterError, RequestRefused

MessageType = Literal["connection_established", "dashboard_data", "metrics_update", "alert", "revocation", "error"]


class Envelope(BaseModel):
    """A message of the feed. ``seq`` grows by one with each published message, also over restarts: it begins at the
    time of the start, in milliseconds. A client that reconnects with ``?since=<seq>`` is sent what it missed.
    """

    message_type: MessageType
    timestamp: datetime
    seq: int
    data: object


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first message of a WebSocket. ``running``: whether updates will come. ``complete``: with ``?since=``, whether
    all missed messages are still known.
    """

    client_count: int
    interval_seconds: float
    running: bool
    complete: bool
    message: str = "connected to celerymeter"


@dataclass(frozen=True, slots=True)
class MetricsUpdate:
    """The message of every interval."""

    metrics: RealtimeMetrics


@dataclass(frozen=True, slots=True)
class FeedError:
    """Sent in place of metrics that cannot be known; ``code`` as in HTTP errors, or ``monitoring_stopped``."""

    code: str
    detail: str


MONITORING_STOPPED = FeedError("monitoring_stopped", "updates were stopped; POST /monitoring/start resumes them")


def feed_error(error: CelerymeterError | None) -> FeedError:
    """Return an error in the words of the HTTP error for it, which repeat no text of an exception."""
    if isinstance(error, RequestRefused):
        return FeedError(error.code, str(error))
    if isinstance(error, AmbiguousCluster):
        return FeedError("invalid", str(error))
    return FeedError("prometheus_unavailable", "Prometheus is unavailable now")
