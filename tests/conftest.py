"""Fixtures for all tests: real servers on loopback, gone afterwards.

A test whose server is not on this machine is skipped with what to install; in CI (``CI=true``) it fails.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import flask_openapi3.utils
import hypothesis
import kombu.pools
import pytest
import redis

from celerymeter.demo.servers import Redis
from celerymeter.errors import ServerMissing

BASE = pytest.StashKey[Path]()
"""The folder of all temporary folders of this process."""
MAX_LOGS = 8
LOG_END = 3000
"""Bytes of a log that are shown."""

# Helpers too say which values differ.
pytest.register_assert_rewrite(*(f"tests.{path.stem}" for path in Path(__file__).parent.glob("[a-z]*")))
# Prometheus, promtool and the like: collecting garbage when twice as much was made would take a quarter of their time.
os.environ.setdefault("GOGC", "800")
# What an application documents of its models costs 0.1 s each time, and hundreds of tests make one.
flask_openapi3.utils.get_model_schema = cache(flask_openapi3.utils.get_model_schema)
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Show with a failure the end of each log that a process of the test wrote meanwhile."""
    report = yield
    if report.failed and (folder := item.config.stash.get(BASE, None)) is not None:
        report.sections += _ends_of_logs(folder, call.start)
    return report


def _ends_of_logs(folder: Path, since: float) -> list[tuple[str, str]]:
    """Return title and text of the logs that were written last, but for those that have just vanished."""
    written = []
    for path in folder.rglob("*.log"):
        with suppress(OSError):
            if (at := path.stat().st_mtime) >= since:
                end = path.read_bytes()[-LOG_END:].decode(errors="replace")
                written.append((at, f"end of {path.relative_to(folder)}", end))
    return [(title, end) for _, title, end in sorted(written)[-MAX_LOGS:]]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests come and none goes: looking for garbage among them would take a third of the time.

    Each process of `make test` collects all of them.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, Any]:
    """Let each process of `make test` begin with another folder.

    In a new clone every module is compiled when it is first imported. All processes would compile the same one at the
    same time; so each finds most modules compiled by others.
    """
    report = yield
    if isinstance(collector, pytest.Directory) and (worker := os.environ.get("PYTEST_XDIST_WORKER")):
        first = int(worker[2:]) * len(report.result) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        report.result = [*report.result[first:], *report.result[:first]]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules first that probably take longest.

    `make test` gives each process a module at a time, in this order: no long one is left when all others are done.
    """
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    expected = {path: _expected_seconds(tests) for path, tests in modules.items()}
    items.sort(key=lambda item: (-expected[item.path], item.path))


def _expected_seconds(tests: list[pytest.Item]) -> float:
    """Estimate ten seconds for each test with servers, or the longest time that one of them allows itself.

    What needs no servers may use all of a processor; it should not begin at once in every process.
    """
    quick = [one for one in tests if not one.get_closest_marker("slow")]
    servers = sum(one.get_closest_marker("integration") is not None for one in quick)
    marks = [one.get_closest_marker("timeout") for one in quick]
    longest = max((float(mark.args[0]) for mark in marks if mark), default=0.0)
    return max(10.0 * servers, longest if servers else longest / 6)


@pytest.fixture(scope="session", autouse=True)
def _base_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    request.config.stash[BASE] = tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def _session_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.up()


@pytest.fixture
def redis_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Redis]:
    """An empty Redis that nobody else uses meanwhile; with the mark ``own_redis`` one that the test may stop."""
    if request.node.get_closest_marker("own_redis"):
        with Redis(tmp_path / "redis") as server:
            yield server.up()
        return
    server = request.getfixturevalue("_session_redis")
    pid = server.pid
    with redis.Redis(port=server.port) as client:
        settings = client.config_get()
        yield server
        assert server.running, "the test stopped the Redis of all tests: it needs the mark own_redis"
        assert server.pid == pid, "the test started the Redis of all tests again: it needs the mark own_redis"
        _close_pools(server.port)
        _empty(client, settings)


def _empty(client: Any, settings: Mapping[str, str]) -> None:
    """Take back whatever a test did to the Redis that it shares with later ones."""
    for kind in ("normal", "pubsub"):
        client.client_kill_filter(_type=kind, skipme=True)
    client.flushall()
    for name, value in client.config_get().items():
        if settings[name] != value:
            client.config_set(name, settings[name])
    for user in set(client.acl_users()) - {"default"}:
        client.acl_deluser(user)


def _close_pools(port: int) -> None:
    """Close Kombu's pooled connections to a broker: one that another test opened believes its queues declared."""
    for key, pool in list(kombu.pools.connections.items()):
        if pool.connection.port == port:
            pool.force_close_all()
            kombu.pools.connections.pop(key)
    for key, pool in list(kombu.pools.producers.items()):
        if pool.connections.connection.port == port:
            kombu.pools.producers.pop(key)


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
