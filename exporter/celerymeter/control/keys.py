"""The strength of secrets: their length, and that they do not repeat themselves or count on."""

from __future__ import annotations

import zlib
from itertools import pairwise

from celerymeter.errors import SettingsError


def check_strength(secret: bytes, *, at_least: int, option: str) -> bytes:
    """Return the secret; raises `SettingsError` for one that is short, or easy to guess for all its length."""
    if len(secret) < at_least:
        raise SettingsError(f"{option}: must have at least {at_least} bytes, not {len(secret)}")
    if _compressed_size(secret) < at_least * 3 // 4:  # 32 random digits have 26 or more
        raise SettingsError(f"{option}: too easy to guess; make one with `openssl rand -hex 32`")
    return secret


def _compressed_size(secret: bytes) -> int:
    """Return the bytes that remain of a secret, or of the steps from byte to byte, once repetitions are taken out."""
    steps = bytes((after - before) % 256 for before, after in pairwise(secret))
    return min(len(_deflated(secret)), len(_deflated(steps)))


def _deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()
