"""Peak memory of the exporter after a million distinct tasks, and whether it still grows."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tools.bench.consumer import EXPORTER, Consumer
from tools.bench.measure import await_quiet, memory_mb
from tools.bench.publish import Publisher
from tools.bench.wire import Cluster, Load

from celerymeter.demo.servers import Redis

RATE = 30_000
"""Events a second: below what the exporter decodes, so that nothing waits in memory."""


def measure(*, tasks: int = 1_000_000, step: int = 10_000) -> str:
    """As Markdown."""
    rows = ["| distinct tasks | events | peak MB | MB now | lost |", "|---|---|---|---|---|"]
    marks = {tasks // 10, tasks // 2, tasks}
    with tempfile.TemporaryDirectory() as folder, Redis(Path(folder) / "redis") as server:
        server.up()
        with Consumer(EXPORTER, server, Path(folder)) as consumer:
            rows.append(_row(0, 0, consumer, lost=0))
            cluster, sent, publisher = Cluster(Load(began=time.time(), spacing=0.0002)), 0, Publisher(server.port)
            for done in range(step, tasks + step, step):
                stream = cluster.stream(step)
                sent += stream.total
                publisher.paced(stream.messages, stream.total / RATE)
                if done in marks:
                    await_quiet(consumer.pid)
                    rows.append(_row(done, sent, consumer, lost=sent - consumer.seen()))
                    print(rows[-1], file=sys.stderr, flush=True)
            publisher.close()
    return "\n".join(rows) + "\n"


def _row(tasks: int, events: int, consumer: Consumer, *, lost: int) -> str:
    peak, now = memory_mb(consumer.pid), memory_mb(consumer.pid, "VmRSS")
    return f"| {tasks:,} | {events:,} | {peak:.0f} | {now:.0f} | {lost:,} |"


if __name__ == "__main__":
    print(measure())
