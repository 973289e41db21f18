"""Polls queues on RabbitMQ by declaring them passively; kombu's other transports answer the same question.

Classic and quorum queues report their ready messages and consumers. Only the management API knows unacknowledged
messages, and nobody knows the head of a queue without taking it out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import msgspec
import requests
from amqp import AccessRefused

from celerymeter.bounded_http import fetch
from celerymeter.broker import HeldConnection
from celerymeter.connection_errors import UNREACHABLE
from celerymeter.errors import PollError, SettingsError
from celerymeter.json_values import count_values
from celerymeter.model import BrokerMemory, QueuesSnapshot, QueueState
from celerymeter.polling.queues import MAX_KNOWN, KnownQueues, chosen, is_delay_level, is_remote_queue, is_task_queue
from celerymeter.settings import ExporterSettings
from celerymeter.urls import without_password

T = TypeVar("T")
log = logging.getLogger(__name__)

MANAGEMENT_TIMEOUT = 5.0
BINDINGS_INTERVAL = 60.0
"""Seconds between two requests for bindings: reply queues come and go all the time."""
MAX_PAGE = 32 * 2**20
"""Bytes of a reply of the management API; more than 100,000 queues fit."""
MAX_VALUES = 1_000_000
"""Values in it, of which a queue has seven: as objects they take many times the memory of their text."""
MAX_ERROR = 300
"""Characters of an error that are repeated."""


class AmqpQueuePoller:
    """A `QueuePoller` over a kombu connection."""

    def __init__(self, settings: ExporterSettings, known: KnownQueues | None = None) -> None:
        self._settings = settings
        self._held = HeldConnection(settings.broker)
        url = settings.rabbitmq_management_url
        self._management = Management(url, broker_url=settings.broker.url) if url else None
        self._finder = TaskQueueFinder()
        self._known = known or KnownQueues()
        self._nodes_refused = False

    def poll(self, names: Collection[str], *, now: float) -> QueuesSnapshot:
        """See `QueuePoller.poll`; a queue that does not exist, or is exclusive to its connection, is left out.

        Queues that workers or events have named are polled as long as they exist.
        """
        self._known.add(names)
        listed: Mapping[str, ListedQueue] = {}
        found: Collection[str] = ()
        incomplete = None
        if self._management is not None:
            try:
                listed = self._management.queues()
                found = self._finder.find(listed, self._known.names, self._management.bindings, now=now)
            except PollError as error:
                incomplete = str(error)
        queues = chosen(self._settings, self._known.names, found)
        if len(queues) > MAX_KNOWN:  # each is a question, and who may declare queues may declare any number
            incomplete = incomplete or f"{len(queues)} queues of tasks: the first {MAX_KNOWN} are polled"
            queues = queues[:MAX_KNOWN]
        states, refused = self._held.use(lambda connection: _states(connection, queues, listed))
        self._known.keep([*(state.name for state in states), *refused])
        if refused:
            incomplete = incomplete or _refusal(refused)
        if self._management is not None and states and incomplete is None and not listed:
            incomplete = f"{self._management} lists no queue: is it the right virtual host?"
        levels = [queue.messages for queue in listed.values() if is_delay_level(queue.name)]
        delayed = sum(filter(None, levels)) if levels and None not in levels else None
        return QueuesSnapshot(
            at=now, queues=tuple(states), delayed=delayed, memory=self._memory(listed), incomplete=incomplete
        )

    def _memory(self, listed: Mapping[str, ListedQueue]) -> BrokerMemory:
        """Return the memory of the broker; asks only an API that has just replied."""
        if self._management is None or not listed:
            return BrokerMemory()
        nodes: list[Node] = []
        try:
            nodes = self._management.nodes()
        except PollError as error:
            if not self._nodes_refused:
                log.warning("the broker's memory is unknown; its user needs the tag monitoring: %s", error)
            self._nodes_refused = True
        return broker_memory(nodes, listed.values())

    def close(self) -> None:
        """See `QueuePoller.close`."""
        self._held.close()


def _states(
    connection: Any, queues: Collection[str], listed: Mapping[str, ListedQueue]
) -> tuple[list[QueueState], list[str]]:
    """Return what the broker says of these queues, and those of which it refuses to say anything."""
    states: list[QueueState] = []
    refused: list[str] = []
    counts_consumers = connection.transport.driver_type == "amqp"
    channel: Any = None
    for queue in queues:
        channel = channel or connection.channel()
        try:
            declared = channel.queue_declare(queue=queue, passive=True)
        except connection.channel_errors as error:
            channel = None  # the broker closes the channel on which a queue was missing
            if isinstance(error, AccessRefused):
                refused.append(queue)
            continue
        consumers = declared.consumer_count if counts_consumers else None
        unacked = listed[queue].messages_unacknowledged if queue in listed else None
        states.append(QueueState(queue, declared.message_count, unacked=unacked, consumers=consumers))
    if channel is not None:
        with suppress(*UNREACHABLE):
            channel.close()
    return states, refused


def _refusal(refused: Sequence[str]) -> str:
    others = f" and {len(refused) - 1} others" if refused[1:] else ""
    return (
        f"the broker refuses its user the length of {refused[0]}{others}: RabbitMQ 4.3 wants a permission on the queue"
    )


class _Arguments(msgspec.Struct):
    queue_type: object = msgspec.field(default=None, name="x-queue-type")
    dead_letter_exchange: object = msgspec.field(default=None, name="x-dead-letter-exchange")
    dead_letter_routing_key: object = msgspec.field(default=None, name="x-dead-letter-routing-key")


Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A larger one would be on the page as it is, and Prometheus refuses a page with a number that no float holds."""


