"""Reads a worker's reply to ``conf``: the few settings that matter for monitoring. Pure.

Celery lists what differs from its defaults, under the names that the application used: today's (``task_acks_late``),
those before Celery 4 (``CELERY_ACKS_LATE``), or today's with a prefix of the application's own, as Django projects have
them (``CELERY_TASK_ACKS_LATE``). Passwords are already masked; nothing but these settings is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from celerymeter.inspect_replies import mapping, text

DEFAULT_VISIBILITY_TIMEOUT: Final = 3600.0
"""Seconds, in kombu (`kombu.transport.redis.Channel.visibility_timeout`)."""
SHARED_OPTIONS: Final = ("priority_steps", "sep")
"""Transport options that change how queues are read, so the exporter must be given the same ones as the workers."""
MAX_QUEUES: Final = 1000
MAX_ENTRIES: Final = 2000

_SETTINGS: Final = (
    "accept_content",
    "beat_schedule",
    "broker_transport_options",
    "enable_utc",
    "event_exchange",
    "result_accept_content",  # not read; else it would be taken for `accept_content` with a prefix
    "task_acks_late",
    "task_queues",
    "task_serializer",
    "timezone",
    "worker_prefetch_multiplier",
    "worker_send_task_events",
)
_BEFORE_CELERY_4: Final = {
    "CELERYBEAT_SCHEDULE": "beat_schedule",
    "CELERY_ACCEPT_CONTENT": "accept_content",
    "CELERY_ACKS_LATE": "task_acks_late",
    "CELERY_ENABLE_UTC": "enable_utc",
    "CELERY_EVENT_EXCHANGE": "event_exchange",
    "CELERY_QUEUES": "task_queues",
    "CELERY_SEND_EVENTS": "worker_send_task_events",
    "CELERY_TASK_SERIALIZER": "task_serializer",
    "CELERY_TIMEZONE": "timezone",
    "CELERYD_PREFETCH_MULTIPLIER": "worker_prefetch_multiplier",
}


@dataclass(frozen=True, slots=True)
class ScheduledTask:
    """One entry of ``beat_schedule``; seconds, ``None`` where they are no numbers."""

    schedule: str
    name: str
    every: float | None = None
    expires: float | None = None
    queue_name: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerConfiguration:
    """The settings of a worker, Celery's defaults where it changed nothing."""

    transport_options: Mapping[str, object] = field(default_factory=dict)
    """Those of `SHARED_OPTIONS` that are set."""
    visibility_timeout: float | None = DEFAULT_VISIBILITY_TIMEOUT
    """In seconds, of use on Redis alone; ``None`` where it is no number."""
    accept_content: frozenset[str] = frozenset({"json"})
    task_serializer: str = "json"
    acks_late: bool = False
    prefetch_multiplier: int = 4
    queue_arguments: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The arguments of its queues that are not plain, by name of the queue."""
    sends_task_events: bool | None = None
    """``-E`` on the command line does not show here."""
    event_exchange: str = "celeryev"
    scheduled: tuple[ScheduledTask, ...] = ()
    """The entries of `beat_schedule`; a schedule in a database does not show here."""
    time_zone: str = "UTC"
    """With ``enable_utc`` off after the words ``local time``."""


def parse_configuration(answer: Mapping[str, object]) -> WorkerConfiguration:
    """Return what a reply to ``conf`` says; a value of an unexpected type counts as not set."""
    found = {name: _plain(value) for key, value in answer.items() if (name := _setting(key)) in _SETTINGS}
    options = mapping(found.get("broker_transport_options"))
    accepted, prefetch = found.get("accept_content"), found.get("worker_prefetch_multiplier")
    sends, zone = found.get("worker_send_task_events"), text(found.get("timezone")) or "UTC"
    return WorkerConfiguration(
        transport_options={option: options[option] for option in SHARED_OPTIONS if option in options},
        visibility_timeout=_timeout(options),
        accept_content=frozenset(filter(None, map(text, accepted if isinstance(accepted, list) else ["json"]))),
        task_serializer=text(found.get("task_serializer")) or "json",
        acks_late=found.get("task_acks_late") is True,
        prefetch_multiplier=prefetch if isinstance(prefetch, int) else 4,
        queue_arguments=_queue_arguments(found.get("task_queues")),
        scheduled=_scheduled(found.get("beat_schedule")),
        sends_task_events=sends if isinstance(sends, bool) else None,
        event_exchange=text(found.get("event_exchange")) or "celeryev",
        time_zone=zone if found.get("enable_utc", True) else f"local time {zone}",
    )


def parse_visibility_timeout(answer: Mapping[str, object]) -> float | None:
    """Return the visibility timeout alone, and decode nothing else: a schedule may be large."""
    options = (value for key, value in answer.items() if _setting(key) == "broker_transport_options")
    return _timeout(mapping(_plain(next(options, None))))


def _timeout(options: Mapping[str, object]) -> float | None:
    timeout = options.get("visibility_timeout", DEFAULT_VISIBILITY_TIMEOUT)
    return float(timeout) if isinstance(timeout, int | float) and timeout > 0 else None


def _setting(key: str) -> str | None:
    """Return today's name of a setting; only names in capitals may have a prefix of the application's own."""
    if key in _BEFORE_CELERY_4:
        return _BEFORE_CELERY_4[key]
    if not key.isupper():
        return key
    name = key.lower()
    ends = [setting for setting in _SETTINGS if name == setting or name.endswith(f"_{setting}")]
    return max(ends, key=len, default=None)


def _scheduled(schedule: object) -> tuple[ScheduledTask, ...]:
    """Return the entries of ``beat_schedule``; Celery writes a crontab as text."""
    found = []
    for name, entry in list(mapping(schedule).items())[:MAX_ENTRIES]:
        said = mapping(entry)
        options = mapping(said.get("options"))
        if (task := text(said.get("task"))) is not None:
            found.append(
                ScheduledTask(
                    schedule=name,
                    name=task,
                    every=_seconds(said.get("schedule")),
                    expires=_seconds(options.get("expires")),
                    queue_name=text(options.get("queue")),
                )
            )
    return tuple(found)


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _plain(value: object) -> object:
    """Return a value that may still be encoded."""
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def _queue_arguments(queues: object) -> dict[str, Mapping[str, object]]:
    """Return the arguments of each queue that has any, from ``task_queues`` as a list or by name."""
    listed: list[Mapping[str, object]] = []
    if isinstance(queues, dict):
        listed = [{"name": name, **mapping(queue)} for name, queue in queues.items()]
    elif isinstance(queues, list):
        listed = [mapping(queue) for queue in queues]
    found: dict[str, Mapping[str, object]] = {}
    for queue in listed[:MAX_QUEUES]:
        arguments = dict(mapping(queue.get("queue_arguments")))
        if queue.get("max_priority") is not None:
            arguments["x-max-priority"] = queue["max_priority"]
        if arguments and (name := text(queue.get("name"))) is not None:
            found[name] = arguments
    return found
