"""Maintenance of the trail: folding, the head in the log, retention, orphans."""

from __future__ import annotations

from pathlib import Path

import pytest

from celerymeter.control.audit.maintenance import MAX_SOURCES, OTHER, AuditMaintenance, RefusalFolder, Source
from celerymeter.control.audit.offline import read_rows
from celerymeter.control.audit.rows import AuditRow
from celerymeter.control.audit.trail import Actor, AuditTrail
from celerymeter.control.store import Store
from celerymeter.control.tokens import Identity, Role
from celerymeter.demo.processes import wait_until

DAY = 86400.0
ANN = Identity("ann", Role.VIEWER, "token-1", 2e9)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Time stands still until the test moves it."""
    return Clock()


@pytest.fixture
def maintenance(tmp_path: Path, clock: Clock) -> AuditMaintenance:
    """Maintenance whose rounds the test does."""
    trail = AuditTrail(Store(tmp_path), key=b"k" * 32, clock=clock)
    return AuditMaintenance(trail, retention=30 * DAY, clock=clock)


def rows(folder: Path) -> list[AuditRow]:
    """All rows, the oldest first."""
    return list(read_rows(folder))


def source(address: str) -> Source:
    """Somebody without a token."""
    return Source(Actor("", "", address), "authenticate")


def test_a_thousand_failures_of_an_address_are_two_rows_a_minute(
    maintenance: AuditMaintenance, clock: Clock, tmp_path: Path
) -> None:
    """The first at once, the others with the round after the minute."""
    for _ in range(1000):
        maintenance.refused("signature", address="192.0.2.1")
    assert [row.detail for row in rows(tmp_path)] == ['{"signature": 1}']
    clock.now += 60
    maintenance.round()
    assert [(row.address, row.detail) for row in rows(tmp_path)][1:] == [("192.0.2.1", '{"signature": 999}')]


def test_nothing_folded_is_lost_at_the_end(maintenance: AuditMaintenance, tmp_path: Path) -> None:
    """`stop` writes what a minute would have written."""
    for reason in ("missing", "missing", "expired"):
        maintenance.refused(reason, address="192.0.2.1")
    maintenance.stop()
    assert rows(tmp_path)[-1].detail == '{"missing": 1, "expired": 1}'


def test_many_addresses_are_folded_into_one() -> None:
    """So that no number of them fills the disk; every refusal is counted all the same."""
    folder = RefusalFolder()
    written = [folder.fold(source(f"192.0.2.{n}"), "missing", now=0.0) for n in range(3 * MAX_SOURCES)]
    at_once = [each for each in written if each is not None]
    assert len(at_once) == MAX_SOURCES + 1
    assert folder.drain(60.0) == {OTHER: {"missing": 2 * MAX_SOURCES - 1}}


def test_the_next_minute_begins_afresh() -> None:
    """A source's first refusal of each minute is written at once."""
    folder, client = RefusalFolder(), source("192.0.2.1")
    assert folder.fold(client, "missing", now=0.0) == client
    assert (folder.drain(59.0), folder.fold(client, "missing", now=59.0)) == ({}, None)
    assert len(folder.drain(60.0)) == 1
    assert folder.fold(client, "missing", now=61.0) == client


def test_a_token_is_noted_at_its_first_use(maintenance: AuditMaintenance, tmp_path: Path) -> None:
    """Once, however often it comes."""
    for _ in range(3):
        maintenance.accepted(ANN, "192.0.2.1")
    assert [(row.kind, row.sub, row.jti, row.address) for row in rows(tmp_path)] == [
        ("token", "ann", "token-1", "192.0.2.1")
    ]


def test_the_head_is_in_the_log_by_the_minute(maintenance: AuditMaintenance, caplog: pytest.LogCaptureFixture) -> None:
    """A person with the log can prove later that nothing was cut off."""
    maintenance.accepted(ANN, "192.0.2.1")
    with caplog.at_level("INFO"):
        maintenance.round()
    assert [record.audit_head[:2] for record in caplog.records if hasattr(record, "audit_head")] == ["1:"]


def test_old_rows_go_a_day_at_a_time(maintenance: AuditMaintenance, clock: Clock, tmp_path: Path) -> None:
    """Not with every round, as each prune costs a row."""
    maintenance.accepted(ANN, "192.0.2.1")
    clock.now += 30.5 * DAY
    maintenance.round()
    assert [row.kind for row in rows(tmp_path)] == ["token"]
    clock.now += DAY
    maintenance.round()
    assert [row.kind for row in rows(tmp_path)] == ["checkpoint"]


def test_rounds_are_done_in_the_background(tmp_path: Path, clock: Clock) -> None:
    """From `start` to `stop`."""
    trail = AuditTrail(Store(tmp_path), key=b"k" * 32, clock=clock)
    maintenance = AuditMaintenance(trail, retention=DAY, interval=0.01, clock=clock)
    maintenance.start()
    maintenance.refused("missing", address="192.0.2.1")
    maintenance.refused("missing", address="192.0.2.1")
    clock.now += 60
    wait_until(lambda: len(rows(tmp_path)) == 2, what="the folded refusal")
    maintenance.stop()


def test_a_disk_that_fails_is_logged_and_shown(maintenance: AuditMaintenance, caplog: pytest.LogCaptureFixture) -> None:
    """Reading goes on without the audit trail; that it cannot be written is no secret."""
    maintenance._trail._store.close()
    maintenance.accepted(ANN, "192.0.2.1")
    assert (maintenance.failing, "cannot be written" in caplog.text) == (True, True)
