"""Every way in which Celery says "flagged": what our answer says, on real workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest
from tests.revocation.stage import Stage, only, staged_on_redis, statuses

from celerymeter.control.access import Role
from celerymeter.control.testing import bearer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A prefork and a threads worker."""
    with staged_on_redis(tmp_path_factory.mktemp("table")) as stage:
        stage.worker("fork@t", concurrency=2)
        stage.worker("one@t")
        stage.worker("threads@t", pool="threads")
        yield stage


def test_an_id_that_never_existed(stage: Stage) -> None:
    """Workers say "flagged" of it as well; we do not."""
    reply = stage.revoke("never-existed")
    assert (only(reply)["status"], reply["successful"], reply["unverified"]) == ("flagged_unknown", 0, 1)


@pytest.mark.parametrize(("task", "args", "state"), [("tests.add", (1, 2), "SUCCESS"), ("tests.fail", (), "FAILURE")])
def test_a_task_that_finished_is_left_alone(stage: Stage, task: str, args: tuple[int, ...], state: str) -> None:
    """Its record stays as it is."""
    task_id = stage.send(task, *args, queue="fork")
    stage.app.AsyncResult(task_id).get(timeout=10, propagate=False)
    result = only(stage.revoke(task_id))
    assert (result["status"], result["state"]) == ("already_finished", state)
    assert stage.state(task_id) == state


def test_a_running_task_without_terminate(stage: Stage) -> None:
    """It runs on, and so we say."""
    task_id = stage.send("tests.sleep", 3, queue="fork")
    stage.runs(task_id)
    result = only(stage.revoke(task_id))
    assert (result["status"], result["worker"], result["name"]) == ("running_not_terminated", "fork@t", "tests.sleep")


def test_a_running_task_is_terminated_when_its_process_is_gone(stage: Stage) -> None:
    """At once, or in the follow-up."""
    task_id = stage.send("tests.sleep", 60, queue="fork")
    stage.runs(task_id)
    reply = stage.revoke(task_id, terminate=True)
    assert only(reply)["status"] in ("terminated", "terminate_sent")
    assert stage.becomes(reply["batch_id"], "terminated")["settled"]


def test_a_task_that_ignores_sigterm_is_never_terminated(stage: Stage) -> None:
    """Celery announces its end at the command; it runs on and succeeds."""
    task_id = stage.send("tests.stubborn", 6, queue="fork")
    stage.runs(task_id)
    time.sleep(0.5)  # the handler is set by the task itself
    reply = stage.revoke(task_id, terminate=True)
    assert (only(reply)["status"], reply["settled"]) == ("terminate_sent", False)
    assert only(stage.becomes(reply["batch_id"], "ran_anyway"))["state"] == "SUCCESS"


def test_a_pool_that_cannot_terminate(stage: Stage) -> None:
    """The worker's words are repeated, and what becomes of the task is seen."""
    task_id = stage.send("tests.sleep", 3, queue="threads")
    stage.runs(task_id)
    reply = stage.revoke(task_id, terminate=True)
    assert only(reply)["status"] == "error"
    assert "NotImplementedError" in only(reply)["detail"]
    stage.becomes(reply["batch_id"], "ran_anyway")


def test_tasks_that_wait(stage: Stage) -> None:
    """Reserved, for an ETA, or queued where no worker looks: flagged, and discarded when their turn comes."""
    busy = stage.send("tests.sleep", 4, queue="one")
    stage.runs(busy)
    reserved = stage.send("tests.add", 1, 2, queue="one")
    eta = stage.send("tests.add", 1, 2, queue="one", countdown=3600)
    soon = stage.send("tests.add", 1, 2, queue="one", countdown=4)
    queued = stage.send("tests.add", 1, 2, queue="nowhere")
    reply = stage.revoke(reserved, eta, soon, queued)
    assert statuses(reply) == dict.fromkeys((reserved, eta, soon, queued), "flagged")
    assert (reply["successful"], reply["settled"]) == (4, False)
    wanted = {reserved: "revoked", eta: "flagged", soon: "revoked", queued: "flagged"}
    deadline = time.monotonic() + 15
    while statuses(stage.follow(reply["batch_id"])) != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    assert statuses(stage.follow(reply["batch_id"])) == wanted


