"""The chain of HMACs: every tampering shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celerymeter.control.audit.offline import ChainFinding, verify_rows
from celerymeter.control.audit.rows import GENESIS, AuditRow, Head, checkpoint, sign

KEY = b"the key of these tests' chains, long enough"


def chain(*rows: AuditRow, start: int = 1, previous: bytes = GENESIS) -> list[AuditRow]:
    """The rows, numbered and signed."""
    signed: list[AuditRow] = []
    for number, row in enumerate(rows, start):
        signed.append(sign(replace(row, row=number), key=KEY, previous=previous))
        previous = signed[-1].mac
    return signed


def event(action: str = "tasks.revoke") -> AuditRow:
    """A row before it is signed."""
    return AuditRow(row=0, at=1_700_000_000.5, kind="event", action=action, sub="ann", target='["a"]', reason="because")


def findings(rows: Sequence[AuditRow], head: Head | None = None) -> list[ChainFinding]:
    """Return the findings of a verification."""
    return list(verify_rows(rows, key=KEY, head=head).findings)


def head_of(row: AuditRow) -> Head:
    """The head that was logged when this row was the last."""
    return Head(row.row, row.mac.hex())


FIVE = chain(*[event() for _ in range(5)])


def test_an_untouched_chain_verifies() -> None:
    """Also against a head that was logged earlier."""
    assert findings([]) == []
    assert findings(FIVE) == []
    assert findings(FIVE, head_of(FIVE[2])) == []


@pytest.mark.parametrize(
    "change",
    [
        {"sub": "eve"},
        {"at": 1_700_000_000.6},
        {"target": "[]"},
        {"reason": ""},
        {"outcome": "ok"},
        {"intent": 1},
        {"kind": "intent"},
        {"address": "127.0.0.1"},
        {"mac": bytes(32)},
        {"mac": b""},
        {"reason": b"because"},
    ],
)
def test_a_changed_row_is_found(change: dict[str, Any]) -> None:
    """Whatever was changed in it."""
    rows = [*FIVE[:2], replace(FIVE[2], **change), *FIVE[3:]]
    assert findings(rows)[0].row == 3


def test_a_removed_row_is_found() -> None:
    """At the beginning, in the middle; at the end by the head that was kept elsewhere."""
    assert "row(s) 1 to 1 are missing" in findings(FIVE[1:])[0].message
    assert "row(s) 3 to 3 before it are missing" in findings([*FIVE[:2], *FIVE[3:]])[0].message
    assert findings(FIVE[:4]) == []
    assert findings(FIVE[:4], head_of(FIVE[4])) == [
        ChainFinding(5, "the row that was the head is gone: the end was cut off")
    ]


def test_closing_the_gap_does_not_hide_a_removal() -> None:
    """Renumbered rows no longer fit their HMACs."""
    rows = [*FIVE[:2], *[replace(row, row=row.row - 1) for row in FIVE[3:]]]
    assert [found.row for found in findings(rows)] == [3, 4]


def test_an_inserted_row_is_found() -> None:
    """Without the key nobody makes a row that fits; with a copy of another row neither."""
    forged = sign(replace(FIVE[2], sub="eve"), key=b"another key", previous=FIVE[1].mac)
    assert [found.row for found in findings([*FIVE[:2], forged, *FIVE[3:]])] == [3, 4]
    assert 6 in [found.row for found in findings([*FIVE, replace(FIVE[0], row=6)])]


def test_a_chain_that_was_rewritten_does_not_hold_the_head() -> None:
    """Even by somebody with the key."""
    rewritten = chain(*[event("nothing.happened") for _ in range(5)])
    assert findings(rewritten) == []
    assert findings(rewritten, head_of(FIVE[3])) == [ChainFinding(4, "is not the row that was the head")]


def test_a_pruned_chain_verifies_by_its_checkpoint() -> None:
    """Also when it was pruned twice."""
    once = [*FIVE, *chain(checkpoint(at=2.0, through=FIVE[2]), event(), start=6, previous=FIVE[4].mac)]
    assert findings(once[3:]) == []
    twice = [*once, *chain(checkpoint(at=3.0, through=once[5]), start=8, previous=once[6].mac)]
    assert findings(twice[6:]) == []
    assert findings(twice[7:]) != []


def test_a_prune_of_everything_leaves_the_checkpoint() -> None:
    """Which then is the first row."""
    rows = [*FIVE, *chain(checkpoint(at=2.0, through=FIVE[4]), start=6, previous=FIVE[4].mac)]
    assert findings(rows[5:]) == []


@pytest.mark.parametrize(
    "detail", ["{}", "rubbish", '{"through": 3, "mac": "00"}', '{"through": 3, "mac": "zz"}', "[]"]
)
def test_a_checkpoint_cannot_be_forged(detail: str) -> None:
    """One that is not signed, or does not know the HMAC of the last pruned row, accounts for nothing."""
    forged = replace(checkpoint(at=2.0, through=FIVE[2]), detail=detail)
    rows = [*FIVE[3:], replace(forged, row=6, mac=bytes(32))]
    assert "no checkpoint accounts for them" in findings(rows)[-1].message
    assert "no checkpoint accounts for them" in findings([replace(forged, row=4)])[-1].message


def test_a_head_is_text_and_back() -> None:
    """As the log has it."""
    head = head_of(FIVE[2])
    assert Head.parse(str(head)) == head


@pytest.mark.parametrize("text", ["", "5", "5:", "5:xyz", "x:" + "00" * 32, "5:" + "00" * 31])
def test_a_head_that_is_none_is_refused(text: str) -> None:
    """A typing error must not look like a finding."""
    with pytest.raises(ValueError, match="not ROW:HMAC"):
        Head.parse(text)


@given(
    st.lists(st.builds(event, st.text()), min_size=2, max_size=8),
    st.data(),
)
def test_no_change_of_any_row_goes_unnoticed(rows: list[AuditRow], data: st.DataObject) -> None:
    """Whatever the texts, wherever the change."""
    signed = chain(*rows)
    place = data.draw(st.integers(0, len(signed) - 1))
    action = data.draw(st.text().filter(lambda text: text != signed[place].action))
    changed = [*signed[:place], replace(signed[place], action=action), *signed[place + 1 :]]
    assert findings(signed) == []
    assert place + 1 in [found.row for found in findings(changed)]
