"""What workers answer to the commands of a revoke (`celery.worker.control`); arguments of tasks are never decoded."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import msgspec

from celerymeter.control.revocation.models import Sighting

MAX_WORDS: Final = 200
"""Characters of a worker's error that are repeated."""

log = logging.getLogger(__name__)


class _Request(msgspec.Struct, gc=False):
    id: str | None = None
    name: str | None = None
    worker_pid: int | None = None


class _Scheduled(msgspec.Struct, gc=False):
    request: _Request = msgspec.field(default_factory=_Request)


class _Pool(msgspec.Struct):
    processes: object = None
    implementation: object = None


class _Stats(msgspec.Struct):
    pool: _Pool | None = None


class _Queue(msgspec.Struct, gc=False):
    name: str | None = None


class _Said(msgspec.Struct):
    ok: object = None
    error: object = None


_DECODERS: Final[Mapping[str, msgspec.json.Decoder[dict[str, object]]]] = {
    "stats": msgspec.json.Decoder(dict[str, _Stats]),
    "active_queues": msgspec.json.Decoder(dict[str, list[_Queue] | None]),
    "query_task": msgspec.json.Decoder(dict[str, dict[str, tuple[str, _Request]]]),
    "active": msgspec.json.Decoder(dict[str, list[_Request]]),
    "reserved": msgspec.json.Decoder(dict[str, list[_Request]]),
    "scheduled": msgspec.json.Decoder(dict[str, list[_Scheduled]]),
    "revoke": msgspec.json.Decoder(dict[str, _Said]),
}
_ERROR: Final = msgspec.json.Decoder(dict[str, _Said])
_EAGER: Final = frozenset(f"celery.concurrency.{name}:TaskPool" for name in ("thread", "gevent", "eventlet"))
"""Pools that take all reserved tasks at once: a worker looks at its flags for the last time before that (only
`celery.concurrency.prefork` has ``uses_semaphore``).
"""
_STATES: Final = {"active": "STARTED", "reserved": "RECEIVED", "scheduled": "RECEIVED"}


class Replies:
    """Gathers the replies to one round of commands; one that cannot be read spoils nothing of the others."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}
        self._said: dict[str, dict[str, object]] = defaultdict(dict)

    def receive(self, method: str, body: bytes | str) -> None:
        """One reply, ``{hostname: answer}``."""
        try:
            answers = _DECODERS[method].decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._receive_error(body)
            return
        for hostname, answer in answers.items():
            if isinstance(answer, _Said) and answer.error is not None:
                self.errors[hostname] = _words(answer.error)
            else:
                self._said[method][hostname] = answer

    def answered(self, method: str) -> frozenset[str]:
        """Who answered, and not with an error."""
        return frozenset(self._said[method])

    def queues(self) -> frozenset[str]:
        """The queues that workers consume from."""
        lists = (answer for answer in self._said["active_queues"].values() if isinstance(answer, list))
        return frozenset(queue.name for queues in lists for queue in queues if queue.name)

    def processes(self, hostname: str) -> frozenset[int] | None:
        """The pids of a prefork pool; None when the worker did not say, or has a pool of another kind."""
        pool = self._pool(hostname)
        listed = pool.processes if pool is not None else None
        return frozenset(pid for pid in listed if isinstance(pid, int)) if isinstance(listed, list) else None

    def held(self) -> dict[str, Sighting]:
        """Where tasks are, by id; what runs goes before what waits."""
        found: dict[str, Sighting] = {}
        for method in ("scheduled", "reserved", "query_task", "active"):
            for hostname, answer in self._said[method].items():
                for state, task in _listed(method, answer):
                    if task.id and found.get(task.id, _NOWHERE).place != "running":
                        found[task.id] = self._sighting(state, task, hostname)
        return found

    def _pool(self, hostname: str) -> _Pool | None:
        stats = self._said["stats"].get(hostname)
        return stats.pool if isinstance(stats, _Stats) else None

    def _sighting(self, state: str, task: _Request, hostname: str) -> Sighting:
        pool = self._pool(hostname)
        eager = state == "reserved" and pool is not None and pool.implementation in _EAGER
        return _sighting("taken" if eager else state, task, hostname)

    def _receive_error(self, body: bytes | str) -> None:
        try:
            answers = _ERROR.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            log.warning("a worker's answer cannot be read")
            return
        self.errors.update({hostname: _words(said.error) for hostname, said in answers.items()})


_NOWHERE: Final = Sighting()


def _listed(method: str, answer: object) -> list[tuple[str, _Request]]:
    if method == "query_task" and isinstance(answer, dict):
        return list(answer.values())
    tasks = answer if isinstance(answer, list) else []
    return [(method, task.request if isinstance(task, _Scheduled) else task) for task in tasks]


def _sighting(state: str, task: _Request, hostname: str) -> Sighting:
    running, taken = state == "active", state == "taken"
    return Sighting(
        place="running" if running else "taken" if taken else "waiting",
        how="runs" if running else f"taken by the pool of {hostname}" if taken else f"{state} at {hostname}",
        worker=hostname,
        name=task.name,
        state=_STATES.get(state, "RECEIVED"),
        pid=task.worker_pid if running else None,
    )


def _words(error: object) -> str:
    return (str(error).strip().splitlines() or ["error"])[0][:MAX_WORDS]
