"""Checks of the broker: connection, event stream, queues, and lists that clients left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from shlex import quote

from celerymeter.doctor.evidence import Evidence, FailureKind, Orphan
from celerymeter.doctor.report import LISTED, Finding, fault, hint, listed

_FIXES: dict[FailureKind, tuple[str, str]] = {
    "refused": (
        "broker-refused",
        "nothing listens there: check host and port, that the broker runs, and that it listens on more than loopback",
    ),
    "unresolved": (
        "broker-unknown-host",
        "this machine cannot resolve the host name: check its spelling and DNS (in a container: the service name)",
    ),
    "password": ("broker-password", "check user and password; special characters must be percent-encoded"),
    "forbidden": (
        "broker-forbidden",
        "the broker refuses this user: check the virtual host (the path of the URL) or the Redis ACL "
        "(exporter/README.md lists the permissions)",
    ),
    "timeout": (
        "broker-timeout",
        "check firewalls and security groups, and whether the broker expects TLS (rediss://, amqps://)",
    ),
    "tls": (
        "broker-tls",
        "check the certificate, its host name and its authority (?ssl_ca_certs=FILE), or use the scheme without TLS",
    ),
    "missing": ("broker-no-socket", "check the path of the socket, and that this user may open it"),
    "replica": (
        "broker-replica",
        "this address leads to a replica: after a failover point it at the new master (or use sentinel://)",
    ),
    "loading": ("broker-loading", "wait until Redis has loaded its data or ended its script, then check again"),
    "full": (
        "broker-takes-no-writes",
        "free memory or disk space, or correct maxmemory, save and min-replicas-to-write; no task can be sent either",
    ),
    "blocked": (
        "broker-blocked",
        "RabbitMQ has raised its memory or disk alarm, and no task can be sent either: free memory or disk space, "
        "or drain queues (rabbitmq-diagnostics alarms)",
    ),
    "cluster": (
        "broker-cluster",
        "Celery's Redis transport needs a Redis that is not part of a Redis Cluster (cluster-enabled no)",
    ),
    "clients": ("broker-clients", "raise maxclients, or find the clients that keep too many connections (CLIENT LIST)"),
}
_OTHER = ("broker-unreachable", "compare --broker-url and --transport-option with the settings of the workers")


def unreachable(evidence: Evidence) -> Iterator[Finding]:
    """The broker cannot be used."""
    failure = evidence.broker.failure
    if failure is not None:
        code, fix = _FIXES.get(failure.kind, _OTHER)
        yield fault(code, f"cannot use the broker {evidence.broker.url}: {failure.text}", fix)


def events_unreadable(evidence: Evidence) -> Iterator[Finding]:
    """The broker can be used, but not its event stream."""
    watch = evidence.broker.watch
    if evidence.broker.failure is None and watch.failure is not None:
        yield fault(
            "events-unreadable",
            f"cannot subscribe to events: {watch.failure}",
            "allow the user to subscribe to Celery's event channels (Redis ACL: allchannels +@pubsub; "
            "RabbitMQ: configure, write and read on celeryev.*)",
        )


def queues_without_consumers(evidence: Evidence) -> Iterator[Finding]:
    """Messages wait in a queue that no worker consumes; a hint as long as a worker did not say what it consumes."""
    broker = evidence.broker
    if not broker.workers or broker.queues is None:
        return
    consumed = {name for reply in broker.replies.values() for name in reply.queues or ()}
    waiting = [
        f"{queue.name} ({queue.length} waiting)"
        for queue in broker.queues
        if queue.length and queue.name not in consumed and not queue.consumers
    ]
    if waiting:
        known = all(name in broker.replies and broker.replies[name].queues is not None for name in broker.workers)
        yield (fault if known else hint)(
            "queue-without-consumers",
            f"no worker consumes {listed(waiting)}",
            "start a worker with -Q and these names, or correct task_routes in the producers",
        )


def orphaned_lists(evidence: Evidence) -> Iterator[Finding]:
    """Clients that have ended left lists in Redis, which nothing will ever read or delete."""
    if orphans := _longest_first(evidence.broker.orphaned_lists):
        keys = " ".join(quote(orphan.name) for orphan in orphans[:LISTED])
        yield hint(
            "orphaned-lists",
            f"Redis holds lists that nobody reads: {_named(orphans)}",
            f"their event receiver or remote-control client has ended; delete them: redis-cli -n DB UNLINK {keys}",
        )


def orphaned_queues(evidence: Evidence) -> Iterator[Finding]:
    """Clients that have ended left queues in RabbitMQ, which still get every event of the cluster."""
    if orphans := _longest_first(evidence.broker.orphaned_queues):
        yield hint(
            "orphaned-queues",
            f"RabbitMQ holds queues that nobody reads: {_named(orphans)}",
            "their event receiver or remote-control client has ended; delete each: "
            f"rabbitmqctl -p VHOST delete_queue {quote(orphans[0].name)}",
        )


def queues_incomplete(evidence: Evidence) -> Iterator[Finding]:
    """The broker or its management API did not tell of all queues."""
    if why := evidence.broker.queues_incomplete:
        yield fault(
            "queues-incomplete",
            f"not all queues could be read: {why}",
            "check the URL, user and virtual host of --rabbitmq-management-url, and the broker's user "
            "(exporter/README.md lists the permissions)",
        )


def _longest_first(orphans: Iterable[Orphan]) -> list[Orphan]:
    return sorted(orphans, key=lambda orphan: (-orphan.length, orphan.name))


def _named(orphans: Sequence[Orphan]) -> str:
    """Return the first ones with their sizes, and how many there are beside them."""
    more = f" and {len(orphans) - LISTED} more" if len(orphans) > LISTED else ""
    return f"{', '.join(map(_size, orphans[:LISTED]))}{more}"


def _size(orphan: Orphan) -> str:
    size = "" if orphan.size is None else f", {orphan.size / 1024:,.0f} KiB"
    return f"{orphan.name} ({orphan.length:,} messages{size})"
