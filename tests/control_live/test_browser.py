"""A page in a real browser that follows the feed, as a file and from another site."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.browser import Tab, browser
from tests.control.access import token
from tests.control_live.live_api import LiveApi, running_api

from celerymeter.demo.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.browser]

PAGE = """<!doctype html><meta charset="utf-8"><title>feed</title><p id="workers">?</p><p id="waiting">?</p><script>
var seen = [];
var socket = new WebSocket("URL", PROTOCOLS);
socket.onmessage = (event) => {
  const message = JSON.parse(event.data);
  seen.push(message.message_type);
  const metrics = message.data.metrics || message.data.real_time_metrics;
  if (!metrics) return;
  document.getElementById("workers").textContent = metrics.active_workers;
  document.getElementById("waiting").textContent = metrics.pending_tasks + " " + metrics.current_throughput.toFixed(2);
};
socket.onclose = (event) => seen.push("closed " + event.code);
</script>"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApi]:
    """An API that lets pages from files in."""
    with running_api(tmp_path_factory.mktemp("api"), ["--allow-origin", "null"]) as api:
        yield api


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    """A browser's page."""
    with browser(tmp_path) as tab:
        yield tab


def shown(tab: Tab) -> tuple[str, str]:
    """Both texts of the page."""
    return tab.value("window.workers?.textContent"), tab.value("window.waiting?.textContent")


def test_a_page_follows_the_feed(api: LiveApi, tab: Tab, tmp_path: Path) -> None:
    """A file with a token as subprotocol shows the metrics as they change; without a token it is closed with 4401."""
    page = tmp_path / "page.html"
    page.write_text(PAGE.replace("URL", api.feed_url).replace("PROTOCOLS", f"['celerymeter.v1', 'bearer.{token()}']"))
    api.page.queues = {"celery": 12, "slow": 5}
    tab.open(page.as_uri())
    wait_until(lambda: shown(tab) == ("1", "17 0.00"))
    api.page.queues = {"celery": 3}
    wait_until(lambda: shown(tab) == ("1", "3 0.00"))
    assert tab.value("seen.slice(0, 2)") == ["connection_established", "dashboard_data"]
    assert tab.value("socket.protocol") == "celerymeter.v1"

    page.write_text(PAGE.replace("URL", api.feed_url).replace("PROTOCOLS", "[]"))
    tab.open(page.as_uri())
    wait_until(lambda: tab.value("window.seen") == ["closed 4401"])


def test_a_page_of_another_site_is_kept_out(api: LiveApi, tab: Tab, tmp_path: Path) -> None:
    """Whatever token it got hold of, the browser is refused before the handshake."""
    tab.open(api.elsewhere)
    wait_until(lambda: tab.value("document.body.innerText.includes('celery')"))
    tab.value(
        "var seen = []; var socket = new WebSocket('URL?access_token=TOKEN');"
        "socket.onmessage = () => seen.push('message'); socket.onclose = (event) => seen.push(event.code); 0".replace(
            "URL", api.feed_url
        ).replace("TOKEN", token())
    )
    wait_until(lambda: tab.value("seen"))

    assert tab.value("seen") == [1006]
