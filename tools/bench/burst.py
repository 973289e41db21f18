"""A burst at full speed through a Redis with its default output limits, which drops who falls 32 MB behind."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tools.bench.consumer import LABELS, flat_out
from tools.bench.wire import Load, make_stream

KINDS = ("receiver", "raw", "exporter")


def measure(*, tasks: int = 50_000, rounds: int = 3) -> str:
    """As Markdown: events lost in each round."""
    lines = ["| consumer | events lost, of 200,130, round by round | peak MB |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            stream = make_stream(Load(tasks=tasks, began=time.time() - 10))
            runs = [flat_out(kind, stream, Path(folder), options=()) for _ in range(rounds)]
            print(f"  {kind}: {runs}", file=sys.stderr, flush=True)
            lost, peak = ", ".join(f"{run.lost:,}" for run in runs), max(run.peak_mb for run in runs)
            lines.append(f"| {LABELS[kind]} | {lost} | {peak:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(measure())
