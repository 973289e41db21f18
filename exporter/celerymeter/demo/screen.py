"""The output of the demo: lines that stay and, on a terminal, one line below them that changes in place.

Without rich, on purpose: where the output is not a terminal its live display writes only the final state
(Textualize/rich#465), so the lines for pipes would still be ours, and on a terminal it would save about twenty lines.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from celerymeter.demo.watch import Readings

BARS = "▁▂▃▄▅▆▇█"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
RED, GREEN, YELLOW, DIM, BOLD = "31", "32", "33", "2", "1"


def sparkline(values: Sequence[float], *, width: int, top: float = 0.0) -> str:
    """Draw the last ``width`` values as bars; the highest, or ``top`` if that is higher, is the full bar."""
    drawn = [max(value, 0.0) for value in values[-width:]]
    highest = max([top, *drawn]) or 1.0
    return "".join(BARS[round(value / highest * (len(BARS) - 1))] for value in drawn).rjust(width)


def paint(text: str, code: str, *, colour: bool) -> str:
    """Return the text in a colour, if there are colours."""
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text


def live_line(history: Readings, alerts: Sequence[str], *, elapsed: float, width: int, colour: bool) -> str:
    """Return throughput, failures, workers, alerts and queues, as many as fit into ``width`` columns."""
    clock = f"{int(elapsed) // 60}:{int(elapsed) % 60:02d}"
    parts = [clock, *_parts(history, alerts, colour=colour)]
    while len(parts) > 1 and len(_COLOUR.sub("", "  ".join(parts))) > width:
        parts.pop()
    return "  ".join(parts)[: None if len(parts) > 1 else width]


def _parts(history: Readings, alerts: Sequence[str], *, colour: bool) -> list[str]:
    """Return the parts of the line, the most important first."""
    now = history.latest
    if now is None:
        return ["waiting for the exporter"]
    if not now.broker_up:
        return [paint("the exporter cannot reach the broker", RED, colour=colour)]
    rates = history.rates()
    rate = sum(rates[-5:]) / max(len(rates[-5:]), 1)
    parts = [f"{rate:5.1f} tasks/s {paint(sparkline(rates, width=12), GREEN, colour=colour)}"]
    if (share := history.failed_share()) is not None:
        parts.append(paint(f"failed {share:.1%}", RED if share > 0.05 else DIM, colour=colour))
    parts.append(paint(f"workers {now.up}/{now.workers}", DIM if now.up == now.workers else RED, colour=colour))
    if alerts:
        names = ", ".join(alerts[:2]) + (f" and {len(alerts) - 2} more" if len(alerts) > 2 else "")
        parts.append(paint(f"firing: {names}", f"{BOLD};{RED}", colour=colour))
    else:
        parts.append(paint("no alerts", DIM, colour=colour))
    for queue in sorted(now.queues, key=lambda name: (-max(history.lengths(name)), name)):
        bars = paint(sparkline(history.lengths(queue), width=6, top=8), YELLOW, colour=colour)
        parts.append(f"{queue} {now.queues[queue]:.0f} {bars}")
    return parts


class Screen:
    """Writes to a terminal or a file; only a terminal has a line that changes in place."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self.live = out.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = self.live and "NO_COLOR" not in os.environ

    @property
    def width(self) -> int:
        """The number of columns."""
        return shutil.get_terminal_size().columns - 1 if self.live else 200

    def say(self, text: str) -> None:
        """Write lines that stay."""
        self._write(f"{text}\n")

    def show(self, line: str) -> None:
        """Replace the changing line; without a terminal it is a line like any other."""
        self._write(line if self.live else f"{line}\n")

    def _write(self, text: str) -> None:
        self._out.write(f"\r\x1b[K{text}" if self.live else text)
        self._out.flush()
