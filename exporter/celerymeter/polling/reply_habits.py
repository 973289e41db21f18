"""Remembers which worker replies to which command, so that none is asked again and again for what it cannot say."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from celerymeter.inspect_replies import Replies
from celerymeter.remote_control import Command

PROOF = "stats"
"""The command that a worker is asked first: one that replies to it is able to reply."""
PAUSES = (20.0, 300.0)
"""Seconds for which a worker that did not reply is not asked, the first and the second time; then it cannot reply.

The first is short: a worker that gets little processor time while it starts may send heartbeats before it listens, and
as long as it is not asked, it has no gauges and none of its lost events are counted.
"""
WITHOUT_ARGUMENTS = frozenset({PROOF, "active_queues", "active"})
"""Commands whose replies hold no arguments of tasks (``active`` is sent with ``safe``): a process that has replied to
one is able to, and when it does not its machine is busy."""
YOUNG = 5.0
"""Seconds for which a new worker may not listen yet."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PollTarget:
    """A worker whose heartbeats are heard; ``process`` differs from one process under its name to the next."""

    hostname: str
    process: object
    online_at: float | None = None
    """Time of its worker-online event in UTC seconds; ``None`` if that was before the exporter subscribed."""


class ReplyHabits:
    """Remembers which worker replies to which command, so that one that cannot is sent it three times at most.

    A worker cannot reply when it accepts only pickled commands (each of ours makes it log an error), when its remote
    control is turned off, when its replies are pickled, or when its tasks hold arguments that JSON cannot express
    (then its control loop fails). A worker that is too busy to reply is none of these: it sends no heartbeats either.
    """

    def __init__(self) -> None:
        self._processes: dict[str, object] = {}
        self._young: set[str] = set()
        self._silences: dict[tuple[str, str], list[float]] = {}
        """Times at which a worker did not reply to a command although it could have, since its last reply."""
        self._now = 0.0
        self._replied: set[tuple[str, str]] = set()

    def update(self, live: Collection[PollTarget], candidates: Collection[str], *, now: float) -> None:
        """Forget the habits of workers that have started again, and of all that are no longer candidates."""
        current = {worker.hostname: worker.process for worker in live}
        same = {name for name in candidates if current.get(name) == self._processes.get(name, current.get(name))}
        self._silences = {key: times for key, times in self._silences.items() if key[0] in same}
        self._replied = {key for key in self._replied if key[0] in same}
        self._processes = current
        self._now = now
        # A worker says that it is online before it listens to remote control.
        self._young = {worker.hostname for worker in live if now - (worker.online_at or 0.0) < YOUNG}

    def harmless(self, commands: Sequence[Command], candidates: Collection[str]) -> list[Command]:
        """Return the commands without the workers that cannot reply to them, and without those nobody is left for."""
        chosen = []
        for command in commands:
            able = [name for name in candidates if not self._cannot(name, command.method)]
            if len(able) == len(candidates):
                chosen.append(command)
            elif able:
                chosen.append(replace(command, destination=able))
        return chosen

    def proven(self, candidates: Collection[str]) -> frozenset[str]:
        """Return the candidates that have replied to `STATS`."""
        return frozenset(name for name in candidates if (name, PROOF) in self._replied)

    def unproven(self, candidates: Collection[str]) -> bool:
        """Return whether a worker has never replied that may still be able to: it is worth a longer wait."""
        new = (name for name in candidates if (name, PROOF) not in self._replied and name not in self._young)
        return any(not self._cannot(name, PROOF) for name in new)

    def learn(
        self,
        commands: Sequence[Command],
        replies: Replies,
        candidates: Collection[str],
        *,
        heard: Collection[str],
        listening: bool = False,
    ) -> frozenset[str]:
        """Take the replies of a round; return the workers that were able to reply to a command and did not.

        ``heard`` were not too busy to reply; ``listening``: the candidates have just replied to other commands.
        """
        silent: set[str] = set()
        for name in sorted(candidates):
            asked = [command.method for command in commands if name in (command.destination or candidates)]
            missing = [method for method in asked if name not in replies.settled(method)]
            for method in set(asked).difference(missing):
                self._replied.add((name, method))
                self._silences.pop((name, method), None)
            if missing and name in heard and name not in self._young:
                silent.add(name)
                self._blame(name, missing, replied=missing != asked or listening)
        return frozenset(silent)

    def _blame(self, name: str, missing: Sequence[str], *, replied: bool) -> None:
        """``replied``: the worker has just replied to something, so that its remote control works."""
        if replied:
            missing = missing[:1]  # a command that fails may take those behind it along
        for method in missing:
            able = (name, method) in self._replied and (method in WITHOUT_ARGUMENTS or not replied)
            if not able:  # else something else is wrong just now
                times = self._silences.setdefault((name, method), [])
                times.append(self._now)
                again = f"for {PAUSES[len(times) - 1]:.0f} s" if len(times) <= len(PAUSES) else "until it restarts"
                log.warning("%s does not reply to %s and is not asked again %s", name, method, again)

    def _cannot(self, name: str, method: str) -> bool:
        """Whatever went wrong at first may have been chance, so there are further ones, after `PAUSES`."""
        times = self._silences.get((name, method))
        return times is not None and (len(times) > len(PAUSES) or self._now - times[-1] < PAUSES[len(times) - 1])
