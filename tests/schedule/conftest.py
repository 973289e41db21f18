"""Fixtures for tests with real beats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.scrape import ExporterProcess

from celerymeter.demo.servers import Redis


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Stops what a test started, newest first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def exporter(redis_server: Redis, tmp_path: Path, stack: ExitStack) -> ExporterProcess:
    """An exporter on the broker."""
    exporter = ExporterProcess(tmp_path, redis_server.url)
    stack.callback(exporter.stop)
    return exporter.up()
