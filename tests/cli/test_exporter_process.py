"""``celerymeter exporter`` as a process: its first log line, its signals, its secrets."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from celerymeter.demo.processes import Process, free_port, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Process]:
    """An exporter without a reachable broker, on a free port, configured by a file that holds a password."""
    config = tmp_path / "celerymeter.yml"
    config.write_text(f"broker_url: redis://:hush@127.0.0.1:{free_port()}/0\nexporter: {{listen: '127.0.0.1:0'}}\n")
    words = [sys.executable, "-m", "celerymeter", "exporter", "--config", str(config)]
    with Process("exporter", words, log=tmp_path / "exporter.log") as process:
        process.start()
        wait_until(lambda: "\n" in process.log.read_text(), what="the first log line")
        yield process


def test_it_serves_without_a_broker_and_ends_at_once(exporter: Process) -> None:
    """It is healthy but not ready; SIGTERM ends it within 5 s; no log line holds the password."""
    first = json.loads(exporter.log.read_text().splitlines()[0])
    url = first["message"].split()[2].rstrip(",")
    assert requests.get(f"{url}/-/healthy", timeout=30).status_code == 200
    assert requests.get(f"{url}/-/ready", timeout=30).status_code == 503
    assert b"celerymeter_broker_up 0" in requests.get(f"{url}/metrics", timeout=30).content
    started = time.monotonic()
    assert exporter.stop(timeout=60) == 0
    assert time.monotonic() - started < 5
    lines = exporter.log.read_text().splitlines()
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(json.loads(line)) for line in lines))
    assert "hush" not in exporter.log.read_text()


def test_the_first_line_says_when_it_listens_on_all_interfaces(exporter: Process, tmp_path: Path) -> None:
    """Its URL is for this machine, so it alone would look as if no other could reach it."""
    words = [*exporter.argv, "--listen", ":0"]
    with Process("everywhere", words, log=tmp_path / "everywhere.log") as process:
        process.start()
        wait_until(lambda: "\n" in process.log.read_text(), what="the first log line")
        message = json.loads(process.log.read_text().splitlines()[0])["message"]
    assert message.startswith("listening on http://")
    assert " and all other interfaces, reading redis://" in message
    assert "interfaces" not in exporter.log.read_text().splitlines()[0]


def test_a_port_in_use_is_one_line(exporter: Process, tmp_path: Path) -> None:
    """It names the port and the option."""
    address = json.loads(exporter.log.read_text().splitlines()[0])["message"].split("//")[1].partition(",")[0]
    second = Process("second", [*exporter.argv, "--listen", address], log=tmp_path / "second.log")
    second.start()
    assert second.wait(30) == 1
    port = address.rpartition(":")[2]
    assert second.log.read_text() == (f"celerymeter: port {port} is taken on 127.0.0.1; choose another with --listen\n")
