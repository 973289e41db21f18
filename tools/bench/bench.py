"""All benchmarks in one run, written to ``tools/bench/RESULTS.md``: ``make bench`` (about 30 minutes)."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from tools.bench import aggregate, burst, crowds, ingest, memory, report, scrape, steady

RESULTS = Path(__file__).with_name("RESULTS.md")
MARK = "<!-- measured -->"


def sections(rounds: int) -> dict[str, Callable[[], str]]:
    """Title and measurement of each part."""
    kinds = ingest.KINDS
    return {
        "Batched events, flat out": lambda: ingest.measure(kinds, batched=True, tasks=50_000, rounds=rounds),
        "Single events, flat out": lambda: ingest.measure(kinds, batched=False, tasks=50_000, rounds=rounds),
        "1,500 events a second": lambda: steady.measure(rounds=rounds),
        "A burst through a Redis with default limits": lambda: burst.measure(rounds=rounds),
        "1,000,000 distinct tasks": memory.measure,
        "Other crowds": crowds.measure,
        "The page": scrape.measure_pages,
        "Scrapes of 10,000 series at 20,000 events a second": scrape.measure_under_load,
        "A worker's price": lambda: aggregate.measure_worker(rounds=rounds),
        "10,000 workers": aggregate.measure_crowd,
        "A report of 30 days": report.measure,
    }


def machine() -> str:
    """Return the machine and the releases with which this was measured."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    libraries = ", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "hiredis", "msgspec", "orjson"))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"Measured {time.strftime('%Y-%m-%d')} on {os.cpu_count()} cores of {cpu[1] if cpu else platform.machine()}, "
        f"Python {platform.python_version()}, {libraries}; load average at the start {load}."
    )


def main() -> None:
    """Run from the command line: ``python -m tools.bench.bench``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="part of a title; prints instead of writing RESULTS.md")
    chosen = parser.parse_args()
    parts = [machine()]
    for title, measure in sections(chosen.rounds).items():
        if chosen.only is None or chosen.only.lower() in title.lower():
            print(title, file=sys.stderr, flush=True)
            parts.append(f"## {title}\n\n{measure()}")
            print(parts[-1], file=sys.stderr, flush=True)
    page = "\n\n".join(part.strip() for part in parts) + "\n"
    if chosen.only is None:
        words = RESULTS.read_text().split(MARK)[0] if RESULTS.exists() else ""
        RESULTS.write_text(f"{words}{MARK}\n\n{page}")
    print(page)


if __name__ == "__main__":
    main()
