"""Engines that speak the Prometheus HTTP API, each holding canned series: what a query gives is known beforehand."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import requests

from celerymeter.demo.processes import Process, free_port
from celerymeter.demo.servers import Prometheus, answers, find_binary
from celerymeter.errors import ServerMissing

NAMES = ("prometheus", "prometheus-newer", "victoria-metrics")
NEWER = Path(os.environ.get("CELERYMETER_NEWER", str(Path(__file__).parents[1] / ".cache/newer/usr/bin")))
FOREVER = "10y"


@dataclass(frozen=True)
class Canned:
    """A series and its samples ``(UTC seconds, value)``."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    samples: Sequence[tuple[float, float]] = ()

    def lines(self, *, unit: float) -> Iterable[str]:
        """Exposition lines with timestamps in ``unit`` of a second."""
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in self.labels.items())
        for at, value in self.samples:
            stamp = f"{at:.3f}" if unit == 1 else str(round(at / unit))
            yield f"{self.name}{{{labels}}} {value!r} {stamp}"


def start_engine(name: str, folder: Path, series: Sequence[Canned]) -> tuple[Process, str]:
    """A running engine of this name that holds the series, and its URL; raises `ServerMissing`."""
    return _victoria(folder, series) if name == "victoria-metrics" else _prometheus(name, folder, series)


def _prometheus(name: str, folder: Path, series: Sequence[Canned]) -> tuple[Process, str]:
    folder.mkdir(parents=True)
    (folder / "canned.txt").write_text("\n".join([*(_open_metrics(series)), "# EOF\n"]))
    subprocess.run(
        [binary(name, "promtool"), "tsdb", "create-blocks-from", "openmetrics", "canned.txt", "data"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (folder / "prometheus.yml").write_text("global: {}\n")
    options = [f"--storage.tsdb.retention.time={FOREVER}"]
    server = prometheus(name, folder, config=folder / "prometheus.yml", options=options)
    return server.up(), server.url


def _victoria(folder: Path, series: Sequence[Canned]) -> tuple[Process, str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [find_binary("victoria-metrics"), f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder}/data"]
    server = Process("victoria-metrics", [*argv, f"-retentionPeriod={FOREVER}"], log=folder / "victoria.log")
    server.start(ready=lambda: answers(f"{url}/health"))
    body = "\n".join(line for one in series for line in one.lines(unit=0.001)) + "\n"
    requests.post(f"{url}/api/v1/import/prometheus", data=body.encode(), timeout=60).raise_for_status()
    requests.get(f"{url}/internal/force_flush", timeout=60).raise_for_status()
    return server, url


def prometheus(name: str, folder: Path, *, config: Path, options: Sequence[str] = ()) -> Prometheus:
    """The Prometheus of this name, not started; raises `ServerMissing`."""
    server = Prometheus(folder, config=config, options=options)
    server.argv = (binary(name, "prometheus"), *server.argv[1:])
    return server


def binary(name: str, tool: str) -> str:
    """Path of a tool that comes with the engine of this name; raises `ServerMissing`."""
    return find_binary(tool) if name == "prometheus" else newer(tool)


def newer(tool: str) -> str:
    """Return the path of a program of `make newer`; raises `ServerMissing`."""
    if not (NEWER / tool).exists():
        raise ServerMissing(f"no {NEWER / tool}: run `make newer`, or set CELERYMETER_NEWER to a folder that has it")
    return str(NEWER / tool)


def _open_metrics(series: Sequence[Canned]) -> Iterable[str]:
    """The text format wants each name's samples together."""
    for name in dict.fromkeys(one.name for one in series):
        yield f"# TYPE {name} unknown"
        for one in series:
            if one.name == name:
                yield from one.lines(unit=1)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
