"""What the trail needs while the program runs: refusals folded, first uses noted, and every minute the rounds."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Event, Lock, Thread

from celerymeter.control.audit.refusals import RefusalFolder, Source
from celerymeter.control.audit.trail import Actor, AuditTrail
from celerymeter.control.tokens import Identity
from celerymeter.errors import StateError

log = logging.getLogger(__name__)

ROUND = 60.0
"""Seconds between two rounds: folded refusals, orphans, the head in the log, retention."""
MAX_KNOWN = 10_000
"""Token ids remembered as noted; beyond that the database is asked again."""


class AuditKeeper:
    """Takes refusals and tokens from the request path, and does the rounds on a thread of its own.

    Reading goes on while the disk fails (that is logged); acts do not, as their intent cannot be written.
    """

    def __init__(
        self, trail: AuditTrail, *, retention: float, interval: float = ROUND, clock: Callable[[], float] = time.time
    ) -> None:
        self._trail = trail
        self._retention = retention
        self._interval = interval
        self._clock = clock
        self._folder = RefusalFolder()
        self._noted: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()
        self._stopping = Event()
        self._thread: Thread | None = None
        self.failing = False
        """Whether a write failed, and no round has found since that writing works."""

    def accepted(self, identity: Identity, address: str) -> None:
        """A token was valid: note it once."""
        with self._lock:
            if identity.jti in self._noted:
                return
        actor = Actor(identity.sub, identity.jti, address)
        detail = {"role": identity.role.label, "exp": identity.exp}
        if self._write(lambda: self._trail.token(actor, "token.first_use", exp=identity.exp, detail=detail)):
            self._remember(identity.jti)

    def refused(self, reason: str, *, address: str) -> None:
        """A request had no valid token."""
        self._fold(Source(address=address, action="authenticate"), reason)

    def forbidden(self, identity: Identity, action: str, *, address: str) -> None:
        """A valid token did not suffice."""
        self._fold(Source(address=address, sub=identity.sub, jti=identity.jti, action=action), "forbidden")

    def start(self) -> None:
        """Do the first round now, others every minute."""
        self._thread = Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the rounds and write what is still folded."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
        self._flush(everything=True)

    def round(self) -> None:
        """Everything that is done by the minute; each part on its own, lest one that fails keeps the others."""
        if self._write(self._trail.probe):
            self.failing = False
        self._flush()
        self._write(self._mark_orphans)
        self._write(self._prune)
        self._write(lambda: log.info("audit head", extra={"audit_head": str(self._trail.head())}))

    def _run(self) -> None:
        while True:
            self.round()
            if self._stopping.wait(self._interval):
                return

    def _prune(self) -> None:
        """In steps of a day (or a tenth of a short retention), as each step costs a checkpoint row."""
        now, slack = self._clock(), min(86400.0, self._retention / 10)
        oldest = self._trail.oldest()
        if oldest is not None and oldest < now - self._retention - slack:
            log.info("audit trail pruned", extra={"rows": self._trail.prune(now - self._retention)})

    def _mark_orphans(self) -> None:
        if marked := self._trail.mark_orphans():
            log.warning("%d act(s) have no known outcome: their program was killed", marked)

    def _fold(self, source: Source, reason: str) -> None:
        if (first := self._folder.note(source, reason, self._clock())) is not None:
            self._write_refusal(first, {reason: 1})

    def _flush(self, *, everything: bool = False) -> None:
        for folded in self._folder.drain(self._clock(), everything=everything):
            self._write_refusal(folded.source, folded.reasons)

    def _write_refusal(self, source: Source, reasons: dict[str, int]) -> None:
        actor = Actor(source.sub, source.jti, source.address)
        self._write(lambda: self._trail.refusal(actor, source.action, reasons=reasons))

    def _remember(self, jti: str) -> None:
        with self._lock:
            self._noted[jti] = None
            if len(self._noted) > MAX_KNOWN:
                self._noted.popitem(last=False)

    def _write(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except StateError as error:
            log.error("the audit trail cannot be written: %s", error)
            self.failing = True
            return False
        return True
