"""Measured figures for the README, out of ``tools/bench/RESULTS.md``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tools.docs.markdown import ROOT, table

RESULTS = ROOT / "tools" / "bench" / "RESULTS.md"
OURS, CELERYS = "(c)", "(a)"
_HEADS: Mapping[str, tuple[str, ...]] = {
    "README.md": ("", "celerymeter", "Celery's own receiver, doing nothing with the events"),
    "README.zh-TW.md": ("", "celerymeter", "Celery 自己的 receiver (不處理事件)"),
}
_ROWS: Mapping[str, tuple[str, ...]] = {
    "README.md": (
        "events per CPU second, batched by prefork workers",
        "events per CPU second, one by one",
        "CPU seconds for 30 s of 1,500 events a second",
        "events lost of a burst of 200,130",
    ),
    "README.zh-TW.md": (
        "每 CPU 秒處理的事件 (prefork worker 成批送出)",
        "每 CPU 秒處理的事件 (逐一送出)",
        "每秒 1,500 個事件、持續 30 秒所用的 CPU 秒數",
        "一次湧入 200,130 個事件時遺失的事件",
    ),
}
_SECTIONS = (
    "Batched events, flat out",
    "Single events, flat out",
    "1,500 events a second",
    "A burst through a Redis with default limits",
)


def comparison(_: str, readme: str) -> str:
    """The table that compares the exporter with the least that any tool built on Celery's receiver pays."""
    sections = _sections()
    rows = [
        (name, _first_figure(sections[title], OURS), _first_figure(sections[title], CELERYS))
        for name, title in zip(_ROWS[readme], _SECTIONS, strict=True)
    ]
    return table(_HEADS[readme], rows)


def _sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", RESULTS.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _first_figure(section: str, consumer: str) -> str:
    """The first cell after the consumer's name."""
    (row,) = (line for line in section.splitlines() if line.startswith(f"| {consumer}"))
    return row.strip("| ").split(" | ")[1]
