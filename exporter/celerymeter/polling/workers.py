"""Polls what workers say about themselves over remote control. A silent worker is missing from the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from celerymeter import escaping
from celerymeter.broker import REDIS_TRANSPORTS
from celerymeter.inspect_replies import Replies, WorkerStats, WorkerTask
from celerymeter.model import ActiveTask, QueueBinding, WorkersSnapshot, WorkerState
from celerymeter.polling.list_schedule import LISTS, ListAnswer, ListSchedule
from celerymeter.polling.reply_habits import PROOF, PollTarget, ReplyHabits
from celerymeter.remote_control import SILENCE, TIMEOUT, Command, RemoteControl
from celerymeter.routing import QueueRoutes
from celerymeter.settings import ExporterSettings
from celerymeter.worker_configuration import parse_visibility_timeout

STATS = Command(PROOF)
DETAILS = (Command("active_queues"), Command("active", {"safe": True}))
"""Sent at every poll; ``safe`` makes the worker cut the tasks' arguments, which nobody reads."""
CONFIGURATION = Command("conf")
REGISTERED = Command("registered", {"taskinfoitems": ["_"]})
"""``_`` is no attribute of tasks: without any given there are some, which are added to the names."""
MAX_NEW = 50
"""Worker processes that one poll asks for what they are asked once."""
MAX_REGISTERED = 10_000
PING_BEATS = Command("ping", pattern="celerybeat@*")
"""Beats answer nothing else (Celery 5.7, `beat_enable_remote_control`), and workers have other names."""
BEAT_SEARCH = 60.0
"""Seconds between two such pings while no beat is known to answer."""
BEAT_KEPT = 3600.0
LISTS_SILENCE = 3.0
PROOF_SILENCE = 5.0
"""Seconds to wait for a worker that never replied: more than two heartbeats."""
HANDLING = 1.0
"""Seconds after a command within which a worker that runs its event loop has handled it."""
MAX_QUEUES = 1000
"""Queues of one worker."""
MAX_NAMES = 10_000
"""Task names of one worker."""


def _nobody(_: float) -> Collection[str]:
    return ()


