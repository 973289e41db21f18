"""Two trees of this repository on one recorded stream, in turn: CPU seconds of ``celerymeter exporter``.

``python -m tools.bench.recorded EVENTS.jsonl --other TREE`` compares this tree with a checkout of another commit (``git
worktree add TREE COMMIT``). `make celery-workload ARGS="--keep FOLDER"` records EVENTS.jsonl. The stream is published
several times over, each time as other tasks.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tools.bench.consumer import EXPORTER, ROOT, Run, flat_out
from tools.bench.wire import Stream, publish

LARGEST_BATCH = 3
"""Events in one message of a worker under load (``tests/events/recorded``)."""
_UUID = re.compile(r"\b[0-9a-f]{8}(?=-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)")


def read_stream(path: Path, copies: int) -> Stream:
    """Return the recorded events as the messages that they came in, or nearly so."""
    lines = path.read_text().splitlines()
    stream = Stream()
    for number in range(copies):
        events = (json.loads(_UUID.sub(lambda found: _another(found[0], number), line)) for line in lines)
        for batch in _batches(events):
            kind = batch[0]["type"].replace("-", ".", 1)
            publish(stream, "task.multi" if len(batch) > 1 else kind, batch if len(batch) > 1 else batch[0])
    return stream


def _another(digits: str, number: int) -> str:
    return f"{int(digits, 16) ^ number:08x}"


def _batches(events: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield what a worker sends of its tasks together; all else comes alone."""
    for (_, grouped), group in groupby(events, key=lambda event: (event["hostname"], _is_grouped(event))):
        several = list(group)
        size = LARGEST_BATCH if grouped else 1
        yield from (several[start : start + size] for start in range(0, len(several), size))


def _is_grouped(event: dict[str, Any]) -> bool:
    kind: str = event["type"]
    return kind.startswith("task-") and kind != "task-sent"


def side_by_side(trees: Sequence[Path], stream: Stream, rounds: int) -> list[list[Run]]:
    """Every tree in turn, several times over; the first round is not counted."""
    runs: list[list[Run]] = [[] for _ in trees]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for tree, several in zip(trees, runs, strict=True):
                run = flat_out(EXPORTER, stream, Path(folder), environment={"PYTHONPATH": str(tree / "exporter")})
                print(f"  {tree}: {run}", file=sys.stderr, flush=True)
                if number:
                    several.append(run)
    return runs


def table(trees: Sequence[Path], runs: Sequence[Sequence[Run]]) -> str:
    """Medians as Markdown, and the ratio to the last tree pair by pair."""
    lines = ["| tree | CPU s | events per CPU second | CPU ÷ other's (median, least, most) | lost | peak MB |"]
    lines.append("|---" * 6 + "|")
    for tree, several in zip(trees, runs, strict=True):
        ratios = [run.cpu / other.cpu for run, other in zip(several, runs[-1], strict=True)]
        cells = [
            str(tree),
            f"{statistics.median(run.cpu for run in several):.3f}",
            f"{statistics.median(run.per_second for run in several):,.0f}",
            f"{statistics.median(ratios):.3f}, {min(ratios):.3f}, {max(ratios):.3f}",
            str(max(run.lost for run in several)),
            f"{statistics.median(run.peak_mb for run in several):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.recorded", description=__doc__)
    parser.add_argument("events", type=Path)
    parser.add_argument("--other", type=Path, required=True, help="the tree to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--copies", type=int, default=8)
    chosen = parser.parse_args()
    trees = [ROOT, chosen.other.resolve()]
    stream = read_stream(chosen.events, chosen.copies)
    print(f"{stream.total:,} events in {len(stream.messages):,} messages, {chosen.rounds} rounds\n")
    print(table(trees, side_by_side(trees, stream, chosen.rounds)))


if __name__ == "__main__":
    main()
