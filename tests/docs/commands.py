"""Runs the commands that a README shows, against a demo in place of the reader's own cluster."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from signal import SIGTERM
from urllib.parse import urlsplit

import requests
from tools.docs.markdown import ROOT

from celerymeter.demo.processes import Process, free_port
from celerymeter.demo.servers import answers, find_binary

_BASH = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ALONE = re.compile(
    r"make |pip |docker |kubectl |celerymeter (exporter|control|revoke|task|capacity)\b|prometheus(-alertmanager)? "
)
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
_SERVES = re.compile(r"celerymeter (exporter|control)\b")
_SERVERS = {"prometheus": "prometheus", "prometheus-alertmanager": "alertmanager"}
UNPROVEN = {
    "celerymeter revoke": "1 unverified",
    "celerymeter task": "unknown",
    "celerymeter capacity": "cannot be known, because",
}
"""Commands about an id of no task, or a queue that the demo has not: what they say before they end with 1."""
PASTED = "https://hooks.slack.com/services/T0000/B0000/pasted\n"
"""The line that a reader types where a command reads the terminal."""


def scripts(path: Path) -> Iterator[str]:
    """Yield each bash block's parts: a service or a `make` or `pip` line by itself, the lines between as one script."""
    for block in _BASH.findall(path.read_text()):
        lines = [line for line in block.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
        for alone, group in groupby(lines, key=lambda line: bool(_ALONE.match(line))):
            together = list(group)
            yield from together if alone else ["\n".join(together)]


def run(command: str, *, folder: Path, addresses: Mapping[str, str]) -> None:
    """Run one of `scripts` with the demo's addresses in place of the default ones; raises when it fails."""
    for default, ours in addresses.items():
        command = command.replace(default, ours)
    if _SERVES.match(command):
        _serve(command, folder)
    elif (program := command.split()[0]) in _SERVERS:
        with server(command, folder=folder, addresses=addresses) as running:
            assert running.running, running.tail()
        # Alertmanager answers before it takes signals: one that comes in between ends it as it ends any program.
        assert running.status in (0, -SIGTERM), f"{program} ended with {running.status}\n{running.tail()}"
    else:
        _finish(_harmless(command), folder)


def _harmless(command: str) -> str:
    """Replace what changes the machine, or takes minutes, by a check that changes nothing: other tests run it."""
    if command.startswith("make "):
        return f"make --directory {ROOT} --dry-run {command.removeprefix('make ')}"
    if command.startswith("pip install "):
        what = command.removeprefix("pip install ").replace(".", str(ROOT), 1)
        return f"{sys.executable} -m pip install --dry-run --no-deps --no-build-isolation --quiet {what}"
    if command.startswith("docker compose up"):  # `tests/deploy` runs every service of it as a process
        return f"test -f {ROOT / 'docker-compose.yml'}"
    if command.startswith("kubectl apply --kustomize "):
        return f"kubectl kustomize {ROOT / command.split()[3]}"
    for shown, done in (
        ("openssl rand -hex 32 > secret", "cp .demo/run/jwt-secret secret"),
        ("python3 -m venv ", "python3 -m venv --without-pip "),  # installing pip takes longer than all else
    ):
        command = command.replace(shown, done)
    return command


def _finish(command: str, folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=_environment(),
        input=PASTED,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    said = f"{command}\n{done.stdout}{done.stderr}"
    for part, outcome in UNPROVEN.items():
        if command.startswith(part):
            assert (done.returncode, outcome in done.stdout) == (1, True), said
            return
    assert done.returncode == 0, said


def server(command: str, *, folder: Path, addresses: Mapping[str, str]) -> Server:
    """A Prometheus or Alertmanager as the command line starts it, on a port of its own, once it is ready."""
    program, *words = shlex.split(command, comments=True)
    (config,) = (folder / word.partition("=")[2] for word in words if word.startswith("--config.file="))
    text = config.read_text()
    for default, ours in addresses.items():
        text = text.replace(f"127.0.0.1:{urlsplit(default).port}", urlsplit(ours).netloc)
    config.write_text(text)
    return Server(_SERVERS[program], words, folder=folder).up()


class Server(Process):
    """One of `_SERVERS`."""

    def __init__(self, name: str, words: list[str], *, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        argv = [find_binary(name), *words, f"--web.listen-address=127.0.0.1:{port}"]
        super().__init__(name, argv, log=folder / f"{name}.log", cwd=folder)

    def up(self) -> Server:
        """Start, and wait until it is ready."""
        return self.start(ready=lambda: answers(f"{self.url}/-/ready"))


def _serve(command: str, folder: Path) -> None:
    """A service: it must come up, answer, and end at a signal."""
    log = folder / "service.log"
    log.unlink(missing_ok=True)
    argv = [*shlex.split(command, comments=True), "--listen=127.0.0.1:0"]
    if "celerymeter control" in command:
        argv.append("--metrics-listen=127.0.0.1:0")
    service = Process("service", argv, log=log, cwd=folder, env=_environment())
    service.start(ready=lambda: _answers(service))
    status = service.stop()
    assert status == 0, f"{command} ended with {status}\n{service.tail()}"


def _answers(service: Process) -> bool:
    """Return whether the address of its first log line answers a request, with any status."""
    found = _ADDRESS.search(service.tail())
    try:
        return found is not None and requests.get(found[0], timeout=30).status_code > 0
    except requests.RequestException:
        return False


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
