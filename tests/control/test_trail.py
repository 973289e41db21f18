"""The trail on disk: intents, outcomes, orphans, retention, and a shell that writes beside it."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from celerymeter.control.audit.offline import read_rows, verify
from celerymeter.control.audit.rows import AuditRow
from celerymeter.control.audit.trail import Actor, AuditQuery, AuditTrail, audit_key
from celerymeter.control.store import DATABASE, Store
from celerymeter.demo.processes import Process
from celerymeter.errors import RequestRefused, SettingsError, StateError

KEY = b"the key of these tests' trails, long enough"
ANN = Actor("ann", "token-1", "192.0.2.1")


@dataclass
class Clock:
    """A clock that the test sets."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Running:
    """The trail as one process has it."""

    folder: Path
    clock: Clock

    def __post_init__(self) -> None:
        self.store = Store(self.folder)
        self.trail = AuditTrail(self.store, key=KEY, clock=self.clock)

    def die(self) -> None:
        """As `kill -9` leaves it: the rows are there."""
        self.store.close()


@pytest.fixture
def clock() -> Clock:
    """Time stands still until the test moves it."""
    return Clock()


@pytest.fixture
def process(tmp_path: Path, clock: Clock) -> Iterator[Running]:
    """A process with a trail."""
    made = Running(tmp_path, clock)
    yield made
    made.store.close()


def rows(process: Running) -> list[AuditRow]:
    """All rows, the oldest first."""
    return list(read_rows(process.folder))


def outcomes_of(process: Running) -> list[tuple[str, str]]:
    """Kind and outcome of all rows."""
    return [(row.kind, row.outcome) for row in rows(process)]


def test_an_act_is_an_intent_before_and_an_outcome_after(process: Running) -> None:
    """The intent is on disk while the act goes on; both say who and what."""
    with process.trail.act(ANN, "monitoring.start", target=["w1@host"], reason="maintenance") as act:
        assert outcomes_of(process) == [("intent", "")]
        act.outcome, act.detail = "partial", {"missing": ["w2@host"]}
    intent, outcome = rows(process)
    assert (intent.sub, intent.jti, intent.address, intent.reason) == ("ann", "token-1", "192.0.2.1", "maintenance")
    assert json.loads(intent.target) == ["w1@host"]
    assert (outcome.intent, outcome.outcome, json.loads(outcome.detail)) == (1, "partial", {"missing": ["w2@host"]})


@pytest.mark.parametrize(
    ("error", "outcome", "named"),
    [(RequestRefused("conflict", "no"), "refused", "conflict"), (ZeroDivisionError("5"), "failed", "internal")],
)
def test_an_act_that_raises_has_an_outcome_too(process: Running, error: Exception, outcome: str, named: str) -> None:
    """Which names the error without its text."""
    with pytest.raises(type(error)), process.trail.act(ANN, "monitoring.start"):
        raise error
    assert (rows(process)[1].outcome, rows(process)[1].detail) == (outcome, json.dumps({"error": named}))


def test_nothing_is_done_when_the_intent_cannot_be_written(process: Running) -> None:
    """No intent, no act."""
    done = []
    process.store.close()
    with pytest.raises(StateError), process.trail.act(ANN, "monitoring.start"):
        done.append("it")
    assert done == []


def test_what_is_known_later_belongs_to_the_intent(process: Running) -> None:
    """A task that ran anyway shows beside the batch that was to stop it."""
    intent = process.trail.begin(ANN, "tasks.revoke", target=["a", "b"])
    process.trail.finish(intent, "ok")
    process.trail.event(intent, "ran_anyway", detail={"task_id": "b"})
    belonging = process.trail.page(AuditQuery(intent=intent), 10)
    assert [(row.kind, row.sub) for row in belonging] == [("event", "ann"), ("outcome", "ann"), ("intent", "ann")]


def test_an_intent_of_a_dead_process_is_marked_at_the_next_start(process: Running, clock: Clock) -> None:
    """And only once."""
    process.trail.begin(ANN, "tasks.revoke")
    process.die()
    next_start = Running(process.folder, clock)
    assert (next_start.trail.mark_orphans(), next_start.trail.mark_orphans()) == (1, 0)
    assert outcomes_of(next_start) == [("intent", ""), ("outcome", "unknown")]
    next_start.store.close()


_BEGIN = """
import sys, time
from pathlib import Path
from celerymeter.control.audit.trail import Actor, AuditTrail
from celerymeter.control.store import Store
folder = Path(sys.argv[1])
trail = AuditTrail(Store(folder), key=sys.argv[2].encode())
print("begun", trail.begin(Actor("ann"), "tasks.revoke"), flush=True)
time.sleep(60)
"""


