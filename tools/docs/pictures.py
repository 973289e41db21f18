"""Take the README's pictures of a demo whose load makes alerts fire: ``make pictures``.

One is the demo's terminal, the other a report about it in Chromium. The dashboards' pictures are taken by hand: no
package registry has Grafana.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from tests.browser import FLAGS
from tools.docs.markdown import ROOT
from tools.docs.terminal_picture import draw, screen

from celerymeter.cli import main as celerymeter
from celerymeter.errors import ServerMissing

TERMINAL = ROOT / ".github" / "pictures" / "demo.svg"
REPORT = ROOT / "grafana" / "pictures" / "report.png"
REPORT_SIZE = "1120,1500"
ROWS, COLUMNS = 40, 150
PROMPT = "$ make demo ARGS='--load faulty'\r\n"


def main() -> None:
    """Run a demo on its usual ports, take both pictures at its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240, help="how long the demo runs; alerts take two minutes")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        argv = [sys.executable, "-m", "celerymeter", "demo", "--load", "faulty"]
        with subprocess.Popen(argv, cwd=folder, stdin=slave, stdout=slave, stderr=slave) as demo:
            os.close(slave)
            recording = recorded(master, seconds)
            _report_picture(folder)
            demo.send_signal(signal.SIGINT)
            recorded(master, 60)
    TERMINAL.write_text(draw(screen(PROMPT + recording)))


def recorded(master: int, seconds: float) -> str:
    """Return what a terminal shows within this time, or until its program ends."""
    found, end = bytearray(), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not select.select([master], [], [], left)[0]:
            break
        try:
            found += os.read(master, 65536)
        except OSError:  # Linux's way to say that nobody has the other side open any more
            break
    return found.decode(errors="replace")


def _report_picture(folder: Path) -> None:
    """Take a picture of the upper part of a report about the demo in this folder; raise `ServerMissing`."""
    env = dict(line.split("=", 1) for line in (folder / ".demo" / "env").read_text().splitlines())
    page = folder / "report.html"
    options = ["--from", "-30m", "--to", "now", "--format", "html", "--out", str(page)]
    if status := celerymeter(["report", "--prometheus-url", env["PROMETHEUS_URL"], *options]):
        sys.exit(status)
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        raise ServerMissing("no Chromium on this machine: install Debian's package chromium")
    flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars", f"--window-size={REPORT_SIZE}"]
    subprocess.run([binary, *flags, f"--screenshot={REPORT}", page.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main()
