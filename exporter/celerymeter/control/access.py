"""Who may do what: the words that authentication, views and the feed share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class Role(IntEnum):
    """A higher role may do all that a lower one may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @classmethod
    def named(cls, name: str) -> Role | None:
        """The role of this name as a token spells it (lower case), or None."""
        return cls.__members__.get(name.upper()) if name.islower() else None

    @property
    def label(self) -> str:
        """The name as a token spells it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a valid token speaks for. ``exp`` is UTC seconds; ``jti`` is the token's id, or a digest of the token."""

    sub: str
    role: Role
    jti: str
    exp: float


class Who(Enum):
    """Who may call an operation; every operation names one."""

    ANYONE = "anyone"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    WEBHOOK = "webhook"
    """Alertmanager, by its own static bearer token."""
    FEED = "feed"
    """The WebSocket, which checks its token itself (three ways, one of them without a header)."""

    @property
    def role(self) -> Role | None:
        """The lowest role that suffices, or None where roles do not decide."""
        return Role.named(self.value)
