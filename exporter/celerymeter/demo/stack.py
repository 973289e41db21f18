"""Children that belong together: started in order, watched, stopped at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from types import TracebackType

from celerymeter.demo.processes import Process
from celerymeter.errors import ProcessEnded

START_TIMEOUT = 90.0
STOP_TIMEOUT = 4.0
AWAY = 180.0
"""Seconds after which a mortal child that ended is started again: a dead worker's alert has fired by then."""


@dataclass(frozen=True, slots=True)
class Part:
    """A child, what makes it ready, and where it is then; the others live on when a ``mortal`` one ends."""

    process: Process
    ready: Callable[[], object]
    at: str
    mortal: bool = False


class Stack:
    """The children; ``say`` takes a line for the person who watches."""

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._stages: list[tuple[Part, ...]] = []
        self._gone: dict[str, float] = {}

    def start(self, *together: Part) -> None:
        """Start these at the same time and wait until all are ready; raises `StartFailed` or `ProcessEnded`."""
        self._stages.append(together)
        for part in together:
            part.process.start()
        for part in together:
            part.process.wait_ready(self._ready(part), timeout=START_TIMEOUT)
            self._say(f"  {part.process.name:13} {part.at}")

    def _ready(self, part: Part) -> Callable[[], object]:
        others = [other.process for other in self._parts() if other is not part]

        def ready() -> object:
            for process in others:
                if not process.running:
                    raise ended(process)
            return part.ready()

        return ready

    def check(self) -> None:
        """Start again the mortal that are due; raises `ProcessEnded` when any other child has ended."""
        for part in self._parts():
            if part.process.running:
                continue
            if not part.mortal:
                raise ended(part.process)
            self._revive(part.process)

    def _revive(self, process: Process) -> None:
        name, now = process.name, self._clock()
        if name not in self._gone:
            self._gone[name] = now
            self._say(f"{name} ended ({outcome(process.status)}); it comes back in {AWAY / 60:g} minutes")
        elif now - self._gone[name] > AWAY:
            del self._gone[name]
            process.stop()
            process.start()
            self._say(f"{name} is started again")

    def stop(self) -> None:
        """End all children within some 5 s: what was started together at once, the last first."""
        deadline = time.monotonic() + STOP_TIMEOUT
        for stage in reversed(self._stages):
            for part in stage:
                part.process.signal(signal.SIGTERM)
            for part in stage:
                part.process.stop(timeout=max(deadline - time.monotonic(), 0.1))

    def _parts(self) -> Iterator[Part]:
        return chain.from_iterable(self._stages)

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def ended(process: Process) -> ProcessEnded:
    """The error for a child that should have run on: what ended it and its last words."""
    return ProcessEnded(
        f"{process.name} ended ({outcome(process.status)}); the end of {process.log}:\n{process.tail()}"
    )


def outcome(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "still running"
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
