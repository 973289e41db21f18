"""Child processes that belong together: started in order, watched, stopped together."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from types import TracebackType

from celerymeter.demo.processes import Process
from celerymeter.errors import ProcessEnded

STOP_TIMEOUT = 4.0
RESTART_AFTER = 300.0
"""Seconds after which a worker that ended is started again: the alert for a dead worker has fired by then."""


@dataclass(frozen=True, slots=True)
class Part:
    """A child process, when it is ready, and where it then is. A ``restarted`` one may end without ending the rest."""

    process: Process
    ready: Callable[[], object]
    at: str
    restarted: bool = False


class Stack:
    """The child processes; ``say`` takes lines for the user."""

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._groups: list[tuple[Part, ...]] = []
        self._ended_at: dict[str, float] = {}

    def start(self, *together: Part) -> None:
        """Start parts at the same time and wait until all are ready; raises `StartFailed` or `ProcessEnded`."""
        self._groups.append(together)
        for part in together:
            part.process.start()
        for part in together:
            part.process.wait_ready(self._ready(part))
            self._say(f"  {part.process.name:13} {part.at}")

    def _ready(self, part: Part) -> Callable[[], object]:
        """Return a condition that is true when the part is ready, and raises `ProcessEnded` when another one ended."""
        others = [other.process for other in self._parts() if other is not part]

        def ready() -> object:
            for process in others:
                if not process.running:
                    raise _ended(process)
            return part.ready()

        return ready

    def check(self) -> None:
        """Start ended workers again when it is time; raises `ProcessEnded` when any other part has ended."""
        for part in self._parts():
            if not part.process.running:
                if not part.restarted:
                    raise _ended(part.process)
                self._restart_later(part.process)

    def _restart_later(self, process: Process) -> None:
        name, now = process.name, self._clock()
        if name not in self._ended_at:
            self._ended_at[name] = now
            status = _describe(process.status)
            self._say(f"{name} ended ({status}); it will be started again in {RESTART_AFTER / 60:g} minutes")
        elif now - self._ended_at[name] > RESTART_AFTER:
            del self._ended_at[name]
            process.stop()
            process.start()
            self._say(f"{name} has been started again")

    def stop(self) -> None:
        """Stop all parts within about 5 s, the last group first."""
        deadline = time.monotonic() + STOP_TIMEOUT
        for group in reversed(self._groups):
            for part in group:
                part.process.signal(signal.SIGTERM)
            for part in group:
                part.process.stop(timeout=max(deadline - time.monotonic(), 0.1))

    def _parts(self) -> Iterator[Part]:
        return chain.from_iterable(self._groups)

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _ended(process: Process) -> ProcessEnded:
    return ProcessEnded(
        f"{process.name} ended ({_describe(process.status)}); the end of {process.log}:\n{process.tail()}"
    )


def _describe(status: int | None) -> str:
    """Return an exit status in words."""
    if status is None:
        return "still running"
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
