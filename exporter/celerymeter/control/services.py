"""The parts that views and background threads are made of.

`celerymeter.control.server` builds them for real, once, in the process that serves; tests build them from fakes
(`celerymeter.control.testing`). Views never take the whole container: `celerymeter.control.app` hands each area the
parts that it needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from celerymeter.control.audit.keeper import AuditKeeper
from celerymeter.control.audit.trail import AuditTrail
from celerymeter.control.auth import Authenticator
from celerymeter.control.health import SystemSource
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.store import Store


class Background(Protocol):
    """A thread or several. Started in order after the fork, stopped in reverse; `stop` returns within a second or two
    and is safe to call without `start`.
    """

    def start(self) -> None:
        """Begin; returns at once."""

    def stop(self) -> None:
        """End; also shuts down sockets that would keep the server waiting."""


@dataclass(frozen=True, slots=True)
class Services:
    """Concrete parts. A new area adds its own field here and its line in `celerymeter.control.app.create_app`."""

    auth: Authenticator
    system: SystemSource
    metrics: ControlMetrics
    store: Store
    audit: AuditTrail
    keeper: AuditKeeper
    background: tuple[Background, ...] = ()
    clock: Callable[[], float] = time.time
