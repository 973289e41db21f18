"""Rows as text: a line for people, or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone

from celerymeter.control.audit.chain import Row

MAX_TARGETS = 5


def as_line(row: Row) -> str:
    """One line; of many targets the first few."""
    when = datetime.fromtimestamp(row.at, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    who = f"{row.sub or '-'}@{row.address or '-'}"
    parts = [f"{row.row:>6}", when, f"{row.kind:<10}", who, row.action, row.outcome, _targets(row.target)]
    parts += [f"reason={row.reason!r}"] if row.reason else []
    parts += [f"of={row.intent}"] if row.intent else []
    parts += [row.detail] if row.detail != "{}" else []
    return _printable(" ".join(part for part in parts if part))


def as_json(row: Row) -> str:
    """One JSON object."""
    fields = asdict(row) | {"target": json.loads(row.target), "detail": json.loads(row.detail), "mac": row.mac.hex()}
    return json.dumps(fields, ensure_ascii=False)


def _printable(text: str) -> str:
    """What somebody else wrote may not move the cursor of who reads it."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _targets(target: str) -> str:
    names = json.loads(target)
    more = [f"… {len(names) - MAX_TARGETS} more"] if len(names) > MAX_TARGETS else []
    return ", ".join([*names[:MAX_TARGETS], *more])
