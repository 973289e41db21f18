"""A server that sends whatever bytes a test wants, as slowly and as long as it wants."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress

Speak = Callable[[socket.socket], None]
"""Answers a request whose head has come."""
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class HostileServer:
    """Answers every connection as ``speak`` does, until the client leaves."""

    def __init__(self, speak: Speak) -> None:
        self.speak = speak
        self.heads: list[bytes] = []
        """The head of each request."""
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> HostileServer:
        """Listen."""
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close, and wait until nothing is sent any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                self._threads.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            client.settimeout(20)
            head = b""
            while b"\r\n\r\n" not in head and (read := client.recv(65536)):
                head += read
            self.heads.append(head)
            self.speak(client)


def says(answer: bytes) -> Speak:
    """Send these bytes and close."""
    return lambda client: client.sendall(answer)


def answers(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> Speak:
    """Send a whole answer."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return says(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), lines, body))


def drips(begin: bytes, drop: bytes = b" ", *, every: float = 0.05) -> Speak:
    """Send a beginning, then a little again and again."""

    def speak(client: socket.socket) -> None:
        client.sendall(begin)
        while True:
            time.sleep(every)
            client.sendall(drop)

    return speak


def endless(begin: bytes, more: bytes) -> Speak:
    """Send as much as the client takes; ``more`` is not empty, or sending it would never fail."""

    def speak(client: socket.socket) -> None:
        client.sendall(begin)
        while True:
            client.sendall(more)

    return speak


def stops(begin: bytes = b"") -> Speak:
    """Send a beginning, then nothing until the client leaves."""

    def speak(client: socket.socket) -> None:
        client.sendall(begin)
        client.recv(1)

    return speak


def zipped(body: bytes, times: int = 1) -> bytes:
    """Compress, again and again."""
    for _ in range(times):
        body = gzip.compress(body, 9)
    return body


def _gzip(body: bytes, encoding: bytes = b"gzip") -> Speak:
    return answers(body, b"Content-Encoding: " + encoding)


def _bomb(megabytes: int) -> bytes:
    """Return zipped spaces; each megabyte is the same block, since compressing them all would take seconds."""
    spaces, crc = b" " * 1_000_000, 0
    block = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = block.compress(spaces) + block.flush(zlib.Z_FULL_FLUSH)
    for _ in range(megabytes):
        crc = zlib.crc32(spaces, crc)
    empty = gzip.compress(b"", mtime=0)
    return empty[:10] + packed * megabytes + empty[10:-8] + struct.pack("<LL", crc, megabytes * len(spaces))


BOMB = _bomb(300)

SLOW: dict[str, Speak] = {
    "silence": stops(),
    "a slow first line": drips(b"", b"H"),
    "a slow head": drips(OK, b"X: y\r\n"),
    "a slow line of the head": drips(OK + b"X: ", b"y"),
    "a slow body": drips(OK + b"Content-Length: 1000000\r\n\r\n"),
    "a slow chunk": drips(CHUNKED + b"fffff\r\n"),
    "slow chunks": drips(CHUNKED, b"1\r\n \r\n"),
    "a slow size of a chunk": drips(CHUNKED, b"0"),
    "slow trailers": drips(CHUNKED + b"1\r\n \r\n0\r\n", b"X: y\r\n"),
    "please continue, without end": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body that stops": stops(OK + b"Content-Length: 9\r\n\r\n"),
}
"""Answers without an end, of which some bytes come all the time."""
HUGE: dict[str, Speak] = {
    "a body without end": endless(OK + b"\r\n", b" " * 65536),
    "a body of an announced exabyte": endless(OK + b"Content-Length: 1152921504606846976\r\n\r\n", b" " * 65536),
    "chunks without end": endless(CHUNKED, b"8000\r\n" + b" " * 0x8000 + b"\r\n"),
    "one chunk without end": endless(CHUNKED + b"ffffffffffffff\r\n", b" " * 65536),
    "a gzip bomb": _gzip(BOMB),
    "a gzip bomb in gzip": _gzip(zipped(BOMB), b"gzip, gzip"),
    "a gzip bomb in chunks": says(
        OK + b"Content-Encoding: x-gzip\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BOMB), BOMB)
    ),
    "a gzip body that goes on after its end": endless(
        OK + b"Content-Encoding: gzip\r\n\r\n" + zipped(b"{}"), b" " * 65536
    ),
    "a deflate bomb": _gzip(BOMB[10:-8], b"deflate"),
    "a page of 404 without end": endless(b"HTTP/1.1 404 Not Found\r\n\r\n", b"x" * 65536),
    "a page of 500 without end": endless(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65536),
    "a redirect with a body without end": endless(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", b"x" * 65536),
    "lines of a head without end": endless(OK, b"X: y\r\n" * 1000),
    "a line of a head without end": endless(OK + b"X: ", b"y" * 65536),
    "a reason without end": endless(b"HTTP/1.1 200 ", b"y" * 65536),
}
BROKEN: dict[str, Speak] = {
    "nothing": says(b""),
    "no HTTP": says(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTTP/0.9": says(b"<html>hello</html>"),
    "another version": says(b"HTTP/9.9 200 OK\r\n\r\n"),
    "a status that is none": says(b"HTTP/1.1 two hundred\r\n\r\n"),
    "a status of many digits": says(b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n"),
    "half a body": says(OK + b"Content-Length: 100\r\n\r\n{"),
    "a negative length": says(OK + b"Content-Length: -5\r\n\r\n{}"),
    "a length that is none": says(OK + b"Content-Length: 0x5\r\n\r\n{}"),
    "two lengths": says(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "a negative chunk": says(CHUNKED + b"-5\r\n{}\r\n"),
    "a chunk that is none": says(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"),
    "no last chunk": says(CHUNKED + b"2\r\n{}\r\n"),
    "no gzip": _gzip(b"{}"),
    "half a gzip": _gzip(zipped(b"{}" * 1000)[:20]),
    "gzip that is empty": _gzip(b""),
    "an encoding that nobody asked for": _gzip(b"{}", b"br"),
    "an unknown encoding": _gzip(b"{}", b"\x1b[2J"),
    "a head that folds": says(OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}"),
    "no JSON": answers(b"<html>login</html>"),
    "deep JSON": answers(b"[" * 100_000),
    "deep objects": answers(b'{"a":' * 100_000),
    "no UTF-8": answers(b'{"status": "\xff\xfe"}'),
    "NaN": answers(b'{"status": NaN, "data": Infinity}'),
    "a long number": answers(b'{"status": ' + b"9" * 100_000 + b"}"),
    "a number that no float holds": answers(b'[{"name": "q", "messages": 1e999}]'),
    "null": answers(b"null"),
    "a list": answers(b"[1, 2]"),
    "lists of lists": answers(b"[[[]], {}]"),
    "text": answers(b'"x"'),
}
for _status in (b"301", b"302", b"303", b"307", b"308"):
    BROKEN[f"a redirect by {_status.decode()}"] = answers(
        b"", b"Location: http://127.0.0.1:1/", status=_status + b" \x1b[2Jelsewhere"
    )
