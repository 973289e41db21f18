"""Counts tasks in the worker instead of sending an event for each of their steps.

One line in the module that defines your Celery app makes its workers publish totals with each heartbeat, instead of
four messages a task: monitoring costs the worker's main process a few per cent instead of half, needs neither ``-E``
nor ``task_send_sent_event``, and what was lost on the way arrives with the next message.

    from celery import Celery

    import celerymeter.aggregate
    import celerymeter.stamp

    app = Celery("shop", broker="redis://localhost:6379/0")
    celerymeter.stamp.install()  # measures how long tasks wait
    celerymeter.aggregate.install(app)

Only the main process of a worker counts; producers, beat and pool processes are untouched. Heartbeats and events of
the application's own pass through, and so do ``task-revoked`` and ``task-rejected``. An error in here never hurts a
task: it is logged, and the worker sends events from then on.

This package needs the standard library and Celery, and with ``push_url`` also requests.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Any

from celery.signals import task_received, task_revoked, worker_init, worker_ready, worker_shutdown
from celery.utils.imports import symbol_by_name

from celerymeter import stamp
from celerymeter.aggregate.dispatcher import TOTALS, AggregatingDispatcher
from celerymeter.aggregate.member import Member, Options
from celerymeter.buckets import RUNTIME_BUCKETS, WAIT_BUCKETS

__all__ = ["install"]

log = logging.getLogger(__name__)

INTERVAL = 2.0
"""Seconds between two messages of a worker without heartbeats, as Celery's own."""
LAST_TIMEOUT = 2.0
"""Seconds to connect when the worker stops."""
_ATTRIBUTE = "celerymeter_aggregation"


def install(
    app: Any,
    *,
    runtime_buckets: tuple[float, ...] = RUNTIME_BUCKETS,
    wait_buckets: tuple[float, ...] = WAIT_BUCKETS,
    push_url: str | None = None,
    token_file: str | None = None,
    version: str | None = None,
) -> None:
    """Make the workers of this Celery app count; calling it again changes the options only.

    Give the buckets that the exporter has (``--runtime-buckets``, ``--wait-buckets``), if they are not its defaults.
    With ``push_url`` the totals go there by HTTP (the exporter's ``/-/push``), with the token in ``token_file``: for
    brokers that carry no events. ``version`` is as in `celerymeter.stamp.install`.
    """
    if version:
        stamp.tell_version(version)
    options = Options(tuple(runtime_buckets), tuple(wait_buckets), push_url, token_file)
    installed: _Aggregation | None = getattr(app, _ATTRIBUTE, None)
    if installed is not None:
        installed.options = options
        return
    aggregation = _Aggregation(options)
    setattr(app, _ATTRIBUTE, aggregation)
    base = symbol_by_name(app.events.dispatcher_cls)
    made = {"__init__": _initializer(aggregation, base), "__module__": __name__}
    app.events.dispatcher_cls = type("Dispatcher", (AggregatingDispatcher, base), made)
    app.events.__dict__.pop("Dispatcher", None)  # made before, with Celery's own class
    worker_init.connect(_begin, weak=False, dispatch_uid="celerymeter.aggregate")
    worker_ready.connect(_check, weak=False, dispatch_uid="celerymeter.aggregate")
    worker_shutdown.connect(_end, weak=False, dispatch_uid="celerymeter.aggregate")
    task_received.connect(_received, weak=False, dispatch_uid="celerymeter.aggregate")
    task_revoked.connect(_revoked, weak=False, dispatch_uid="celerymeter.aggregate")


