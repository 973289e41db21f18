"""Podman behind Docker's API, with everything that it keeps below one folder, and images made on this machine.

Programs of Debian stand in for images that would be pulled; ours is built by its Dockerfile. Compose is the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.deploy import compose
from tests.deploy.compose import MAIN, ROOT, VARIABLE, Service
from tests.deploy.dockerfile import DOCKERFILE, build_context
from tests.deploy.imagebuild import command, lay_out_debian

from celerymeter import __version__
from celerymeter.demo.processes import Process

PROGRAMS = {
    "podman": "podman",
    "runc": "runc",
    "debootstrap": "debootstrap",
    "netavark": "netavark",
    "aardvark-dns": "aardvark-dns",
    "catatonit": "catatonit",
    "iptables": "iptables",
}
PACKAGES = ("redis-server", "prometheus", "prometheus-alertmanager")
ROOT_FILE_SYSTEM = ROOT / ".cache" / "compose-test.tar"
"""The file system that debootstrap made, for the next time."""
BASE = "localhost/debian:latest"
OURS = f"docker.io/library/celerymeter:{__version__}"
PROJECT = "celerymeter"
PUBLISHED = {"control": 8000, "prometheus": 9090, "alertmanager": 9093}
"""Ports on this machine's loopback, by service."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """The user and the entry point of an image, and the folder that belongs to that user."""

    user: str
    entrypoint: Sequence[str]
    state: str

    def containerfile(self) -> str:
        """The steps that make it."""
        return (
            f"FROM {BASE}\n"
            f'RUN ["install", "--directory", "--owner={self.user.split(":")[0]}", "{self.state}"]\n'
            f"USER {self.user}\nENTRYPOINT {json.dumps(self.entrypoint)}\n"
        )


STAND_INS = {
    "redis": StandIn("999:1000", [], "/data"),
    "prometheus": StandIn("65534:65534", ["prometheus"], "/prometheus"),
    "alertmanager": StandIn("65534:65534", ["prometheus-alertmanager"], "/alertmanager"),
}
ENGINE = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/tmp"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""


def missing() -> str:
    """Return what this machine lacks to run containers, with the way to get it; empty if nothing."""
    beside = f"{os.environ['PATH']}:/usr/sbin:/usr/lib/podman:/usr/libexec/podman"
    packages = [package for tool, package in PROGRAMS.items() if not shutil.which(tool, path=beside)]
    if packages:
        return f"Debian packages are missing: apt-get install --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0:
        return "only root can run these containers: sudo make compose-test"
    taken = [port for port in PUBLISHED.values() if open_at("127.0.0.1", port)]
    return f"docker-compose.yml needs ports that are taken: {' '.join(map(str, taken))}" if taken else ""


def open_at(host: str, port: int) -> bool:
    """Return whether a server listens there."""
    with socket.socket() as tried:
        tried.settimeout(2)
        return tried.connect_ex((host, port)) == 0


