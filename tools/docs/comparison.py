"""The cost table of the documentation, from ``tools/bench/RESULTS.md``."""

from __future__ import annotations

import re

from tools.docs.markdown import ROOT, table

RESULTS = ROOT / "tools" / "bench" / "RESULTS.md"
OURS, CELERYS = "(c)", "(a)"
_HEAD = {
    "en": ("", "celerymeter", "Celery's own receiver, doing nothing with the events"),
    "zh": ("", "celerymeter", "Celery 自己的 receiver (不處理事件)"),
}
_ROWS = {
    "en": (
        "events per CPU second, sent in batches by prefork workers",
        "events per CPU second, sent one by one",
        "CPU seconds for 30 s of 1,500 events per second",
        "events lost in a burst of 200,130 (three runs)",
    ),
    "zh": (
        "每 CPU 秒處理的事件 (prefork worker 成批送出)",
        "每 CPU 秒處理的事件 (逐一送出)",
        "每秒 1,500 個事件、持續 30 秒所用的 CPU 秒數",
        "一次湧入 200,130 個事件時遺失的事件 (三次)",
    ),
}
_SECTIONS = (
    "Batched events, flat out",
    "Single events, flat out",
    "1,500 events a second",
    "A burst through a Redis with default limits",
)


def comparison(language: str) -> str:
    """Return the table that compares the exporter with Celery's own receiver, the floor of any tool built on it."""
    sections = _sections()
    rows = [
        (name, _first_figure(sections[title], OURS), _first_figure(sections[title], CELERYS))
        for name, title in zip(_ROWS[language], _SECTIONS, strict=True)
    ]
    return table(_HEAD[language], rows)


def _sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", RESULTS.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _first_figure(section: str, consumer: str) -> str:
    """Return the first cell after the consumer's name."""
    (row,) = (line for line in section.splitlines() if line.startswith(f"| {consumer}"))
    return row.strip("| ").split(" | ")[1]