def test_kill_9_between_intent_and_outcome_is_marked(process: Running) -> None:
    """By the process that comes next."""
    argv = [sys.executable, "-c", _BEGIN, str(process.folder), KEY.decode()]
    with Process("api", argv, log=process.folder / "api.log") as api:
        api.start(ready=lambda: "begun 1" in api.tail())
        api.kill()
        assert process.trail.mark_orphans() == 1
    assert outcomes_of(process) == [("intent", ""), ("outcome", "unknown")]


def test_an_intent_of_this_process_is_left_alone(process: Running) -> None:
    """It may still come to its outcome."""
    process.trail.begin(ANN, "tasks.revoke")
    assert process.trail.mark_orphans() == 0


def test_two_processes_write_one_chain(process: Running, clock: Clock) -> None:
    """Two processes and eight threads: every row is there and the chain holds."""
    other = Running(process.folder, clock)

    def write(trail: AuditTrail) -> None:
        for _ in range(10):
            trail.refusal(ANN, "authenticate", reasons={"missing": 1})

    threads = [threading.Thread(target=write, args=(each.trail,)) for each in (process, other) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = verify(process.folder, key=KEY, head=None)
    assert (result.rows, result.findings) == (80, ())
    other.store.close()


def test_a_token_is_noted_once(process: Running) -> None:
    """Minting it notes it; if nothing was noted then, its first use does."""
    noted = [process.trail.token(ANN, action, exp=2e9, detail={}) for action in ("token.mint", "token.first_use")]
    assert (noted, [row.action for row in rows(process)]) == ([True, False], ["token.mint"])


def test_old_rows_are_pruned_behind_a_checkpoint(process: Running, clock: Clock) -> None:
    """The rows that are left verify, against an earlier head as well."""
    for _ in range(3):
        process.trail.refusal(ANN, "authenticate", reasons={"missing": 1})
        clock.now += 10
    head = str(process.trail.head())
    assert process.trail.prune(clock.now - 15) == 2
    assert outcomes_of(process) == [("refusal", "refused"), ("checkpoint", "")]
    assert verify(process.folder, key=KEY, head=head).findings == ()


def test_everything_may_be_pruned(process: Running, clock: Clock) -> None:
    """The checkpoint remains; with nothing to prune nothing happens."""
    assert process.trail.prune(clock.now) == 0
    process.trail.refusal(ANN, "authenticate", reasons={"missing": 1})
    assert process.trail.prune(clock.now + 1) == 1
    assert (outcomes_of(process), verify(process.folder, key=KEY, head=None).findings) == (
        [("checkpoint", "")],
        (),
    )


@pytest.mark.parametrize(
    ("tampering", "row"),
    [
        ("UPDATE audit SET sub = 'eve' WHERE row = 2", 2),
        ("UPDATE audit SET reason = x'00ff' WHERE row = 2", 2),
        ("UPDATE audit SET mac = 'text' WHERE row = 2", 2),
        ("UPDATE audit SET at = 'yesterday' WHERE row = 2", 2),
        ("DELETE FROM audit WHERE row = 2", 3),
        ("DELETE FROM audit WHERE row = 1", 2),
        ("DELETE FROM audit WHERE row = 4", 4),
        (
            "INSERT INTO audit SELECT 5, kind, at, action, intent, sub, jti, address, target, reason, outcome, detail,"
            " instance, mac FROM audit WHERE row = 1",
            5,
        ),
    ],
)
def test_a_tampered_database_is_found_out(process: Running, tampering: str, row: int) -> None:
    """Changed, removed, inserted, cut off: by somebody who may write the file and has not the key."""
    for _ in range(4):
        process.trail.refusal(ANN, "authenticate", reasons={"missing": 1})
    head = str(process.trail.head())
    with sqlite3.connect(process.folder / DATABASE) as connection:
        connection.execute(tampering)
    connection.close()
    assert row in [found.row for found in verify(process.folder, key=KEY, head=head).findings]


def test_another_key_does_not_go_on_with_the_chain(process: Running) -> None:
    """It would break it for good; the start is refused instead."""
    process.trail.refusal(ANN, "authenticate", reasons={"missing": 1})
    with pytest.raises(SettingsError, match="not written with this key"):
        AuditTrail(process.store, key=b"another")


def test_the_key_is_made_once_and_kept(process: Running) -> None:
    """In a file for its owner alone; a trail whose key is lost does not get a new one."""
    key = audit_key(process.store, None)
    assert (audit_key(process.store, None), (process.folder / "audit.key").stat().st_mode & 0o777) == (key, 0o600)
    process.trail.refusal(ANN, "authenticate", reasons={"missing": 1})
    (process.folder / "audit.key").unlink()
    with pytest.raises(SettingsError, match="is missing"):
        audit_key(process.store, None)


def test_a_short_key_is_refused(process: Running) -> None:
    """An operator's key is held to the same length as a secret."""
    with pytest.raises(SettingsError, match="at least 32 bytes"):
        audit_key(process.store, b"short")
