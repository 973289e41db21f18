"""The OpenAPI document: committed, complete, served without help from elsewhere, and true."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from tests.control.access import token
from tests.control.conftest import MakeClient
from tests.control.stack import Stack, running_stack
from tools.docs.openapi import COMMITTED

from celerymeter.control.errors import CONTENT_TYPE
from celerymeter.control.tokens import Role

FEED = "/celery-admin/monitoring/ws"
WEBHOOK = "/celery-admin/alerts/webhook"


def operations(client: FlaskClient) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation by method and path."""
    for path, methods in client.get("/openapi.json").get_json()["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_committed_document_is_the_one_that_is_served(shared_client: FlaskClient) -> None:
    """exporter/openapi.json is up to date."""
    assert COMMITTED.read_text() == shared_client.get("/openapi.json").text, "run `make generate`"


def test_it_is_openapi_3_1(shared_client: FlaskClient) -> None:
    """And no reference leads nowhere."""
    document = shared_client.get("/openapi.json")
    assert document.get_json()["openapi"].startswith("3.1")
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', document.text))
    assert names <= document.get_json()["components"]["schemas"].keys()


def test_every_operation_says_who_may_and_how_it_refuses(shared_client: FlaskClient) -> None:
    """Secured ones declare 401 and 429, and every refusal is a problem."""
    for name, operation in operations(shared_client):
        statuses = operation["responses"]
        if operation.get("security"):
            assert {"401", "429"} <= statuses.keys(), name
        for status, response in statuses.items():
            if status >= "400" and "HealthReply" not in str(response):
                assert list(response["content"]) == [CONTENT_TYPE], (name, status)


def test_only_what_is_meant_for_strangers_is_open(shared_client: FlaskClient) -> None:
    """Everything else names a scheme; the feed checks its token itself."""
    unsecured = {name for name, operation in operations(shared_client) if not operation.get("security")}
    assert unsecured == {"GET /celery-admin/system/health", "GET /celery-admin/system/info", f"GET {FEED}"}


def test_operations_have_names_of_their_own(shared_client: FlaskClient) -> None:
    """Generated clients make functions of them."""
    names = [operation["operationId"] for _, operation in operations(shared_client)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("prefix", ["", "/celery-admin"])
def test_both_are_at_the_root_and_below_the_base_path(shared_client: FlaskClient, prefix: str) -> None:
    """A proxy may forward only the base path."""
    assert [shared_client.get(prefix + path).status_code for path in ("/openapi.json", "/docs")] == [200, 200]


def test_an_api_at_the_root_has_both_once(make_client: MakeClient) -> None:
    """The base path may be empty."""
    assert make_client(base_path="").get("/docs").status_code == 200


def test_the_page_shows_every_operation_and_fetches_nothing(shared_client: FlaskClient) -> None:
    """No script, no font, no picture from anywhere: it works where there is no internet."""
    page = shared_client.get("/docs")
    for name, _ in operations(shared_client):
        assert f'<span class="path">{name.split()[1]}</span>' in page.text
    assert not re.search(r"<(script|link|img|iframe)|https?://(?!HOST)|url\(", page.text)
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


REPORT = "/celery-admin/monitoring/reports/performance"
BATCH = "/celery-admin/tasks/batch"
TASK = "/celery-admin/tasks/{task_id}"
WEBHOOK_TOKEN = "the webhook's token of this test"
SCHEMATHESIS = """
[checks.negative_data_rejection]
# its own list, and 414: what a parameter may not hold may be too long for the server before anybody reads it
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "414", "415", "422", "428", "429", "5xx"]
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A served API with everything behind it."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "webhook").write_text(WEBHOOK_TOKEN)
    with running_stack(folder, ("--webhook-token-file", str(folder / "webhook"))) as running:
        yield running


@pytest.mark.integration
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("bearer", "paths"),
    [
        (
            token(Role.ADMIN),
            [part for path in (FEED, WEBHOOK, REPORT, BATCH, TASK) for part in ("--exclude-path", path)],
        ),
        (WEBHOOK_TOKEN, ["--include-path", WEBHOOK]),
        # no schema can say that an Idempotency-Key came with another body before
        (token(Role.ADMIN), ["--include-path", BATCH, "--exclude-checks", "positive_data_acceptance"]),
        # nor that a window's end is later than its start, nor which characters are visible
        (
            token(),
            [
                *("--include-path", REPORT, "--include-path", TASK),
                *("--exclude-checks", "positive_data_acceptance"),
            ],
        ),
    ],
    ids=["admin", "alertmanager", "batch", "reports and task"],
)
def test_schemathesis_finds_nothing(stack: Stack, tmp_path: Path, bearer: str, paths: list[str]) -> None:
    """No 5xx, no undeclared status, no schema broken, no bad data taken, no good data refused, nothing left open."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(SCHEMATHESIS)
    found = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "--config-file", str(config)),
            *("run", f"{stack.control.root}/openapi.json"),
            *("--header", f"Authorization: Bearer {bearer}", *paths),
            *("--checks", "all", "--max-examples", "8", "--generation-database", "none"),
        ],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert found.returncode == 0, found.stdout[-5000:]