class WorkerPoller:
    """Asks all workers at once; raises `BrokerUnavailable`. Thread-safe, one poll at a time."""

    def __init__(self, settings: ExporterSettings, *, control: RemoteControl | None = None) -> None:
        self._control = control or RemoteControl(settings.broker)
        self._schedule = ListSchedule(interval=settings.inspect_interval)
        self._habits = ReplyHabits()
        self._answered: frozenset[str] = frozenset()
        self._mute: frozenset[str] = frozenset()
        """Workers that have never replied, perhaps because they can read no command and log an error for each."""
        broker = settings.broker
        redelivers = broker.transport in REDIS_TRANSPORTS and "visibility_timeout" not in broker.transport_options
        self._once = (REGISTERED, CONFIGURATION) if redelivers else (REGISTERED,)
        self._processes: dict[str, _Process] = {}
        """By worker: the process that was asked once, whatever it replied."""
        self._registered: dict[frozenset[str], frozenset[str]] = {}
        self._beats: dict[str, float] = {}
        self._beats_asked_at: float | None = None

    def poll(
        self,
        *,
        now: float,
        live: Collection[PollTarget] = (),
        heard_since: Callable[[float], Collection[str]] = _nobody,
    ) -> WorkersSnapshot:
        """Return every worker that answers. Waits for the ``live`` ones, or for a second if there are none.

        Those are the workers that send heartbeats; others may answer too, so those of the last poll are waited for as
        well. ``heard_since`` tells which workers sent a heartbeat after a time: those are not too busy to reply.
        Reserved and scheduled tasks are as of the worker's last answer, see `ListSchedule`.
        """
        candidates = self._answered.union(worker.hostname for worker in live)
        began = time.monotonic()
        self._habits.update(live, candidates, now=now)
        proven = self._habits.proven(candidates)
        replies = Replies()
        if proven and proven == candidates:
            silent = self._ask((STATS, *DETAILS), candidates, replies, heard_since, wait=bool(live))
        else:
            # A worker that has never replied may be unable to: one error in its log is enough.
            details = [replace(command, destination=proven) for command in DETAILS if proven]
            silent = self._ask((STATS, *details), candidates, replies, heard_since, wait=bool(live))
            if new := replies.answered(STATS.method) - proven:
                details = [replace(command, destination=new) for command in DETAILS]
                silent |= self._ask(details, new, replies, heard_since)
        self._answered = replies.hostnames
        self._mute = candidates - self._habits.proven(candidates)
        held = self._ask_lists(replies, now, heard_since)
        self._ask_once(replies, heard_since)
        states = {name: self._state(replies, name, held.get(name, ())) for name in replies.hostnames}
        replied_at = now + time.monotonic() - began
        return WorkersSnapshot(at=now, workers=states, replied_at=replied_at, silent=silent)

    def _state(self, replies: Replies, hostname: str, held: Sequence[WorkerTask]) -> WorkerState:
        state = worker_state(replies, hostname, self._schedule.last_answer(hostname), held=held)
        process = self._processes.get(hostname)
        if process is None:
            return state
        return replace(state, visibility_timeout=process.visibility_timeout, registered=process.registered)

    def _ask(
        self,
        commands: Sequence[Command],
        candidates: Collection[str],
        replies: Replies,
        heard_since: Callable[[float], Collection[str]],
        *,
        wait: bool = True,
    ) -> frozenset[str]:
        """Add to the replies; return the candidates that were able to reply to a command and did not."""
        commands = self._habits.harmless(commands, candidates)
        if not commands:
            return frozenset()
        began, at = time.monotonic(), time.time()
        silence = PROOF_SILENCE if self._habits.unproven(candidates) else SILENCE
        self._control.ask(commands, expected=candidates if wait else (), silence=silence, replies=replies)
        # A broker that needs longer for all replies says nothing about the workers whose replies are still to come.
        in_time = time.monotonic() - began < TIMEOUT
        heard = heard_since(at + HANDLING) if in_time else ()
        return self._habits.learn(commands, replies, candidates, heard=heard)

    def beats(self, *, now: float) -> frozenset[str]:
        """Return the beats that answer a ping; waits a second for those that are not known.

        The ping goes to everybody, so none is searched for while a worker may log an error for it.
        """
        self._beats = {name: at for name, at in self._beats.items() if now - at < BEAT_KEPT}
        asked_at, self._beats_asked_at = self._beats_asked_at, now
        if not self._beats and (self._mute or (asked_at is not None and 0 <= now - asked_at < BEAT_SEARCH)):
            self._beats_asked_at = asked_at
            return frozenset()
        replies = self._control.ask([PING_BEATS], expected=self._beats)
        self._beats |= dict.fromkeys(replies.hostnames, now)
        return replies.hostnames

    def enable_events(self, hostnames: Collection[str]) -> None:
        """Make these workers send task events, unless they have never replied to anything."""
        if able := self._answered.intersection(hostnames):
            self._control.send(Command("enable_events", destination=able))

    def close(self) -> None:
        """Drop the connection; the next poll opens another."""
        self._control.close()

    def _ask_lists(
        self, replies: Replies, now: float, heard_since: Callable[[float], Collection[str]]
    ) -> dict[str, list[WorkerTask]]:
        """Ask who is due, and return the tasks of those that have answered for the first time."""
        workers = {name: stats for name in self._answered if (stats := replies.stats(name)) is not None}
        due = self._schedule.due(workers, now=now)
        commands = self._habits.harmless([Command(method, destination=due) for method in LISTS], due)
        if not due or not commands:
            return {}
        new = [name for name in due if not self._schedule.has_answered(name)]
        began = time.time()
        lists = self._control.ask(commands, expected=due, silence=LISTS_SILENCE)
        # They have answered just now. Only a solo worker may have begun a task meanwhile that blocks it.
        able = {name for name in due if workers[name].pool != "solo"}
        self._habits.learn(commands, lists, due, heard=able.union(heard_since(began + HANDLING)), listening=True)
        self._schedule.learn(lists, due)
        return {name: [task for method in LISTS for task in lists.tasks(method, name) or ()] for name in new}

    def _ask_once(self, replies: Replies, heard_since: Callable[[float], Collection[str]]) -> None:
        """Ask each worker process once for what does not change while it runs; a reply may have some 100 KiB."""
        pids = {name: stats.pid for name in self._answered if (stats := replies.stats(name)) is not None}
        same = {name: found for name, found in self._processes.items() if pids.get(name, ...) == found.pid}
        self._processes = {name: same.get(name) or _Process(pid) for name, pid in pids.items()}
        commands = [command for method in self._once if (command := self._command_to_new(method)) is not None]
        asked = {name for command in commands for name in command.destination or ()}
        if not asked:
            return
        began = time.time()
        answers = self._control.ask(commands, expected=asked, silence=LISTS_SILENCE)
        self._habits.learn(commands, answers, asked, heard=heard_since(began + HANDLING), listening=True)
        for name in asked:
            self._processes[name].learn(answers, name, self._registered)
        used = {id(found.registered) for found in self._processes.values()}
        self._registered = {known: known for known in self._registered if id(known) in used}

    def _command_to_new(self, command: Command) -> Command | None:
        """Return the command to some of the processes that have not replied to it, and can."""
        new = sorted(name for name, process in self._processes.items() if command.method not in process.replied)
        able = self._habits.harmless([replace(command, destination=new)], new) if new else []
        return replace(able[0], destination=list(able[0].destination or ())[:MAX_NEW]) if able else None


