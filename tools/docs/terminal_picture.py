"""Draw what a program wrote to a terminal as an SVG."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

FONT = "ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', monospace"
WIDTH, HEIGHT, MARGIN = 7.8, 19.0, 16.0
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "2": "#8b949e"}
LEFT_OUT = re.compile(r"\nReady\..*?\^C stops everything\.\s*\n|\r\x1b\[K[^\r]*The demo has stopped.*|\^C", re.DOTALL)
_STYLE = re.compile(r"\x1b\[([0-9;]*)m")


def screen(recording: str) -> list[str]:
    """The lines that stood there at the end, without the guide; a carriage return begins the line anew."""
    lines = LEFT_OUT.sub("\n", recording.replace("\r\n", "\n")).rstrip().split("\n")
    return [line.split("\r")[-1].replace("\x1b[K", "") for line in lines]


def spans(line: str) -> Iterator[tuple[str, str]]:
    """Pieces of a line, each with its codes."""
    codes = ""
    for index, piece in enumerate(_STYLE.split(line)):
        if index % 2:
            codes = "" if piece in ("", "0") else piece
        elif piece:
            yield piece, codes


def draw(lines: list[str]) -> str:
    """The picture."""
    columns = max(len(_STYLE.sub("", line)) for line in lines)
    width, height = columns * WIDTH + 2 * MARGIN, len(lines) * HEIGHT + 2 * MARGIN
    rows = "".join(_row(line, MARGIN + HEIGHT * (number + 0.75)) for number, line in enumerate(lines))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="{FONT}" font-size="13" fill="#e6edf3">'
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>\n{rows}</svg>\n'
    )


def _row(line: str, y: float) -> str:
    length = len(_STYLE.sub("", line)) * WIDTH
    pieces = "".join(f"<tspan{_attributes(codes)}>{escape(piece)}</tspan>" for piece, codes in spans(line))
    return (
        f'<text x="{MARGIN}" y="{y:.1f}" textLength="{length:.1f}" xml:space="preserve">{pieces}</text>\n'
        if line
        else ""
    )


def _attributes(codes: str) -> str:
    fill = next((f' fill="{COLOURS[code]}"' for code in codes.split(";") if code in COLOURS), "")
    return fill + (' font-weight="bold"' if "1" in codes.split(";") else "")
