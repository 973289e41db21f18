"""Many workers in one process that speak the real protocol: heartbeats, and replies to remote control.

``python -m tests.lookup.crowd BROKER-URL COUNT`` prints ``ready`` once all of them listen.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any

from celery import Celery

from celerymeter.settings import BrokerSettings

HEARTBEAT = 2.0
BEAT = {"freq": HEARTBEAT, "active": 0, "processed": 0, "loadavg": [0, 0, 0], "sw_ver": "5.7.0"}
STATS: dict[str, Any] = {
    "total": {f"shop.task{number}": 1000 + number for number in range(20)},
    "pid": 1,
    "clock": "1000",
    "uptime": 3600,
    "prefetch_count": 32,
    "pool": {
        "implementation": "celery.concurrency.prefork:TaskPool",
        "max-concurrency": 8,
        "processes": list(range(8)),
    },
    "broker": {"hostname": "127.0.0.1", "transport": "redis"},
    "rusage": {f"field{number}": number for number in range(16)},
}
QUEUE = {"name": "busy", "exchange": {"name": "busy", "type": "direct"}, "routing_key": "busy"}


def handlers() -> dict[str, Any]:
    """Return what each command is answered with."""
    answers: dict[str, Any] = {"stats": STATS, "active_queues": [QUEUE], "query_task": {}, "registered": []}
    answers |= {"active": [], "reserved": [], "scheduled": []}
    return {name: partial(lambda answer, _state, **_: answer, answer) for name, answer in answers.items()}


def reply(producer: Any, data: object, exchange: str, routing_key: str, ticket: str, **_: object) -> None:
    """Put a reply into its queue, without asking Redis first which queue that is: it takes all of them half the time.

    Real workers do so on processors of their own.
    """
    queue, headers = f"{routing_key}.{exchange}", {"ticket": ticket, "clock": 1}
    producer.publish(data, exchange="", routing_key=queue, headers=headers, serializer="json")


def work(url: str, hostname: str, listening: threading.Semaphore) -> None:
    """Be one worker for ever, with connections of its own."""
    app = Celery("crowd", broker=BrokerSettings(url).url, set_as_current=False)
    with app.connection_for_read() as connection:
        node: Any = app.control.mailbox(connection).Node(
            hostname, channel=connection.default_channel, handlers=handlers(), state=None
        )
        node.reply = partial(reply, connection.Producer(auto_declare=False))
        with node.Consumer(callbacks=[node.handle_message]):
            events = app.events.Dispatcher(connection, hostname=hostname)
            listening.release()
            beat_at = time.monotonic()
            while True:
                if (now := time.monotonic()) >= beat_at:  # also while commands keep coming, as a real worker does
                    events.send("worker-heartbeat", **BEAT)
                    beat_at = now + HEARTBEAT
                with suppress(TimeoutError):
                    connection.drain_events(timeout=beat_at - now)


def main(url: str, count: int) -> None:
    """Run so many."""
    listening = threading.Semaphore(0)
    for number in range(count):
        name = f"fake{number}@crowd"
        threading.Thread(target=work, args=(url, name, listening), daemon=True).start()
    for _ in range(count):
        listening.acquire()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