class _Aggregation:
    """The workers of one app in this process: one, except in tests."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._members: dict[str, tuple[int, Member, Any]] = {}
        """By node name: the process that the worker was made in, its totals, and what pushes them."""

    @property
    def members(self) -> list[Member]:
        """The workers of this process."""
        return [member for pid, member, _ in self._members.values() if pid == os.getpid()]

    def has(self, hostname: str) -> bool:
        """Return True if this worker counts."""
        return hostname in self._members

    def begin(self, worker: Any) -> None:
        """Prepare for a worker that is about to be built."""
        from celerymeter.aggregate import commands  # noqa: F401 - registers them, in workers only

        member = Member(worker, self.options)
        pusher = None
        if self.options.push_url is not None:
            from celerymeter.aggregate.push import Pusher

            pusher = Pusher(member, worker, self.options)
            pusher.start()
        if pusher is not None or worker.options.get("without_heartbeat"):
            worker.task_events = True  # else Celery may make no dispatcher, having no other use for one
        self._members[worker.hostname] = (os.getpid(), member, pusher)

    def end(self, worker: Any) -> None:
        """The worker has stopped."""
        pid, member, pusher = self._members.pop(worker.hostname, (0, None, None))
        if pusher is not None:
            pusher.stop()
        elif member is not None and pid == os.getpid() and member.has_news:
            _send_last(worker, member)

    def equip(self, dispatcher: Any) -> None:
        """Give a worker's dispatcher its totals; after a reconnect those that it had before."""
        pid, member, _ = self._members.get(dispatcher.hostname, (0, None, None))
        if member is None or pid != os.getpid():  # a process of the pool inherits all this
            return
        dispatcher.member = member
        if self.options.push_url is not None:
            dispatcher.pushed = dispatcher.enabled = True  # also over SQL, where Celery sends no events
            dispatcher.to_broker = "fanout" in dispatcher.connection.transport.implements.exchange_type
        elif member.worker.options.get("without_heartbeat"):
            member.worker.consumer.timer.call_repeatedly(INTERVAL, dispatcher.send_totals)
        member.reconnected()
        if member.failed and dispatcher.groups:
            dispatcher.groups.add("task")


def _send_last(worker: Any, member: Member) -> None:
    """Publish what ended while the worker shut down, after Celery has closed its connections."""
    try:
        with worker.app.connection_for_write(connect_timeout=LAST_TIMEOUT) as connection:
            dispatcher = worker.app.events.Dispatcher(connection, hostname=worker.hostname, buffer_while_offline=False)
            dispatcher.send(TOTALS, totals=member.message(final=True))
            dispatcher.close()
    except Exception as error:  # noqa: BLE001 - whatever it is, the worker must stop
        log.warning("celerymeter: the last totals were not sent: %r", error)


def _initializer(aggregation: _Aggregation, base: Any) -> Any:
    def __init__(self: Any, *args: Any, **fields: Any) -> None:  # noqa: N807 - becomes the method of a class
        base.__init__(self, *args, **fields)
        if "groups" in fields:  # as only the worker's consumer gives them (`celery.worker.consumer.events`)
            aggregation.equip(self)

    return __init__


def _aggregation(app: Any) -> _Aggregation | None:
    return getattr(app, _ATTRIBUTE, None)


def _begin(sender: Any, **_: Any) -> None:
    if (aggregation := _aggregation(sender.app)) is not None:
        aggregation.begin(sender)


def _check(sender: Any, **_: Any) -> None:
    """``sender`` is the worker's consumer."""
    if (aggregation := _aggregation(sender.app)) is not None and not aggregation.has(sender.hostname):
        log.error("celerymeter: this worker does not count its tasks; call install earlier, where the app is defined")


def _end(sender: Any, **_: Any) -> None:
    if (aggregation := _aggregation(sender.app)) is not None:
        aggregation.end(sender)


def _received(sender: Any, request: Any, **_: Any) -> None:
    """A worker's consumer received a task that is not revoked."""
    member = getattr(sender.event_dispatcher, "member", None)
    if member is not None:
        member.guarded(partial(member.received, request))


def _revoked(sender: Any, request: Any, **_: Any) -> None:
    """A worker revoked a task; ``sender`` is the task, ``request`` its context."""
    aggregation = _aggregation(sender.app)
    for member in aggregation.members if aggregation is not None else ():
        member.guarded(partial(member.revoked, request, sender.name))
