"""The batches that are still followed, in memory: which ids are open, and which workers have yet to acknowledge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from celerymeter.control.revocation.models import Acknowledgements, Batch, Result
from celerymeter.control.revocation.verdict import flagged, given_up

MOST: Final = 10_000
"""Open ids that are held."""


class Followed:
    """A batch that changes. ``missing``: workers that have not acknowledged its ids; ``early``: what events changed
    before the act was ``decided``.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.results = {result.task_id: result for result in batch.results}
        self.missing = set(batch.workers.missing)
        self.decided = False
        self.early: list[Result] = []
        self.look_at = 0.0
        self.look_pause = 0.5

    @property
    def batch(self) -> Batch:
        """As it stands."""
        return replace(self._batch, results=tuple(self.results.values()))

    def acted(self, workers: Acknowledgements) -> None:
        """The act is over."""
        self._batch = replace(self._batch, workers=workers)
        self.missing = set(workers.missing)
        self.decided = True

    def covers(self, task_ids: Collection[str]) -> bool:
        """Whether all its open ids are among these."""
        return all(result.task_id in task_ids for result in self.open())

    @property
    def id(self) -> str:
        """The batch's id."""
        return self._batch.id

    @property
    def terminate(self) -> bool:
        """Whether what runs is to end."""
        return self._batch.order.terminate

    def open(self) -> Iterator[Result]:
        """What may still change."""
        return (result for result in self.results.values() if not result.settled)

    def change(self, changes: Iterable[Result]) -> list[Result]:
        """Take over what is new, and give that; what is settled stays."""
        changed = [
            result
            for result in changes
            if not self.results[result.task_id].settled and result != self.results[result.task_id]
        ]
        self.results.update({result.task_id: result for result in changed})
        return changed

    def acknowledged(self, workers: Iterable[str]) -> list[Result]:
        """These have acknowledged all ids; what that changes."""
        self.missing.difference_update(workers)
        if self.missing:
            return []
        waiting = ("partial", "pending")
        return self.change([flagged(result) for result in self.open() if result.status in waiting])


class Ledger:
    """All followed batches, by id and by task. Not thread-safe."""

    def __init__(self) -> None:
        self._batches: dict[str, Followed] = {}
        self._by_task: dict[str, set[str]] = defaultdict(set)

    def add(self, batch: Batch) -> Followed:
        """Follow a batch."""
        followed = self._batches[batch.id] = Followed(batch)
        for result in followed.open():
            self._by_task[result.task_id].add(batch.id)
        return followed

    def get(self, batch: str) -> Followed | None:
        """A batch that is followed."""
        return self._batches.get(batch)

    def all(self) -> list[Followed]:
        """Every one, the oldest first."""
        return list(self._batches.values())

    def of_task(self, task_id: str) -> list[Followed]:
        """The batches in which an id is."""
        found = (self._batches.get(batch) for batch in self._by_task.get(task_id, ()))
        return [followed for followed in found if followed is not None]

    def knows(self, task_id: str) -> bool:
        """Whether anybody wants to hear of it."""
        return task_id in self._by_task

    def open_ids(self) -> list[str]:
        """Every open id once."""
        return list(dict.fromkeys(result.task_id for followed in self.all() for result in followed.open()))

    def tidy(self) -> None:
        """Follow settled batches no longer."""
        for followed in self.all():
            if followed.decided and followed.batch.settled:
                self.drop(followed.id)

    def drop(self, batch: str) -> None:
        """Follow this one no longer."""
        for task_id in self._batches.pop(batch).results:
            self._leave(task_id, batch)

    def overdue(self, *, now: float, hold: float) -> list[tuple[str, Followed, list[Result]]]:
        """What is to be given up, and why: ids that were held for too long, and the oldest of too many."""
        given = []
        surplus = sum(1 for followed in self.all() for _ in followed.open()) - MOST
        for followed in self.all():
            late = followed.batch.at + hold < now
            results = list(followed.open()) if late else list(followed.open())[: max(surplus, 0)]
            surplus -= len(results)
            if results:
                given.append(("expired" if late else "capacity", followed, results))
        return given

    def _leave(self, task_id: str, batch: str) -> None:
        batches = self._by_task.get(task_id)
        if batches is not None:
            batches.discard(batch)
            if not batches:
                del self._by_task[task_id]


WHY: Final[Mapping[str, str]] = {
    "expired": "not settled within the time that revokes are held",
    "capacity": "given up: too many revokes are held",
}


def give_up(results: Iterable[Result], reason: str) -> list[Result]:
    """They are followed no longer."""
    return [given_up(result, WHY[reason]) for result in results]
