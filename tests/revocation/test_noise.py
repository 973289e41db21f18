"""Batch revokes while ten thousand workers that do not exist send heartbeats, and while a worker is stopped.

What is said is as right as without.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lookup.watching import ON_THE_WAY, Lookups
from tests.revocation import rows, test_resending, test_table
from tests.revocation.cluster import Cluster, only, running_cluster, statuses
from tests.revocation.releases import Setting
from tests.workers import ROOT

from celerymeter.control.live_workers import ALIVE
from celerymeter.demo.processes import Process, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

INVENTED = 10_000
SETTLES = 12.0
"""Seconds in which every invented worker has sent a heartbeat."""
BROKERS = ("redis", "rabbitmq")


@pytest.fixture(scope="module", params=BROKERS)
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The workers of the table, in the noise; before they are there, nobody is."""
    with running_cluster(tmp_path_factory.mktemp("noise"), Setting(request.param)) as cluster:
        argv = [sys.executable, "-m", "tests.revocation.noise", cluster.broker.url, str(INVENTED)]
        noise = Process("noise", argv, log=cluster.folder / "noise.log", cwd=ROOT)
        cluster.stack.enter_context(noise.start(ready=lambda: "ready" in noise.tail(10)))
        # Else each of them decodes every heartbeat, which is more than two processors do.
        cluster.options = ("--without-gossip",)
        time.sleep(SETTLES)
        response = cluster.post("x")
        assert (response.status_code, response.json()["code"]) == (503, "no_workers")
        for pool in test_table.POOLS:
            cluster.worker(f"{pool}@t", pool=pool, concurrency=2)
        cluster.worker("one@t")
        time.sleep(SETTLES)
        yield cluster


# The rows of facts, each as without noise.
ROWS = [
    test_table.test_an_id_that_never_existed,
    test_table.test_a_running_task_is_terminated_when_its_process_is_gone,
    test_table.test_a_task_that_ignores_sigterm_is_never_terminated,
    test_table.test_a_pool_that_cannot_terminate,
    test_table.test_a_task_that_a_pool_of_threads_has_taken,
    test_table.test_tasks_that_wait,
    test_table.test_a_task_that_waits_for_its_rate_limit,
    test_table.test_an_id_that_is_a_uuid_object,
    test_table.test_a_signal_that_is_none_is_refused_before_anything_is_sent,
    test_table.test_a_dry_run_changes_nothing,
    test_resending.test_a_flag_reaches_a_worker_that_joins,
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_a_row_holds(cluster: Cluster, row: object) -> None:
    """Without a change."""
    assert callable(row)
    row(cluster)


@pytest.mark.parametrize(("task", "args", "state"), [("tests.add", (1, 2), "SUCCESS"), ("tests.fail", (), "FAILURE")])
def test_a_task_that_finished_is_left_alone(cluster: Cluster, task: str, args: tuple[int, ...], state: str) -> None:
    """As without noise."""
    test_table.test_a_task_that_finished_is_left_alone(cluster, task, args, state)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_running_task_without_terminate(cluster: Cluster, pool: str) -> None:
    """As without noise."""
    test_table.test_a_running_task_without_terminate(cluster, pool)


@pytest.mark.parametrize("terminate", [False, True])
def test_a_solo_worker_is_silent_while_it_works(cluster: Cluster, terminate: bool) -> None:
    """As without noise."""
    test_table.test_a_solo_worker_is_silent_while_it_works(cluster, terminate)


def test_a_worker_that_is_stopped_is_the_only_one_missing(cluster: Cluster) -> None:
    """None of those that do not exist is; a look-up says what cannot be known."""
    stopped = cluster.worker("stopped@t")
    lookups = Lookups(cluster.control)
    held = cluster.hold("stopped")
    waiting = cluster.send("tests.add", 1, 2, queue="one.nowhere")
    lookups.becomes(waiting, "queued", before=ON_THE_WAY)
    stopped.signal(signal.SIGSTOP, group=True)
    reply = cluster.revoke(waiting)
    assert statuses(cluster.becomes(reply, "partial")) == {waiting: "partial"}
    assert cluster.follow(reply["batch_id"])["workers"]["missing"] == ["stopped@t"]
    assert lookups.look(held.id)["verdict"] in ("running", "unknown")
    stopped.signal(signal.SIGCONT, group=True)
    assert only(cluster.becomes(reply, "flagged"))["status"] == "flagged"
    held.let_go()
    lookups.becomes(held.id, "succeeded", before=("running",))


def test_a_thousand_ids(cluster: Cluster) -> None:
    """As without noise; last, for every worker that comes later is sent them again."""
    test_table.test_a_thousand_ids_are_no_reason_to_time_out(cluster)


@pytest.fixture(params=BROKERS)
def quiet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The API on a broker, without noise and without a worker yet."""
    with running_cluster(tmp_path, Setting(request.param)) as cluster:
        yield cluster


def test_the_rows_while_a_worker_is_stopped(quiet: Cluster) -> None:
    """It has not acknowledged its flags: they are not claimed. When it goes on, all rows are as without it."""
    rows.start_workers(quiet)
    stopped = quiet.worker("stopped@t")
    caused = rows.cause(quiet)
    stopped.signal(signal.SIGSTOP, group=True)
    gently = quiet.becomes(quiet.revoke(*caused.gently), dict(caused.flagged_as("partial")))
    assert gently["workers"]["missing"] == ["stopped@t"]
    deadly = quiet.becomes(quiet.revoke(*caused.terminate, terminate=True), dict(caused.terminate))
    stopped.signal(signal.SIGCONT, group=True)
    quiet.becomes(gently, dict(caused.gently))
    quiet.let_go()
    for reply, wanted in zip((gently, deadly), caused.after(), strict=True):
        quiet.becomes(reply, dict(wanted))


def test_a_worker_that_was_stopped_for_long_gets_the_flag_when_it_goes_on(quiet: Cluster) -> None:
    """Nobody waited for it any more, and the command that lay there for it has expired."""
    stopped = quiet.worker("stopped@t")
    quiet.worker("other@t")
    held = quiet.hold("stopped")
    task_id = quiet.send("tests.add", 1, 2, queue="stopped")
    quiet.knows(task_id)
    stopped.signal(signal.SIGSTOP, group=True)
    time.sleep(ALIVE + 5)
    reply = quiet.becomes(quiet.revoke(task_id), "flagged")
    time.sleep(15)  # a command is good for 10 s
    stopped.signal(signal.SIGCONT, group=True)
    wait_until(test_resending.has_flag(stopped, task_id), what="the flag is sent again")
    held.let_go()
    quiet.becomes(reply, "revoked")
