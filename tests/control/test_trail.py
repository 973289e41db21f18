"""The trail on disk: intents, outcomes, orphans, retention, and replicas that share it."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from celerymeter.control.audit import reading
from celerymeter.control.audit.chain import Row
from celerymeter.control.audit.key import audit_key
from celerymeter.control.audit.reading import Filter
from celerymeter.control.audit.trail import Actor, AuditTrail
from celerymeter.control.audit.verification import verify
from celerymeter.control.instances import Instance
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
class Replica:
    """One process's view of the state directory."""

    folder: Path
    clock: Clock

    def __post_init__(self) -> None:
        self.store = Store(self.folder)
        self.instance = Instance(self.folder)
        self.trail = AuditTrail(self.store, instance=self.instance, key=KEY, clock=self.clock)

    def die(self) -> None:
        """As `kill -9` leaves it: the lock is gone, the rows are there."""
        import os

        os.close(self.instance._file)
        self.store.close()


@pytest.fixture
def clock() -> Clock:
    """Time stands still until the test moves it."""
    return Clock()


@pytest.fixture
def replica(tmp_path: Path, clock: Clock) -> Iterator[Replica]:
    """The first replica."""
    made = Replica(tmp_path, clock)
    yield made
    made.store.close()


def rows(replica: Replica) -> list[Row]:
    """All rows, the oldest first."""
    return list(reading.everything(replica.folder))


def told(replica: Replica) -> list[tuple[str, str]]:
    """Kind and outcome of all rows."""
    return [(row.kind, row.outcome) for row in rows(replica)]


def test_an_act_is_an_intent_before_and_an_outcome_after(replica: Replica) -> None:
    """The intent is on disk while the act goes on; both say who and what."""
    with replica.trail.act(ANN, "monitoring.start", target=["w1@host"], reason="maintenance") as act:
        assert told(replica) == [("intent", "")]
        act.outcome, act.detail = "partial", {"missing": ["w2@host"]}
    intent, outcome = rows(replica)
    assert (intent.sub, intent.jti, intent.address, intent.reason) == ("ann", "token-1", "192.0.2.1", "maintenance")
    assert json.loads(intent.target) == ["w1@host"]
    assert (outcome.intent, outcome.outcome, json.loads(outcome.detail)) == (1, "partial", {"missing": ["w2@host"]})


@pytest.mark.parametrize(
    ("error", "outcome", "named"),
    [(RequestRefused("conflict", "no"), "refused", "conflict"), (ZeroDivisionError("5"), "failed", "internal")],
)
def test_an_act_that_raises_has_an_outcome_too(replica: Replica, error: Exception, outcome: str, named: str) -> None:
    """Which names the error without its text."""
    with pytest.raises(type(error)), replica.trail.act(ANN, "monitoring.start"):
        raise error
    assert (rows(replica)[1].outcome, rows(replica)[1].detail) == (outcome, json.dumps({"error": named}))


def test_nothing_is_done_when_the_intent_cannot_be_written(replica: Replica) -> None:
    """No intent, no act."""
    done = []
    replica.store.close()
    with pytest.raises(StateError), replica.trail.act(ANN, "monitoring.start"):
        done.append("it")
    assert done == []


def test_what_is_known_later_belongs_to_the_intent(replica: Replica) -> None:
    """A task that ran anyway shows beside the batch that was to stop it."""
    intent = replica.trail.begin(ANN, "tasks.revoke", target=["a", "b"])
    replica.trail.finish(intent, "ok")
    replica.trail.event(intent, "ran_anyway", detail={"task_id": "b"})
    belonging = reading.page(replica.store, Filter(intent=intent), 10)
    assert [(row.kind, row.sub) for row in belonging] == [("event", "ann"), ("outcome", "ann"), ("intent", "ann")]


def test_an_intent_of_a_dead_process_is_marked_at_the_next_start(replica: Replica, clock: Clock) -> None:
    """And only once."""
    replica.trail.begin(ANN, "tasks.revoke")
    replica.die()
    next_start = Replica(replica.folder, clock)
    assert (next_start.trail.mark_orphans(), next_start.trail.mark_orphans()) == (1, 0)
    assert told(next_start) == [("intent", ""), ("outcome", "unknown")]
    next_start.store.close()


_BEGIN = """
import sys, time
from pathlib import Path
from celerymeter.control.audit.trail import Actor, AuditTrail
from celerymeter.control.instances import Instance
from celerymeter.control.store import Store
folder = Path(sys.argv[1])
trail = AuditTrail(Store(folder), instance=Instance(folder), key=sys.argv[2].encode())
print("begun", trail.begin(Actor("ann"), "tasks.revoke"), flush=True)
time.sleep(60)
"""