class Engine:
    """The stack of docker-compose.yml in containers."""

    def __init__(self, folder: Path, secrets: Path) -> None:
        self.folder = folder
        self._secrets = secrets
        self._env = {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }
        api = f"unix://{folder}/api.sock"
        self._compose_env = {"DOCKER_HOST": api, VARIABLE: str(secrets)}
        argv = ["podman", "system", "service", "--time=0", api]
        self._service = Process("podman", argv, log=folder / "podman.log", env=self._env)
        self._ended = threading.Event()
        self._checks = threading.Thread(target=self._run_checks, daemon=True)

    def __enter__(self) -> Engine:
        (self.folder / "containers.conf").write_text(ENGINE.format(folder=self.folder))
        (self.folder / "storage.conf").write_text(STORAGE.format(folder=self.folder))
        names = {name: {"image": f"localhost/{name}:latest"} for name in STAND_INS}
        (self.folder / "names.yml").write_text(yaml.safe_dump({"services": names}))
        self._service.start(ready=(self.folder / "api.sock").exists)
        self._checks.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        try:
            self.compose("--profile", "*", "down", "--volumes", "--timeout", "2")
            self.podman("rm", "--all", "--force", "--time", "2")
            self.podman("rmi", "--all", "--force")
        finally:
            self._service.stop()
            self._checks.join(30)

    def podman(self, *words: str | Path, stdin: str = "", timeout: float = 1500) -> str:
        """Run a command of Podman and return its output; fails with its words."""
        ran = self.try_podman(*words, stdin=stdin, timeout=timeout)
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
        return ran.stdout

    def try_podman(self, *words: str | Path, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command of Podman."""
        argv = ["podman", *map(str, words)]
        env = {**os.environ, **self._env}
        return subprocess.run(
            argv, env=env, input=stdin, capture_output=True, text=True, check=False, timeout=timeout, cwd=self.folder
        )

    def make_images(self) -> None:
        """All but Grafana's, which nothing can stand in for; minutes."""
        if not ROOT_FILE_SYSTEM.exists():
            make_root_file_system(self.folder / "root")
        self.podman("import", ROOT_FILE_SYSTEM, BASE)
        context = self.folder / "context"
        for name, image in STAND_INS.items():
            context.mkdir(exist_ok=True)
            self.podman("build", "--tag", f"localhost/{name}", "--file", "-", context, stdin=image.containerfile())
        build_context(context)
        how = ["--network=host", "--format=docker", f"--build-arg=PYTHON={BASE}", f"--file={DOCKERFILE}"]
        self.podman("build", *how, "--tag", OURS, context)

    def compose(self, *words: str, variants: Sequence[str] = ()) -> str:
        """Run compose and return its output; fails with its words. ``variants`` are files beside ``cluster.yml``."""
        files = [MAIN, *(f"deploy/compose/{each}.yml" for each in variants), str(self.folder / "names.yml")]
        named = [word for file in files for word in ("--file", file)]
        argv = [compose.binary(), "--project-directory", str(ROOT), "--env-file", os.devnull, *named, *words]
        env = {**os.environ, **self._compose_env}
        ran = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
        return ran.stdout

    def execute(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container of a service."""
        return self.try_podman("exec", container(name), *words)

    def inspect(self, name: str) -> Mapping[str, Any]:
        """Return what the engine knows of the container of a service."""
        (found,) = json.loads(self.podman("inspect", container(name)))
        known: Mapping[str, Any] = found
        return known

    def healthy(self, service: Service) -> bool:
        """Run a service's own check in its container.

        The engine's verdict will not do: Podman splits arguments with spaces (its issue 26519).
        """
        return self.execute(service.name, *service.healthcheck).returncode == 0

    def gateway(self) -> str:
        """The address of this machine in the network `published`."""
        (network,) = json.loads(self.podman("network", "inspect", f"{PROJECT}_published"))
        found: str = network["subnets"][0]["gateway"]
        return found

    def address(self, name: str, network: str) -> str:
        """The address of a service's container in a network."""
        found: str = self.inspect(name)["NetworkSettings"]["Networks"][f"{PROJECT}_{network}"]["IPAddress"]
        return found

    def _run_checks(self) -> None:
        """Run the engine's health checks, which timers of systemd start elsewhere."""
        while not self._ended.wait(2):
            for each in self.try_podman("ps", "--quiet").stdout.split():
                self.try_podman("healthcheck", "run", each)


def container(name: str) -> str:
    """The name of the container of a service."""
    return f"{PROJECT}-{name}-1"


def make_root_file_system(root: Path) -> None:
    """Debian 13 with all programs, in an archive; the rest of what a container does not need is left out."""
    lay_out_debian(root, *PACKAGES)
    for folder in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man", "tmp"):
        shutil.rmtree(root / folder)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    ROOT_FILE_SYSTEM.parent.mkdir(exist_ok=True)
    draft = ROOT_FILE_SYSTEM.with_suffix(".draft")
    command("tar", "--create", f"--file={draft}", f"--directory={root}", ".")
    draft.replace(ROOT_FILE_SYSTEM)
    shutil.rmtree(root)


if __name__ == "__main__":
    if lacking := missing():
        sys.exit(f"make compose-test: {lacking}")
