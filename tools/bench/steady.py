"""CPU at a steady rate, where waking up dominates; and when nothing happens at all."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tools.bench.consumer import LABELS, Consumer
from tools.bench.measure import cpu_seconds
from tools.bench.publish import Publisher
from tools.bench.wire import Load, Stream, make_stream

from celerymeter.demo.servers import Redis

KINDS = ("receiver", "reader", "exporter")


def run_once(kind: str, stream: Stream, seconds: float, folder: Path) -> tuple[float, int]:
    """CPU seconds of a consumer while a stream is published evenly over this time; and how many events it lost."""
    with Redis(folder / "redis") as server:
        server.up()
        with Consumer(kind, server, folder) as consumer:
            publisher = Publisher(server.port)
            before = cpu_seconds(consumer.pid)
            publisher.paced(stream.messages, seconds)
            time.sleep(1)
            cpu = cpu_seconds(consumer.pid) - before
            publisher.close()
            return cpu, stream.total - consumer.seen()


def idle(kind: str, seconds: float, folder: Path) -> float:
    """CPU seconds of a consumer that hears nothing."""
    with Redis(folder / "redis") as server:
        server.up()
        with Consumer(kind, server, folder) as consumer:
            before = cpu_seconds(consumer.pid)
            time.sleep(seconds)
            return cpu_seconds(consumer.pid) - before


def measure(kinds: Sequence[str] = KINDS, *, rate: int = 1500, seconds: float = 30, rounds: int = 3) -> str:
    """Side by side, as Markdown."""
    stream = make_stream(Load(tasks=int(rate * seconds / 4), began=time.time(), spacing=4 / rate))
    lines = [f"| consumer | CPU seconds for {seconds:g} s | µs an event | ÷ (a) | lost | % CPU when idle |"]
    lines.append("|---|---|---|---|---|---|")
    base = None
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, list[tuple[float, int]]] = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind in kinds:
                runs[kind].append(run_once(kind, stream, seconds, Path(folder)))
                print(f"  {kind}: {runs[kind][-1]}", file=sys.stderr, flush=True)
        for kind, several in runs.items():
            cpu = median(run[0] for run in several)
            base = base or cpu
            share = 100 * idle(kind, 10, Path(folder)) / 10
            lost = max(run[1] for run in several)
            cells = [f"{cpu:.2f}", f"{1e6 * cpu / stream.total:.1f}", f"{cpu / base:.2f}", f"{lost:,}", f"{share:.2f}"]
            lines.append(f"| {LABELS[kind]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(measure())
