"""What is known of the components, as the sampler last saw them: the seam between it and the system views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Condition = Literal["ok", "failed", "unknown"]
Status = Literal["healthy", "degraded", "unhealthy"]


@dataclass(frozen=True, slots=True)
class Component:
    """One component as last seen. ``detail`` is for administrators: one line, no secret; a stranger never sees it."""

    name: str
    condition: Condition
    detail: str = ""
    critical: bool = False
    """Whether its failure makes the whole unhealthy, and not just degraded."""


@dataclass(frozen=True, slots=True)
class QueueFigure:
    """One queue as last seen; what is not known is None."""

    name: str
    length: float | None = None
    unacked: float | None = None
    consumers: float | None = None
    oldest_task_age: float | None = None
    """Seconds."""


@dataclass(frozen=True, slots=True)
class FiringAlert:
    """An alert that fires; ``since`` is UTC seconds."""

    name: str
    severity: str
    message: str
    since: float


@dataclass(frozen=True, slots=True)
class SystemState:
    """One look at everything. ``at`` is when it was taken (UTC seconds)."""

    at: float
    components: tuple[Component, ...]
    queues: tuple[QueueFigure, ...] = ()
    firing: tuple[FiringAlert, ...] | None = None
    """None when nobody could be asked."""


class SystemSource(Protocol):
    """Answers from memory, at once: whoever asks costs the broker and Prometheus nothing."""

    def state(self) -> SystemState:
        """The last look; before the first one every component is ``unknown``."""


def judge(components: tuple[Component, ...]) -> Status:
    """The worst of all: unhealthy when a critical one failed, degraded when anything is not ``ok``."""
    if any(part.critical and part.condition == "failed" for part in components):
        return "unhealthy"
    return "healthy" if all(part.condition == "ok" for part in components) else "degraded"
