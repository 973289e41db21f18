"""Fixtures that every room uses: real servers on loopback, one folder each, gone afterwards.

A test whose server is not on this machine is skipped with what to install; in CI (``CI=true``) it fails.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from celerymeter.demo.servers import Redis
from celerymeter.errors import ServerMissing

hypothesis.settings.register_profile(
    "any machine",
    deadline=None,  # a machine that is busy with other tests is no finding
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("any machine")


def _skip_without_server() -> Generator[None, object, object]:
    try:
        return (yield)
    except ServerMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """A test whose fixture starts one; of a shared fixture each of its tests, since pytest raises what it kept."""
    return (yield from _skip_without_server())


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """A test that starts one itself."""
    return (yield from _skip_without_server())


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


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that sets up logging in this process must not speak into later tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