def test_kill_9_between_intent_and_outcome_is_marked(replica: Replica) -> None:
    """By any replica, as soon as the process is dead, and not before."""
    argv = [sys.executable, "-c", _BEGIN, str(replica.folder), KEY.decode()]
    with Process("api", argv, log=replica.folder / "api.log") as api:
        api.start(ready=lambda: "begun 1" in api.tail())
        assert replica.trail.mark_orphans() == 0
        api.kill()
        assert replica.trail.mark_orphans() == 1
    assert told(replica) == [("intent", ""), ("outcome", "unknown")]


def test_an_intent_of_a_living_replica_is_left_alone(replica: Replica, clock: Clock) -> None:
    """It may still come to its outcome."""
    other = Replica(replica.folder, clock)
    other.trail.begin(ANN, "tasks.revoke")
    assert replica.trail.mark_orphans() == 0
    other.store.close()


def test_an_adopted_intent_is_no_orphan(replica: Replica, clock: Clock) -> None:
    """Who takes over a batch answers for its outcome."""
    dead = Replica(replica.folder, clock)
    intent = dead.trail.begin(ANN, "tasks.revoke")
    dead.die()
    replica.trail.adopt(intent)
    assert replica.trail.mark_orphans() == 0
    replica.trail.finish(intent, "ok")
    assert told(replica) == [("intent", ""), ("outcome", "ok")]


def test_replicas_write_one_chain(replica: Replica, clock: Clock) -> None:
    """Two processes and eight threads: every row is there and the chain holds."""
    other = Replica(replica.folder, clock)

    def write(trail: AuditTrail) -> None:
        for _ in range(10):
            trail.refusal(ANN, "authenticate", reasons={"missing": 1})

    threads = [threading.Thread(target=write, args=(each.trail,)) for each in (replica, other) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = verify(replica.folder, key=KEY, head=None)
    assert (result.rows, result.findings) == (80, ())
    other.store.close()


def test_a_token_is_noted_once_whoever_notes_it(replica: Replica) -> None:
    """When it is minted, or else when it is first used."""
    noted = [replica.trail.token(ANN, action, exp=2e9, detail={}) for action in ("token.mint", "token.first_use")]
    assert (noted, [row.action for row in rows(replica)]) == ([True, False], ["token.mint"])


def test_old_rows_are_pruned_behind_a_checkpoint(replica: Replica, clock: Clock) -> None:
    """What is left verifies, against an earlier head as well."""
    for _ in range(3):
        replica.trail.refusal(ANN, "authenticate", reasons={"missing": 1})
        clock.now += 10
    head = str(replica.trail.head())
    assert replica.trail.prune(clock.now - 15) == 2
    assert told(replica) == [("refusal", "refused"), ("checkpoint", "")]
    assert verify(replica.folder, key=KEY, head=head).findings == ()


def test_everything_may_be_pruned(replica: Replica, clock: Clock) -> None:
    """The checkpoint remains; with nothing to prune nothing happens."""
    assert replica.trail.prune(clock.now) == 0
    replica.trail.refusal(ANN, "authenticate", reasons={"missing": 1})
    assert replica.trail.prune(clock.now + 1) == 1
    assert (told(replica), verify(replica.folder, key=KEY, head=None).findings) == ([("checkpoint", "")], ())


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
def test_a_tampered_database_is_found_out(replica: Replica, tampering: str, row: int) -> None:
    """Changed, removed, inserted, cut off: by somebody who may write the file and has not the key."""
    for _ in range(4):
        replica.trail.refusal(ANN, "authenticate", reasons={"missing": 1})
    head = str(replica.trail.head())
    with sqlite3.connect(replica.folder / DATABASE) as connection:
        connection.execute(tampering)
    connection.close()
    assert row in [found.row for found in verify(replica.folder, key=KEY, head=head).findings]


def test_another_key_does_not_go_on_with_the_chain(replica: Replica) -> None:
    """It would break it for good; the start is refused instead."""
    replica.trail.refusal(ANN, "authenticate", reasons={"missing": 1})
    with pytest.raises(SettingsError, match="not written with this key"):
        AuditTrail(replica.store, instance=replica.instance, key=b"another")


def test_the_key_is_made_once_and_kept(replica: Replica) -> None:
    """In a file for its owner alone; a trail whose key is lost does not get a new one."""
    key = audit_key(replica.store, None)
    assert (audit_key(replica.store, None), (replica.folder / "audit.key").stat().st_mode & 0o777) == (key, 0o600)
    replica.trail.refusal(ANN, "authenticate", reasons={"missing": 1})
    (replica.folder / "audit.key").unlink()
    with pytest.raises(SettingsError, match="is gone"):
        audit_key(replica.store, None)


def test_a_short_key_is_refused(replica: Replica) -> None:
    """An operator's key is held to the same length as a secret."""
    with pytest.raises(SettingsError, match="at least 32 bytes"):
        audit_key(replica.store, b"short")
