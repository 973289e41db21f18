"""Can the broker be reached, and its event stream be read."""

from __future__ import annotations

from collections.abc import Iterator

from celerymeter.doctor.evidence import Evidence, FailureKind
from celerymeter.doctor.finding import Finding, fault

_MENDS: dict[FailureKind, tuple[str, str]] = {
    "refused": (
        "broker-refused",
        "nothing listens there: check host and port, that the broker runs, and that it listens on more than loopback",
    ),
    "unresolved": (
        "broker-unknown-host",
        "the host's name is unknown here: check its spelling, and DNS (in a container: the service's name)",
    ),
    "password": (
        "broker-password",
        "check user and password (special characters percent-encoded)",
    ),
    "forbidden": (
        "broker-forbidden",
        "the broker knows the user but refuses: check the virtual host (the URL's path) or the Redis ACL",
    ),
    "timeout": (
        "broker-timeout",
        "no answer: check firewalls and security groups, and whether TLS is expected (rediss://, amqps://) or not",
    ),
    "tls": (
        "broker-tls",
        "TLS failed: check the certificate, its name and its authority (?ssl_ca_certs=FILE), or use the plain scheme",
    ),
    "missing": ("broker-no-socket", "no such file: check the path of the socket, and that this user may open it"),
}
_OTHER = ("broker-unreachable", "compare --broker-url and --transport-option with the workers' own settings")


def unreachable(evidence: Evidence) -> Iterator[Finding]:
    """The broker cannot be used at all."""
    failure = evidence.broker.failure
    if failure is not None:
        code, mend = _MENDS.get(failure.kind, _OTHER)
        yield fault(code, f"cannot use the broker {evidence.broker.url}: {failure.text}", mend)


def events_unreadable(evidence: Evidence) -> Iterator[Finding]:
    """The broker answers, but the event stream cannot be subscribed."""
    watch = evidence.broker.watch
    if evidence.broker.failure is None and watch.failure is not None:
        yield fault(
            "events-unreadable",
            f"cannot subscribe to events: {watch.failure}",
            "let the user subscribe to Celery's event channels (Redis ACL: allchannels +@pubsub; "
            "RabbitMQ: configure, write and read on celeryev.*)",
        )
