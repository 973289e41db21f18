"""How the demo speaks: lines, and below them one that is always up to date where the output is a terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from celerymeter.demo.figures import History

BARS = "▁▂▃▄▅▆▇█"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
RED, GREEN, YELLOW, DIM, BOLD = "31", "32", "33", "2", "1"


def sparkline(values: Sequence[float], *, width: int, top: float = 0.0) -> str:
    """The last ``width`` values as bars; the highest of them, or ``top`` if that is higher, is the full bar."""
    shown = [max(value, 0.0) for value in values[-width:]]
    highest = max([top, *shown]) or 1.0
    return "".join(BARS[round(value / highest * (len(BARS) - 1))] for value in shown).rjust(width)


def clock(seconds: float) -> str:
    """``75`` as ``1:15``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def paint(text: str, code: str, *, colour: bool) -> str:
    """The text in a colour, where there are colours."""
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text


def live_line(history: History, alerts: Sequence[str], *, elapsed: float, width: int, colour: bool) -> str:
    """Throughput, failures, workers, alerts and queues, as many as fit into ``width`` columns."""
    parts = [clock(elapsed), *_parts(history, alerts, colour=colour)]
    while len(parts) > 1 and visible("  ".join(parts)) > width:
        parts.pop()
    return "  ".join(parts)[: None if len(parts) > 1 else width]


def visible(text: str) -> int:
    """Columns that the text takes."""
    return len(_COLOUR.sub("", text))


def _parts(history: History, alerts: Sequence[str], *, colour: bool) -> list[str]:
    now = history.latest
    if now is None:
        return ["waiting for the exporter"]
    if not now.broker_up:
        return [paint("the exporter has lost its broker", RED, colour=colour)]
    rates = history.rates()
    parts = [f"{_mean(rates[-5:]):5.1f} tasks/s {paint(sparkline(rates, width=12), GREEN, colour=colour)}"]
    share = history.failed_share()
    if share is not None:
        parts.append(paint(f"failed {share:.1%}", RED if share > 0.05 else DIM, colour=colour))
    parts.append(paint(f"workers {now.up}/{now.workers}", DIM if now.up == now.workers else RED, colour=colour))
    parts.append(_alerts(alerts, colour=colour))
    for queue in sorted(now.queues, key=lambda name: (-max(history.depths(name)), name)):
        bars = paint(sparkline(history.depths(queue), width=6, top=8), YELLOW, colour=colour)
        parts.append(f"{queue} {now.queues[queue]:.0f} {bars}")
    return parts


def _alerts(alerts: Sequence[str], *, colour: bool) -> str:
    if not alerts:
        return paint("no alerts", DIM, colour=colour)
    named = ", ".join(alerts[:2]) + (f" and {len(alerts) - 2} more" if len(alerts) > 2 else "")
    return paint(f"firing: {named}", f"{BOLD};{RED}", colour=colour)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


class Screen:
    """Writes to a terminal or a file; only a terminal has a line that changes in place."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self.live = out.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = self.live and "NO_COLOR" not in os.environ

    @property
    def width(self) -> int:
        """Columns to write in."""
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
