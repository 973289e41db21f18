"""The workload of `make celery-workload` finds what is right, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.scrape import Scrape
from tools.celery_workload.releases import Release
from tools.celery_workload.truth import compare, find_truth, left_over

UUID = "a"


def event(kind: str, **fields: object) -> dict[str, Any]:
    """An event as recorded."""
    return {"type": kind, "uuid": UUID, "hostname": "w1@h", **fields}


def note(kind: str, run: str = "1", name: str = "add", *, requeue: bool | None = None) -> dict[str, Any]:
    """The worker's own line about an event."""
    return {"run": run, "type": kind, "uuid": UUID, "name": name, "queue": "q", "requeue": requeue}


def page(*lines: str) -> Scrape:
    """A page of these samples."""
    return Scrape("".join(f"{line}\n" for line in lines))


def replaced() -> Iterator[dict[str, Any]]:
    """Notes of a task that another replaces under the same id."""
    yield from (note("task-received", "1", "outer"), note("task-started", "1", "outer"))
    yield from (note(kind, "2", "inner") for kind in ("task-received", "task-started", "task-succeeded"))


def test_a_replaced_task_and_its_replacement_have_their_own_names() -> None:
    """The stream has one uuid and no name at the start and the end; the worker's notes have it."""
    notes = list(replaced())
    sent = [event("task-sent", name=name, queue="q") for name in ("outer", "inner")]
    truth = find_truth([*sent, *(event(one["type"]) for one in notes)], notes)
    assert truth.steps["started"] == {("outer", "q"): 1, ("inner", "q"): 1}
    assert truth.steps["succeeded"] == {("inner", "q"): 1}
    assert not truth.lost


def test_a_run_has_one_end() -> None:
    """A hard time limit sends two failures, a rejection comes with one; a requeue is no end."""
    kinds = ("task-started", "task-rejected", "task-failed", "task-failed")
    notes = [note(kind, requeue=False if kind == "task-rejected" else None) for kind in kinds]
    notes += [note("task-rejected", "2", requeue=True), note("task-succeeded", "3")]
    truth = find_truth([event(one["type"]) for one in notes], notes)
    ends = {step: sum(counts.values()) for step, counts in truth.steps.items() if counts}
    assert ends == {"started": 1, "failed": 1, "rejected": 1, "succeeded": 1}
    assert truth.types["task-failed"] == 2


def test_an_event_that_never_left_the_worker_is_not_expected_on_the_page() -> None:
    """Celery loses some itself in the pool of threads."""
    truth = find_truth([event("task-received")], [note("task-received"), note("task-started")])
    assert truth.lost == {"task-started": 1}
    assert not truth.steps["started"]


def test_the_queue_of_a_sent_task_may_be_its_routing_key() -> None:
    """On the default exchange; on another one nothing is known."""
    sent = [event("task-sent", name="add", queue=None, exchange=name, routing_key="key") for name in ("", "other")]
    assert find_truth(sent, []).steps["sent"] == {("add", "key"): 1, ("add", "unknown"): 1}


def test_all_that_is_wrong_on_a_page_is_named() -> None:
    """A count under another name is wrong twice; whatever must be zero is named when it is not."""
    truth = find_truth([event("task-started")], [note("task-started")])
    right = ('celerymeter_events_total{event="task-started"} 1', "celery_task_in_progress 0")
    assert not compare(page(*right, 'celery_task_started_total{name="add",queue_name="q"} 1'), truth)
    wrong = page(*right[:1], 'celery_task_started_total{name="mul",queue_name="q"} 1', "celery_task_in_progress 2")
    assert [one.what for one in compare(wrong, truth)] == ["started add q", "started mul q", "celery_task_in_progress"]


def test_a_worker_that_stands_still_is_judged_by_what_is_left() -> None:
    """Messages are left: what it runs is rightly in progress. Otherwise nothing may be in progress."""
    notes = [note("task-received"), note("task-started")]
    truth = find_truth([event(one["type"]) for one in notes], notes)
    counted = [f'celery_task_{step}_total{{name="add",queue_name="q"}} 1' for step in ("received", "started")]
    events = [f'celerymeter_events_total{{event="task-{step}"}} 1' for step in ("received", "started")]
    lines = [*counted, *events, 'celery_task_in_progress{name="add",queue_name="q"} 1']
    elsewhere = 'celery_queue_length{queue_name="other"} 7'
    still = page(*lines, elsewhere, 'celery_queue_length{queue_name="q"} 3')
    assert (left_over(still, truth), compare(still, truth, stands_still=True)) == (3, [])
    assert [one.what for one in compare(still, truth)] == ["celery_task_in_progress"]
    over = page(*lines, elsewhere)
    assert left_over(over, truth) == 0
    assert [str(one) for one in compare(over, truth)] == ["celery_task_in_progress: 1 on the page, 0 is right"]


def test_what_was_received_again_without_being_sent_may_count_as_redelivered() -> None:
    """kombu publishes again after an error, and Celery tells of one message; a requeue is said by the worker."""
    sent, received = event("task-sent", name="add", queue="q"), event("task-received")
    for events, right in (
        ([sent, received], 0),
        ([sent, received, received], 1),
        ([sent, sent, received, received], 0),
        ([sent, received, event("task-rejected", requeue=True), received], 0),
    ):
        truth = find_truth(events, [])
        assert truth.repeated == right
        found = [one.what for one in compare(page('celery_task_redelivered_total{name="add",queue_name="q"} 1'), truth)]
        assert ("celery_task_redelivered_total" in found) == (right == 0)


def test_of_two_runs_of_a_task_the_one_whose_start_did_not_arrive_is_found_by_time() -> None:
    """Celery's pool of threads loses events before 5.7, and a replacement has the uuid of the replaced."""
    notes = [{**one, "at": float(at)} for at, one in enumerate(replaced(), 1)]
    events = [event(one["type"], timestamp=one["at"] + 0.001) for one in notes if one["at"] != 2.0]
    truth = find_truth(events, notes)
    assert truth.steps["started"] == {("inner", "q"): 1}
    assert truth.lost == {"task-started": 1}
    assert truth.doubtful_starts == 1
    lines = 'celery_task_started_total{name="outer",queue_name="q"} 1', "celerymeter_events_missed_total 1"
    assert not [one for one in compare(page(*lines), truth) if one.what.startswith("started")], "its name is not known"
    assert [one for one in compare(page(*lines, lines[0].replace("outer", "more")), truth) if "started" in one.what]


def test_only_old_releases_may_stand_still() -> None:
    """Those of which it is known (celery 10477); of a later one it is a fault."""
    assert [version for version in ("5.3.6", "5.4.0", "5.5.0", "5.10.1") if Release(version, None).may_stand_still] == [
        "5.3.6",
        "5.4.0",
    ]
