"""``GET /monitoring/ws``: checks origin and token, then serves the client on the thread of its request."""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final
from urllib.parse import urlsplit

from flask import Request, Response, request
from pydantic import Field

from celerymeter.control.auth import Authenticator, bearer_token, current_address, is_allowed_host
from celerymeter.control.cluster.snapshot import ClusterReader
from celerymeter.control.feed.hub import FeedFull, FeedMessage, Greeting, Hub, Mailbox, feed_error
from celerymeter.control.feed.websocket import BadHandshake, PeerGone, WebSocket
from celerymeter.control.routing import FEED_PATH, ControlBlueprint, Permission, Query
from celerymeter.control.settings import ControlSettings
from celerymeter.control.tokens import Identity
from celerymeter.errors import CelerymeterError, InvalidToken, RequestRefused

PROTOCOL: Final = "celerymeter.v1"
_BEARER: Final = "bearer."
PING_INTERVAL: Final = 20.0
PEER_TIMEOUT: Final = 45.0
"""Seconds without any byte from the peer after which it is given up: two pings are unanswered then."""
GOING_AWAY: Final = 1001
UNAUTHENTICATED: Final = 4401
TRY_AGAIN_LATER: Final = 1013
INTERNAL: Final = 1011

log = logging.getLogger(__name__)


class FeedQuery(Query):
    """The place to resume at, and a token for clients that can set no header."""

    since: int | None = Field(default=None, ge=0, description="The `seq` of the last message seen")
    access_token: str | None = Field(default=None, max_length=16_384, description="A token; it is never logged")


class Finished(Response):
    """The response of a view that has used the request's own socket for a WebSocket: nothing more is to be sent."""

    def __call__(self, *_: object) -> Iterable[bytes]:
        """Tell gunicorn so: its `ThreadWorker.handle` takes a `StopIteration` as the end of the connection."""
        raise StopIteration


