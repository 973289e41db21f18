"""Attempts on a running control API: a client without the right gets nothing, breaks nothing, and keeps nobody out."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from tests.control.access import bearer, token
from tests.control.serving import Control
from tests.security.hostile_tokens import GOOD, IDS, REFUSED, claims, signed
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from celerymeter.control.metrics import StrangersLog
from celerymeter.control.tokens import Role
from celerymeter.control.worker import MAX_PER_ADDRESS, WAITING_CONNECTIONS
from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration

NAME = "celery.example.org"
FEED = "/celery-admin/monitoring/ws"
ADMIN_ONLY = "/celery-admin/system/status"


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """An API that may be read anonymously, has a name, and believes this machine which address a request is from."""
    options = ("--anonymous-feed", "--allowed-hosts", NAME, "--trusted-proxy", "127.0.0.1/32")
    with Control(tmp_path_factory.mktemp("control"), options) as server:
        yield server.up()


@pytest.fixture
def address() -> Iterator[str]:
    """An address of each test's own, lest the failures of others count."""
    return (f"203.0.{n // 250}.{n % 250 + 1}" for n in _numbers)


_numbers = itertools.count()


def ask(control: Control, path: str, credentials: str, address: Iterator[str]) -> requests.Response:
    """GET a path with a token, of which any byte may be wrong."""
    sent = b"Bearer " + credentials.encode("utf-8", "surrogatepass")
    headers: dict[str, str | bytes | None] = {"Authorization": sent, "X-Forwarded-For": next(address)}
    return requests.get(control.root + path, headers=headers, timeout=30)


def raw(control: Control, request: bytes, *, wait: float = 5.0) -> bytes:
    """Send bytes, and return what comes until the connection ends."""
    with socket.create_connection(control.address, timeout=wait) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


def is_well(control: Control) -> bool:
    """Return whether it still answers, and has logged no unexpected error."""
    assert requests.get(control.info, timeout=30).status_code == 200
    return "nexpected" not in control.log.read_text() and "Traceback" not in control.log.read_text()


# Tokens


SENDABLE = {
    name: hostile
    for name, hostile in REFUSED.items()
    if hostile and not re.search(r"[\s\x00-\x1f\x7f-\U0010ffff]", hostile)
}


@pytest.mark.parametrize("hostile", SENDABLE.values(), ids=SENDABLE.keys())
def test_no_hostile_token_opens_a_door(control: Control, address: Iterator[str], hostile: str) -> None:
    """401 without a word about it, or 400 or 431 where it is no header; as query and subprotocol it opens no feed."""
    answer = ask(control, ADMIN_ONLY, hostile, address)
    assert answer.status_code in (401, 431) if len(hostile) > 8000 else answer.status_code == 401
    assert hostile[:40] not in answer.text
    with connected(control, f"?access_token={quote(hostile)}") if len(hostile) < 3000 else ExitStack() as feed:
        if isinstance(feed, ClientConnection):
            assert closing_code(feed) in (4401, 1013)


@pytest.mark.parametrize("second", [GOOD, "x", "", "Basic YTpi", f"Bearer {GOOD}"])
def test_two_credentials_are_none(control: Control, second: str) -> None:
    """Two who read a request differently would take one of them each."""
    for lines in ((f"Bearer {GOOD}", second), (second, f"Bearer {GOOD}"), (f"Bearer {GOOD}, {second}",)):
        sent = "".join(f"Authorization: {line}\r\n" for line in lines)
        answer = raw(
            control, f"GET {ADMIN_ONLY} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{sent}\r\n".encode()
        )
        assert answer.split()[1] in (b"400", b"401")


@pytest.mark.parametrize("text", IDS)
def test_a_token_with_a_strange_id_is_used_and_recorded(control: Control, address: Iterator[str], text: str) -> None:
    """It is signed: its subject may do what its role says, and no id breaks the audit trail."""
    assert ask(control, ADMIN_ONLY, signed(claims(jti=text)), address).status_code == 200
    assert is_well(control)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
