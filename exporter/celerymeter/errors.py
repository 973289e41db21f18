"""Every error that celerymeter raises on purpose. A command exits with 1 for them, or with 2 where it says so.

CelerymeterError
├── SettingsError             a value of an option, a variable or the file is wrong    (exit 2)
│   └── MissingSetting        a required setting is not given                          (exit 2)
├── BrokerError
│   ├── BrokerUnavailable     the broker cannot be reached now; a retry may help
│   └── UnsupportedTransport  the transport cannot do what was asked for               (exit 2)
├── PollError                 one poll of queues or workers failed
├── BackendUnavailable        the result backend cannot be read now
├── PrometheusError
│   ├── PrometheusUnavailable no reply, or one that a retry may help (timeout, 5xx)
│   ├── QueryRejected         Prometheus refused the query (4xx)
│   │   └── AnswerTooLarge    the reply is larger than we accept
│   └── AmbiguousCluster      several clusters match and none was chosen               (exit 2, HTTP 422)
├── ReportRefused             no report is possible for this window or these filters   (exit 2, HTTP 422)
├── StateError                the state directory cannot be used, or its content was changed
├── ControlError              the control API cannot be reached, or refused a request
│   └── ControlUnavailable    it cannot be reached now; a retry may help
├── RequestRefused            the control API answers a request with a problem
│   └── InvalidToken          the token is absent, expired, forged or for someone else (HTTP 401, WebSocket 4401)
├── ServerMissing             a server that the demo or the tests start is not installed
├── StartFailed               a child process ended while it started, or was not ready in time
├── ProcessEnded              a child process ended that should run on
└── PortInUse                 a port to listen on is taken
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class CelerymeterError(Exception):
    """Base of all errors; ``str(error)`` is one line for a person, without secrets."""

    exit_status: ClassVar[int] = 1


class SettingsError(CelerymeterError):
    """A setting is wrong; the message names the setting and what it accepts."""

    exit_status = 2


class MissingSetting(SettingsError):
    """A required setting is missing; a configuration file may be right without it."""


class BrokerError(CelerymeterError):
    """An error of the broker."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached now."""


class UnsupportedTransport(BrokerError):
    """The broker's transport cannot carry events, or does not support an option."""

    exit_status = 2


class PollError(CelerymeterError):
    """A poll failed; its gauges are unknown until the next success."""


class BackendUnavailable(CelerymeterError):
    """The result backend cannot be read now; other evidence must do."""


class PrometheusError(CelerymeterError):
    """An error of the Prometheus HTTP API."""


class PrometheusUnavailable(PrometheusError):
    """Prometheus refused the connection, did not reply in time, or replied with a 5xx."""


class QueryRejected(PrometheusError):
    """Prometheus refused the query with a 4xx."""


class AnswerTooLarge(QueryRejected):
    """The reply exceeds our limit; a smaller query may succeed."""


class AmbiguousCluster(PrometheusError):
    """Prometheus has several clusters and none was chosen."""

    exit_status = 2

    def __init__(self, clusters: tuple[str, ...]) -> None:
        names = ", ".join(cluster or '""' for cluster in clusters)
        unnamed = ' ("" is the metrics without the label cluster)' if "" in clusters else ""
        super().__init__(f"Prometheus has several clusters; choose one with --cluster: {names}{unnamed}")
        self.clusters = clusters


class ReportRefused(CelerymeterError):
    """A report is impossible; ``code`` is stable, and the message says what would be accepted."""

    exit_status = 2

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class StateError(CelerymeterError):
    """The state directory cannot be used, or its content is not what was written."""


class ControlError(CelerymeterError):
    """The control API cannot be reached, refused a request, or sent an unreadable reply."""


class ControlUnavailable(ControlError):
    """The control API, or a proxy before it, does not answer now."""


class RequestRefused(CelerymeterError):
    """The control API answers with the problem ``code`` (see `celerymeter.control.errors`) and this message.

    ``retry_after`` is in seconds; ``members`` are further members of the problem, such as ``batch_id``.
    """

    def __init__(
        self, code: str, detail: str, *, retry_after: float | None = None, members: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.retry_after = retry_after
        self.members = dict(members or {})


class InvalidToken(RequestRefused):
    """A valid token is required; ``reason`` is a label value of the counter of failures."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__("unauthenticated", detail)
        self.reason = reason


class ServerMissing(CelerymeterError):
    """A server is not installed on this machine; the message says how to install it."""


class StartFailed(CelerymeterError):
    """A child process ended while it started, or was not ready in time; the message ends with its last output."""


class ProcessEnded(CelerymeterError):
    """A child process ended that should run on; the message ends with its last output."""


class PortInUse(CelerymeterError):
    """A port is taken; the message names the port and the option that changes it."""
