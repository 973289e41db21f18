"""Event ingestion side by side: events per CPU second of the consuming process, in interleaved rounds."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.bench.consumer import LABELS, Run, flat_out
from tools.bench.wire import Load, Stream, make_stream

KINDS = tuple(LABELS)
RIVALS = ("receiver", "raw", "cut")


def side_by_side(kinds: Sequence[str], stream: Stream, rounds: int, folder: Path) -> dict[str, list[Run]]:
    """Every consumer in turn, several times over."""
    runs: dict[str, list[Run]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            runs[kind].append(flat_out(kind, stream, folder))
            print(f"  {kind}: {runs[kind][-1]}", file=sys.stderr, flush=True)
    return runs


def table(runs: dict[str, list[Run]]) -> str:
    """The medians, as Markdown."""
    medians = {kind: statistics.median(run.per_second for run in several) for kind, several in runs.items()}
    lines = ["| consumer | events per CPU second | ÷ (a) | ÷ (b) | ÷ (b') | lost | peak MB |", "|---" * 7 + "|"]
    for kind, several in runs.items():
        ratios = [f"{medians[kind] / medians[other]:.2f}" if other in medians else "" for other in RIVALS]
        lost, peak = max(run.lost for run in several), statistics.median(run.peak_mb for run in several)
        cells = [LABELS[kind], f"{medians[kind]:,.0f}", *ratios, f"{lost:,}", f"{peak:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(kinds: Sequence[str], *, batched: bool, tasks: int, rounds: int) -> str:
    """One stream, side by side, as Markdown."""
    stream = make_stream(Load(tasks=tasks, batched=batched, began=time.time() - 10))
    with tempfile.TemporaryDirectory() as folder:
        runs = side_by_side(kinds, stream, rounds, Path(folder))
    kind = "Batched" if batched else "Unbatched"
    return f"{kind}: {stream.total:,} events in {len(stream.messages):,} messages.\n\n{table(runs)}\n"


def main() -> None:
    """Run from the command line: ``python -m tools.bench.ingest``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(LABELS)}; all when none is named")
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["batched", "unbatched"])
    chosen = parser.parse_args()
    for mode in ("batched", "unbatched"):
        if chosen.only in (None, mode):
            batched = mode == "batched"
            print(measure(chosen.kinds or KINDS, batched=batched, tasks=chosen.tasks, rounds=chosen.rounds), flush=True)


if __name__ == "__main__":
    main()
