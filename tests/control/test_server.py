"""The control API as a process: its ports, its end, its durability, and strangers on its socket."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from tests.control.access import bearer, control_settings, token
from tests.control.serving import Control

from celerymeter.control.audit.offline import read_rows, verify
from celerymeter.control.server import GRACE, address_of, run
from celerymeter.control.settings import RequestLimits
from celerymeter.control.tokens import Role
from celerymeter.demo.processes import wait_until
from celerymeter.errors import PortInUse, StartFailed
from celerymeter.httpd.server import bind

pytestmark = pytest.mark.integration


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """A control API of this test's own."""
    with Control(tmp_path) as server:
        yield server.up()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """One for tests that do not disturb each other."""
    with Control(tmp_path_factory.mktemp("control")) as server:
        yield server.up()


def raw(control: Control, request: bytes) -> bytes:
    """Return the reply to these bytes, until the connection is closed or idle for a second."""
    with socket.create_connection(control.address, timeout=30) as connection:
        connection.sendall(request)
        connection.settimeout(1)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except TimeoutError:
            pass
        return answer


def test_the_first_line_says_both_ports(shared: Control) -> None:
    """Port 0 takes a free one; the metrics have a listener of their own."""
    assert shared.lines[0]["message"].startswith(f"listening on {shared.url}, metrics on {shared.metrics_url}")
    names = [
        family.name for family in text_string_to_metric_families(requests.get(shared.metrics_url, timeout=30).text)
    ]
    assert "celerymeter_control_requests" in names
    assert not [name for name in names if name.endswith("_created")]


def test_a_hundred_megabytes_are_refused_before_they_are_sent(shared: Control) -> None:
    """By the announced length, and the connection is closed."""
    head = b"POST /celery-admin/audit HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n"
    begun = time.monotonic()
    answer = raw(shared, head + b"x" * 1000)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"Connection: close" in answer
    assert time.monotonic() - begun < RequestLimits().read_seconds


def test_a_body_of_untold_length_is_read_up_to_the_limit(shared: Control) -> None:
    """Chunked, it is refused like one whose length is announced."""
    chunks = (b"x" * 65536 for _ in range(80))
    headers = {**bearer(Role.ADMIN), "Content-Type": "application/json"}
    assert requests.post(f"{shared.url}/monitoring/stop", data=chunks, headers=headers, timeout=30).status_code == 413


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /celery-admin/system/info?access_token=sesame HTTP/9.9\r\n\r\n",
        b"nonsense access_token=sesame\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\naccess_token sesame: x\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_http_is_answered_with_its_status_alone(shared: Control, request_: bytes) -> None:
    """Nothing of it comes back, nothing of it is logged, and the next request is served."""
    answer = raw(shared, request_ + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"application/problem+json" in answer
    assert b"sesame" not in answer
    assert "sesame" not in shared.log.read_text()
    assert requests.get(shared.info, timeout=30).status_code == 200


def test_a_token_in_an_address_is_in_no_log(shared: Control) -> None:
    """Not even of a request that fails."""
    secret = token(Role.ADMIN)
    requests.post(f"{shared.url}/nothing?access_token={secret}", timeout=30)
    wait_until(lambda: "/celery-admin/nothing" in shared.log.read_text())
    assert secret not in shared.log.read_text()


def test_clients_that_do_not_hang_up_delay_nobody(shared: Control) -> None:
    """gunicorn lingers for 2 s on each of their connections; on the thread that accepts others that would be 40 s."""
    idle = [socket.create_connection(shared.address) for _ in range(20)]
    for connection in idle:
        connection.sendall(b"GET /celery-admin/system/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    begun = time.monotonic()
    for _ in range(5):
        requests.get(shared.info, timeout=30)
    assert time.monotonic() - begun < 20
    for connection in idle:
        connection.close()


def test_requests_that_never_end_hold_no_thread(tmp_path: Path) -> None:
    """More of them than there are threads, stuck in the first line, in the headers and in the body."""
    parts = [
        b"GET /cel",
        b"GET / HTTP/1.1\r\nHost:",
        b"POST /celery-admin/audit HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
    ]
    with Control.impatient(tmp_path) as server, ExitStack() as open_sockets:
        server.up()
        for part in parts * 4:
            connection = open_sockets.enter_context(socket.create_connection(server.address))
            connection.sendall(part)
        assert requests.get(server.info, timeout=30).status_code == 200
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2])
def test_no_signal_makes_two_of_it_or_none(shared: Control, number: signal.Signals) -> None:
    """There is one worker process, always the same."""
    before = workers_of(shared)
    shared.signal(number)
    wait_until(lambda: "signal ignored" in shared.log.read_text())
    assert requests.get(shared.info, timeout=30).status_code == 200
    assert (len(before), workers_of(shared)) == (1, before)


