"""A headless Chromium that opens a page and is asked what it shows, over the DevTools protocol."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from websockets.sync.client import ClientConnection, connect

from celerymeter.demo.processes import Process, wait_until
from celerymeter.errors import ServerMissing

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")


class Tab:
    """One page."""

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
        self._number = 0

    def before_load(self, script: str) -> None:
        """Run a script in every page before its own: a stand-in for what a page would fetch from the internet."""
        self._call("Page.enable")
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def open(self, url: str) -> None:
        """Go there."""
        self._call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page; raises `AssertionError` for what it throws."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def _call(self, method: str, **parameters: object) -> Any:
        self._number += 1
        self._devtools.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._devtools.recv(timeout=20))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """An empty page of a browser with a profile of its own; raises `ServerMissing` where there is no Chromium."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        raise ServerMissing("no Chromium on this machine: install Debian's package chromium")
    port = folder / "profile" / "DevToolsActivePort"
    argv = [binary, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = Process("chromium", argv, log=folder / "chromium.log")
    with process.start(ready=lambda: port.exists() and port.read_text().count("\n")):
        root = f"http://127.0.0.1:{port.read_text().splitlines()[0]}"
        wait_until(lambda: _pages(root))
        with connect(_pages(root)[0], max_size=None, proxy=None) as devtools:
            yield Tab(devtools)


def _pages(root: str) -> list[str]:
    found = requests.get(f"{root}/json", timeout=30).json()
    return [page["webSocketDebuggerUrl"] for page in found if page["type"] == "page"]
