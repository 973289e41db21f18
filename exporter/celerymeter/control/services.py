"""The parts that views and background threads are made of.

`celerymeter.control.server` builds them for real, once, in the process that serves; tests build them from fakes
(`celerymeter.control.testing`). Views never take the whole container: `celerymeter.control.app` hands each area the
parts that it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from celerymeter.control.audit.keeper import AuditKeeper
from celerymeter.control.audit.trail import AuditTrail
from celerymeter.control.auth import Authenticator
from celerymeter.control.background import Background
from celerymeter.control.health import SystemSource
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.reports.desk import ReportDesk
from celerymeter.control.revocation.compose import Revocation
from celerymeter.control.store import Store
from celerymeter.control.watching import Watching


@dataclass(frozen=True, slots=True)
class Services:
    """Concrete parts. A new area adds its own field here and its line in `celerymeter.control.app.create_app`."""

    auth: Authenticator
    system: SystemSource
    metrics: ControlMetrics
    store: Store
    audit: AuditTrail
    keeper: AuditKeeper
    watching: Watching
    revocation: Revocation
    reports: ReportDesk
    background: tuple[Background, ...] = ()