def workers_of(control: Control) -> list[str]:
    """The pids of its child processes."""
    return Path(f"/proc/{control.pid}/task/{control.pid}/children").read_text().split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_five_seconds(control: Control, number: signal.Signals) -> None:
    """With idle connections open, and leaves neither process nor port.

    Whatever is still open after `GRACE` is killed. A busy machine may take longer for the rest, but nothing waits for
    the slow client, which has 20 s to send its request.
    """
    assert GRACE < 5
    with requests.Session() as held, socket.create_connection(control.address) as slow:
        held.get(control.info, timeout=5)
        slow.sendall(b"POST /celery-admin/audit HTTP/1.1\r\n")
        address, children = control.address, workers_of(control)
        begun = time.monotonic()
        control.signal(number)
        assert control.wait(timeout=60) == 0
        assert time.monotonic() - begun < RequestLimits().read_seconds
        wait_until(lambda: not [pid for pid in children if Path(f"/proc/{pid}").exists()])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=1)


def test_a_taken_port_is_one_line_and_an_exit(shared: Control, tmp_path: Path) -> None:
    """Which names the option; and there is no second program to clean up."""
    port = shared.address[1]
    with (
        pytest.raises(StartFailed, match=f"port {port} is taken.*--listen"),
        Control(tmp_path, ["--listen", f"127.0.0.1:{port}"]) as second,
    ):
        second.up()


def test_a_taken_port_of_the_metrics_leaves_that_of_the_api_free(tmp_path: Path) -> None:
    """To a program that goes on, as a test or a script may."""
    with bind("127.0.0.1:0", option="--metrics-listen") as taken, bind("127.0.0.1:0", option="--listen") as free:
        listen = address_of(free)
        free.close()
        settings = replace(
            control_settings(), listen=listen, metrics_listen=address_of(taken), state_dir=tmp_path / "s"
        )
        with pytest.raises(PortInUse) as refused:
            run(settings)
        bind(listen, option="--listen").close()
        assert "--metrics-listen" in str(refused.value)


def test_no_acknowledged_row_is_lost_to_kill_9(control: Control) -> None:
    """Tokens are noted before the request that brought them is answered; the whole program is killed in the middle."""
    acknowledged: list[str] = []

    def use_tokens(name: str) -> None:
        for number in range(1000):
            subject = f"{name}-{number}"
            try:
                headers = {"Authorization": f"Bearer {token(Role.VIEWER, subject=subject)}"}
                reply = requests.get(f"{control.url}/audit", headers=headers, timeout=30)
            except requests.RequestException:
                return
            if reply.status_code == 403:
                acknowledged.append(subject)

    threads = [threading.Thread(target=use_tokens, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(acknowledged) > 40)
    for pid in [int(child) for child in workers_of(control)]:
        os.kill(pid, signal.SIGKILL)
    control.kill()
    for thread in threads:
        thread.join()
    rows = list(read_rows(control.state))
    noted = {row.sub for row in rows if row.kind == "token"}
    refused = {row.sub for row in rows if row.kind == "refusal"}
    assert set(acknowledged) <= noted & refused
    key = (control.state / "audit.key").read_bytes()
    assert verify(control.state, key=key, head=None).findings == ()


def test_a_second_process_on_a_state_directory_is_refused(control: Control, tmp_path: Path) -> None:
    """One line names the first, which goes on; the exit status is that of every setting that cannot be used."""
    with Control(tmp_path) as second:
        second.log = tmp_path / "second.log"
        with pytest.raises(StartFailed, match=f"--state-dir {control.state}.*pid {control.pid} on "):
            second.up()
        assert second.wait() == 2
    assert requests.get(control.info, timeout=30).status_code == 200


def test_it_starts_again_although_its_worker_outlives_it_for_a_moment(control: Control) -> None:
    """Only the parent was killed: the worker notices that soon, and then the state directory is free."""
    control.signal(signal.SIGKILL)
    control.wait()
    control.up()
    assert control.get("/audit").status_code == 200


def test_without_a_state_directory_it_serves_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary one goes with the program."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with Control(tmp_path) as server:
        server.argv = tuple(word for word in server.argv if word not in ("--state-dir", str(server.state)))
        server.up()
        assert server.get("/audit").status_code == 200
    assert list((tmp_path / "tmp").iterdir()) == []
