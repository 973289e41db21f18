"""Maintenance of the trail while the program runs: refusals folded, first uses of tokens noted, old rows pruned."""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

from celerymeter.control.audit.trail import Actor, AuditTrail
from celerymeter.control.tokens import Identity
from celerymeter.errors import StateError

log = logging.getLogger(__name__)

ROUND = 60.0
"""Seconds between two rounds: folded refusals, the head in the log, retention."""
MAX_KNOWN = 10_000
"""Token ids remembered as noted; beyond that the database is asked again."""
WINDOW = 60.0
"""Seconds over which refusals are folded."""
MAX_SOURCES = 100
"""Sources told apart in one minute; the others are counted as one."""
OTHER = "__other__"


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a refusal: an address, with the subject where a token was good but not enough."""

    address: str
    sub: str = ""
    jti: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class Folded:
    """Refusals of one source in one minute, after the first one, by reason."""

    source: Source
    reasons: dict[str, int]


@dataclass(slots=True)
class _Window:
    since: float
    reasons: Counter[str] = field(default_factory=Counter)


class RefusalFolder:
    """Says which refusal to write at once (a source's first of the minute) and counts those that follow.

    Without that, strangers could fill the disk. Pure: ``now`` is an argument.
    """

    def __init__(self) -> None:
        self._windows: dict[Source, _Window] = {}
        self._lock = Lock()

    def note(self, source: Source, reason: str, now: float) -> Source | None:
        """Count one refusal; the source to write it under now, or None when `drain` will give it."""
        with self._lock:
            if source not in self._windows and len(self._windows) >= MAX_SOURCES:
                source = Source(address=OTHER)
            window = self._windows.get(source)
            if window is not None:
                window.reasons[reason] += 1
                return None
            self._windows[source] = _Window(since=now)
            return source

    def drain(self, now: float, *, everything: bool = False) -> Sequence[Folded]:
        """What was counted in windows that have ended (in all, at the end of the program), and forget those."""
        with self._lock:
            ended = [key for key, window in self._windows.items() if everything or now - window.since >= WINDOW]
            windows = [(key, self._windows.pop(key)) for key in ended]
        return [Folded(source, dict(window.reasons)) for source, window in windows if window.reasons]


class AuditMaintenance:
    """Writes refusals and first uses of tokens, and prunes and logs every minute on a thread of its own.

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
        """Do everything that is due every minute; a part that fails does not keep the others from their turn."""
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
