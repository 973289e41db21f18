"""Every error that celerymeter raises on purpose.

CelerymeterError
├── SettingsError            a value given by flag, environment or file is wrong   (exit 2)
│   └── MissingSetting       nothing gives a value that the command needs          (exit 2)
├── BrokerError
│   ├── BrokerUnavailable    cannot be reached now; trying again may help
│   └── UnsupportedTransport this transport cannot carry what was asked for        (exit 2)
├── PollError                one poll of queues or workers failed
├── PrometheusError
│   ├── PrometheusUnavailable no answer, or one that says "later" (timeout, refused, 5xx)
│   ├── QueryRejected        the query itself was refused (4xx): our fault or a parameter's
│   │   └── AnswerTooLarge   the answer is more than we are willing to hold
│   └── AmbiguousCluster     several clusters match and none was chosen            (exit 2, 422)
├── ReportRefused            the window or the filters of a report make no sense      (exit 2, 422)
├── StateError               the state directory cannot be used, or does not hold what was written there
├── ControlError             the control API cannot be reached, or refuses
├── RequestRefused           a request to the control API that is answered with a problem
│   └── InvalidToken         no usable token: absent, expired, forged, for someone else … (401, 4401)
├── ServerMissing            a server that the demo or the tests start is not installed
├── StartFailed              a child process did not come up
├── ProcessEnded             a child process ended that should run on
└── PortInUse                a port that we were told to listen on is taken
"""

from __future__ import annotations

from collections.abc import Mapping


class CelerymeterError(Exception):
    """Base of all; ``str(error)`` is one line for a person and holds no secret."""


class SettingsError(CelerymeterError):
    """A setting is wrong; the message names the setting and what it accepts."""


class MissingSetting(SettingsError):
    """A needed setting is given nowhere; a configuration file alone may be right without it."""


class BrokerError(CelerymeterError):
    """Something about the broker."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached now."""


class UnsupportedTransport(BrokerError):
    """The broker's transport cannot carry events or lacks a named option."""


class PollError(CelerymeterError):
    """A poll failed; its gauges become unknown until the next success."""


class PrometheusError(CelerymeterError):
    """Something about the Prometheus HTTP API."""


class PrometheusUnavailable(PrometheusError):
    """No usable answer: refused, timed out, or a 5xx."""


class QueryRejected(PrometheusError):
    """Prometheus refused the query (a 4xx)."""


class AnswerTooLarge(QueryRejected):
    """The answer exceeds our bound; ask for less."""


class AmbiguousCluster(PrometheusError):
    """Several clusters are there and none was chosen."""

    def __init__(self, clusters: tuple[str, ...]) -> None:
        super().__init__(f"several clusters, choose one with --cluster: {', '.join(clusters)}")
        self.clusters = clusters


class ReportRefused(CelerymeterError):
    """A report was asked for that cannot be; ``code`` is stable and ``str(error)`` says what would be accepted."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class StateError(CelerymeterError):
    """The state directory cannot be used, or what it holds is not what was written."""


class ControlError(CelerymeterError):
    """The control API cannot be reached, refuses, or says what we do not understand."""


class RequestRefused(CelerymeterError):
    """A request is answered with the problem ``code`` (see `celerymeter.control.errors`) and ``str(error)``.

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
    """A token was wanted and none that is valid was given; ``reason`` is a label value of the failure counter."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__("unauthenticated", detail)
        self.reason = reason


class ServerMissing(CelerymeterError):
    """A server binary is not on this machine."""


class StartFailed(CelerymeterError):
    """A child process ended while starting, or was not ready in time; the message ends with its last output."""


class ProcessEnded(CelerymeterError):
    """A child process ended that should run on; the message ends with its last output."""


class PortInUse(CelerymeterError):
    """A port is taken; the message names it and the option that changes it."""