def test_a_task_that_waits_for_its_rate_limit(stage: Stage) -> None:
    """Workers show it nowhere; its events do."""
    first = stage.send("tests.limited", 1, 2, queue="threads")
    stage.app.AsyncResult(first).get(timeout=10)
    limited = stage.send("tests.limited", 1, 2, queue="threads")
    time.sleep(0.5)
    assert only(stage.revoke(limited))["status"] == "flagged"


def test_a_signal_that_is_none_is_refused_before_anything_is_sent(stage: Stage) -> None:
    """No worker hears of it."""
    task_id = stage.send("tests.add", 1, 2, queue="one", countdown=2)
    assert stage.post(task_id, terminate=True, signal="SIGBOGUS").status_code == 422
    assert stage.app.AsyncResult(task_id).get(timeout=20) == 3


def test_terminate_needs_an_admin(stage: Stage) -> None:
    """An operator may revoke, and not end processes."""
    assert stage.post("x", role=Role.OPERATOR, terminate=True).status_code == 403
    assert stage.post("x", role=Role.VIEWER).status_code == 403


def test_a_thousand_ids_within_four_seconds(stage: Stage) -> None:
    """And one more is refused with nothing sent."""
    begun = time.monotonic()
    reply = stage.revoke(*(f"id-{number}" for number in range(1000)))
    assert time.monotonic() - begun < 4
    assert (reply["total"], reply["unverified"]) == (1000, 1000)
    task_id = stage.send("tests.add", 1, 2, queue="one", countdown=1)
    assert stage.post(*([task_id] * 1001)).status_code == 422
    assert stage.app.AsyncResult(task_id).get(timeout=20) == 3


def test_odd_ids_are_carried_safely_or_called_invalid(stage: Stage) -> None:
    """Doubles are merged and counted."""
    odd = {"a b": "invalid", "\N{PILE OF POO}": "flagged_unknown", "x" * 10_240: "invalid", "": "invalid"}
    sql, promql = "';DROP/**/TABLE/**/audit;--", '{__name__=~".+"}'
    reply = stage.revoke(*odd, sql, promql, sql)
    found = statuses(reply)
    assert {key[:255]: found[key[:255]] for key in odd} == {key[:255]: status for key, status in odd.items()}
    assert (found[sql], found[promql]) == ("flagged_unknown", "flagged_unknown")
    assert (reply["total"], reply["merged"], reply["failed"]) == (6, 1, 3)


def test_a_dry_run_changes_nothing(stage: Stage) -> None:
    """It says what is known."""
    task_id = stage.send("tests.add", 1, 2, queue="one", countdown=2)
    reply = stage.revoke(task_id, dry_run=True)
    assert (reply["dry_run"], reply["batch_id"], only(reply)["status"]) == (True, None, "pending")
    assert stage.app.AsyncResult(task_id).get(timeout=20) == 3


def test_an_idempotency_key_acts_once(stage: Stage) -> None:
    """The same answer for the same body; another body is refused."""
    headers = {"Idempotency-Key": "k1"}
    first = stage.post("some-id", headers=headers)
    again = stage.post("some-id", headers=headers)
    assert (first.json(), again.headers["Idempotency-Replayed"]) == (again.json(), "true")
    assert stage.post("other-id", headers=headers).status_code == 422


def test_a_client_may_go_on_at_once(stage: Stage) -> None:
    """``Prefer: respond-async`` is answered before the workers are."""
    response = stage.post("later-id", headers={"Prefer": "respond-async"})
    assert response.status_code == 202
    stage.becomes(response.json()["batch_id"], "flagged_unknown")


def test_an_async_client_with_its_usual_timeout_gets_the_figures(stage: Stage) -> None:
    """Three ids that nobody knows, with terminate and a reason in Chinese: nothing is claimed."""
    body = {
        "task_ids": ["task-123-456-789", "task-987-654-321", "task-456-789-123"],
        "operation": "revoke",
        "parameters": {"terminate": True, "reason": "系統維護"},
    }

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.post(f"{stage.control.url}/tasks/batch", json=body, headers=bearer(Role.ADMIN))

    response = asyncio.run(ask())
    result = response.json()
    assert (response.status_code, result["total"], result["successful"], result["failed"]) == (200, 3, 0, 0)
    assert result["summary"] == "3 flagged_unknown"