@pytest.mark.parametrize(
    "path",
    [
        *("/system/status", "/audit", "/AUDIT", "/audit/", "/audit;x=1", "/audit%2f", "/./audit", "/x/../audit"),
        *("/%61udit", "//audit", "/audit?role=admin", "/audit%00", "/audit#", "/audit%20", "/audit/.json"),
    ],
)
def test_no_spelling_of_a_path_gives_more_rights(control: Control, role: Role, path: str) -> None:
    """Refused, or not found."""
    head = f"GET /celery-admin{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    answer = raw(control, f"{head}Authorization: Bearer {token(role)}\r\n\r\n".encode())
    assert answer.split()[1] in (b"403", b"404", b"400")


@pytest.mark.parametrize("name", ["X-Forwarded-User", "X-Remote-User", "X-Original-URL", "X-Rewrite-URL", "X-Role"])
@pytest.mark.parametrize("value", ["admin", "/celery-admin/system/info"])
def test_no_header_of_a_proxy_stands_for_a_token(
    control: Control, address: Iterator[str], name: str, value: str
) -> None:
    """Only X-Forwarded-For of a trusted proxy means anything, and only an address."""
    headers = {name: value, "X-Forwarded-For": next(address)}
    assert requests.get(control.root + ADMIN_ONLY, headers=headers, timeout=30).status_code == 401


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"])
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_no_header_changes_the_method(control: Control, header: str, method: str) -> None:
    """A GET stays one."""
    answer = requests.get(f"{control.url}/audit", headers={**bearer(Role.ADMIN), header: method}, timeout=30)
    assert answer.status_code == 200


# Heads


LINE = b"GET /celery-admin/system/info HTTP/1.1\r\n"
BAD_HEADS = {
    "bare LF in a value": LINE + b"Host: x\r\nX: a\nX-Y: b\r\n\r\n",
    "bare CR in a value": LINE + b"Host: x\r\nX: a\rX-Y: b\r\n\r\n",
    "bare LF at the end of a line": LINE + b"Host: 127.0.0.1\nX: b\r\n\r\n",
    "bare LF behind the line": b"GET /celery-admin/system/info HTTP/1.1\nHost: x\r\n\r\n",
    "CR CR LF": LINE + b"Host: x\r\r\nX: b\r\n\r\n",
    "NUL": LINE + b"Host: x\r\nX: a\x00b\r\n\r\n",
    "folded": LINE + b"Host: x\r\nX: a\r\n b\r\n\r\n",
    "a blank before the colon": LINE + b"Host : x\r\n\r\n",
    "no name": LINE + b": x\r\n\r\n",
    "no colon": LINE + b"Host x\r\n\r\n",
    "two lengths": b"POST /celery-admin/audit HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunked": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0",
    "a length with a sign": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nabcd",
    "a length in hex": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0x4\r\n\r\nabcd",
    "a negative length": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "an unknown coding": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "another version": b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "a version of ours": b"GET / HTTQ/1.1\r\nHost: x\r\n\r\n",
    "a method with a NUL": b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an empty line first": b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a long line": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a longer line": b"GET /" + b"x" * 40_000,
    "a long header": LINE + b"X: " + b"x" * 20_000 + b"\r\n\r\n",
    "a header without an end": LINE + b"X: " + b"x" * 40_000,
    "many headers": LINE + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("head", BAD_HEADS.values(), ids=BAD_HEADS.keys())
def test_a_head_that_two_could_read_differently_ends_the_connection(control: Control, head: bytes) -> None:
    """With one refusal, whatever comes behind it."""
    answer = raw(control, head + LINE + b"Host: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert re.match(rb"HTTP/1\.1 (400|411|413|414|421|431|501|505) ", answer), answer[:100]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"celerymeter" not in answer
    assert is_well(control)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:8000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[::1].evil.example",
        ),
        *(f"{NAME}.evil.example", f"x{NAME}", f"evil.example#{NAME}", f"evil.example/{NAME}", "", "*", "0x7f.1.evil"),
        *(f"{NAME}@evil.example", "xn--cluster-9a", "a" * 300, "evil.example\\", "%31%32%37.0.0.1.evil", "[evil]"),
    ],
)
@pytest.mark.parametrize(
    "path", ["/celery-admin/system/info", "/openapi.json", "//celery-admin//system/info", "/nothing"]
)
def test_another_host_is_refused(control: Control, host: str, path: str) -> None:
    """Also for what anybody may read, and nothing sends a browser there."""
    answer = raw(control, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] in (b"421", b"400")
    assert b"Location" not in answer
    assert b"evil" not in answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    "host", [NAME, NAME.upper(), f"{NAME}:8000", "localhost:1", "127.0.0.1", "[::1]:80", "10.1.2.3"]
)
def test_our_hosts_are_answered(control: Control, host: str) -> None:
    """The names of --allowed-hosts, addresses and localhost, with or without a port."""
    answer = raw(control, LINE + f"Host: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example"])
