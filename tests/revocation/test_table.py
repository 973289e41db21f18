"""Every way in which Celery says "flagged": what our answer says, on real workers of every release and broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
import requests
from tests.control.access import bearer, token
from tests.revocation.cluster import BATCH, TIMEOUT, Cluster, only, running_cluster
from tests.revocation.releases import EVERYWHERE
from tests.servers import RabbitMQ

from celerymeter.cli import main
from celerymeter.control.tokens import Role
from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration

POOLS = ("prefork", "threads", "solo")


@pytest.fixture(scope="module", params=EVERYWHERE)
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A worker of each pool, and one that is easily kept busy."""
    with running_cluster(tmp_path_factory.mktemp("table"), request.param) as cluster:
        for pool in POOLS:
            cluster.worker(f"{pool}@t", pool=pool, concurrency=2)
        cluster.worker("one@t")
        yield cluster


def test_an_id_that_never_existed(cluster: Cluster) -> None:
    """Workers say "flagged" of it as well; we do not."""
    reply = cluster.becomes(cluster.revoke(uuid4().hex), "flagged_unknown")
    assert (reply["successful"], reply["unverified"], reply["settled"]) == (0, 1, False)


@pytest.mark.parametrize(("task", "args", "state"), [("tests.add", (1, 2), "SUCCESS"), ("tests.fail", (), "FAILURE")])
def test_a_task_that_finished_is_left_alone(cluster: Cluster, task: str, args: tuple[int, ...], state: str) -> None:
    """Its record stays as it is, also where Celery itself would write REVOKED over it."""
    task_id = cluster.send(task, *args, queue="prefork")
    assert cluster.ends(task_id) == state
    result = only(cluster.revoke(task_id, terminate=True))
    assert (result["status"], result["state"]) == ("already_finished", state)
    assert cluster.state(task_id) == state


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_running_task_without_terminate(cluster: Cluster, pool: str) -> None:
    """It runs on, and so we say."""
    held = cluster.hold(pool)
    result = only(cluster.revoke(held.id))
    assert (result["status"], result["worker"]) == ("running_not_terminated", f"{pool}@t")
    held.let_go()
    assert cluster.ends(held.id) in ("SUCCESS", "REVOKED")  # 5.6 stores REVOKED at the command


def test_a_running_task_is_terminated_when_its_process_is_gone(cluster: Cluster) -> None:
    """At once, or in the follow-up; a later batch knows of it."""
    task_id = cluster.hold("prefork").id
    reply = cluster.revoke(task_id, terminate=True)
    assert only(reply)["status"] in ("terminated", "terminate_sent", "pending")
    assert cluster.becomes(reply, "terminated")["settled"]
    wait_until(lambda: only(cluster.revoke(task_id, dry_run=True))["status"] == "already_revoked")


def test_a_task_that_ignores_sigterm_is_never_terminated(cluster: Cluster) -> None:
    """Celery announces its end at the command; it runs on and succeeds."""
    held = cluster.hold("prefork", unmoved=True)
    reply = cluster.revoke(held.id, terminate=True)
    assert cluster.becomes(reply, "terminate_sent")["settled"] is False
    cluster.knows(held.id, "terminate was already sent")
    again = cluster.becomes(cluster.revoke(held.id), "terminate_sent")
    held.let_go()
    for each in (reply, again):
        assert only(cluster.becomes(each, "ran_anyway"))["state"] == "SUCCESS"


def test_a_pool_that_cannot_terminate(cluster: Cluster) -> None:
    """The worker's words are repeated, and what becomes of the task is seen."""
    held = cluster.hold("threads")
    reply = cluster.revoke(held.id, terminate=True)
    assert "NotImplementedError" in only(cluster.becomes(reply, "error"))["detail"]
    held.let_go()
    cluster.becomes(reply, "ran_anyway")


def test_a_task_that_a_pool_of_threads_has_taken(cluster: Cluster) -> None:
    """It waits, but nothing looks at its flag any more: that is said before it runs."""
    busy = [cluster.hold("threads") for _ in range(2)]
    task_id = cluster.send("tests.add", 1, 2, queue="threads")
    cluster.knows(task_id, "it will run")
    reply = cluster.becomes(cluster.revoke(task_id), "error")
    assert "threads@t" in only(reply)["detail"]
    for held in busy:
        held.let_go()
    cluster.becomes(reply, "ran_anyway")


