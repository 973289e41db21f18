"""The time of a month's report on a large shop, and the memory that it takes in the engine that answers."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from tools.bench.history import END, Month, of_a_pair, of_the_rest, samples
from tools.bench.measure import await_quiet, memory_mb, reset_peak
from tools.bench.months import Victoria, Writable

LONGEST = 10.0
"""Seconds that the report may take."""
ENGINES: dict[str, tuple[type[Victoria | Writable], Month]] = {
    "VictoriaMetrics": (Victoria, Month()),
    "Prometheus": (Writable, Month(fine=900)),
}
"""Prometheus takes fewer samples a second: there the counts of tasks are as coarse as their histograms."""
STOPPING = 300.0
"""Seconds: an engine that was written to puts its memory in order first."""
KEPT = Path(__file__).parents[2] / ".cache" / "bench"
HEAD = "| engine | series | samples | written in s | samples/s | report s | MB before | peak MB | counts | progress |"


@dataclass(frozen=True, slots=True)
class ReportRun:
    """One run of the command: the report, its seconds, and the progress that it showed."""

    total: int
    seconds: float
    progress: tuple[str, ...]


def measure(names: Sequence[str] = tuple(ENGINES)) -> str:
    """As Markdown. A month is written once and kept: later runs ask it again."""
    rows = [HEAD, re.sub(r"[^|]+", "---", HEAD)]
    rows += [_row(name, _written(name)) for name in names]
    return "\n".join(rows) + "\n"


def _written(name: str) -> float:
    """Seconds that it took to write the month, now or before."""
    engine, month = ENGINES[name]
    folder, mark = KEPT / name, KEPT / f"{name}.json"
    stored = json.loads(mark.read_text()) if mark.exists() else {}
    if stored.get("month") != asdict(month):
        shutil.rmtree(folder, ignore_errors=True)
        KEPT.mkdir(parents=True, exist_ok=True)
        with engine(folder) as server:
            began = time.monotonic()
            server.up().write(month)
            stored = {"month": asdict(month), "seconds": time.monotonic() - began}
            server.stop(STOPPING)
        mark.write_text(json.dumps(stored))
    return float(stored["seconds"])


def _row(name: str, wrote: float) -> str:
    engine, month = ENGINES[name]
    with engine(KEPT / name) as server:
        server.up()
        await_quiet(server.pid)
        before = memory_mb(server.pid, "VmRSS")
        reset_peak(server.pid)
        stored = ask(server.url, month)
        peak = memory_mb(server.pid)
    print(f"  {name}: {stored}", file=sys.stderr, flush=True)
    series = month.pairs * len(list(of_a_pair(month))) + len(list(of_the_rest(month)))
    written = f"{samples(month) / 1e6:,.0f} M | {wrote:,.0f} | {samples(month) / wrote / 1e6:.1f} M"
    exact = "exact" if stored.total == expected(month) else f"{stored.total:,} for {expected(month):,}"
    took = f"{stored.seconds:.1f}{'' if stored.seconds <= LONGEST else ' (too long)'}"
    memory = f"{before:,.0f} | {peak:,.0f}"
    return f"| {name} | {series:,} | {written} | {took} | {memory} | {exact} | {', '.join(stored.progress)} |"


def expected(month: Month) -> int:
    """Return the number of tasks that ended between the first hour's end and the month's."""
    runs = month.runs()
    first, last = runs[240], runs[-1]
    return month.pairs * (last + last // 50 - first - first // 50)


def ask(url: str, month: Month) -> ReportRun:
    """The command as a person runs it, at a terminal: all but the month's first hour, which has the page before."""
    window = [datetime.fromtimestamp(at, timezone.utc).isoformat() for at in (month.start + 3600, END)]
    argv = [sys.executable, "-m", "celerymeter", "report", "--prometheus-url", url, "--from", window[0]]
    ours, theirs = pty.openpty()
    began = time.monotonic()
    command = subprocess.Popen([*argv, "--to", window[1]], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    out, _ = command.communicate(timeout=600)
    seconds = time.monotonic() - began
    steps = re.findall(r"reading (\w+)", _shown(ours))
    return ReportRun(json.loads(out)["total_tasks"], seconds, tuple(dict.fromkeys(steps)))


def _shown(terminal: int) -> str:
    """Return the output on a terminal whose other side is closed: reading ends with EIO."""
    parts = []
    with suppress(OSError):
        while part := os.read(terminal, 4096):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


if __name__ == "__main__":
    print(measure(sys.argv[1:] or tuple(ENGINES)))
