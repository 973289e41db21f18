"""A recorded workload is played through the tracker: its page is compared as the live one is."""

from __future__ import annotations

from typing import Any

from tools.celery_workload.recorder import ARRIVED
from tools.celery_workload.replay import replay, wrong_tasks
from tools.celery_workload.truth import compare, find_truth

WORKER, PRODUCER = "w1@h", "gen1@h"
BEGAN = 1_700_000_000.0


def recorded(uuid: str, kind: str, seconds: float, hostname: str = WORKER, **fields: Any) -> dict[str, Any]:
    """An event that came at this time."""
    at = BEGAN + seconds
    return {"type": kind, "uuid": uuid, "hostname": hostname, "timestamp": at, ARRIVED: at, "clock": 1, **fields}


def a_run(uuid: str) -> list[dict[str, Any]]:
    """All events of one task."""
    named: dict[str, Any] = {"name": "add", "retries": 0, "parent_id": None}
    return [
        recorded(uuid, "task-sent", 0, PRODUCER, queue="q", exchange="", routing_key="q", **named),
        recorded(uuid, "task-received", 1, **named),
        recorded(uuid, "task-started", 2),
        recorded(uuid, "task-succeeded", 3, runtime=1.0),
    ]


def notes_of(run: list[dict[str, Any]], *, name: str = "add") -> list[dict[str, Any]]:
    """Return what the worker noted of them."""
    return [
        {
            "run": event["uuid"],
            "type": event["type"],
            "uuid": event["uuid"],
            "name": name,
            "queue": "q",
            "requeue": None,
        }
        for event in run[1:]
    ]


def test_a_replayed_workload_is_counted_as_it_was() -> None:
    """Two tasks, and the worker's queue makes up for a lost `task-sent`."""
    first, second = a_run("a"), a_run("b")[1:]
    notes = notes_of(first) + notes_of([{}, *second])
    assert compare(replay(first + second, ("q",)), find_truth(first + second, notes)) == []


def test_a_task_that_is_counted_wrongly_is_named() -> None:
    """The notes of one of two tasks say another name than its events."""
    first, second = a_run("a"), a_run("b")
    notes = notes_of(first) + notes_of(second, name="other")
    assert [str(one) for one in compare(replay(first + second, ("q",)), find_truth(first + second, notes))] == [
        f"{step} {name} q: {found} on the page, {right} is right"
        for step in ("received", "started", "succeeded")
        for name, found, right in (("add", 2, 1), ("other", 0, 1))
    ]
    assert list(wrong_tasks(first + second, notes, ("q",))) == ["b"]