class ListedQueue(msgspec.Struct):
    """A queue as the management API lists it; no figure where the broker collects no statistics."""

    name: str
    messages: Number | None = None
    messages_unacknowledged: Number | None = None
    message_bytes: Number | None = None
    consumers: Number | None = None
    arguments: _Arguments = msgspec.field(default_factory=_Arguments)


class ManagementBinding(msgspec.Struct):
    """A binding as the management API lists it."""

    source: str
    destination: str
    destination_type: str = "queue"
    routing_key: str = ""


class Node(msgspec.Struct):
    """A node as the management API lists it; a node that is down reports no numbers."""

    mem_used: Number | None = None
    mem_limit: Number | None = None
    mem_alarm: bool | None = None
    disk_free_alarm: bool | None = None


def is_orphaned(queue: ListedQueue) -> bool:
    """Return whether messages wait in a queue of events, or of remote control, that nobody reads."""
    return is_remote_queue(queue.name) and bool(queue.messages) and not queue.consumers


def broker_memory(nodes: Sequence[Node], queues: Iterable[ListedQueue]) -> BrokerMemory:
    """Return the memory of the node nearest to its limit: one alarm blocks the publishers of the whole cluster."""
    full = [
        (node.mem_used / node.mem_limit, node.mem_used, node.mem_limit)
        for node in nodes
        if node.mem_used and node.mem_limit
    ]
    _, used, limit = max(full, default=(0, None, None))
    alarms = {alarm for node in nodes for alarm in (node.mem_alarm, node.disk_free_alarm) if alarm is not None}
    orphaned = sum(queue.message_bytes or 0 for queue in queues if is_orphaned(queue))
    return BrokerMemory(used=used, limit=limit, blocked=any(alarms) if alarms else None, orphaned=orphaned)


class TaskQueueFinder:
    """Finds queues of tasks among all that a virtual host has, for it may be shared with other applications.

    Celery binds a queue to an exchange of the same name unless it is configured otherwise. So a queue belongs to
    Celery when it is bound like that, or to an exchange that a queue uses which workers or events have named. Reply
    queues, dead letters, streams, MQTT subscriptions and queues of other applications are not.

    Other applications may bind queues to such an exchange too (a topic exchange for events). So a queue that is bound
    by another routing key than its name, and that somebody consumes, is Celery's only once it is named: without
    consumers nobody can tell whose it is, and one of Celery's that workers have left must not be missed.
    """

    def __init__(self) -> None:
        self._exchanges: dict[str, frozenset[str]] = {}
        self._bound_by_name: frozenset[str] = frozenset()
        self._asked_at = float("-inf")

    def find(
        self,
        listed: Mapping[str, ListedQueue],
        named: Collection[str],
        bindings: Callable[[], Sequence[ManagementBinding]],
        *,
        now: float,
    ) -> set[str]:
        """Return the queues of tasks among those listed; asks for bindings when there are new names, but rarely."""
        if not listed.keys() <= self._exchanges.keys() and abs(now - self._asked_at) >= BINDINGS_INTERVAL:
            self._asked_at = now
            sources: dict[str, set[str]] = {name: set() for name in listed}
            found = bindings()
            self._bound_by_name = frozenset(
                binding.destination
                for binding in found
                if binding.source and binding.routing_key == binding.destination
            )
            for binding in found:
                if binding.destination_type == "queue" and binding.source:
                    sources.setdefault(binding.destination, set()).add(binding.source)
            self._exchanges = {name: frozenset(exchanges) for name, exchanges in sources.items()}
        dead_letters = _dead_letters(listed.values())
        shared = {
            exchange
            for name in named
            for exchange in self._exchanges.get(name, ())
            if not exchange.startswith("amq.") and exchange not in dead_letters
        }
        return {
            queue.name
            for queue in listed.values()
            if queue.name not in dead_letters
            and queue.arguments.queue_type != "stream"
            and self._is_bound_for_tasks(queue, named, shared)
        }

    def _is_bound_for_tasks(self, queue: ListedQueue, named: Collection[str], shared: Collection[str]) -> bool:
        exchanges = self._exchanges.get(queue.name, frozenset())
        if queue.name in exchanges:
            return True
        may_be_others = queue.consumers and queue.name not in named and queue.name not in self._bound_by_name
        return not may_be_others and not exchanges.isdisjoint(shared)


