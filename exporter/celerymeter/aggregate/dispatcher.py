"""The event dispatcher of an aggregating worker: it counts task events where Celery's own would publish them."""

from __future__ import annotations

import logging
from typing import Any

from celery.events.event import Event
from celery.utils.time import utcoffset

from celerymeter.aggregate.member import PUBLISHED, Member

log = logging.getLogger(__name__)

TOTALS = "celerymeter-totals"
COUNTED = "celerymeter_counted"
"""A field of task events that the totals have too: an exporter may not know yet that this worker aggregates."""
_WITH_TOTALS = frozenset({"worker-online", "worker-heartbeat"})


class AggregatingDispatcher:
    """Mixed in before `celery.events.EventDispatcher`, which is untyped; see `celerymeter.aggregate.install`.

    Only the dispatcher that a worker's consumer makes has a ``member``. Others (of pool children, producers and beat)
    work as without us.
    """

    member: Member | None = None
    pushed = False
    """True if the totals go over HTTP."""
    to_broker = True
    """False if the broker carries no events."""
    _closed_for_good = False

    # Celery reports to us

    def send(self, type: str, *args: Any, **fields: Any) -> Any:
        """Count a task event, or publish any other as Celery does, with the totals after a heartbeat."""
        member = self.member
        if member is None:
            return self._send_on(type, args, fields)
        if type.startswith("task-") and not member.failed:
            try:
                if member.count(type, fields):
                    return self._counted(member, type, fields)
            except Exception as error:  # noqa: BLE001 - a task must not notice an error of ours
                member.give_up(error)
                self._publish_tasks_again()
        if type == "worker-offline":
            self.send_totals(final=True)
            member.draining = True
        result = self._send_on(type, args, fields)
        if type in _WITH_TOTALS:
            self.send_totals()
        return result

    def _counted(self, member: Member, event: str, fields: dict[str, Any]) -> None:
        """Publish the event too if it is wanted; while the worker drains, publish the totals after every end."""
        if (member.followed or event in PUBLISHED) and member.wants(event, fields):
            self._publish_event(event, fields)
        if member.draining and event != "task-started":
            self.send_totals(final=True)

    def _send_on(self, event: str, args: tuple[Any, ...], fields: dict[str, Any]) -> Any:
        if self._closed_for_good or not self.to_broker:
            return None
        return super().send(event, *args, **fields)  # type: ignore[misc]  # the base comes with `install`

    def disable(self) -> None:
        """As Celery's, but go on counting: threads report ends to the old dispatcher while the worker reconnects."""
        super().disable()  # type: ignore[misc]  # as above
        if self.member is not None and not self.member.failed:
            self._closed_for_good = True
            self.enabled = True

    # What we publish

    def send_totals(self, *, final: bool = False) -> None:
        """Publish the totals; a failure costs nothing, since the next message has everything."""
        member = self.member
        if member is None or self.pushed or self._closed_for_good:
            return
        try:
            self._publish_now(TOTALS, {"totals": member.message(final=final)})
        except Exception as error:  # noqa: BLE001 - a lost connection shows in many ways, and Celery will notice it
            member.send_all_next()
            log.debug("celerymeter: totals were not sent: %r", error)

    def _publish_event(self, event: str, fields: dict[str, Any]) -> None:
        if not self.to_broker or self._closed_for_good:
            return
        try:
            self._publish_now(event, {**fields, COUNTED: True})
        except Exception as error:  # noqa: BLE001 - as above
            log.debug("celerymeter: %s was not sent: %r", event, error)

    def _publish_now(self, event: str, fields: dict[str, Any]) -> None:
        """Publish at once and never keep it for later; whatever groups of events are turned off."""
        dispatcher: Any = self
        message = dispatcher_event(dispatcher, event, fields)
        with dispatcher.mutex:
            producer = dispatcher.producer
            if producer is not None:
                producer.publish(
                    message,
                    routing_key=event.replace("-", "."),
                    exchange=dispatcher.exchange.name,
                    retry=False,
                    declare=[dispatcher.exchange],
                    serializer=dispatcher.serializer,
                    headers=dispatcher.headers,
                    delivery_mode=dispatcher.delivery_mode,
                )

    def _publish_tasks_again(self) -> None:
        groups: Any = getattr(self, "groups", None)
        if groups:
            groups.add("task")
        self.send_totals()


def dispatcher_event(dispatcher: Any, event: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return an event with the fields that all events of a dispatcher have."""
    common = {"hostname": dispatcher.hostname, "utcoffset": utcoffset(), "pid": dispatcher.pid}
    made: dict[str, Any] = Event(event, clock=dispatcher.clock.forward(), **common, **fields)
    return made
