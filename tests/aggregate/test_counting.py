"""One worker counts step by step: every run has one end, whatever order and number of events Celery sends."""

from __future__ import annotations

from typing import Any

import pytest

from celerymeter.aggregate.counting import VANISHED, RunCounter
from celerymeter.aggregate.series import MAX_NAMES

Row = dict[str, Any]


class Counted:
    """Totals, and their rows by name."""

    def __init__(self) -> None:
        self.totals = RunCounter(runtime_buckets=(1.0, 10.0), wait_buckets=(1.0, 10.0))
        self.now = 1_700_000_000.0

    def do(self, uuid: str, *steps: str, name: str = "add", retries: int = 0, **fields: Any) -> None:
        """Let these steps happen."""
        for step in steps:
            if step == "received":
                self.totals.received(uuid, name, "celery", now=self.now, retries=retries)
            elif step == "started":
                self.totals.started(uuid, self.now)
            else:
                getattr(self.totals, step)(uuid, fields, self.now)

    def row(self, name: str = "add", *, active: set[str] | None = None, final: bool = False) -> Row:
        """The totals of a task."""
        rows = self.totals.rows(self.now, active=active, full=True, final=final)
        names = ("name", "queue", "received", "started", "succeeded", "failed", "retried", "busy", "running", "oldest")
        row = next((row for row in rows.values() if row[0] == name), None)
        assert row is not None, rows
        return {**dict(zip(names, row, strict=False)), "wait": row[14], **(row[15] if len(row) > 15 else {})}


@pytest.fixture
def counted() -> Counted:
    """Nothing yet."""
    return Counted()


def test_a_second_end_is_a_duplicate(counted: Counted) -> None:
    """A hard time limit sends two failures."""
    counted.do("a", "received", "started", "failed", "failed", exception="TimeLimitExceeded(1,)")
    assert counted.row()["failed"] == 1
    assert counted.totals.duplicates == {"task-failed": 1}


def test_a_rejection_is_the_end_unless_a_failure_comes_with_it(counted: Counted) -> None:
    counted.do("a", "received", "started", "rejected", "failed", exception="Reject('x')")
    counted.do("b", "received", "started", "failed", "rejected", exception="Reject('x')")
    counted.do("c", "received", "started", "rejected")
    assert "rejected" not in counted.row()
    counted.now += 3
    row = counted.row()
    assert (row["failed"], row["rejected"]) == (2, 1)
    assert counted.totals.duplicates == {"task-rejected": 2}


def test_a_requeue_that_a_failure_follows_lost_no_process(counted: Counted) -> None:
    """A hard time limit with acks_late and no acks_on_failure_or_timeout; a process that dies sends one of them."""
    for _ in range(3):
        counted.do("a", "received", "started")
        counted.do("a", "rejected", requeue=True)
        counted.do("a", "failed", exception="TimeLimitExceeded(1,)")
    counted.do("b", "received", "started")
    counted.do("b", "rejected", requeue=True)
    assert "process_lost" not in counted.row()
    counted.now += 3
    row = counted.row()
    assert (row["failed"], row["requeued"], row["process_lost"]) == (3, 4, 1)
    assert not counted.totals.duplicates


def test_a_requeued_message_is_no_end(counted: Counted) -> None:
    counted.do("a", "received", "started", "rejected", requeue=True)
    counted.do("a", "received", "started", "succeeded", runtime=0.5)
    row = counted.row()
    assert (row["requeued"], row["received"], row["succeeded"], row["running"]) == (1, 2, 1, 0)
    assert "redelivered" not in row  # on purpose
    assert not counted.totals.duplicates


def test_a_retry_may_be_received_before_the_run_that_asked_for_it_ends(counted: Counted) -> None:
    counted.do("a", "received", "started")
    counted.do("a", "received", retries=1)
    counted.do("a", "retried", exception="ValueError('x')")
    counted.do("a", "started", "succeeded", runtime=0.1)
    row = counted.row()
    assert (row["started"], row["retried"], row["succeeded"], row["running"]) == (2, 1, 1, 0)
    assert row["retry_exceptions"] == {"ValueError": 1}
    assert "redelivered" not in row


def test_a_retry_of_a_retry_may_be_received_before_the_first_has_started(counted: Counted) -> None:
    """Celery says so when the pool process does, which may be when the next message is already here."""
    for retries in range(3):
        counted.do("a", "received", retries=retries)
    for _ in range(2):
        counted.do("a", "started", "retried", exception="ValueError()")
    counted.do("a", "started", "succeeded", runtime=0.1)
    row = counted.row()
    assert [row[step] for step in ("received", "started", "succeeded", "retried")] == [3, 3, 1, 2]
    assert "redelivered" not in row


def test_a_task_that_runs_twice_here_is_redelivered(counted: Counted) -> None:
    counted.do("a", "received", "started")
    counted.do("a", "received", "started")
    assert counted.row()["running"] == 2
    counted.do("a", "succeeded", "succeeded", runtime=0.1)
    counted.do("b", "received", "started", "succeeded")
    counted.do("b", "received", "started", "succeeded")
    row = counted.row()
    assert (row["succeeded"], row["running"], row["redelivered"]) == (4, 0, 2)


