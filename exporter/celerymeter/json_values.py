"""Estimates of the memory that JSON will take as objects, from its text, before any of them is made."""

from __future__ import annotations

_PIECE = 64 * 1024


def count_values(text: bytes, *, most: int) -> int:
    """Return about how many values JSON has, by the signs outside of its strings; counts no further than ``most``.

    >>> count_values(b'{"a": [1, 2], "b": "[[[,,,"}', most=100)
    4
    """
    count, in_string, start = 0, False, 0
    while start < len(text) and count <= most:
        piece = _piece(text, start)
        start += len(piece)
        parts = piece.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
        signs = b"".join(parts[in_string::2])
        count += signs.count(b",") + signs.count(b"[") + signs.count(b"{")
        in_string ^= len(parts) % 2 == 0
    return count


def _piece(text: bytes, start: int) -> bytes:
    """Return the next part of a text, which does not end between a backslash and what it escapes."""
    piece = text[start : start + _PIECE]
    escaping = len(piece) - len(piece.rstrip(b"\\"))
    return piece + text[start + _PIECE : start + _PIECE + 1] if escaping % 2 else piece