def _dead_letters(queues: Iterable[ListedQueue]) -> set[object]:
    """Return the exchanges and, where the nameless exchange is used, the queues that dead letters go to."""
    found: set[object] = set()
    for queue in queues:
        if is_task_queue(queue.name):
            exchange = queue.arguments.dead_letter_exchange
            found.add(queue.arguments.dead_letter_routing_key if exchange == "" else exchange)
    return {target for target in found if isinstance(target, str)}


class Management:
    """RabbitMQ's management API, in one request for all queues.

    The URL is that of the server, of its API or of its web interface, and may end with a virtual host; without one it
    is the broker URL's. Raises `SettingsError` for a URL that cannot be right.
    """

    def __init__(self, url: str, *, broker_url: str, timeout: float = MANAGEMENT_TIMEOUT) -> None:
        parts = urlsplit(url)
        path = [part for part in parts.path.split("/") if part]
        # What people paste: `/api/`, `/api/queues/VHOST`, `/#/queues`. A virtual host of the name api is `/api/api`.
        if path[:1] == ["api"]:
            path = path[2:] if path[1:2] == ["queues"] else path[1:]
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or len(path) > 1:
            raise SettingsError(
                "--rabbitmq-management-url: expected http://USER:PASSWORD@HOST:15672 or the same with /VHOST,"
                f" not {without_password(url)}"
            )
        broker_vhost = urlsplit(broker_url.split(";", maxsplit=1)[0]).path[1:]
        vhost = unquote("".join(path) or broker_vhost) or "/"
        self._server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._vhost = quote(vhost, safe="")
        self._auth = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
        self._timeout = timeout

    def __str__(self) -> str:
        return f"{self._server}/api/queues/{self._vhost}"

    def queues(self) -> dict[str, ListedQueue]:
        """Return all queues by name; raises `PollError`."""
        # Not `enable_queue_totals`: with it RabbitMQ 3.10 says 0 for every quorum queue.
        queues = self._get(
            f"queues/{self._vhost}?columns=name,messages,messages_unacknowledged,message_bytes,consumers,arguments",
            list[ListedQueue],
        )
        return {queue.name: queue for queue in queues}

    def nodes(self) -> list[Node]:
        """Return all nodes of the cluster; raises `PollError`."""
        nodes = self._get("nodes?columns=mem_used,mem_limit,mem_alarm,disk_free_alarm", list[Node | list[object]])
        return [node for node in nodes if isinstance(node, Node)]  # without any number it is ``[]``

    def bindings(self) -> list[ManagementBinding]:
        """Return all bindings; raises `PollError`."""
        return self._get(
            f"bindings/{self._vhost}?columns=source,destination,destination_type,routing_key", list[ManagementBinding]
        )

    def _get(self, path: str, kind: type[T]) -> T:
        shown = f"{self._server}/api/{path.partition('?')[0]}"
        try:
            url = f"{self._server}/api/{path}"
            answer = fetch("GET", url, auth=self._auth, timeout=self._timeout, max_bytes=MAX_PAGE)
            if not answer.ok:
                raise PollError(f"{shown}: HTTP {answer.status}")
            if count_values(answer.body, most=MAX_VALUES) > MAX_VALUES:
                raise PollError(f"{shown}: the reply has more than {MAX_VALUES} values")
            return msgspec.json.decode(answer.body, type=kind)
        except (requests.RequestException, ValueError, RecursionError, OSError) as error:
            raise PollError(f"{shown}: {' '.join(str(error).split())[:MAX_ERROR]}") from error