def test_another_host_is_refused_by_the_metrics_too(control: Control, host: str) -> None:
    """They have a listener of their own."""
    assert requests.get(control.metrics_url, headers={"Host": host}, timeout=30).status_code == 421
    assert requests.get(control.metrics_url, headers={"Host": NAME}, timeout=30).status_code == 200


@pytest.mark.parametrize(
    "path", ["//celery-admin/system/info", "/celery-admin//audit", "/celery-admin/audit/", "//evil.example/"]
)
def test_no_path_redirects(control: Control, path: str) -> None:
    """A redirect would name the host that the client named."""
    answer = raw(control, f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] in (b"404", b"200")
    assert b"Location" not in answer


# The feed


def connected(control: Control, query: str = "", **headers: str) -> ClientConnection:
    """A WebSocket on the feed."""
    host, port = control.address
    extra = {"X-Forwarded-For": f"203.1.{next(_numbers) % 250}.1", **headers}
    sock = socket.create_connection((host, port), timeout=30)
    return connect(f"ws://{host}:{port}{FEED}{query}", sock=sock, additional_headers=extra, open_timeout=10)


def closing_code(feed: ClientConnection) -> int:
    """Return the code that the server closes with."""
    try:
        while True:
            feed.recv(timeout=10)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006


@pytest.mark.parametrize("origin", [f"http://{NAME}:{{port}}", "http://127.0.0.1:{port}", None])
def test_an_anonymous_client_reads_the_feed_of_an_allowed_host(control: Control, origin: str | None) -> None:
    """From a page of ours, or from a program."""
    port = control.address[1]
    headers = {"Origin": origin.format(port=port)} if origin else {}
    host = (origin or "http://127.0.0.1").format(port=port).partition("://")[2]
    with connected_as(control, host, headers) as feed:
        assert json.loads(feed.recv(timeout=10))["message_type"] == "connection_established"


def connected_as(control: Control, host: str, headers: dict[str, str], query: str = "") -> ClientConnection:
    """A WebSocket to a host of that name, which leads to us."""
    sock = socket.create_connection(control.address, timeout=30)
    offered = [Subprotocol(word.strip()) for word in headers.get("Sec-WebSocket-Protocol", "").split(",") if word]
    others = {name: value for name, value in headers.items() if name != "Sec-WebSocket-Protocol"}
    return connect(
        f"ws://{host}{FEED}{query}",
        sock=sock,
        additional_headers=others,
        subprotocols=offered or None,
        open_timeout=10,
    )


@pytest.mark.parametrize("seconds", [2.0])
def test_a_client_that_pings_without_pause_is_closed(control: Control, seconds: float) -> None:
    """Its token's end is the latest time: such a client is of no use to anybody."""
    with connected(control, f"?access_token={token(ttl=seconds)}") as feed, pytest.raises(ConnectionClosed):
        _ping_for(feed, 10.0)


def _ping_for(feed: ClientConnection, seconds: float) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        feed.ping()


