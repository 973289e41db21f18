"""Maintenance of the trail while the program runs: refusals folded, first uses of tokens noted, old rows pruned."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from celerymeter.control.audit.trail import Actor, AuditTrail
from celerymeter.control.tokens import Identity
from celerymeter.errors import StateError
from celerymeter.threads import PeriodicThread

log = logging.getLogger(__name__)

INTERVAL = 60.0
"""Seconds between two rounds, and over which the refusals of one source are folded into a row."""
MAX_SOURCES = 100
"""Sources with a row of their own in one interval; all others are folded into one."""


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a refusal: an actor without name and token where there was no valid token."""

    actor: Actor
    action: str


OTHER = Source(Actor("", "", "__other__"), "")


@dataclass(slots=True)
class _Folded:
    since: float
    reasons: Counter[str] = field(default_factory=Counter)


class RefusalFolder:
    """Folds the refusals of a source, except the first of each interval, lest strangers fill the disk."""

    def __init__(self) -> None:
        self._sources: dict[Source, _Folded] = {}
        self._lock = Lock()

    def fold(self, source: Source, reason: str, now: float) -> Source | None:
        """Count one refusal. Return the source to write it under now, or None when `drain` will return it."""
        with self._lock:
            if source not in self._sources and len(self._sources) >= MAX_SOURCES:
                source = OTHER
            if (folded := self._sources.get(source)) is not None:
                folded.reasons[reason] += 1
                return None
            self._sources[source] = _Folded(since=now)
            return source

    def drain(self, now: float, *, everything: bool = False) -> dict[Source, Counter[str]]:
        """Forget the sources whose interval has ended (at the end of the program, all); return their counts."""
        with self._lock:
            ended = [source for source, one in self._sources.items() if everything or now - one.since >= INTERVAL]
            counts = {source: self._sources.pop(source).reasons for source in ended}
        return {source: reasons for source, reasons in counts.items() if reasons}


class AuditMaintenance:
    """Writes refusals and first uses of tokens, and prunes and logs every minute on a thread of its own.

    While the disk fails, requests that only read are still answered (the failure is logged). Acts are not, as their
    intent cannot be written.
    """

    def __init__(
        self, trail: AuditTrail, *, retention: float, interval: float = INTERVAL, clock: Callable[[], float] = time.time
    ) -> None:
        self.failing = False
        """True from a failed write until a round finds that writing works."""
        self._trail = trail
        self._retention = retention
        self._clock = clock
        self._folder = RefusalFolder()
        self._thread = PeriodicThread("audit", self.round, interval=interval)

    def accepted(self, identity: Identity, address: str) -> bool:
        """Write a token's use, if it is its first; return False when that could not be written."""
        actor = Actor(identity.sub, identity.jti, address)
        detail = {"role": identity.role.label, "exp": identity.exp}
        return self._write(lambda: self._trail.token(actor, "token.first_use", exp=identity.exp, detail=detail))

    def refused(self, reason: str, *, address: str) -> None:
        """Write or fold a request without a valid token."""
        self._fold(Source(Actor("", "", address), "authenticate"), reason)

    def forbidden(self, actor: Actor, action: str) -> None:
        """Write or fold a request whose token is valid and does not suffice."""
        self._fold(Source(actor, action), "forbidden")

    def start(self) -> None:
        """Begin; the first round comes at once."""
        self._thread.start()

    def stop(self) -> None:
        """End, and write what is still folded."""
        self._thread.stop()
        self._flush(everything=True)

    def round(self) -> None:
        """Do everything that is due every minute; a part that fails does not keep the others from their turn."""
        if self._write(self._trail.probe):
            self.failing = False
        self._flush()
        self._write(self._mark_orphans)
        self._write(self._prune)
        self._write(lambda: log.info("audit head", extra={"audit_head": str(self._trail.head())}))

    def _prune(self) -> None:
        """Prune in steps of a day (or a tenth of a short retention), as each step costs a checkpoint row."""
        now, slack = self._clock(), min(86400.0, self._retention / 10)
        oldest = self._trail.oldest()
        if oldest is not None and oldest < now - self._retention - slack:
            log.info("audit trail pruned", extra={"rows": self._trail.prune(now - self._retention)})

    def _mark_orphans(self) -> None:
        if marked := self._trail.mark_orphans():
            log.warning("%d action(s) in the audit trail have no known outcome: the process was killed", marked)

    def _fold(self, source: Source, reason: str) -> None:
        if (first := self._folder.fold(source, reason, self._clock())) is not None:
            self._write(lambda: self._trail.refusal(first.actor, first.action, reasons={reason: 1}))

    def _flush(self, *, everything: bool = False) -> None:
        for source, reasons in self._folder.drain(self._clock(), everything=everything).items():
            self._write(lambda: self._trail.refusal(source.actor, source.action, reasons=reasons))  # noqa: B023 - called at once

    def _write(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except StateError as error:
            log.error("the audit trail cannot be written: %s", error)
            self.failing = True
            return False
        return True
