"""Messages as workers write them, whole or spoiled, and messages recorded from real workers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.tsv"))
"""``channel TAB message`` a line, from real workers: prefork and threads batch their events, gevent does not."""


def event(**fields: Any) -> dict[str, Any]:
    """A valid `task-received`, or what ``fields`` make of it; ``...`` leaves a field out."""
    valid = {
        "type": "task-received",
        "hostname": "w1@host1",
        "utcoffset": 0,
        "pid": 7,
        "clock": 12,
        "uuid": "3c4c4d0f-5d4b-4b0e-9c1a-0f7b1d1c2b3a",
        "name": "shop.pay",
        "args": "(1,)",
        "kwargs": "{}",
        "retries": 0,
        "eta": None,
        "timestamp": 1_700_000_000.25,
    }
    return {key: value for key, value in {**valid, **fields}.items() if value is not ...}


def message(content: Any, **envelope: Any) -> bytes:
    """A message as kombu puts it on Redis; ``envelope`` replaces members (``_`` for ``-``), ``...`` removes them."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    members: dict[str, Any] = {
        "body": base64.b64encode(raw).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"hostname": "w1@host1"},
        "properties": {
            "delivery_mode": 1,
            "delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "0b2f4f3e-7b0a-4c7e-8a53-1c4a5f1f0a11",
        },
    }
    members |= {key.replace("_", "-"): value for key, value in envelope.items()}
    return json.dumps({key: value for key, value in members.items() if value is not ...}).encode()


def recorded(path: Path) -> list[tuple[str, bytes]]:
    """Channel and message of each line of a recording."""
    lines = path.read_bytes().splitlines()
    return [(channel.decode(), data) for channel, data in (line.split(b"\t", 1) for line in lines)]