@dataclass(slots=True)
class _Process:
    """Replies of one worker process to commands that it is sent only once."""

    pid: int | None
    visibility_timeout: float | None = None
    registered: frozenset[str] | None = None
    replied: set[str] = field(default_factory=set)
    """The commands that need not be repeated."""

    def learn(self, answers: Replies, name: str, shared: dict[frozenset[str], frozenset[str]]) -> None:
        """Take the answers; equal sets of tasks are one object, since most workers of a cluster know the same."""
        self.replied.update(
            method for method in (CONFIGURATION.method, REGISTERED.method) if name in answers.settled(method)
        )
        answer, known = answers.answer(CONFIGURATION.method, name), answers.registered(name)
        if isinstance(answer, dict):
            self.visibility_timeout = parse_visibility_timeout(answer)
        if known is not None and len(known) <= MAX_REGISTERED:
            known = frozenset(map(escaping.name, known))
            self.registered = shared.setdefault(known, known)


def worker_state(
    replies: Replies, hostname: str, lists: ListAnswer | None = None, *, held: Sequence[WorkerTask] = ()
) -> WorkerState:
    """Return all that a worker answered.

    ``lists`` is its last answer about reserved and scheduled tasks, ``held`` are these tasks if that was its first.
    """
    stats = replies.stats(hostname) or WorkerStats()
    consumed, running = replies.queues(hostname), replies.tasks("active", hostname)
    # A broadcast's queue is each worker's own, with a new name at every start: no task waits there.
    queues = None if consumed is None else [queue for queue in consumed if queue.exchange_type != "fanout"]
    broadcasts = {queue.exchange for queue in (consumed or ())[:MAX_QUEUES] if queue.exchange_type == "fanout"}
    bindings = tuple(
        QueueBinding(queue.name, queue.exchange or "", queue.exchange_type or "direct", queue.routing_key or "")
        for queue in (queues or ())[:MAX_QUEUES]
    )
    routes = QueueRoutes(bindings)
    return WorkerState(
        hostname,
        pool=None if stats.pool is None else escaping.name(stats.pool),
        slots=stats.slots,
        pid=stats.pid,
        reserved=lists.reserved if lists else None,
        scheduled=lists.scheduled if lists else None,
        queues=None if queues is None else tuple(sorted({queue.name for queue in queues[:MAX_QUEUES]})),
        bindings=bindings,
        broadcasts=frozenset(filter(None, broadcasts)),
        active=None if running is None else _active_tasks(running, routes, broadcasts),
        held=_active_tasks(held, routes, broadcasts),
        totals=None if stats.totals is None else _totals(stats.totals),
        uptime=stats.uptime,
    )


def _totals(totals: Mapping[str, int]) -> dict[str, int]:
    """Return counts by the names as the tracker has them."""
    named: dict[str, int] = {}
    for name, count in islice(totals.items(), MAX_NAMES):
        clean = escaping.name(name)
        named[clean] = named.get(clean, 0) + count
    return named


def _active_tasks(
    tasks: Iterable[WorkerTask], routes: QueueRoutes, broadcasts: Collection[str | None]
) -> tuple[ActiveTask, ...]:
    return tuple(_active_task(task, routes, broadcasts) for task in tasks if task.name)


def _active_task(task: WorkerTask, routes: QueueRoutes, broadcasts: Collection[str | None]) -> ActiveTask:
    queue = routes.queue(task.exchange or "", task.routing_key) if task.routing_key else None
    if task.exchange and task.exchange in broadcasts:
        queue = task.exchange
    return ActiveTask(
        task.id, task.name or "", task.started_at, queue or routes.only_queue, task.worker_pid, task.registered_name
    )
