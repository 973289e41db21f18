"""The picture of a terminal."""

from __future__ import annotations

from xml.etree import ElementTree

from tools.docs.terminal_picture import draw, screen

RECORDING = (
    "$ make demo\n\r\x1b[KStarting\r\n\r\x1b[K\r\nReady. Addresses:\r\n  TOKEN=x\r\n^C stops everything.\r\n\r\n"
    "\r\x1b[K0:01 old\r\x1b[K0:02 \x1b[31mfailed <5%\x1b[0m new^C\r\x1b[KThe demo has stopped.\r\n"
)


def test_the_screen_is_what_stood_there_before_the_end() -> None:
    """The last state of each line, without the guide and its token."""
    assert screen(RECORDING) == ["$ make demo", "Starting", "", "0:02 \x1b[31mfailed <5%\x1b[0m new"]


def test_the_picture_is_well_formed_and_coloured() -> None:
    """Text is escaped; colours become fills."""
    picture = ElementTree.fromstring(draw(screen(RECORDING)))
    texts = picture.findall("{*}text")
    assert ["".join(text.itertext()) for text in texts] == ["$ make demo", "Starting", "0:02 failed <5% new"]
    assert [piece.get("fill") for piece in texts[-1]] == [None, "#ff7b72", None]
