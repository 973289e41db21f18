"""Bodies of requests that are no bodies, or ask for more than they carry: a refusal, at once, and no stack trace."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest
import requests
from pydantic import ValidationError
from tests.control.access import bearer
from tests.control.serving import Control
from tests.security.process import peak_of

from celerymeter.control.alerts import Notification
from celerymeter.control.auth import MAX_VALUES
from celerymeter.control.errors import MAX_WRONG, validation_response
from celerymeter.control.server import MAX_CHUNKS
from celerymeter.control.tokens import Role

pytestmark = pytest.mark.integration

BATCH = b"POST /celery-admin/tasks/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"task_ids": ["a"], "operation": "revoke"'
END = b"0\r\n\r\n"


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """A running API."""
    with Control(tmp_path_factory.mktemp("control")) as server:
        yield server.up()


def send(control: Control, rest: bytes) -> bytes:
    """Send a request to revoke, of an operator, and return what comes back until the connection ends."""
    authorization = f"Authorization: {bearer(Role.OPERATOR)['Authorization']}\r\n".encode()
    with socket.create_connection(control.address, timeout=30) as connection:
        answer = b""
        try:
            connection.sendall(BATCH + authorization + rest)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionError:
            pass
        return answer


def is_well(control: Control) -> bool:
    """Return whether it still answers, and logged nothing unexpected."""
    assert requests.get(control.info, timeout=30).status_code == 200
    return "nexpected" not in control.log.read_text()


CHUNKS = {
    "an extension without end": b"5;" + b"x" * 100_000,
    "a size without end": b"0" * 100_000,
    "a negative size": b"-1\r\nx\r\n" + END,
    "a size with a sign": b"+1\r\nx\r\n" + END,
    "a size in hex with its mark": b"0x1\r\nx\r\n" + END,
    "a size with underscores": b"1_0\r\n" + b"x" * 16 + b"\r\n" + END,
    "a size beyond all limits": b"f" * 16 + b"\r\nx",
    "a chunk that does not come": b"ffff\r\nx",
    "no more chunks": b"1\r\nx\r\n",
    "no line end behind a chunk": b"1\r\nxx" + END,
    "a bare LF": b"1\nx\n0\n\n",
    "an extension with a NUL": b"1;\x00\r\nx\r\n" + END,
    "trailers without end": b"1\r\nx\r\n0\r\n" + b"X: y\r\n" * 100_000,
    "a trailer that is a length": b"1\r\nx\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a trailer that is no header": b"1\r\nx\r\n0\r\nnothing\r\n\r\n",
    "a folded trailer": b"1\r\nx\r\n0\r\nX: y\r\n z\r\n\r\n",
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
def test_chunks_that_are_none_are_refused(control: Control, chunks: bytes) -> None:
    """They were an unexpected error with a stack trace in the log, for each."""
    answer = send(control, CHUNKED + chunks)
    assert re.match(rb"HTTP/1\.1 (400|413|431) ", answer), answer[:60]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert is_well(control)


SPREAD = b'{"operation": "revoke", "task_ids": ["' + b"a" * 255 + b'"], "nothing": 1}'


@pytest.mark.parametrize(
    ("chunk", "spaces", "status"),
    [
        (b"1\r\n%c\r\n", 10_000, 422),
        (b"1\r\n%c\r\n", MAX_CHUNKS, 400),
        (b"1;a=b\r\n%c\r\n", MAX_CHUNKS, 400),
        (b"01\r\n%c\r\n", MAX_CHUNKS, 400),
    ],
)
def test_a_body_of_very_many_chunks_is_refused(control: Control, chunk: bytes, spaces: int, status: int) -> None:
    """Each cost as much as a long one: two million kept a processor busy for a minute. Some thousand are usual."""
    chunks = b"".join(chunk % byte for byte in SPREAD + b" " * spaces)
    answer = send(control, b"Connection: close\r\n" + CHUNKED + chunks + END)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:60]
    assert is_well(control)


VALUES = {
    "NaN": b"NaN",
    "infinite": b"-Infinity",
    "beyond all floats": b"1e400",
    "negative zero": b"-0",
    "4,000 digits": b"9" * 4000,
    "5,000 digits": b"9" * 5000,
    "half a pair": b'"\\ud800"',
    "half a pair as a key": b'{"\\udfff": 1}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "not closed": b'"',
    "latin-1": b'"\xe9"',
    "UTF-7": b"+AG4AdQBsAGw-",
    "a comment": b"1 /* x */",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("name", ["task_ids", "more"])
def test_values_that_json_may_not_have_are_refused(control: Control, name: str, value: bytes) -> None:
    """Or that no field takes."""
    body = b'{"operation": "revoke", "%b": %b}' % (name.encode(), value)
    answer = send(control, b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert re.match(rb"HTTP/1\.1 (400|422) ", answer), answer[:60]
    assert is_well(control)


MANY = 300_000
NUMEROUS = {
    "members": "{" + ",".join(f'"{number:x}":1' for number in range(MANY)) + "}",
    "ids": json.dumps({"operation": "revoke", "task_ids": [1] * MANY}),
    "lists": json.dumps({"operation": "revoke", "task_ids": [[]] * MANY}),
    "objects": json.dumps({"operation": "revoke", "task_ids": [{}] * MANY}),
}


@pytest.mark.parametrize("body", NUMEROUS.values(), ids=NUMEROUS.keys())
def test_a_body_of_very_many_values_is_refused_before_it_is_parsed(control: Control, body: str) -> None:
    """4 MB of them took 450 MB."""
    answer = requests.post(f"{control.url}/tasks/batch", data=body, headers=_headers(), timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert f"{MAX_VALUES} values" in answer.json()["detail"]


@pytest.mark.parametrize(("number", "named"), [(3, 4), (500, 100), (MAX_WRONG * 5, 0)])
def test_wrong_fields_are_named_unless_they_are_very_many(control: Control, number: int, named: int) -> None:
    """At most a hundred."""
    body = {f"k{n}": 1 for n in range(number)} | {"task_ids": ["a"]}
    answer = requests.post(f"{control.url}/tasks/batch", json=body, headers=_headers(), timeout=30).json()
    assert answer["detail"].startswith(f"{number + 1} fields of the request are wrong")
    assert len(answer.get("errors", [])) == named


def test_very_many_wrong_fields_take_little_memory() -> None:
    """pydantic describes all of them at once."""
    body = {"alerts": [{"labels": {f"k{label}": 1 for label in range(100)}} for _ in range(1000)]}

    def refuse() -> int:
        try:
            Notification.model_validate(body)
        except ValidationError as error:
            return validation_response(error).status_code
        return 200

    status, megabytes = peak_of(refuse)
    assert status == 422
    assert megabytes < 80


def _headers() -> dict[str, str]:
    return {**bearer(Role.OPERATOR), "Content-Type": "application/json"}
