"""Every kind of task that a revoke can meet, at once, and the status that it must get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.revocation.cluster import Cluster, Held

from celerymeter.demo.processes import Process

WORKERS: Mapping[str, str] = {"prefork": "prefork", "one": "prefork", "threads": "threads"}
"""The names of the workers, each with two slots but for ``one``, and their pools."""


@dataclass(frozen=True)
class Rows:
    """Two batches: ids and status. Tasks that run do so until the cluster lets them go."""

    gently: Mapping[str, str]
    terminate: Mapping[str, str]
    reserved: str | None
    """It is discarded once its worker is let go."""

    def flagged_as(self, status: str) -> Mapping[str, str]:
        """Return the first batch where a worker does not acknowledge."""
        return {key: status if value.startswith("flagged") else value for key, value in self.gently.items()}

    def after(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return what both batches become once all are let go."""
        ran = {"error": "ran_anyway", "terminate_sent": "ran_anyway"}
        gently, terminate = (
            {task_id: ran.get(status, status) for task_id, status in batch.items()}
            for batch in (self.gently, self.terminate)
        )
        return {**gently, **({self.reserved: "revoked"} if self.reserved else {})}, terminate


def start_workers(cluster: Cluster, **options: Any) -> list[Process]:
    """Start the workers that `cause` needs."""
    return [
        cluster.worker(f"{name}@t", pool=pool, concurrency=1 if name == "one" else 2, **options)
        for name, pool in WORKERS.items()
    ]


def cause(cluster: Cluster, *, held: bool = True) -> Rows:
    """Cause every row of which all workers can be asked (a solo pool that is busy answers nobody).

    ``held``: also those of which a worker holds the message.
    """
    finished = {}
    for name, args, state in (("tests.add", (1, 2), "SUCCESS"), ("tests.fail", (), "FAILURE")):
        task_id = cluster.send(name, *args, queue="prefork")
        assert cluster.ends(task_id) == state
        finished[task_id] = "already_finished"
    cluster.ends(cluster.send("tests.limited", 1, 2, queue="prefork"))
    busy, thread = cluster.hold("one"), cluster.hold("threads")
    waiting = [cluster.send("tests.add", 1, 2, queue="nowhere")]
    if held:
        waiting += [
            cluster.send("tests.add", 1, 2, queue="one"),
            cluster.send("tests.add", 1, 2, queue="one", countdown=3600),
            cluster.send("tests.limited", 1, 2, queue="prefork"),
        ]
    for task_id in waiting:
        cluster.knows(task_id)
    mortal, stubborn, other = cluster.hold("prefork"), cluster.hold("prefork", unmoved=True), cluster.hold("threads")
    runs: dict[Held, str] = {mortal: "terminated", stubborn: "terminate_sent", other: "error"}
    taken = [cluster.send("tests.add", 1, 2, queue="threads")] if held else []
    for task_id in taken:
        cluster.knows(task_id, "it will run")
    return Rows(
        {
            **finished,
            **dict.fromkeys((busy.id, thread.id), "running_not_terminated"),
            **dict.fromkeys(waiting, "flagged"),
            uuid4().hex: "flagged_unknown",
            **dict.fromkeys(taken, "error"),
        },
        {held.id: status for held, status in runs.items()},
        waiting[1] if held else None,
    )
