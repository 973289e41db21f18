"""A broker without events (the filesystem): workers push their totals over HTTP, and the exporter needs no broker."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.aggregate.sender import Sender
from tests.apps.worker_app import make_app
from tests.integration.exporter.expected import Expected, settle
from tests.scrape import ExporterProcess
from tests.tracking.cluster import Cluster
from tests.workers import start_worker

from celerymeter import stamp
from celerymeter.demo.processes import Process, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
def options(tmp_path: Path) -> dict[str, object]:
    """Transport options of a broker that is a folder."""
    for name in ("messages", "processed", "control", "outbox"):
        (tmp_path / name).mkdir()
    folders = {"data_folder_in": "messages", "data_folder_out": "messages", "processed_folder": "processed"}
    return {**{key: str(tmp_path / name) for key, name in folders.items()}, "control_folder": str(tmp_path / "control")}


class Producer:
    """Sends tasks, and lets workers see only whole messages: kombu writes one where they already look for it."""

    def __init__(self, folder: Path, options: dict[str, object]) -> None:
        self._folder = folder
        self._app = make_app("filesystem://", transport_options={**options, "data_folder_out": str(folder / "outbox")})

    def send_task(self, *task: Any) -> None:
        """Send a task by its name, with positional arguments."""
        self._app.send_task(*task)
        for message in (self._folder / "outbox").iterdir():
            message.rename(self._folder / "messages" / message.name)


@pytest.fixture
def producer(tmp_path: Path, options: dict[str, object]) -> Producer:
    """Sends tasks."""
    return Producer(tmp_path, options)


def worker(folder: Path, options: dict[str, object], url: str, token: Path, pool: str = "threads") -> Process:
    """A worker as people run it on SQS; its ``~/.netrc`` has a password for the exporter's host."""
    netrc = folder / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password hush\n")
    return start_worker(
        "filesystem://",
        folder,
        pool=pool,
        concurrency=4 if pool != "solo" else None,
        aggregate={"push_url": f"{url}/-/push", "token_file": str(token)},
        options=["--without-gossip", "--without-heartbeat"],
        transport_options=options,
        env={"NETRC": str(netrc)},
    )


def test_counters_are_exact_without_a_broker(tmp_path: Path, options: dict[str, object], producer: Producer) -> None:
    stamp.install()
    token = tmp_path / "token"
    token.write_text("secret-of-the-test\n")
    token.chmod(0o600)
    flags = ("--push-token-file", str(token))
    with ExporterProcess(tmp_path, "none", options=flags).up() as exporter:
        running = worker(tmp_path, options, exporter.url, token)
        expected = Expected()
        for _ in range(30):
            producer.send_task("tests.add", (1, 2))
            producer.send_task("tests.fail")
        expected.add("tests.add", "celery", times=30, succeeded=1, sent=0)
        expected.add("tests.fail", "celery", times=30, failed=1, sent=0)
        page = settle(exporter, expected)
        assert page.get("celery_worker_up", hostname="w1@test") == 1
        assert page.sum("celery_task_wait_seconds_count") == 60
        assert page.sum("celerymeter_events_missed_total") == 0
        assert page.sum("celery_queue_length") == 0
        assert "celery_queue_length" not in page.text
        assert "secret-of-the-test" not in page.text
        producer.send_task("tests.sleep", (2,))
        wait_until(lambda: exporter.scrape().sum("celery_task_in_progress") == 1)
        running.stop(20)
        expected.add("tests.sleep", "celery", succeeded=1, sent=0)
        settle(exporter, expected)
        wait_until(lambda: exporter.scrape().sum("celery_worker_shutdown") == 1)
        assert "secret-of-the-test" not in exporter.log.read_text() + running.log.read_text()
    stamp.uninstall()


def outages(worker: Process) -> list[str]:
    """Return a worker's log of its pushes: each outage is logged once, and its end."""
    return re.findall("pushing totals (fails|works again)", worker.log.read_text())


def test_an_exporter_that_is_away_costs_nothing(tmp_path: Path, options: dict[str, object], producer: Producer) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o600)
    exporter = ExporterProcess(tmp_path, "none", options=("--push-token-file", str(token)))
    exporter.up()
    running = worker(tmp_path, options, exporter.url, token, pool="solo")
    wait_until(lambda: exporter.scrape().sum("celery_worker_up") == 1)
    exporter.signal(19)  # SIGSTOP: it accepts connections, and does not answer
    for _ in range(10):
        producer.send_task("tests.add", (1, 2))
    wait_until(lambda: "pushing totals fails: ReadTimeout" in running.log.read_text())
    exporter.signal(18)
    expected = Expected()
    expected.add("tests.add", "celery", times=10, succeeded=1, sent=0)
    settle(exporter, expected)
    wait_until(lambda: outages(running)[-1] == "works again")
    said = outages(running)  # more than one where a busy machine answers late
    assert said == ["fails", "works again"] * (len(said) // 2)
    running.stop(20)
    exporter.stop()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ((), "no worker could send anything"),
        (("--open-push", "--push-token-file", "TOKEN"), "give --push-token-file or --open-push, not both"),
    ],
)
def test_it_does_not_start_with_a_door_that_is_open_by_mistake(
    tmp_path: Path, flags: tuple[str, ...], problem: str
) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o600)
    argv = [str(token) if flag == "TOKEN" else flag for flag in flags]
    command = [sys.executable, "-m", "celerymeter", "exporter", "--broker-url", "none", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert problem in done.stderr


def test_only_what_workers_push_is_taken(tmp_path: Path) -> None:
    with ExporterProcess(tmp_path, "none", options=("--open-push",)).up() as exporter:
        event = {"type": "task-succeeded", "uuid": "a", "hostname": "w", "timestamp": 1.0}
        answer = requests.post(f"{exporter.url}/-/push", json=[event])
        assert answer.status_code == 400
        assert exporter.value("celerymeter_events_invalid_total", reason="fields") == 1


def test_a_message_that_comes_again_later_changes_nothing(tmp_path: Path) -> None:
    """A proxy repeated it: neither do its runs count twice, nor is its worker a new process, or up again."""
    sender, bodies = Sender(Cluster()), []
    for number in range(1, 4):
        sender.run(str(number))
        common = {"hostname": "w@h", "pid": 1, "timestamp": time.time(), "clock": number}
        heartbeat = {**common, "type": "worker-heartbeat", "freq": 2.0, "active": 0, "processed": number}
        totals = {**common, "type": "celerymeter-totals", "totals": sender.member.message()}
        bodies.append([heartbeat, totals])
    with ExporterProcess(tmp_path, "none", options=("--open-push",)).up() as exporter:
        for body in (*bodies, bodies[0], bodies[2]):
            assert requests.post(f"{exporter.url}/-/push", json=body).status_code == 200
        wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == 3)
        page = exporter.scrape()
        assert page.sum("celery_task_started_total") == 3
        assert page.sum("celery_worker_tasks_processed_total") == 2  # since the first that was heard
        assert page.get("celerymeter_events_invalid_total", reason="repeated") == 4
        wait_until(lambda: exporter.scrape().sum("celery_worker_up") == 0)
        requests.post(f"{exporter.url}/-/push", json=bodies[2])
        assert exporter.scrape().sum("celery_worker_up") == 0
