"""The services of docker-compose.yml on this machine: their own command lines, mounts, users and names, no engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest
from tests.deploy import container
from tests.deploy.compose import ROOT, Compose, Service
from tests.deploy.dockerfile import last_stage
from tests.engines import NEWER

from celerymeter.demo.processes import Process
from celerymeter.demo.servers import find_binary

TOOLS = "/image"
"""The folder in which each container finds the programs that its image would have."""


@dataclass(frozen=True, slots=True)
class Image:
    """The parts of an image that compose uses. For those with the root ``/`` this machine's programs stand in."""

    user: str
    entrypoint: Sequence[str] = ()
    path: str = f"{Path(sys.executable).parent}:{TOOLS}:/usr/bin:/bin"
    root: str = "/"


IMAGES = {
    "celerymeter": Image(last_stage()["USER"].rest, last_stage()["ENTRYPOINT"].words),
    "prom/prometheus": Image("65534:65534", ["prometheus"]),
    "prom/alertmanager": Image("65534:65534", ["alertmanager"]),
    "redis": Image("0:0"),
}
FETCH = """
import json, sys, urllib.request
with urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=json.loads(sys.argv[2])), timeout=10) as page:
    print(page.read().decode())
"""
LOOPBACK = """
import fcntl, socket, struct, time
with socket.socket() as any_socket:  # SIOCSIFFLAGS: IFF_UP and IFF_RUNNING
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))
print("up", flush=True)
time.sleep(3600)
"""


def refuse_without_root() -> None:
    """Skip where namespaces cannot be made, or the container would not see this checkout: it has a /tmp of its own."""
    if ROOT.is_relative_to("/tmp") or ROOT.stat().st_dev != Path("/").stat().st_dev:
        pytest.skip(f"{ROOT} is below /tmp or on another file system than /: move the checkout")
    missing = [tool for tool in ("unshare", "nsenter", "setpriv", "mount") if not shutil.which(tool)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and util-linux ({', '.join(missing) or 'not root'}): the services run in namespaces")
    argv = ["unshare", "--net", "--mount", "--uts", "true"]
    tried = subprocess.run(argv, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces here, as in a container without privileges or a chroot: {tried.stderr.strip()}")


class RunningServices:
    """A network namespace with only a loopback, in which the names of all services lead to it."""

    def __init__(self, folder: Path, compose: Compose, *, images: Mapping[str, Image] = MappingProxyType({})) -> None:
        self.compose = compose
        self.images = {**IMAGES, **images}
        self._folder = folder
        self._running = ExitStack()
        self._parts: dict[str, Process] = {}
        self._net = Process("network", ["unshare", "--net", sys.executable, "-c", LOOPBACK], log=folder / "network.log")

    def __enter__(self) -> RunningServices:
        with self._running as running:  # stops the network, should the rest fail
            running.enter_context(self._net).start(ready=lambda: "up" in self._net.tail())
            self._tools = self._link_tools()
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._parts.values():
            part.signal(signal.SIGTERM)
        self._running.close()

    def start(self, *names: str) -> None:
        """Start services; they may not be ready yet."""
        for name in names:
            wanted = self._specification(self.compose.services[name])
            argv = [
                *self._inside(),
                "unshare",
                "--mount",
                "--uts",
                sys.executable,
                container.__file__,
                wanted.to_json(),
            ]
            part = self._parts[name] = Process(name, argv, log=self._folder / f"{name}.log")
            self._running.enter_context(part.start())

    def healthy(self, name: str) -> bool:
        """Return whether the service's own health check succeeds; raises when the service has ended."""
        assert self._parts[name].running, self.log(name)
        return self.execute(name, *self.compose.services[name].healthcheck).returncode == 0

    def execute(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container of a service, as `docker compose exec` does."""
        wanted = self._specification(self.compose.services[name])
        into = ["nsenter", f"--target={self._parts[name].pid}", "--mount", "--net", "--root", "--wd=/"]
        argv = [*into, *container.unprivileged(wanted.user), *words]
        return subprocess.run(argv, env=dict(wanted.env), capture_output=True, text=True, check=False, timeout=60)

    def fetch(self, url: str, *, token: str = "") -> str:
        """The body of a page, as the exporter's container sees it; fails when it is not 200."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        ran = self.execute("exporter", "python", "-c", FETCH, url, json.dumps(headers))
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def memory(self, name: str) -> int:
        """Return the memory of the service's processes in bytes; what they share is counted once."""
        group = str(self._parts[name].pid)
        stats = (path for path in Path("/proc").glob("[0-9]*/stat") if path.exists())
        members = [path.parent for path in stats if path.read_text().rpartition(")")[2].split()[2] == group]
        rollups = [(member / "smaps_rollup").read_text() for member in members]
        return sum(int(text.partition("\nPss:")[2].split()[0]) * 1024 for text in rollups)

    def log(self, name: str) -> str:
        """The end of what the service wrote."""
        return self._parts[name].tail(40)

    def _inside(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._net.pid}/ns/net"]

    def _specification(self, service: Service) -> container.Specification:
        scratch = self._folder / "roots" / service.name
        scratch.mkdir(parents=True, exist_ok=True)
        image = self.images[service.repository]
        user = service.user or image.user
        return container.Specification(
            scratch=str(scratch),
            hostname=service.hostname,
            user=user,
            argv=[*(service.entrypoint or image.entrypoint), *service.command],
            env={"PATH": image.path, **service.environment},
            hosts=f"127.0.0.1 localhost {' '.join(self.compose.services)}\n",
            binds=[*self._binds(service, user), *([(str(self._tools), TOOLS, "ro")] if image.root == "/" else [])],
            memory=[(mount.source, mount.target) for mount in service.mounts if mount.kind == "tmpfs"],
            visible=self._programs() if image.root == "/" else [],
            root=image.root,
        )

    def _programs(self) -> list[str]:
        return [str(ROOT / "any"), *(str(path.resolve()) for path in (Path(sys.executable), *self._tools.iterdir()))]

    def _binds(self, service: Service, user: str) -> list[tuple[str, str, str]]:
        bound = [(each.source, each.target, "ro") for each in service.mounts if each.kind == "bind"]
        named = [
            (self._volume(each.source, user), each.target, "rw") for each in service.mounts if each.kind == "volume"
        ]
        return named + bound

    def _volume(self, name: str, user: str) -> str:
        folder = self._folder / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, *map(int, user.split(":")))
        return str(folder)

    def _link_tools(self) -> Path:
        tools = self._folder / "tools"
        tools.mkdir()
        newer = {"prometheus": "prometheus", "promtool": "promtool", "alertmanager": "prometheus-alertmanager"}
        for name, file in {**newer, "amtool": "amtool"}.items():
            (tools / name).symlink_to(NEWER / file if (NEWER / file).exists() else find_binary(name))
        server = find_binary("redis")
        (tools / "redis-server").symlink_to(server)
        (tools / "redis-cli").symlink_to(Path(server).with_name("redis-cli"))
        return tools
