"""The servers that the demo and the tests start."""

from __future__ import annotations

import pytest
import redis

from celerymeter.demo.servers import Redis, listens


@pytest.mark.integration
def test_a_server_is_up_inside_the_block_and_gone_after(redis_server: Redis) -> None:
    """A started Redis answers; a stopped one leaves its port."""
    assert redis.Redis(port=redis_server.port).ping()
    redis_server.stop()
    assert not listens(redis_server.port)
