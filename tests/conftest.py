"""Fixtures that every room uses: real servers on loopback, one folder each, gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from celerymeter.demo.servers import Redis


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of this test's own."""
    with Redis(tmp_path / "redis") as server:
        yield server.up()


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One Redis for a module whose tests do not disturb each other."""
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.up()