@pytest.fixture(scope="module")
def nameless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """An API that may be read anonymously, and was given no name."""
    folder = tmp_path_factory.mktemp("nameless")
    (folder / "denied").write_text("")
    with Control(folder, ("--anonymous-feed", "--jwt-denied-file", str(folder / "denied"))) as server:
        yield server.up()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_a_page_whose_name_suddenly_leads_to_us_reads_no_feed(nameless: Control, host: str) -> None:
    """DNS rebinding: to its browser both are one site. With a token it may."""
    host = host.format(port=nameless.address[1])
    with connected_as(nameless, host, {"Origin": f"http://{host}"}) as feed:
        assert closing_code(feed) == 4401
    with connected_as(nameless, host, {"Origin": f"http://{host}", **bearer()}) as feed:
        assert json.loads(feed.recv(timeout=10))["message_type"] == "connection_established"


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:{port}"])
def test_programs_and_our_own_pages_read_it(nameless: Control, origin: str | None) -> None:
    """No host name is configured: an address will do."""
    port = nameless.address[1]
    headers = {} if origin is None else {"Origin": origin.format(port=port)}
    with connected_as(nameless, f"127.0.0.1:{port}", headers) as feed:
        assert json.loads(feed.recv(timeout=10))["message_type"] == "connection_established"


def test_a_token_that_is_withdrawn_ends_its_feed(nameless: Control) -> None:
    """However it came, also while its client pings without pause; and opens no other. All at once: each takes 5 s."""
    cases = list(itertools.product(("header", "query", "protocol"), (False, True)))
    tokens = {(sent, pings): signed(claims(jti=f'"{sent}-{pings}"')) for sent, pings in cases}
    with ExitStack() as stack, ThreadPoolExecutor(len(cases)) as pool:
        feeds = [stack.enter_context(feed_by(nameless, sent, tokens[sent, pings])) for sent, pings in cases]
        for feed in feeds:
            assert json.loads(feed.recv(timeout=10))["message_type"] == "connection_established"
        ends = [
            pool.submit(_ping_until_closed if pings else closing_code, feed)
            for feed, (_, pings) in zip(feeds, cases, strict=True)
        ]
        (nameless.state.parent / "denied").write_text("".join(f"{sent}-{pings}\n" for sent, pings in cases))
        for end, (_, pings) in zip(ends, cases, strict=True):
            # A client that pings is closed for that, maybe before the list is read again.
            assert end.result(30) == 4401 or pings

    def opens_none(withdrawn: str) -> bool:
        bearing = {"Authorization": f"Bearer {withdrawn}"}
        return requests.get(f"{nameless.url}/audit", headers=bearing, timeout=30).status_code == 401

    wait_until(lambda: all(map(opens_none, tokens.values())))


def feed_by(control: Control, sent: str, token: str) -> ClientConnection:
    """The feed, opened with a token that is sent in one of three ways."""
    headers = {
        "header": {"Authorization": f"Bearer {token}"},
        "protocol": {"Sec-WebSocket-Protocol": f"celerymeter.v1, bearer.{token}"},
    }
    query = f"?access_token={token}" if sent == "query" else ""
    return connected_as(control, "127.0.0.1", headers.get(sent, {}), query)


def _ping_until_closed(feed: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed):
        _ping_for(feed, 20.0)
    return closing_code(feed)


# Connections


def test_unfinished_heads_keep_nobody_out(control: Control) -> None:
    """500 used all threads; now more of them than there may be connections only make the oldest go."""
    with ExitStack() as stack:
        for number in range(WAITING_CONNECTIONS + 500):
            connection = stack.enter_context(socket.create_connection(control.address, timeout=30))
            connection.sendall((LINE, LINE + b"Host: x\r\n", b"G", b"")[number % 4])
            if number % 250 == 0:
                begun = time.monotonic()
                assert requests.get(control.info, timeout=30).status_code == 200
                assert time.monotonic() - begun < 3
        assert requests.get(control.info, timeout=30).status_code == 200


@pytest.mark.parametrize("begin", [b"", b"G", LINE + b"Host: 127.0.0.1\r\n\r\n"], ids=["silent", "begun", "kept alive"])
def test_one_address_has_its_own_part_of_the_connections(control: Control, begin: bytes) -> None:
    """Of more its own oldest goes, and nobody else's."""
    with ExitStack() as stack:

        def connected_from(address: str, greeting: bytes) -> socket.socket:
            made = socket.create_connection(control.address, timeout=30, source_address=(address, 0))
            stack.enter_context(made).sendall(greeting)
            return made

        other = connected_from("127.0.0.9", b"G")
        first, *_ = [connected_from("127.0.0.8", begin) for _ in range(MAX_PER_ADDRESS + 20)]
        first.settimeout(10)
        while first.recv(65536):  # an answer, then the end
            pass
        other.sendall(LINE[1:] + b"Host: 127.0.0.1\r\n\r\n")
        assert other.recv(100).startswith(b"HTTP/1.1 200")