@pytest.mark.parametrize("terminate", [False, True])
def test_a_solo_worker_is_silent_while_it_works(cluster: Cluster, terminate: bool) -> None:
    """It sends neither replies nor events until its task has ended: it only is known not to have acknowledged."""
    held = cluster.hold("solo", known="waiting (sent)")
    reply = cluster.becomes(cluster.revoke(held.id, terminate=terminate), "partial")
    assert "solo@t" in only(reply)["detail"]
    held.let_go()
    cluster.becomes(reply, "ran_anyway")


def test_tasks_that_wait(cluster: Cluster) -> None:
    """Reserved, for an ETA, or queued where no worker looks: flagged, and discarded when their turn comes."""
    busy = cluster.hold("one")
    reserved = cluster.send("tests.add", 1, 2, queue="one")
    eta = cluster.send("tests.add", 1, 2, queue="one", countdown=3600)
    soon = cluster.send("tests.add", 1, 2, queue="one", countdown=10)
    queued = cluster.send("tests.add", 1, 2, queue="one.nowhere")
    waiting = (reserved, eta, soon, queued)
    for task_id in waiting:
        cluster.knows(task_id)
    reply = cluster.revoke(*waiting)
    flagged = cluster.becomes(reply, "flagged")
    assert (flagged["successful"], flagged["settled"]) == (4, False)
    busy.let_go()
    cluster.becomes(reply, {reserved: "revoked", eta: "flagged", soon: "revoked", queued: "flagged"})


def test_a_task_that_waits_for_its_rate_limit(cluster: Cluster) -> None:
    """Workers show it nowhere; its events do."""
    cluster.ends(cluster.send("tests.limited", 1, 2, queue="threads"))
    limited = cluster.send("tests.limited", 1, 2, queue="threads")
    cluster.knows(limited)
    cluster.becomes(cluster.revoke(limited), "flagged")


def test_an_id_that_is_a_uuid_object(cluster: Cluster) -> None:
    """Celery cannot revoke it by its text, and the worker would say that it did; a look-up finds it."""
    if isinstance(cluster.broker, RabbitMQ):
        pytest.skip("pyamqp cannot send it")
    busy = cluster.hold("one")
    task_id = uuid4()
    cluster.app.send_task("tests.add", (1, 2), queue="one", task_id=task_id)
    cluster.becomes(cluster.revoke(str(task_id)), "error")
    reply = cluster.control.get(f"/tasks/{task_id}", Role.VIEWER).json()
    assert (reply["verdict"], reply["worker"]) == ("reserved", "one@t")
    busy.let_go()
    if cluster.env:
        return  # before 5.7 Celery cannot store a result under such an id, and tells of no end
    wait_until(
        lambda: cluster.control.get(f"/tasks/{task_id}", Role.VIEWER).json()["verdict"] == "succeeded",
        interval=0.5,
    )


def test_a_signal_that_is_none_is_refused_before_anything_is_sent(cluster: Cluster) -> None:
    """No worker hears of it."""
    task_id = cluster.send("tests.add", 1, 2, queue="one", countdown=2)
    assert cluster.post(task_id, terminate=True, signal="SIGBOGUS").status_code == 422
    assert cluster.ends(task_id) == "SUCCESS"


def test_terminate_needs_an_admin(cluster: Cluster) -> None:
    """An operator may revoke, and not end processes."""
    assert cluster.post("x", role=Role.OPERATOR, terminate=True).status_code == 403
    assert cluster.post("x", role=Role.VIEWER).status_code == 403


def test_one_id_too_many_is_refused_with_nothing_sent(cluster: Cluster) -> None:
    """Doubles are counted too: a client that sends so many has lost its way."""
    task_id = cluster.send("tests.add", 1, 2, queue="one", countdown=1)
    assert cluster.post(*([task_id] * 1001)).status_code == 422
    assert cluster.ends(task_id) == "SUCCESS"


def test_odd_ids_are_carried_safely_or_called_invalid(cluster: Cluster) -> None:
    """Doubles are merged and counted."""
    sql, promql, emoji = "';DROP/**/TABLE/**/audit;--", '{__name__=~".+"}', "\N{PILE OF POO}"
    carried = (sql, promql, emoji)
    refused = ("a b", "'; DROP TABLE audit; --", "up or vector(1)", "a\x1b[2J", "x" * 10_240, "")
    reply = cluster.revoke(*refused, *carried, sql)
    wanted = {**{each[:255]: "invalid" for each in refused}, **dict.fromkeys(carried, "flagged_unknown")}
    cluster.becomes(reply, wanted)
    assert (reply["total"], reply["merged"], reply["failed"]) == (9, 1, 6)
    for task_id in carried:
        (intent,) = cluster.control.get(f"/audit?kind=intent&target={quote(task_id)}").json()["rows"]
        assert intent["target"] == list(carried)
    assert main(["audit", "verify", "--state-dir", str(cluster.control.state)]) == 0
    assert "DROP" not in requests.get(cluster.control.metrics_url, timeout=TIMEOUT).text


