"""Composition of all that revokes."""

from __future__ import annotations

from dataclasses import dataclass

from celerymeter.control.audit.trail import AuditTrail
from celerymeter.control.background import Background
from celerymeter.control.feed.hub import Hub
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.revocation.announcer import Announcer
from celerymeter.control.revocation.desk import Desk
from celerymeter.control.revocation.followup import Followup
from celerymeter.control.revocation.holding import Holding
from celerymeter.control.revocation.idempotency import Keys
from celerymeter.control.revocation.ledger import Ledger
from celerymeter.control.revocation.lookups import open_lists, open_states
from celerymeter.control.revocation.memory import EventMemory
from celerymeter.control.revocation.revoker import Revoker
from celerymeter.control.revocation.store import Batches
from celerymeter.control.revocation.workers import Workers, open_workers
from celerymeter.control.settings import ControlSettings
from celerymeter.control.store import Store
from celerymeter.events import EventSink


@dataclass(frozen=True, slots=True)
class Revocation:
    """The parts, connected with each other and not started."""

    desk: Desk
    keys: Keys
    memory: EventMemory
    followup: Followup

    @property
    def sinks(self) -> tuple[EventSink, ...]:
        """What wants events; the memory first, for the follow-up asks it."""
        return (self.memory, self.followup)

    @property
    def background(self) -> tuple[Background, ...]:
        """What runs."""
        return (self.followup,)


def revocation(
    settings: ControlSettings,
    *,
    store: Store,
    audit: AuditTrail,
    hub: Hub,
    metrics: ControlMetrics,
    workers: Workers | None = None,
) -> Revocation:
    """All parts. Starts no thread and opens no connection; raises `SettingsError`."""
    broker = settings.broker
    workers = workers or open_workers(broker)
    memory, ledger = EventMemory(), Ledger()
    states = open_states(settings.result_backend_url, broker)
    batches = Batches(store, owner=audit.instance)
    announcer = Announcer(batches, audit, hub=hub, metrics=metrics)
    holding = Holding(ledger, workers, memory, states=states, announcer=announcer)
    followup = Followup(ledger, batches, holding=holding, announcer=announcer, hold=settings.revoke_hold)
    revoker = Revoker(workers, memory, states=states, lists=open_lists(broker), told_to_die=batches.told_to_die)
    return Revocation(Desk(revoker, followup, batches, audit=audit), Keys(store), memory, followup)