def test_a_run_without_an_end_event_ends_when_celery_no_longer_lists_it(counted: Counted) -> None:
    """`Ignore` has none."""
    counted.do("a", "received", "started")
    counted.now += 2
    assert counted.row(active={"a"})["running"] == 1
    counted.row(active=set())
    counted.now += VANISHED
    row = counted.row(active=set())
    assert (row["running"], row["without_result"]) == (0, 1)
    assert row["busy"] == pytest.approx(2.0)
    counted.do("b", "received", "started")
    assert counted.row(active={"b"}, final=True)["running"] == 1
    row = counted.row(active=set(), final=True)  # the worker goes: it will say nothing later
    assert (row["running"], row["without_result"]) == (0, 2)


def test_a_greenlet_that_was_killed_has_not_succeeded(counted: Counted) -> None:
    """Celery says that it did, after no time at all, and then that it was cancelled or terminated, or nothing more."""
    for uuid in "abcde":
        counted.do(uuid, "received", "started")
    counted.now += 2
    counted.do("e", "cancelled")  # before: the order depends on which greenlet goes on
    counted.do("e", "succeeded", runtime=None)
    assert counted.totals.duplicates == {"task-succeeded": 1}
    for uuid in "abcd":
        counted.do(uuid, "succeeded", runtime=None)
    counted.do("a", "cancelled")
    counted.do("b", "revoked", terminated=True)
    counted.do("d", "failed", exception="TimeLimitExceeded(1,)")
    row = counted.row()
    assert (row["succeeded"], row["failed"], row["running"], row["revoked_terminated"]) == (0, 1, 0, 1)
    assert row["busy"] == 10.0
    assert "without_result" not in row
    counted.now += 3
    assert counted.row()["without_result"] == 1
    counted.do("a", "received", "started", "succeeded", runtime=1.0)  # its message was delivered again
    assert counted.row()["succeeded"] == 1


def test_a_task_revoked_before_it_was_received_has_its_name_by_a_signal(counted: Counted) -> None:
    counted.do("a", "revoked", expired=True)
    counted.totals.name_revoked("a", "add", "celery")
    assert (counted.row()["revoked_expired"], counted.row()["received"]) == (1, 1)
    counted.do("b", "revoked")
    counted.now += 3
    assert counted.row("unknown")["revoked_revoked"] == 1  # no signal came


def test_busy_time_has_runs_in_progress_and_no_negative_runs(counted: Counted) -> None:
    counted.do("a", "received", "started")
    counted.now += 5
    assert counted.row()["busy"] == 5.0
    counted.now -= 60  # a clock that was set back
    counted.do("a", "succeeded")
    assert counted.row()["busy"] == 0.0


def test_a_wait_is_from_the_stamp_or_the_eta(counted: Counted) -> None:
    for uuid, sent, eta in (("a", -5.0, None), ("b", -100.0, -0.5), ("c", 3.0, None)):
        run = counted.totals.received(uuid, "add", "celery", now=counted.now)
        run.sent = counted.now + sent
        run.eta = None if eta is None else counted.now + eta
        counted.do(uuid, "started")
    counted.do("d", "received", "started")
    assert counted.row()["wait"] == [0, 1, 1, 1]
    assert counted.totals.unmeasured == {"negative": 1, "not_sent": 1}


def test_names_are_capped_and_still_add_up(counted: Counted) -> None:
    for number in range(MAX_NAMES + 5):
        counted.do(str(number), "received", "started", "succeeded", name=f"task{number}")
    assert counted.row("__other__")["succeeded"] == 5
    assert counted.totals.series.folded == {"name": 5}


def test_what_changed_is_in_two_messages(counted: Counted) -> None:
    """So that one of them may be lost."""

    def names() -> set[str]:
        rows = counted.totals.rows(counted.now, active=None, full=False)
        return {row[0] for row in rows.values()}

    counted.do("a", "received", "started", "succeeded")
    assert names() == {"add"}
    counted.do("b", "received", "started", "succeeded", name="mul")
    assert names() == {"add", "mul"}
    assert names() == {"mul"}
    assert names() == set()


def test_runs_in_the_pool_survive_a_reconnect(counted: Counted) -> None:
    """Others are delivered again, here or elsewhere."""
    counted.do("a", "received", "started")
    counted.do("b", "received")
    counted.totals.reconnected()
    counted.do("a", "succeeded")
    counted.do("b", "started", "succeeded")
    row = counted.row()
    assert (row["received"], row["succeeded"], row["running"]) == (2, 2, 0)


def test_what_it_remembers_of_a_task(counted: Counted) -> None:
    counted.do("a", "received")
    counted.do("b", "received", "started")
    counted.do("c", "received", "started", "failed")
    counted.do("d", "received", "started", "revoked", terminated=True)
    found = {uuid: run.state for uuid in "abcde" if (run := counted.totals.lookup(uuid)) is not None}
    assert found == {"a": "received", "b": "started", "c": "failed", "d": "terminated"}


def test_runs_that_celery_has_counted_and_not_yet_reported_are_known(counted: Counted) -> None:
    """They are not lost: a heartbeat came in between."""
    counted.do("a", "received", "started")
    counted.do("b", "received")
    counted.do("c", "received", "started", "retried")
    counted.do("c", "received", retries=1)
    assert counted.totals.unstarted({"a", "b", "c"}) == 2
