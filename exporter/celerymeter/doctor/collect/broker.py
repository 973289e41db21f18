"""Reads the broker: whether it can be used, the replies of its workers, its events and its queues."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping

from celerymeter.broker import REDIS_TRANSPORTS
from celerymeter.connection_errors import UNREACHABLE
from celerymeter.doctor.collect import redis_keys
from celerymeter.doctor.collect.events import Watcher
from celerymeter.doctor.collect.http import failure_of
from celerymeter.doctor.collect.rabbitmq_queues import OrphanedQueues
from celerymeter.doctor.evidence import BrokerEvidence, EventWatch, WorkerReplies
from celerymeter.doctor.settings import DoctorSettings
from celerymeter.errors import BrokerError, PollError
from celerymeter.inspect_replies import Replies, mapping
from celerymeter.kinds import NO_BROKER
from celerymeter.model import QueuesSnapshot
from celerymeter.polling import open_queue_poller
from celerymeter.remote_control import Command, RemoteControl
from celerymeter.settings import ExporterSettings
from celerymeter.worker_configuration import parse_configuration

log = logging.getLogger(__name__)

REPLY_TIMEOUT = 2.0
"""Seconds in which a worker must reply; a solo worker does not while it runs a task."""
BEAT = "celerybeat@"
"""Begins the node name of a beat, which answers ``ping`` and nothing else (Celery 5.7)."""
Progress = Callable[[str], None]


def collect(settings: DoctorSettings, *, progress: Progress) -> BrokerEvidence:
    """Connect, ask the workers and read the queues while listening to events; raises only for wrong settings."""
    broker = settings.broker
    if broker.url == NO_BROKER:
        return BrokerEvidence(broker.url, absent=True)
    progress(f"connecting to {broker.safe_url}")
    watcher = Watcher(broker, seconds=settings.watch)
    control = RemoteControl(broker)
    try:
        control.connect()
        return _collect(settings, control, watcher, progress)
    except BrokerError as error:
        return BrokerEvidence(broker.safe_url, failure=failure_of(error.__cause__ or error))
    finally:
        control.close()


def _collect(settings: DoctorSettings, control: RemoteControl, watcher: Watcher, progress: Progress) -> BrokerEvidence:
    broker = settings.broker
    orphaned_queues = OrphanedQueues(settings.rabbitmq_management_url, broker)
    with watcher:
        progress("reading the queues")
        orphaned_lists = redis_keys.orphaned_lists(broker)
        first = _read_queues(settings)
        progress("asking the workers")
        replies, other_bodies, beats = _ask(control, redis=broker.transport in REDIS_TRANSPORTS)
        consumed = {name for reply in replies.values() for name in reply.queues or ()}
        known = first is not None and consumed <= {queue.name for queue in first.queues}
        queues = first if known else _read_queues(settings, consumed)
        progress("listening to events")
        events = watcher.result(empty_at=_empty_at(queues, consumed))
    found = BrokerEvidence(
        broker.safe_url,
        watch=events,
        replies=replies,
        other_replies=_senders(other_bodies, events),
        queues=queues.queues if queues else None,
        queues_incomplete=queues.incomplete if queues else None,
        event_exchange=str(broker.celery_settings.get("event_exchange", "celeryev")),
        transport_options=broker.transport_options,
        orphaned_lists=redis_keys.still_orphaned(broker, orphaned_lists),
        orphaned_queues=orphaned_queues.still(),
        beats=beats.union(name for name, sender in events.senders.items() if sender.is_beat),
    )
    return found if found.workers else redis_keys.with_other_places(found, broker)


def _ask(
    control: RemoteControl, *, redis: bool
) -> tuple[dict[str, WorkerReplies], list[tuple[str, bytes]], frozenset[str]]:
    """Return the replies by worker, the content types and bodies of replies that are not JSON, and the beats.

    Every worker gets only ``ping``, to which all can reply: a worker whose ``task_serializer`` is yaml logs an error
    when it has to encode its stats, and one that accepts no JSON logs an error for each command.
    """
    pings = control.ask([Command("ping")], silence=REPLY_TIMEOUT)
    beats = frozenset(name for name in pings.hostnames if name.startswith(BEAT))
    workers = pings.hostnames - beats
    if not workers:
        return {}, pings.unread, beats
    commands = [Command(method, destination=workers) for method in ("stats", "active_queues", "conf")]
    commands.append(Command("registered", {"taskinfoitems": ["_"]}, destination=workers))
    replies = control.ask(commands, expected=workers, silence=REPLY_TIMEOUT)
    return {name: _worker(name, replies, redis=redis) for name in workers}, pings.unread, beats


def _worker(name: str, replies: Replies, *, redis: bool) -> WorkerReplies:
    """Return the replies of one worker."""
    about, queues, answer = replies.stats(name), replies.queues(name), replies.answer("conf", name)
    known = isinstance(answer, dict)
    configuration = parse_configuration(mapping(answer))
    return WorkerReplies(
        pool=about.pool if about else None,
        queues=None if queues is None else frozenset(queue.name for queue in queues),
        configuration=configuration if known else None,
        registered=replies.registered(name),
        sends_task_events=configuration.sends_task_events,
        event_exchange=configuration.event_exchange,
        time_zone=configuration.time_zone,
        transport_options=configuration.transport_options,
        visibility_timeout=configuration.visibility_timeout if redis and known else None,
    )


def _senders(bodies: Collection[tuple[str, bytes]], events: EventWatch) -> Mapping[str, frozenset[str]]:
    """Return the workers that replied in other content types; a reply begins with the name of its worker."""
    found: dict[str, set[str]] = defaultdict(set)
    for content_type, body in bodies:
        found[content_type] |= {name for name in events.workers if name.encode() in body}
    return {content_type: frozenset(names) for content_type, names in found.items()}


def _read_queues(settings: DoctorSettings, names: Collection[str] = ()) -> QueuesSnapshot | None:
    """Return the queues of these names and those that the broker knows; ``None`` when it does not tell."""
    poller = open_queue_poller(
        ExporterSettings(broker=settings.broker, rabbitmq_management_url=settings.rabbitmq_management_url)
    )
    try:
        return poller.poll(names, now=time.time())
    except (BrokerError, PollError, *UNREACHABLE) as error:
        log.warning("cannot read the queues: %s", error)
        return None
    finally:
        poller.close()


def _empty_at(queues: QueuesSnapshot | None, consumed: Collection[str]) -> float | None:
    """Return a time at which all queues that workers consume were empty."""
    if queues is None or not consumed or any(queue.length for queue in queues.queues if queue.name in consumed):
        return None
    return queues.at