class Waker:
    """Wakes a thread that waits on a socket."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)

    def wake(self) -> None:
        """Wake the thread; may be called from any thread, at any time."""
        with suppress(OSError):
            self._writer.send(b"\0")

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._reader.fileno()

    def clear(self) -> None:
        """Forget all calls of `wake` so far."""
        with suppress(BlockingIOError):
            while self._reader.recv(1024):
                pass

    def close(self) -> None:
        """Close both sockets."""
        self._reader.close()
        self._writer.close()


@dataclass(frozen=True, slots=True)
class Session:
    """A client from its first message to its end; its token expires at ``expires_at`` (UTC seconds, by ``clock``)."""

    peer: WebSocket
    mailbox: Mailbox
    waker: Waker
    expires_at: float | None
    withdrawn: Callable[[], bool] = lambda: False
    ping_interval: float = PING_INTERVAL
    peer_timeout: float = PEER_TIMEOUT
    clock: Callable[[], float] = time.time

    def run(self, *first: Iterable[FeedMessage]) -> None:
        """Send the messages in ``first``, then those of the mailbox as it fills, until either side closes."""
        with suppress(PeerGone):
            for message in chain.from_iterable(first):
                self.peer.send(message.text)
            self._follow()

    def _follow(self) -> None:
        poller = select.poll()
        poller.register(self.peer, select.POLLIN)
        poller.register(self.waker, select.POLLIN)
        pinged_at = time.monotonic()
        while not self._ended():
            poller.poll(1000 * self._poll_timeout(pinged_at))
            # Cleared before the mailbox is read: a message that comes in between wakes the next poll.
            self.waker.clear()
            self.peer.read()
            while not self.mailbox.closing and (message := self.mailbox.take()):
                self.peer.send(message.text)
            if time.monotonic() - pinged_at >= self.ping_interval:
                pinged_at = time.monotonic()
                self.peer.ping()

    def _ended(self) -> bool:
        if self.expires_at is not None and self.clock() >= self.expires_at:
            self.peer.close(UNAUTHENTICATED, "the token has expired")
        elif self.withdrawn():
            self.peer.close(UNAUTHENTICATED, "the token was withdrawn")
        elif self.mailbox.closing:
            self.peer.close(GOING_AWAY, "the server stops")
        elif time.monotonic() - self.peer.last_received > self.peer_timeout:
            self.peer.abort()  # nobody is there to read a close frame
        else:
            return False
        return True

    def _poll_timeout(self, pinged_at: float) -> float:
        """Return the seconds until the next ping, or until the token expires."""
        until_ping = pinged_at + self.ping_interval - time.monotonic()
        until_expiry = self.ping_interval if self.expires_at is None else self.expires_at - self.clock()
        return max(0.0, min(until_ping, until_expiry))


@dataclass(frozen=True, slots=True)
class Feed:
    """The parts that a connection needs; ``running`` returns whether updates are sent."""

    hub: Hub
    auth: Authenticator
    reader: ClusterReader
    running: Callable[[], bool]
    settings: ControlSettings

    def serve(self, query: FeedQuery) -> Response:
        """Check the request, answer the handshake, and serve the client until it is gone."""
        check_origin(request, self.settings.allowed_origins)
        named = is_allowed_host(request.host, self.settings.allowed_hosts)
        sock = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
        if not isinstance(sock, socket.socket):
            raise RequestRefused("malformed", "this server cannot serve WebSockets")
        offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        try:
            peer = WebSocket(sock, request.headers.items(), subprotocol=PROTOCOL if PROTOCOL in offered else None)
        except BadHandshake as error:
            raise RequestRefused("malformed", "this is a WebSocket: connect with ws:// or wss://") from error
        try:
            token = token_of(request, offered, query)
            identity = self._identity(token, anonymous=named or not by_page(request, self.settings.allowed_origins))
        except InvalidToken as error:
            peer.refuse(UNAUTHENTICATED, str(error))
        except RequestRefused as error:
            peer.refuse(TRY_AGAIN_LATER, str(error))
        else:
            self._serve_client(peer, identity, query.since)
        return Finished()

    def _identity(self, token: str | None, *, anonymous: bool) -> Identity | None:
        if token is None and self.settings.anonymous_feed and anonymous:
            return None
        return self.auth.authenticate(token, address=current_address())

    def _serve_client(self, peer: WebSocket, identity: Identity | None, since: int | None) -> None:
        try:
            with closing(Waker()) as waker:
                self._run_session(peer, waker, identity, since)
        except (FeedFull, OSError):
            peer.refuse(TRY_AGAIN_LATER, "too many clients")
        except Exception:
            log.exception("feed: a client's thread failed unexpectedly")
            peer.close(INTERNAL)
        else:
            peer.abort()

    def _run_session(self, peer: WebSocket, waker: Waker, identity: Identity | None, since: int | None) -> None:
        mailbox, missed = self.hub.join(wake=waker.wake, abort=peer.abort, since=since)
        client = {"sub": "" if identity is None else identity.sub, "address": current_address()}
        log.info("feed: client connected", extra=client)
        try:
            expires_at = None if identity is None else identity.exp
            withdrawn = (lambda: False) if identity is None else partial(self.auth.is_withdrawn, identity)
            session = Session(peer, mailbox, waker, expires_at=expires_at, withdrawn=withdrawn)
            session.run(self._greeting(complete=missed.complete), missed.messages)
        finally:
            self.hub.leave(mailbox)
            log.info("feed: client gone", extra=client)

    def _greeting(self, *, complete: bool) -> Iterable[FeedMessage]:
        """Yield the first messages; a generator, so that the greeting does not wait for Prometheus."""
        greeting = Greeting(
            client_count=self.hub.client_count,
            interval_seconds=self.settings.feed_interval,
            running=self.running(),
            complete=complete,
        )
        yield self.hub.private("connection_established", greeting)
        try:
            yield self.hub.private("dashboard_data", self.reader.dashboard())
        except CelerymeterError as error:
            yield self.hub.private("error", feed_error(error))


def blueprint(*, feed: Feed) -> ControlBlueprint:
    """Return the feed's one operation."""
    bp = ControlBlueprint("feed")

    @bp.get(FEED_PATH, permission=Permission.FEED, responses={101: None}, errors=(400,), websocket=True)
    def open_feed(query: FeedQuery) -> Response:
        """Open the feed: a WebSocket with metrics, alerts and revocations.

        Messages are `{"message_type", "timestamp", "seq", "data"}`. A token (role viewer) comes as `Authorization`, as
        `access_token`, or as second subprotocol `bearer.<token>` beside `celerymeter.v1`. Closes with 4401 without a
        valid token and when it expires, with 1013 when too many clients are connected.
        """
        return feed.serve(query)

    return bp


def token_of(sent: Request, offered: Iterable[str], query: FeedQuery) -> str | None:
    """Return the client's token: from the header, else from a subprotocol, else from the query."""
    protocols = (part.removeprefix(_BEARER) for part in offered if part.startswith(_BEARER))
    return bearer_token(sent.headers.get("Authorization")) or next(protocols, None) or query.access_token


def by_page(sent: Request, allowed: Iterable[str]) -> bool:
    """Return whether a web page sent this that is not among the allowed ones, so that only its host makes it ours."""
    origin = sent.headers.get("Origin")
    return origin is not None and origin not in allowed and "*" not in allowed


def check_origin(sent: Request, allowed: Iterable[str]) -> None:
    """Refuse a page of another site: browsers open WebSockets across sites and send the cookies of ours along."""
    origin = sent.headers.get("Origin")
    if origin is None or origin in allowed or "*" in allowed:
        return
    if urlsplit(origin).netloc.lower() != sent.host.lower():
        raise RequestRefused("forbidden", "this origin may not open the feed; see --allow-origin")
