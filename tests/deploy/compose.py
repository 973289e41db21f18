"""docker-compose.yml as compose itself reads it: merged, filled in, checked against its schema."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.engines import NEWER

from celerymeter.errors import ServerMissing

ROOT = Path(__file__).parents[2]
MAIN = "docker-compose.yml"
VARIABLE = "CELERYMETER_SECRETS"
Raw: TypeAlias = "Mapping[str, Any]"


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of the host (``bind``), a named ``volume``, or ``tmpfs``, whose options are its source."""

    kind: str
    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """One service; what a test asks about it."""

    name: str
    image: str
    hostname: str
    user: str | None
    entrypoint: Sequence[str]
    command: Sequence[str]
    healthcheck: Sequence[str]
    environment: Mapping[str, str]
    mounts: Sequence[Mount]
    networks: frozenset[str]
    published: Sequence[tuple[str, str]]
    memory: int
    processes: int
    grace: int
    restart: str
    read_only: bool
    options: frozenset[str]

    @property
    def repository(self) -> str:
        """The image without release and digest."""
        return self.image.partition("@")[0].rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class Compose:
    """All of it."""

    services: Mapping[str, Service]
    internal: frozenset[str]


def binary() -> str:
    """Docker Compose 2: on PATH, or of `make newer`; raises `ServerMissing`."""
    for name in (os.environ.get("CELERYMETER_DOCKER_COMPOSE"), str(NEWER / "docker-compose"), "docker-compose"):
        if name and (path := shutil.which(name)):
            return path
    raise ServerMissing("no docker-compose on this machine: run `make newer`, or set CELERYMETER_DOCKER_COMPOSE")


def run(*words: str, files: Sequence[str] = (MAIN,), secrets: Path | None) -> subprocess.CompletedProcess[str]:
    """Run compose on files of the checkout, with or without a folder of secrets."""
    named = [word for file in files for word in ("--file", file)]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        **({VARIABLE: str(secrets)} if secrets else {}),
    }
    argv = [binary(), "--project-directory", str(ROOT), "--env-file", os.devnull, *named, *words]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)


def resolved(*files: str, secrets: Path) -> Compose:
    """Return the services and networks that compose reads in the files."""
    ran = run("config", "--format", "json", files=files or (MAIN,), secrets=secrets)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    paths = {name: each["file"] for name, each in found["secrets"].items()}
    internal = frozenset(name for name, each in found["networks"].items() if each.get("internal"))
    return Compose({name: _service(name, each, paths) for name, each in found["services"].items()}, internal)


def _service(name: str, raw: Raw, secrets: Mapping[str, str]) -> Service:
    how, *test = raw["healthcheck"]["test"]
    assert how == "CMD", f"{name}: a health check goes without a shell"
    return Service(
        name=name,
        image=raw["image"],
        hostname=raw.get("hostname", name),
        user=raw.get("user"),
        entrypoint=raw.get("entrypoint") or (),
        command=raw.get("command") or (),
        healthcheck=test,
        environment=raw.get("environment") or {},
        mounts=tuple(_mounts(raw, secrets)),
        networks=frozenset(raw["networks"]),
        published=[(port.get("host_ip", ""), port["published"]) for port in raw.get("ports", ())],
        memory=int(raw["mem_limit"]),
        processes=raw["pids_limit"],
        grace=int(raw.get("stop_grace_period", "10s").removesuffix("s")),
        restart=raw["restart"],
        read_only=raw.get("read_only", False),
        options=frozenset([*raw.get("security_opt", ()), *(f"drop {each}" for each in raw.get("cap_drop", ()))]),
    )


def _mounts(raw: Raw, secrets: Mapping[str, str]) -> Iterator[Mount]:
    for each in raw.get("volumes", ()):
        yield Mount(each["type"], each["source"], each["target"], each.get("read_only", False))
    for each in raw.get("secrets", ()):
        yield Mount("bind", secrets[each["source"]], each["target"], read_only=True)
    for each in raw.get("tmpfs", ()):
        target, _, options = each.partition(":")
        yield Mount("tmpfs", options, target)
