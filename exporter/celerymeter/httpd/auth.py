"""Basic auth against bcrypt hashes: remembered once right, as slow for strangers as for users."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping

REMEMBERED = 128
BCRYPT_BYTES = 72
"""bcrypt looks at no more of a password."""


class BasicAuth:
    """Knows users by name and bcrypt hash (as ``htpasswd -nB`` makes them)."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = {name: hashed.encode() for name, hashed in users.items()}
        self._decoy = max(self._users.values(), key=_cost)
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def remembers(self, header: str) -> bool:
        """Whether these very credentials were right before; returns at once."""
        return self._digest(header) in self._right

    def verify(self, header: str) -> bool:
        """Whether an ``Authorization`` header holds a user's name and password; takes bcrypt's time."""
        import bcrypt

        name, password = _credentials(header)
        hashed = self._users.get(name)
        matches = bcrypt.checkpw(password[:BCRYPT_BYTES], hashed or self._decoy)
        if not matches or hashed is None:
            return False
        self._right[self._digest(header)] = None
        while len(self._right) > REMEMBERED:
            self._right.popitem(last=False)
        return True

    def _digest(self, header: str) -> bytes:
        return hmac.digest(self._key, header.encode("latin-1"), hashlib.sha256)


def _cost(hashed: bytes) -> bytes:
    return hashed.split(b"$")[2]


def _credentials(header: str) -> tuple[str, bytes]:
    """Name and password of a header; of an unusable one an empty name, which no user has."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else ("", b"")
    except ValueError:  # no base64, no UTF-8
        return "", b""
