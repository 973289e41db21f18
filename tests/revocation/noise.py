"""Heartbeats of workers that do not exist, for ever: ``python -m tests.revocation.noise BROKER-URL COUNT``."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import amqp
import redis
from kombu.utils.url import parse_url

INTERVAL = 10.0
"""Seconds between two heartbeats of one of them."""
PART = 100
ROUTE = ("celeryev", "worker.heartbeat")


def heartbeat(hostname: str, at: float) -> str:
    """Return one as JSON."""
    event = {"hostname": hostname, "utcoffset": 0, "pid": 1, "clock": 1, "freq": INTERVAL, "active": 0, "processed": 0}
    event |= {"loadavg": [0, 0, 0], "sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux"}
    return json.dumps({**event, "timestamp": at, "type": "worker-heartbeat"})


def on_redis(hostname: str, event: str) -> bytes:
    """Return a message as a worker puts it on Redis."""
    exchange, routing_key = ROUTE
    delivery = {"exchange": exchange, "routing_key": routing_key}
    properties = {"delivery_mode": 1, "delivery_info": delivery, "priority": 0, "body_encoding": "base64"}
    content = {"body": base64.b64encode(event.encode()).decode(), "headers": {"hostname": hostname}}
    content |= {"content-encoding": "utf-8", "content-type": "application/json"}
    return json.dumps({**content, "properties": {**properties, "delivery_tag": hostname}}).encode()


def redis_publisher(url: str) -> Callable[[Sequence[str]], None]:
    """Return a function that sends a heartbeat of each worker."""
    client = redis.Redis.from_url(url)

    def publish(hostnames: Sequence[str]) -> None:
        with client.pipeline(transaction=False) as pipe:
            for hostname in hostnames:
                pipe.publish("/0." + "/".join(ROUTE), on_redis(hostname, heartbeat(hostname, time.time())))
            pipe.execute()

    return publish


def amqp_publisher(url: str) -> Callable[[Sequence[str]], None]:
    """Return a function that sends a heartbeat of each worker."""
    where: dict[str, Any] = parse_url(url)
    connection = amqp.Connection(
        f"{where['hostname']}:{where['port']}", userid=where["userid"], password=where["password"], virtual_host="/"
    )
    connection.connect()
    channel = connection.channel()

    def publish(hostnames: Sequence[str]) -> None:
        for hostname in hostnames:
            message = amqp.Message(
                heartbeat(hostname, time.time()),
                content_type="application/json",
                content_encoding="utf-8",
                application_headers={"hostname": hostname},
            )
            channel.basic_publish(message, *ROUTE)

    return publish


def main(url: str, count: int) -> None:
    """Publish, evenly spread over the interval."""
    publish = redis_publisher(url) if url.startswith("redis") else amqp_publisher(url)
    print("ready", flush=True)
    while True:
        began = time.monotonic()
        for start in range(0, count, PART):
            publish([f"invented{number}@noise" for number in range(start, min(start + PART, count))])
            time.sleep(max(0.0, began + INTERVAL * (start + PART) / count - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
