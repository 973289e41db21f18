"""Start a demo as a user does."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from celerymeter.demo.processes import Process

START = 300.0
"""Seconds that a loaded machine may take to start one."""

BEHIND_A_PROXY = {"http_proxy": "http://127.0.0.1:1", "no_proxy": "", "NO_PROXY": ""}
"""As in a company, where programs must be told that nothing on loopback is to be asked through the proxy."""


@dataclass(frozen=True)
class Demo:
    """A demo that is ready, and the content of its env file."""

    process: Process
    folder: Path
    env: dict[str, str]

    def alive(self) -> list[str]:
        """Return the command lines of the processes that run in its folder."""
        return [line for line in map(command_line, Path("/proc").glob("[0-9]*")) if str(self.folder / ".demo") in line]


def command_line(process: Path) -> str:
    """Return a process's folder and command line, or nothing if it has just ended."""
    try:
        return f"{(process / 'cwd').resolve()} {(process / 'cmdline').read_text()}"
    except OSError:
        return ""


def command(folder: Path, *options: str) -> Process:
    """Return ``celerymeter demo`` in a folder."""
    argv = [sys.executable, "-m", "celerymeter", "demo", *options]
    return Process("demo", argv, log=folder / "demo.log", cwd=folder, env=BEHIND_A_PROXY)


def started(folder: Path, *options: str) -> Demo:
    """Start a demo and wait for its env file."""
    env = folder / ".demo" / "env"
    process = command(folder, "--ports", "auto", *options).start(ready=env.exists, timeout=START)
    return Demo(process, folder, dict(line.split("=", 1) for line in env.read_text().splitlines()))