def test_a_head_may_come_in_pieces_and_two_at_once(control: Control) -> None:
    """Byte by byte; and a second request need not wait for the first answer."""
    request = LINE + b"Host: 127.0.0.1\r\n\r\n"
    with socket.create_connection(control.address, timeout=30) as connection:
        for place in range(len(request)):
            connection.sendall(request[place : place + 1])
        connection.sendall(request + LINE + b"Host: 127.0.0.1\r\nConnection: clo")
        connection.sendall(b"se\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.count(b"HTTP/1.1 200") == 3


def test_clients_that_do_not_send_their_body_hold_no_thread(control: Control, address: Iterator[str]) -> None:
    """Nor those that do not read the answer and stay."""
    head = b"POST /celery-admin/tasks/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n"
    with ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(socket.create_connection(control.address, timeout=30))
            connection.sendall(head + f"X-Forwarded-For: {next(address)}\r\n\r\n{{".encode())
        begun = time.monotonic()
        assert requests.get(control.info, timeout=30).status_code == 200
        assert time.monotonic() - begun < 4


def test_requests_of_strangers_fill_no_log(control: Control) -> None:
    """Some lines a minute say that they come, with the number of those left out, and short paths."""
    with requests.Session() as session:
        for number in range(100):
            session.post(f"{control.root}/{number}/{'x' * 3000}", timeout=30)
    lines = [line for line in control.log.read_text().splitlines() if '"POST /' in line]
    assert 1 <= len(lines) <= StrangersLog.PER_MINUTE * 3
    assert max(map(len, lines)) < 600
    strangers = StrangersLog()
    admitted = [strangers.admit(1000.0) for _ in range(100)]
    assert (admitted[0], admitted[-1], strangers.admit(1061.0)) == (0, None, 40)


STRANGE = {
    "another method": b"PUT /celery-admin/audit HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a method of their own": b"FORGED /celery-admin/audit HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "no token": b"POST /celery-admin/tasks/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n",
    "a wrong token": b"POST /celery-admin/audit HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer x\r\n\r\n",
    "another host": b"POST /celery-admin/audit HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "too much": b"POST /celery-admin/tasks/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\r\n\r\n",
    "a long line": b"POST /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a refused feed": b"GET /celery-admin/monitoring/ws?since=x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}


@pytest.mark.parametrize("request_", STRANGE.values(), ids=STRANGE.keys())
def test_no_kind_of_request_of_strangers_fills_the_log(control: Control, request_: bytes) -> None:
    """A hundred of one kind are some lines at most, and these are short."""
    before = len(control.log.read_text())
    for _ in range(100):
        raw(control, request_.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert len(control.log.read_text()) - before < 60 * 600


def test_a_good_token_passes_from_an_address_that_guesses(control: Control) -> None:
    """Of a proxy, or of a network behind one address; its first use as well."""
    headers = {"X-Forwarded-For": "198.51.100.7"}
    answers = (
        requests.get(
            f"{control.url}/audit", headers={**headers, "Authorization": f"Bearer {GOOD[:-4]}{n:04}"}, timeout=30
        )
        for n in range(1000)  # one more may be tried each second, so a slow machine needs more than 61
    )
    assert 429 in (answer.status_code for answer in answers)
    fresh = {"Authorization": f"Bearer {token(Role.ADMIN, subject='never seen before')}"}
    assert requests.get(f"{control.url}/audit", headers={**headers, **fresh}, timeout=30).status_code == 200


def test_all_of_it_broke_nothing(control: Control, tmp_path: Path) -> None:
    """The trail is whole, and the API is as fast as before."""
    wait_until(lambda: requests.get(control.info, timeout=30).elapsed.total_seconds() < 1)
    assert is_well(control)
