"""Collecting over HTTP: every way in which a place can be unavailable, and what is read from an answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from celerymeter.demo.processes import free_port
from celerymeter.doctor.collect import http, prometheus
from celerymeter.doctor.collect.http import failure_of
from celerymeter.doctor.evidence import PageSample, ScrapeTarget
from celerymeter.prometheus import Scope

Serve = Callable[[dict[str, tuple[int, str]]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server that gives a status and a body for each path, and its URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(pages: dict[str, tuple[int, str]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = pages.get(self.path.partition("?")[0], (404, "not found"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_GET  # noqa: N815 - the name that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


PAGE = """# TYPE celerymeter_build_info gauge
celerymeter_build_info{version="1"} 1
# TYPE celery_task_sent counter
celery_task_sent_total{name="a",queue_name="q"} 2
celery_task_sent_total{name="a",queue_name="r"} 3
# TYPE celery_task_wait_seconds histogram
celery_task_wait_seconds_bucket{name="a",le="+Inf"} 5
celery_task_wait_seconds_count{name="a"} 5
celery_task_wait_seconds_sum{name="a"} 5
"""


def test_a_page_is_read_by_name(serve: Serve) -> None:
    """With or without /metrics in the URL; buckets are left out."""
    url = serve({"/metrics": (200, PAGE)})
    for given in (url, f"{url}/", f"{url}/metrics"):
        found = http.collect_exporter(given)
        assert (found.url, found.failure) == (url, None)
        assert found.value("celerymeter_build_info") == 1
        assert found.by("name", "celery_task_sent_total") == {"a": 5}
        assert found.page["celery_task_wait_seconds_count"] == (PageSample({"name": "a"}, 5),)
        assert "celery_task_wait_seconds_bucket" not in found.page


def test_a_page_of_something_else_is_no_exporter(serve: Serve) -> None:
    """Another exporter's, and none at all."""
    for body in ("node_load1 0.5\n", "<html>{</html>"):
        failure = http.collect_exporter(serve({"/metrics": (200, body)})).failure
        assert failure is not None
        assert failure.text == "something answers, but it is not a celerymeter exporter"


@pytest.mark.parametrize(("status", "kind"), [(401, "password"), (403, "password"), (404, "http"), (500, "http")])
def test_a_refusal_has_its_status(serve: Serve, status: int, kind: str) -> None:
    """So that the fix is the right one."""
    failure = http.collect_exporter(serve({"/metrics": (status, "")})).failure
    assert failure is not None
    assert (failure.kind, failure.text) == (kind, f"HTTP {status}")


def test_a_port_without_listener_and_a_host_without_name() -> None:
    """The system's own words, and no password."""
    refused = http.collect_exporter(f"http://user:hush@127.0.0.1:{free_port()}")
    unresolved = http.collect_exporter("http://no-such-host.invalid:9808")
    assert refused.failure is not None
    assert unresolved.failure is not None
    assert (refused.failure.kind, refused.failure.text) == ("refused", "Connection refused")
    assert unresolved.failure.kind == "unresolved"
    assert "hush" not in refused.url


def test_prometheus_lists_exporters_and_targets(serve: Serve) -> None:
    """The instances that have a build info, and every active target."""
    vector = [{"metric": {"instance": "e:9808"}, "value": [0, "1"]}]
    targets: list[dict[str, Any]] = [{"scrapeUrl": "http://e:9808/metrics", "health": "down", "lastError": "refused"}]
    targets[0] |= {"scrapeInterval": "1m30s", "scrapeTimeout": "500ms", "lastScrapeDuration": 0.25}
    targets[0] |= {"labels": {"job": "celery", "instance": "e:9808"}}
    url = serve(
        {
            "/api/v1/query": (
                200,
                json.dumps({"status": "success", "data": {"resultType": "vector", "result": vector}}),
            ),
            "/api/v1/targets": (200, json.dumps({"data": {"activeTargets": targets}})),
        }
    )
    found = prometheus.collect(url, scope=Scope())
    assert found.failure is None
    assert [one.instance for one in found.exporters] == ["e:9808"]
    assert found.targets == (
        ScrapeTarget(
            "http://e:9808/metrics", False, "refused", "celery", "e:9808", interval=90.0, timeout=0.5, took=0.25
        ),
    )


def test_an_engine_need_not_list_its_targets(serve: Serve) -> None:
    """Some have no such page, and some another answer."""
    empty = json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}})
    for targets in ((404, ""), (200, "{}"), (200, "no json")):
        found = prometheus.collect(serve({"/api/v1/query": (200, empty), "/api/v1/targets": targets}), scope=Scope())
        assert (found.exporters, found.targets, found.rules, found.alertmanagers) == ((), None, None, None)


def test_prometheus_away() -> None:
    """One line."""
    found = prometheus.collect(f"http://127.0.0.1:{free_port()}", scope=Scope())
    assert found.failure is not None
    assert found.failure.kind == "refused"


def test_the_control_api_is_found_with_and_without_its_base_path(serve: Serve) -> None:
    """Unhealthy is an answer as well, and names what is not well."""
    body = json.dumps({"status": "unhealthy", "checks": {"broker": "failed", "x": "ok"}, "timestamp": "now"})
    url = serve({"/celery-admin/system/health": (503, body)})
    for given in (url, f"{url}/celery-admin", f"{url}/"):
        found = http.collect_control(given)
        assert (found.failure, found.status, found.failing) == (None, "unhealthy", ("broker",))


def test_no_control_api(serve: Serve) -> None:
    """Another service, a proxy whose upstream is away, and nothing."""
    for pages, text in (({}, "no health page below this URL"), ({"/system/health": (502, "bad gateway")}, "HTTP 502")):
        failure = http.collect_control(serve(pages)).failure
        assert failure is not None
        assert failure.text == text
    failure = http.collect_control(f"http://127.0.0.1:{free_port()}").failure
    assert failure is not None
    assert failure.kind == "refused"


def test_failures_are_classified_by_their_causes() -> None:
    """However deep, and in one line without secrets."""
    try:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as inner:
            raise ValueError("cannot\nreach redis://:hush@h") from inner
    except ValueError as error:
        failure = failure_of(error)
    assert (failure.kind, failure.text) == ("refused", "cannot reach redis://:***@h")
    assert failure_of(requests.exceptions.ReadTimeout()).kind == "timeout"
    assert failure_of(ValueError("x")).kind == "other"
