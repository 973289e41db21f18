"""``GET /monitoring/ws``: checks origin and token, then serves a `Session` until it ends."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from flask import Request, Response, request
from pydantic import Field

from celerymeter.control.auth import Authenticator, bearer_token, current_address
from celerymeter.control.cluster.snapshot import ClusterReader
from celerymeter.control.feed.hub import FeedFull, FeedMessage, Hub
from celerymeter.control.feed.messages import Greeting, feed_error
from celerymeter.control.feed.session import UNAUTHENTICATED, Session, Waker
from celerymeter.control.feed.websocket import BadHandshake, WebSocket
from celerymeter.control.routing import FEED_PATH, ControlBlueprint, Permission, Query
from celerymeter.control.settings import ControlSettings
from celerymeter.control.tokens import Identity
from celerymeter.errors import CelerymeterError, InvalidToken, RequestRefused

PROTOCOL: Final = "celerymeter.v1"
_BEARER: Final = "bearer."
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
        sock = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
        if not isinstance(sock, socket.socket):
            raise RequestRefused("malformed", "this server cannot serve WebSockets")
        offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        try:
            peer = WebSocket(sock, request.headers.items(), subprotocol=PROTOCOL if PROTOCOL in offered else None)
        except BadHandshake as error:
            raise RequestRefused("malformed", "this is a WebSocket: connect with ws:// or wss://") from error
        try:
            identity = self._identity(token_of(request, offered, query))
        except InvalidToken as error:
            peer.close(UNAUTHENTICATED, str(error))
        except RequestRefused as error:
            peer.close(TRY_AGAIN_LATER, str(error))
        else:
            self._serve_client(peer, identity, query.since)
        return Finished()

    def _identity(self, token: str | None) -> Identity | None:
        if token is None and self.settings.anonymous_feed:
            return None
        return self.auth.authenticate(token, address=current_address())

    def _serve_client(self, peer: WebSocket, identity: Identity | None, since: int | None) -> None:
        try:
            with closing(Waker()) as waker:
                self._run_session(peer, waker, identity, since)
        except (FeedFull, OSError):
            peer.close(TRY_AGAIN_LATER, "too many clients")
        except Exception:
            log.exception("feed: a client's thread failed unexpectedly")
            peer.close(INTERNAL)
        finally:
            peer.abort()

    def _run_session(self, peer: WebSocket, waker: Waker, identity: Identity | None, since: int | None) -> None:
        mailbox, missed = self.hub.join(wake=waker.wake, abort=peer.abort, since=since)
        client = {"sub": "" if identity is None else identity.sub, "address": current_address()}
        log.info("feed: client connected", extra=client)
        try:
            session = Session(peer, mailbox, waker, expires_at=None if identity is None else identity.exp)
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


def check_origin(sent: Request, allowed: Iterable[str]) -> None:
    """Refuse a page of another site: browsers open WebSockets across sites and send the cookies of ours along."""
    origin = sent.headers.get("Origin")
    if origin is None or origin in allowed or "*" in allowed:
        return
    if urlsplit(origin).netloc.lower() != sent.host.lower():
        raise RequestRefused("forbidden", "this origin may not open the feed; see --allow-origin")
