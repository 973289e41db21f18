"""Receivers of messages in tests: an SMTP server and an HTTP server on loopback that keep what they are given."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, TypeVar

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from celerymeter.demo.processes import START_TIMEOUT, free_port, wait_until

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Posted:
    """One POST: where to, with which Authorization, its JSON, and when it came (monotonic seconds)."""

    path: str
    authorization: str
    body: Mapping[str, Any]
    at: float


def awaited(found: Callable[[], list[T]], *, what: str, count: int = 1, timeout: float = START_TIMEOUT) -> list[T]:
    """Return what ``found`` gives once that is ``count`` or more; raises `TimeoutError`."""
    wait_until(lambda: len(found()) >= count, timeout=timeout, what=what)
    return found()


class HttpSink:
    """Answers every POST with 200 and keeps it, after it has refused the first ones with 503."""

    def __init__(self, *, refuse: int = 0, host: str = "127.0.0.1") -> None:
        self.refuse = refuse
        self.posted: list[Posted] = []
        self._server = ThreadingHTTPServer((host, 0), self._handler())
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def to(self, path: str, status: str | None = None) -> list[Posted]:
        """Return what was posted to a path, with this status of Alertmanager's webhook body."""
        return [one for one in list(self.posted) if one.path == path and status in (None, one.body.get("status"))]

    def alerts(self, path: str, status: str) -> set[tuple[str, str]]:
        """``(alertname, severity)`` of every alert that a webhook was sent with this status."""
        return {
            (alert["labels"]["alertname"], alert["labels"]["severity"])
            for one in self.to(path)
            for alert in one.body["alerts"]
            if alert["status"] == status
        }

    def _handler(sink) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - ``self`` is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if sink.refuse > 0:
                    sink.refuse -= 1
                    self.send_error(503)
                    return
                sink.posted.append(
                    Posted(self.path, self.headers.get("Authorization", ""), json.loads(body), time.monotonic())
                )
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler

    def __enter__(self) -> HttpSink:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class MailSink:
    """An SMTP server that wants a password and keeps every message."""

    def __init__(self, password: str) -> None:
        self.messages: list[EmailMessage] = []
        self.port = free_port()
        self._password = password.encode()
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            authenticator=self._authenticate,
            auth_require_tls=False,
            auth_exclude_mechanism=["LOGIN"],  # its prompts are worded otherwise than Alertmanager expects
        )

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        right = isinstance(data, LoginPassword) and data.password == self._password
        return AuthResult(success=right, handled=False)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Take one message, of those who have shown the password."""
        if not session.authenticated:
            return "530 log in first"
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        return "250 OK"

    def __enter__(self) -> MailSink:
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()
