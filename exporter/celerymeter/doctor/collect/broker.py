"""The broker: can it be used, who answers on it, what is said, and what waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from celerymeter.broker import UNREACHABLE, HeldConnection
from celerymeter.doctor.collect.failures import failure_of
from celerymeter.doctor.collect.places import with_other_places
from celerymeter.doctor.collect.watching import Watching
from celerymeter.doctor.evidence import SHARED_OPTIONS, Answer, BrokerEvidence
from celerymeter.errors import BrokerError, PollError
from celerymeter.model import QueuesSnapshot
from celerymeter.polling import open_queue_poller
from celerymeter.settings import BrokerSettings, ExporterSettings

log = logging.getLogger(__name__)

INSPECT_TIMEOUT = 2.0
"""Seconds in which a worker must answer; a busy solo worker does not."""

Progress = Callable[[str], None]


def look(broker: BrokerSettings, *, watch: float, progress: Progress) -> BrokerEvidence:
    """Connect, ask the workers and look at the queues while listening; raises only for wrong settings."""
    progress(f"connecting to {broker.safe_url}")
    held = HeldConnection(broker)
    watching = Watching(broker, seconds=watch)
    try:
        held.use(lambda connection: connection)
    except BrokerError as error:
        failure = failure_of(error.__cause__ or error)
        return BrokerEvidence(broker.safe_url, failure=failure)
    try:
        with watching:
            progress("looking at the queues")
            first = _queues(broker)
            progress("asking the workers")
            answers = held.use(lambda connection: _ask(held.app, connection))
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
        held.close()


def _ask(app: Any, connection: Any) -> dict[str, Answer]:
    """Every worker's pool, queues and event settings (celery is untyped, hence Any)."""
    inspect = app.control.inspect(timeout=INSPECT_TIMEOUT, connection=connection)
    stats: Mapping[str, Any] = inspect.stats() or {}
    if not stats:
        return {}
    inspect = app.control.inspect(timeout=INSPECT_TIMEOUT, connection=connection, limit=len(stats))
    queues, conf = inspect.active_queues() or {}, inspect.conf() or {}
    return {
        name: Answer(
            pool=_word(_map(_map(told).get("pool")).get("implementation")),
            queues=_queue_names(queues[name]) if name in queues else None,
            **_configured(_map(conf.get(name))),
        )
        for name, told in stats.items()
    }


def _configured(conf: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an `Answer` that come from a worker's configuration: only what differs from Celery's defaults."""
    options = _map(conf.get("broker_transport_options"))
    zone = _word(conf.get("timezone")) or "UTC"
    return {
        "sends_task_events": _flag(conf.get("worker_send_task_events")),
        "event_exchange": _word(conf.get("event_exchange")) or "celeryev",
        "time_zone": zone if conf.get("enable_utc", True) else f"local time {zone}",
        "transport_options": {name: options[name] for name in SHARED_OPTIONS if name in options},
    }


def _queue_names(told: object) -> frozenset[str]:
    found = told if isinstance(told, list) else []
    return frozenset(str(queue["name"]) for queue in found if isinstance(queue, dict) and "name" in queue)


def _map(told: object) -> Mapping[str, Any]:
    return told if isinstance(told, dict) else {}


def _word(told: object) -> str | None:
    return told if isinstance(told, str) else None


def _flag(told: object) -> bool | None:
    return told if isinstance(told, bool) else None


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
