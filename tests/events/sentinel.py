"""Redis under Sentinel, with passwords everywhere."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import redis

from celerymeter.demo.processes import Process, free_port, wait_until
from celerymeter.demo.servers import Redis, listens, redis_binary

PASSWORD = "s3cret"  # of the Redis servers
SENTINEL_PASSWORD = "gu4rd"


class SentinelCluster:
    """A master, a replica, and a Sentinel that watches them."""

    def __init__(self, folder: Path) -> None:
        guarded = ["--requirepass", PASSWORD, "--masterauth", PASSWORD]
        self.master = Redis(folder / "master", options=guarded)
        following = ["--replicaof", "127.0.0.1", str(self.master.port), "--repl-diskless-sync-delay", "0"]
        self.replica = Redis(folder / "replica", options=[*guarded, *following])
        self.port = free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\nrequirepass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor shop 127.0.0.1 {self.master.port} 1\nsentinel auth-pass shop {PASSWORD}\n"
            "sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 3000\n"
        )
        self.sentinel = Process("sentinel", [redis_binary(), str(config), "--sentinel"], log=folder / "sentinel.log")

    @property
    def url(self) -> str:
        """The Sentinel that lives."""
        return f"sentinel://:{PASSWORD}@127.0.0.1:{self.port}/0"

    @property
    def url_with_a_dead_sentinel(self) -> str:
        """Two Sentinels, the first of which is dead."""
        return f"sentinel://:{PASSWORD}@127.0.0.1:1/0;{self.url}"

    def __enter__(self) -> SentinelCluster:
        with ExitStack() as stack:  # stops what was started, should the rest fail to
            stack.enter_context(self.master).up()
            stack.enter_context(self.replica).up()
            stack.enter_context(self.sentinel).start(ready=lambda: listens(self.port))
            with redis.Redis(port=self.port, password=SENTINEL_PASSWORD) as client:
                wait_until(lambda: client.sentinel_slaves("shop"), what="Sentinel knows the replica")
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()
