"""``GET /monitoring/ws``: who may connect, by which token, from which page; then a `Session` until it ends."""

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
from celerymeter.control.feed.session import UNAUTHENTICATED, Bell, Session
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
    """How to come back, and a token for those who can set no header."""

    since: int | None = Field(default=None, ge=0, description="The `seq` of the last message seen")
    access_token: str | None = Field(default=None, max_length=16_384, description="A token; no log shows it")


class Finished(Response):
    """The answer of a view that has spoken WebSocket on the request's own socket: nothing more is to be sent."""

    def __call__(self, *_: object) -> Iterable[bytes]:
        """gunicorn's way to be told so."""
        raise StopIteration


@dataclass(frozen=True, slots=True)
class Feed:
    """What a connection needs. ``running`` tells whether updates are sent."""

    hub: Hub
    auth: Authenticator
    reader: ClusterReader
    running: Callable[[], bool]
    settings: ControlSettings

    def serve(self, query: FeedQuery) -> Response:
        """Check, answer the handshake, and stay until the client is gone."""
        check_origin(request, self.settings.allowed_origins)
        sock = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
        if not isinstance(sock, socket.socket):
            raise RequestRefused("malformed", "WebSockets are not served here")
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
            self._attend(peer, identity, query.since)
        return Finished()

    def _identity(self, token: str | None) -> Identity | None:
        if token is None and self.settings.anonymous_feed:
            return None
        return self.auth.authenticate(token, address=current_address())

    def _attend(self, peer: WebSocket, identity: Identity | None, since: int | None) -> None:
        try:
            with closing(Bell()) as bell:
                self._follow(peer, bell, identity, since)
        except (FeedFull, OSError):
            peer.close(TRY_AGAIN_LATER, "too many clients")
        except Exception:
            log.exception("feed: a client's thread failed unexpectedly")
            peer.close(INTERNAL)
        finally:
            peer.abort()

    def _follow(self, peer: WebSocket, bell: Bell, identity: Identity | None, since: int | None) -> None:
        mailbox, missed = self.hub.join(wake=bell.ring, abort=peer.abort, since=since)
        who = {"sub": "" if identity is None else identity.sub, "address": current_address()}
        log.info("feed: client connected", extra=who)
        try:
            session = Session(peer, mailbox, bell, expires_at=None if identity is None else identity.exp)
            session.run(self._greeting(complete=missed.complete), missed.messages)
        finally:
            self.hub.leave(mailbox)
            log.info("feed: client gone", extra=who)

    def _greeting(self, *, complete: bool) -> Iterable[FeedMessage]:
        """Lazily, so that the first message does not wait for Prometheus."""
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
    """The feed's one operation."""
    bp = ControlBlueprint("feed")

    @bp.get(FEED_PATH, permission=Permission.FEED, responses={101: None}, errors=(400,), websocket=True)
    def open_feed(query: FeedQuery) -> Response:
        """The feed: a WebSocket that tells what is going on.

        Messages are `{"message_type", "timestamp", "seq", "data"}`. A token (role viewer) comes as `Authorization`, as
        `access_token`, or as second subprotocol `bearer.<token>` beside `celerymeter.v1`. Closes with 4401 without a
        valid token and when it expires, with 1013 when too many clients are connected.
        """
        return feed.serve(query)

    return bp


def token_of(asked: Request, offered: Iterable[str], query: FeedQuery) -> str | None:
    """The token, wherever the client could put it; a header goes before a subprotocol before the query."""
    protocols = (part.removeprefix(_BEARER) for part in offered if part.startswith(_BEARER))
    return bearer_token(asked.headers.get("Authorization")) or next(protocols, None) or query.access_token


def check_origin(asked: Request, allowed: Iterable[str]) -> None:
    """Refuse a page of another site: browsers open WebSockets across sites and send what they know of ours along."""
    origin = asked.headers.get("Origin")
    if origin is None or origin in allowed or "*" in allowed:
        return
    if urlsplit(origin).netloc.lower() != asked.host.lower():
        raise RequestRefused("forbidden", "this origin may not open the feed; see --allow-origin")
