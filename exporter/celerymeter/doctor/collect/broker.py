"""The broker: can it be used, who answers on it, what is said, and what waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from celerymeter.broker import UNREACHABLE
from celerymeter.doctor.collect.failures import failure_of
from celerymeter.doctor.collect.places import with_other_places
from celerymeter.doctor.collect.watching import Watching
from celerymeter.doctor.evidence import SHARED_OPTIONS, Answer, BrokerEvidence
from celerymeter.errors import BrokerError, PollError
from celerymeter.inspect_replies import Replies, mapping, text
from celerymeter.model import QueuesSnapshot
from celerymeter.polling import open_queue_poller
from celerymeter.remote_control import Command, RemoteControl
from celerymeter.settings import BrokerSettings, ExporterSettings

log = logging.getLogger(__name__)

INSPECT_TIMEOUT = 2.0
"""Seconds in which a worker must answer; a busy solo worker does not."""

Progress = Callable[[str], None]


def look(broker: BrokerSettings, *, watch: float, progress: Progress) -> BrokerEvidence:
    """Connect, ask the workers and look at the queues while listening; raises only for wrong settings."""
    progress(f"connecting to {broker.safe_url}")
    control = RemoteControl(broker)
    watching = Watching(broker, seconds=watch)
    try:
        control.connect()
    except BrokerError as error:
        failure = failure_of(error.__cause__ or error)
        return BrokerEvidence(broker.safe_url, failure=failure)
    try:
        with watching:
            progress("looking at the queues")
            first = _queues(broker)
            progress("asking the workers")
            answers = _ask(control)
            taken = {name for answer in answers.values() for name in answer.queues or ()}
            seen = first if first and taken <= {queue.name for queue in first.queues} else _queues(broker, taken)
            progress(f"listening to events for {watch:.0f} s")
            heard = watching.result(empty_at=_empty_at(seen, taken))
            queues = seen.queues if seen else None
            found = BrokerEvidence(
                broker.safe_url,
                watch=heard,
                answers=answers,
                queues=queues,
                event_exchange=str(broker.celery_settings.get("event_exchange", "celeryev")),
                transport_options=broker.transport_options,
            )
        return found if found.workers else with_other_places(found, broker)
    except BrokerError as error:
        return BrokerEvidence(broker.safe_url, failure=failure_of(error.__cause__ or error))
    finally:
        control.close()


def _ask(control: RemoteControl) -> dict[str, Answer]:
    """Return every worker's pool, queues and event settings."""
    workers = control.ask([Command("stats")], silence=INSPECT_TIMEOUT).answered("stats")
    if not workers:
        return {}
    commands = [Command(method, destination=workers) for method in ("stats", "active_queues", "conf")]
    replies = control.ask(commands, expected=workers, silence=INSPECT_TIMEOUT)
    return {name: _answer(replies, name) for name in workers}


def _answer(replies: Replies, worker: str) -> Answer:
    """Return what a worker says; of its configuration it tells only what differs from Celery's defaults."""
    conf = mapping(replies.answer("conf", worker))
    stats, queues = replies.stats(worker), replies.queues(worker)
    options = mapping(conf.get("broker_transport_options"))
    zone = text(conf.get("timezone")) or "UTC"
    sends = conf.get("worker_send_task_events")
    return Answer(
        pool=stats.pool if stats else None,
        queues=None if queues is None else frozenset(queue.name for queue in queues),
        sends_task_events=sends if isinstance(sends, bool) else None,
        event_exchange=text(conf.get("event_exchange")) or "celeryev",
        time_zone=zone if conf.get("enable_utc", True) else f"local time {zone}",
        transport_options={name: options[name] for name in SHARED_OPTIONS if name in options},
    )


def _queues(broker: BrokerSettings, names: Collection[str] = ()) -> QueuesSnapshot | None:
    """The queues of these names and those that the broker knows; ``None`` when it does not tell."""
    poller = open_queue_poller(ExporterSettings(broker=broker))
    try:
        return poller.poll(names, now=time.time())
    except (BrokerError, PollError, *UNREACHABLE) as error:
        log.warning("cannot look at the queues: %s", error)
        return None
    finally:
        poller.close()


def _empty_at(seen: QueuesSnapshot | None, taken: Collection[str]) -> float | None:
    """When all queues that workers take from were empty."""
    return seen.at if seen and taken and not any(queue.length for queue in seen.queues if queue.name in taken) else None
