"""What the workers say of themselves, asked over remote control. A worker that is silent says nothing, no more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from celerymeter.model import WorkersSnapshot, WorkerState
from celerymeter.polling.control import Command, RemoteControl
from celerymeter.polling.details import Details
from celerymeter.polling.replies import Replies
from celerymeter.settings import ExporterSettings

ROUND = (Command("stats"), Command("active_queues"), Command("active", {"safe": True}))
"""Asked every time; ``safe`` has arguments cut to their short form, for we do not want them."""
DETAIL_PATIENCE = 3.0


class WorkerPoller:
    """Asks all workers at once; raises `BrokerUnavailable`. Usable from several threads, one question at a time."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._control = RemoteControl(settings.broker)
        self._details = Details(interval=settings.inspect_interval)
        self._answered = 0

    def poll(self, *, now: float, expected: int | None) -> WorkersSnapshot:
        """Every worker that answers. Waits for ``expected`` workers (``None``: for whoever comes within a second).

        Those are the workers that send heartbeats; others may answer too, so as many as last time are waited for.
        Reserved and scheduled tasks are as of the worker's last answer, see `celerymeter.polling.details`.
        """
        replies = Replies()
        wanted = max(expected, self._answered) if expected else None
        self._control.ask(ROUND, replies.receive, enough=lambda: wanted is not None and _complete(replies, wanted))
        self._answered = len(replies.answered("stats"))
        if not replies.hostnames:
            self._control.close()  # a connection may be dead without our knowing
        self._ask_details(replies, now)
        return WorkersSnapshot(at=now, workers={name: self._state(replies, name) for name in replies.hostnames})

    def poll_stats(self, hostname: str) -> WorkerState | None:
        """What one worker says in ``inspect stats``; ``None`` when it does not answer."""
        replies = Replies()
        command = Command("stats", destination=[hostname])
        self._control.ask([command], replies.receive, enough=lambda: replies.stats(hostname) is not None)
        return replies.state(hostname) if replies.stats(hostname) is not None else None

    def enable_events(self, hostnames: Collection[str]) -> None:
        """Have these workers send task events."""
        self._control.tell(Command("enable_events", destination=hostnames))

    def close(self) -> None:
        """Drop the connection; the next question opens another."""
        self._control.close()

    def _ask_details(self, replies: Replies, now: float) -> None:
        workers = {name: stats for name in replies.answered("stats") if (stats := replies.stats(name)) is not None}
        due = self._details.due(workers, now=now)
        if not due:
            return
        commands = [Command(method, destination=due) for method in ("reserved", "scheduled")]
        details = Replies()
        enough = len(due)
        self._control.ask(
            commands,
            details.receive,
            enough=lambda: all(len(details.answered(command.method)) >= enough for command in commands),
            patience=DETAIL_PATIENCE,
        )
        self._details.learn(details, due)

    def _state(self, replies: Replies, hostname: str) -> WorkerState:
        state, detail = replies.state(hostname), self._details.of(hostname)
        return replace(state, reserved=detail.reserved, scheduled=detail.scheduled) if detail is not None else state


def _complete(replies: Replies, wanted: int) -> bool:
    return all(len(replies.answered(command.method)) >= wanted for command in ROUND)
