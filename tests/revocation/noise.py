"""Heartbeats of workers that do not exist, for ever: ``python -m tests.revocation.noise REDIS-URL COUNT``."""

from __future__ import annotations

import base64
import json
import sys
import time

import redis

INTERVAL = 10.0
"""Seconds between two heartbeats of one of them."""
PART = 100


def heartbeat(hostname: str, at: float) -> bytes:
    """Return one as a worker puts it on Redis."""
    event = {"hostname": hostname, "utcoffset": 0, "pid": 1, "clock": 1, "freq": INTERVAL, "active": 0, "processed": 0}
    event |= {"loadavg": [0, 0, 0], "sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux"}
    body = base64.b64encode(json.dumps({**event, "timestamp": at, "type": "worker-heartbeat"}).encode()).decode()
    delivery = {"exchange": "celeryev", "routing_key": "worker.heartbeat"}
    properties = {"delivery_mode": 1, "delivery_info": delivery, "priority": 0, "body_encoding": "base64"}
    headers = {"hostname": hostname}
    content = {"body": body, "content-encoding": "utf-8", "content-type": "application/json", "headers": headers}
    return json.dumps({**content, "properties": {**properties, "delivery_tag": hostname}}).encode()


def main(url: str, count: int) -> None:
    """Publish, evenly spread over the interval."""
    client = redis.Redis.from_url(url)
    print("ready", flush=True)
    while True:
        began = time.monotonic()
        for start in range(0, count, PART):
            with client.pipeline(transaction=False) as pipe:
                for number in range(start, min(start + PART, count)):
                    pipe.publish("/0.celeryev/worker.heartbeat", heartbeat(f"invented{number}@noise", time.time()))
                pipe.execute()
            time.sleep(max(0.0, began + INTERVAL * (start + PART) / count - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
