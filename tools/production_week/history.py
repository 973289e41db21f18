"""A Prometheus whose past is written by hand: samples are given to it minute by minute, and queries look at them."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeAlias

import requests
from tools.production_week.series import Value

from celerymeter.demo.servers import Prometheus

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Sorted, the metric's name among them as ``__name__``."""
STALE: Final = 0x7FF0000000000002.to_bytes(8, "little")
"""The value by which Prometheus says that a series has ended."""
_AT_ONCE = 1_000_000
"""Samples in one request at most, roughly: Prometheus 3 takes no more than 32 MB."""
_SAMPLE = 18
"""Bytes of a sample: a head, its value as a double, its time."""


class History:
    """A Prometheus without targets and without rules; times are minutes since 1970."""

    def __init__(self, folder: Path) -> None:
        config = folder / "prometheus.yml"
        config.write_text("global: {}\n")
        forever = "8760h"  # nothing is compacted, and a new series may begin in the past
        self._server = Prometheus(
            folder / "prometheus",
            config=config,
            options=(
                "--web.enable-remote-write-receiver",
                f"--storage.tsdb.min-block-duration={forever}",
                f"--storage.tsdb.max-block-duration={forever}",
                "--query.max-samples=500000000",
                "--query.timeout=10m",
            ),
        )
        self._http = requests.Session()
        self._http.trust_env = False  # looking for proxies takes longer than a small query

    @property
    def url(self) -> str:
        """Its address."""
        return self._server.url

    def __enter__(self) -> History:
        self._server.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        self._server.kill()

    def write(
        self,
        series: Iterable[tuple[Labels, Sequence[Value]]],
        *,
        start: int = 0,
        step: int = 1,
        live: Collection[Labels] = (),
    ) -> int:
        """Store the values of series, the first at minute ``start``, and return how many there were.

        Where one ends it is marked as stale; so are those that were there before (``live``) and begin with ``None``.
        """
        written, rest = 0, iter(series)
        for labels, values in rest:
            at_once = [(labels, values), *islice(rest, _AT_ONCE // len(values))]
            longest = max(len(values) for _, values in at_once)
            zeros = b"".join(b"\x12\x10\x09" + bytes(8) + _time(start + step * at) for at in range(longest))
            self._send(b"".join(_series(labels, values, zeros, labels in live) for labels, values in at_once))
            written += len(at_once)
        return written

    def _send(self, message: bytes) -> None:
        """Send a remote write request; snappy also takes what is not compressed, as one literal."""
        body = _varint(len(message)) + b"\xfc" + (len(message) - 1).to_bytes(4, "little") + message
        headers = {
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        answer = self._http.post(f"{self._server.url}/api/v1/write", data=body, headers=headers, timeout=600)
        if not answer.ok:
            raise ValueError(f"samples were refused: {answer.text[:500]}")

    def range(self, expr: str, *, start: int, end: int, step: int = 1) -> Iterator[tuple[dict[str, str], list[Value]]]:
        """Yield the series of a query with their values from minute ``start`` until before ``end``."""
        steps = range(start, end, step)
        if not steps:
            return
        found = self._ask("query_range", {"query": expr, "start": 60 * start, "end": 60 * steps[-1], "step": 60 * step})
        for one in found:
            values: list[Value] = [float(value) for _, value in one["values"]]
            if len(values) < len(steps):
                present = dict(zip((int(at) // 60 for at, _ in one["values"]), values, strict=True))
                values = [present.get(minute) for minute in steps]
            yield one["metric"], values

    def instant(self, expr: str, minute: int) -> list[tuple[dict[str, str], float]]:
        """Return the series of a query in one minute."""
        return [
            (one["metric"], float(one["value"][1])) for one in self._ask("query", {"query": expr, "time": 60 * minute})
        ]

    def _ask(self, path: str, parameters: Mapping[str, object]) -> list[Any]:
        answer = self._http.post(f"{self._server.url}/api/v1/{path}", data=parameters, timeout=600).json()
        if answer["status"] != "success":
            raise ValueError(f"{answer['error']}: {parameters['query']}")
        found: list[Any] = answer["data"]["result"]
        return found


def _series(labels: Labels, values: Sequence[Value], zeros: bytes, live: bool) -> bytes:
    """Return one TimeSeries of a WriteRequest, as field 1; ``zeros`` are samples of 0 at the times of the values."""
    doubles = array("d", [value or 0.0 for value in values]).tobytes()
    samples = bytearray(zeros[: _SAMPLE * len(values)])
    for place in range(8):  # of all samples at once, for one by one is slow
        samples[3 + place :: _SAMPLE] = doubles[place::8]
    if None in values:
        samples = bytearray().join(_without_gaps(samples, values, live))
    return _field(1, _labels(labels) + samples)


def _without_gaps(samples: bytearray, values: Sequence[Value], live: bool) -> Iterator[bytearray]:
    """Leave out what is not there, and mark where that begins."""
    gone = bytes(value is None for value in values)
    start = 0
    while start < len(values):
        end = gone.find(not gone[start], start) % (len(values) + 1)
        if not gone[start]:
            yield samples[_SAMPLE * start : _SAMPLE * end]
        elif live or start:
            sample = samples[_SAMPLE * start : _SAMPLE * (start + 1)]
            yield sample[:3] + STALE + sample[11:]
        start = end


@lru_cache(100_000)
def _labels(labels: Labels) -> bytes:
    return b"".join(_field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in labels)


def _time(minute: int) -> bytes:
    """Return the timestamp of a sample as field 2: six bytes whatever it is, so that samples are of one length."""
    milliseconds = 60_000 * minute
    low = bytes(0x80 | milliseconds >> 7 * place & 0x7F for place in range(5))
    return b"\x10" + low + bytes([milliseconds >> 35 & 0x7F])


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(0x80 | number & 0x7F)
        number >>= 7
    return bytes([*found, number])
