"""A container without an engine: runs one command as compose would, of a specification in JSON.

Run it as root in mount and UTS namespaces of its own. The root file system is that of this machine (or ``root``), under
a layer in which mount points can be made; everything is then read-only but the volumes, and the command runs as the
service's user without any capability. Processes, ports and addresses are those of the namespaces around.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Specification:
    """``binds`` and ``memory`` are (source, target, options); ``visible`` must be there for every user."""

    scratch: str
    hostname: str
    user: str
    argv: list[str]
    env: Mapping[str, str]
    hosts: str
    binds: list[tuple[str, str, str]]
    memory: list[tuple[str, str]]
    visible: list[str] = field(default_factory=list)
    root: str = "/"

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


def unprivileged(user: str) -> list[str]:
    """The words before a command that is to run as ``uid:gid``, without capabilities or a way to any."""
    uid, _, gid = user.partition(":")
    who = ["--reuid", uid, "--regid", gid, "--clear-groups"]
    return [shutil.which("setpriv") or "setpriv", *who, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]


def mount(*words: str) -> None:
    """mount(8)."""
    subprocess.run(["mount", *words], check=True)


def lay_out(wanted: Specification) -> Path:
    """The root file system; its path."""
    scratch = Path(wanted.scratch)
    mount("-t", "tmpfs", "none", str(scratch))
    upper, work, root = (scratch / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir()
    mount("-t", "overlay", "overlay", "-o", f"lowerdir={wanted.root},upperdir={upper},workdir={work}", str(root))
    for name in ("proc", "dev"):
        mount("--rbind", f"/{name}", str(root / name))
    open_ways(root, wanted.visible)
    (root / "etc" / "hosts").write_text(wanted.hosts)
    for source, target, options in wanted.binds:
        bind(Path(source), root / target.lstrip("/"), options)
    for options, target in wanted.memory:
        (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
        mount("-t", "tmpfs", "-o", options, "none", str(root / target.lstrip("/")))
    mount("-o", "remount,ro", str(root))
    return root


def open_ways(root: Path, visible: Iterable[str]) -> None:
    """Let every user walk to these paths: in an image nothing lies in somebody's home."""
    for folder in {parent for path in visible for parent in Path(path).parents}:
        there = root / str(folder).lstrip("/")
        there.chmod(there.stat().st_mode | 0o111)


def bind(source: Path, target: Path, options: str) -> None:
    """Mount a file or folder at a place that is made for it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.mkdir(exist_ok=True) if source.is_dir() else target.touch()
    mount("--bind", str(source), str(target))
    mount("-o", f"remount,bind,{options}", str(target))


def main() -> None:
    """Become the container."""
    wanted = Specification(**json.loads(sys.argv[1]))
    before = unprivileged(wanted.user)
    socket.sethostname(wanted.hostname)
    os.chroot(lay_out(wanted))
    os.chdir("/")
    os.execve(before[0], [*before, *wanted.argv], dict(wanted.env))


if __name__ == "__main__":
    main()