def test_a_thing_that_is_no_text_is_refused(cluster: Cluster) -> None:
    """Half a character, as JSON can carry it."""
    body = '{"task_ids": ["\\ud83d"], "operation": "revoke"}'
    headers = {**bearer(Role.ADMIN), "Content-Type": "application/json"}
    response = requests.post(cluster.control.url + BATCH, data=body, headers=headers, timeout=TIMEOUT)
    assert response.status_code in (400, 422)


def test_the_same_from_a_shell(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table of what became of each; it waits for what is not settled at once."""
    finished, held, never = cluster.send("tests.add", 1, 2, queue="prefork"), cluster.hold("prefork"), uuid4().hex
    cluster.ends(finished)
    secret = tmp_path / "token"
    secret.write_text(token(Role.ADMIN))
    asked = ("--terminate", "--reason", "by hand", "--wait", "30s", "--id", held.id, "--id", finished)
    api = ("revoke", "--control-url", cluster.control.root, "--token-file", str(secret))
    assert main([*api, *asked]) == 1
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert [held.id, "terminated", "prefork@t"] in rows
    assert [finished, "already_finished", "prefork@t"] in rows
    assert main([*api, "--id", never, "--wait", "1s"]) == 1
    out, err = capsys.readouterr()
    assert "0 of 1 settled" in err
    assert f"GET {cluster.control.url}{BATCH}/" in err
    assert never in out


def test_a_dry_run_changes_nothing(cluster: Cluster) -> None:
    """It says what is known."""
    task_id = cluster.send("tests.add", 1, 2, queue="one", countdown=5)
    cluster.knows(task_id)
    reply = cluster.revoke(task_id, dry_run=True)
    assert (reply["dry_run"], reply["batch_id"], only(reply)["status"]) == (True, None, "pending")
    assert cluster.ends(task_id) == "SUCCESS"


def test_an_idempotency_key_acts_once(cluster: Cluster) -> None:
    """The same answer for the same body; another body is refused."""
    headers = {"Idempotency-Key": uuid4().hex}
    first = cluster.post("some-id", headers=headers)
    again = cluster.post("some-id", headers=headers)
    assert (first.json(), again.headers["Idempotency-Replayed"]) == (again.json(), "true")
    assert cluster.post("other-id", headers=headers).status_code == 422


def test_a_client_may_go_on_at_once(cluster: Cluster) -> None:
    """``Prefer: respond-async`` is answered before the workers are."""
    response = cluster.post("later-id", headers={"Prefer": "respond-async"})
    assert response.status_code == 202
    cluster.becomes(response.json(), "flagged_unknown")


def ask(cluster: Cluster, *task_ids: str, reason: str) -> httpx.Response:
    """As an async client does that knows nothing of batches' durations: its time-out is 5 s."""
    body = {"task_ids": task_ids, "operation": "revoke", "parameters": {"terminate": True, "reason": reason}}

    async def post() -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.post(cluster.control.url + BATCH, json=body, headers=bearer(Role.ADMIN))

    return asyncio.run(post())


def test_an_async_client_with_its_usual_timeout_gets_the_figures(cluster: Cluster) -> None:
    """Three ids that nobody knows, with terminate and a reason in Chinese: nothing is claimed."""
    response = ask(cluster, "task-123-456-789", "task-987-654-321", "task-456-789-123", reason="系統維護")
    result = response.json()
    assert (response.status_code, result["total"], result["successful"]) == (200, 3, 0)
    assert cluster.becomes(result, "flagged_unknown")["summary"] == "3 flagged_unknown"


def test_a_thousand_ids_are_no_reason_to_time_out(cluster: Cluster) -> None:
    """The client has an answer by then, however long the workers take."""
    response = ask(cluster, *(f"id-{number}" for number in range(1000)), reason="many")
    assert (response.status_code, response.json()["total"], response.json()["successful"]) == (200, 1000, 0)
    assert response.elapsed.total_seconds() < 5
    cluster.becomes(response.json(), "flagged_unknown")
