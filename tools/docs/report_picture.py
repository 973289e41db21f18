"""The README's picture of a report: ``python -m tools.docs.report_picture PROMETHEUS_URL [FROM]``, of a demo."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.browser import FLAGS

from celerymeter.cli import main as celerymeter
from celerymeter.errors import ServerMissing

PICTURE = Path(__file__).parents[2] / "grafana" / "pictures" / "report.png"
SIZE = "1120,1500"


def take(page: Path, picture: Path) -> None:
    """A PNG of the upper part of a page; raises `ServerMissing`."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        raise ServerMissing("no Chromium on this machine: install Debian's package chromium")
    flags = [*FLAGS, f"--user-data-dir={page.parent / 'profile'}", "--hide-scrollbars", f"--window-size={SIZE}"]
    subprocess.run([binary, *flags, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)


def main() -> None:
    """Ask and draw."""
    url, begin = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "-30m"
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        options = ["--from", begin, "--to", "-1m", "--format", "html", "--out", str(page)]
        if status := celerymeter(["report", "--prometheus-url", url, *options]):
            sys.exit(status)
        take(page, PICTURE)


if __name__ == "__main__":
    main()
