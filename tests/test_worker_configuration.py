"""A worker reports its configuration, under all the names that an application may use."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.worker.control import conf
from kombu.entity import Queue
from kombu.utils.json import dumps

from celerymeter.inspect_replies import Replies
from celerymeter.worker_configuration import WorkerConfiguration, parse_configuration, parse_visibility_timeout

OPTIONS = {"visibility_timeout": 86400, "sep": "~", "password": "hush", "sentinel_kwargs": {"password": "hush"}}
WRITTEN = {
    "today": {
        "broker_transport_options": OPTIONS,
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "task_serializer": "pickle",
        "accept_content": ["pickle", "json"],
    },
    "before Celery 4": {
        "BROKER_TRANSPORT_OPTIONS": OPTIONS,
        "CELERY_ACKS_LATE": True,
        "CELERYD_PREFETCH_MULTIPLIER": 1,
        "CELERY_TASK_SERIALIZER": "pickle",
        "CELERY_ACCEPT_CONTENT": ["pickle", "json"],
    },
    "CELERY": {
        "CELERY_BROKER_TRANSPORT_OPTIONS": OPTIONS,
        "CELERY_TASK_ACKS_LATE": True,
        "CELERY_WORKER_PREFETCH_MULTIPLIER": 1,
        "CELERY_TASK_SERIALIZER": "pickle",
        "CELERY_ACCEPT_CONTENT": ["pickle", "json"],
        "CELERY_RESULT_ACCEPT_CONTENT": ["yaml"],
    },
}


def replied(app: Celery) -> dict[str, Any]:
    """The reply of a worker of this application, by Celery's own function."""
    replies = Replies()
    replies.receive("conf", dumps({"w1@test": conf(SimpleNamespace(app=app))}))
    answer = replies.answer("conf", "w1@test")
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("form", WRITTEN)
def test_settings_are_found_under_all_their_names(form: str) -> None:
    """Django projects have a prefix; old ones have the names before Celery 4. No password is kept."""
    app = Celery("shop", set_as_current=False)
    app.config_from_object(SimpleNamespace(**WRITTEN[form]), namespace="CELERY" if form == "CELERY" else None)
    found = parse_configuration(replied(app))
    assert found == WorkerConfiguration(
        transport_options={"sep": "~"},
        visibility_timeout=86400,
        accept_content=frozenset({"json", "pickle"}),
        task_serializer="pickle",
        acks_late=True,
        prefetch_multiplier=1,
    )


class ObjectId:
    """Of a database, say; JSON knows nothing of it."""


def test_asking_for_it_makes_no_worker_fail() -> None:
    """Settings may hold anything (as arguments of tasks do in superdesk-core 3204 and celery 7601)."""
    app = Celery("shop", set_as_current=False)
    app.conf.update(
        beat_schedule={"night": {"task": "report", "schedule": timedelta(days=1), "args": (ObjectId(), {1, 2})}},
        task_routes=[(re.compile("^shop"), {"queue": "shop"})],
        task_annotations={"*": {"on_failure": lambda *_: None}},
        broker_transport_options={"visibility_timeout": 7200, "retry": ObjectId()},
    )
    reply = replied(app)
    assert parse_visibility_timeout(reply) == parse_configuration(reply).visibility_timeout == 7200


def test_arguments_of_queues() -> None:
    """Given as Queue objects, which Celery writes out whole."""
    app = Celery("shop", set_as_current=False)
    app.conf.task_queues = [
        Queue("mail", max_priority=5, queue_arguments={"x-queue-type": "classic"}),
        Queue("plain"),
    ]
    found = parse_configuration(replied(app))
    assert found.queue_arguments == {"mail": {"x-queue-type": "classic", "x-max-priority": 5}}


@pytest.mark.parametrize(
    ("reply", "timeout"),
    [
        ({}, 3600),
        ({"broker_transport_options": {"visibility_timeout": "43200"}}, None),
        ({"broker_transport_options": {"visibility_timeout": -1}}, None),
        ({"broker_transport_options": "none"}, 3600),
        ({"accept_content": None, "task_queues": 7, "worker_prefetch_multiplier": [], "timezone": {}}, 3600),
        ({"task_queues": [7, {}, {"name": "a"}, {"name": 3, "queue_arguments": {"x": 1}}]}, 3600),
    ],
)
def test_rubbish_counts_as_not_set(reply: dict[str, object], timeout: float | None) -> None:
    """A plugin, or another version, may write anything."""
    assert parse_configuration(reply) == WorkerConfiguration(visibility_timeout=timeout)
