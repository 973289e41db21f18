"""Engines that hold a month's history, written as fast as each of them takes it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import requests
from tools.bench.history import END, Month, Pattern, metric, of_a_pair, of_the_rest, pairs

from celerymeter.demo.processes import Process, free_port
from celerymeter.demo.servers import Prometheus, answers, find_binary

WRITING = 3600.0
"""Seconds that writing may take."""
STARTING = 300.0
HALF_DAY = 43_200
"""Seconds: a Prometheus whose blocks are of a day takes samples so far apart in any order of series."""
AT_ONCE = 5000
"""Series in one remote write."""


class Victoria(Process):
    """A VictoriaMetrics with its default limits."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        argv = [find_binary("victoria-metrics"), f"-httpListenAddr=127.0.0.1:{port}", "-retentionPeriod=10y"]
        super().__init__("VictoriaMetrics", [*argv, f"-storageDataPath={folder}"], log=folder.with_suffix(".log"))

    def up(self) -> Victoria:
        """Start and wait until it answers."""
        return self.start(ready=lambda: answers(f"{self.url}/health"), timeout=STARTING)

    def write(self, month: Month) -> None:
        """One pair as JSON; its blocks, as they are exported, again under the names of all others."""
        patterns = list(of_a_pair(month))
        drafts = [replace(pattern, name=f"draft_{pattern.name}") for pattern in patterns]
        for pattern in (*of_the_rest(month), *drafts):
            self._post("", _as_json(pattern, month))
        self._flush()
        for pattern, draft in zip(patterns, drafts, strict=True):
            self._post("/native", self._copies(pattern, draft, month))
        self._flush()

    def _copies(self, pattern: Pattern, draft: Pattern, month: Month) -> Iterator[bytes]:
        selector = ",".join(f'{name}="{value}"' for name, value in metric(draft).items())
        chosen = {"match[]": f"{{{selector}}}", "start": f"{month.start - 1}", "end": f"{END + 1}"}
        answer = requests.get(f"{self.url}/api/v1/export/native", params=chosen, timeout=WRITING)
        answer.raise_for_status()
        names = [_marshalled(metric(pattern, pair)) for pair in pairs(month)]
        yield answer.content[:16]
        for block in _blocks(answer.content[16:]):
            yield b"".join(name + block for name in names)

    def _post(self, form: str, body: bytes | Iterator[bytes]) -> None:
        requests.post(f"{self.url}/api/v1/import{form}", data=body, timeout=WRITING).raise_for_status()

    def _flush(self) -> None:
        requests.get(f"{self.url}/internal/force_flush", timeout=WRITING).raise_for_status()


class Writable(Prometheus):
    """A Prometheus that takes remote writes, in blocks of a day."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "prometheus.yml"
        config.write_text("global: {}\n")
        options = ["--web.enable-remote-write-receiver", "--storage.tsdb.min-block-duration=1d"]
        super().__init__(folder, config=config, options=[*options, "--storage.tsdb.retention.time=10y"])

    def up(self) -> Writable:
        """Start and wait until it has read its log."""
        return self.start(ready=self.ready, timeout=STARTING)

    def write(self, month: Month) -> None:
        """Half a day of all series after the other; samples are encoded once for the series that share them."""
        shared = [(pattern, [_labels(metric(pattern, pair)) for pair in pairs(month)]) for pattern in of_a_pair(month)]
        single = [(pattern, [_labels(metric(pattern))]) for pattern in of_the_rest(month)]
        for start in range(month.start, END + 1, HALF_DAY):
            series = (
                _field(1, labels + samples)
                for pattern, names in (*single, *shared)
                if (samples := _samples(pattern, month, start))
                for labels in names
            )
            while body := b"".join(islice(series, AT_ONCE)):
                self._post(body)

    def _post(self, body: bytes) -> None:
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
        written = requests.post(f"{self.url}/api/v1/write", data=_snappy(body), headers=headers, timeout=WRITING)
        written.raise_for_status()


def _as_json(pattern: Pattern, month: Month) -> bytes:
    """A line of VictoriaMetrics' JSON import."""
    stamps = [at * 1000 for at in month.times(pattern.every)]
    line = {"metric": metric(pattern), "values": pattern.values, "timestamps": stamps}
    return json.dumps(line).encode() + b"\n"


def _blocks(exported: bytes) -> Iterator[bytes]:
    """Blocks of VictoriaMetrics' native format with their lengths (big-endian), without the names before them."""
    at = 0
    while at < len(exported):
        at += 4 + struct.unpack_from(">I", exported, at)[0]
        size = 4 + struct.unpack_from(">I", exported, at)[0]
        yield exported[at : at + size]
        at += size


def _marshalled(labels: Mapping[str, str]) -> bytes:
    """A name in that format, with its length: the metric's, then labels in order, each word ended by 1."""
    rest = sorted((name, value) for name, value in labels.items() if name != "__name__")
    words = (labels["__name__"], *(word for label in rest for word in label))
    name = b"".join(word.encode() + b"\x01" for word in words)
    return struct.pack(">I", len(name)) + name


def _labels(labels: Mapping[str, str]) -> bytes:
    """The labels of a remote-written series (protobuf)."""
    return b"".join(
        _field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in sorted(labels.items())
    )


def _samples(pattern: Pattern, month: Month, start: int) -> bytes:
    """Its samples of half a day (protobuf)."""
    first = -(-(start - month.start) // pattern.every)
    last = -(-(start + HALF_DAY - month.start) // pattern.every)
    chosen: Iterable[tuple[int, float]] = zip(
        month.times(pattern.every)[first:last], pattern.values[first:last], strict=True
    )
    return b"".join(_field(2, struct.pack("<Bd", 9, value) + b"\x10" + _varint(at * 1000)) for at, value in chosen)


def _field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _snappy(body: bytes) -> bytes:
    """As one literal: nothing is gained by packing on one machine."""
    return _varint(len(body)) + b"\xfc" + struct.pack("<I", len(body) - 1) + body
