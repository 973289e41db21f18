"""The files and command lines of ``deploy/scaling``, as they are but for addresses, folders and paces."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from tests.integration.alerts.pace import quickened

ROOT = Path(__file__).parents[2]
SCALING = ROOT / "deploy" / "scaling"
PAGE = SCALING / "README.md"
QUICK = {"scrape_interval: 10s": "scrape_interval: 1s", "evaluation_interval: 15s": "evaluation_interval: 1s"}
_BASH = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_BUSY = re.compile(r"(?<=_busy_seconds_total)\[\w+\]")
_INTERVAL = re.compile(r"^ +interval: \d+m$", re.MULTILINE)


def changed(text: str, changes: Mapping[str, str]) -> str:
    """The text with these words replaced; one that is not there raises, because the file has moved on."""
    for word, ours in changes.items():
        if word not in text:
            raise LookupError(f"no {word!r} in {text[:200]!r} …")
        text = text.replace(word, ours)
    return text


def configured(name: str, folder: Path, changes: Mapping[str, str]) -> Path:
    """A file of ``deploy/scaling`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(name).name
    path.write_text(changed((SCALING / name).read_text(), changes))
    return path


def command(begins: str, changes: Mapping[str, str]) -> list[str]:
    """The words of the page's only command line that begins so."""
    lines = [line for block in _BASH.findall(PAGE.read_text()) for line in block.replace("\\\n", " ").splitlines()]
    (found,) = [line for line in lines if line.startswith(begins)]
    return shlex.split(changed(found, changes))


def quick_rules(folder: Path) -> None:
    """The shipped rules beside a configuration; slow groups are evaluated as often as the others.

    Their windows of five minutes are an hour: on a slow machine a test takes longer than five minutes, and the first of
    the runs that it counts would no longer be among those of the last five. Only busy time is of half a minute:
    a slot that is taken for good is to show as one while the test waits.
    """
    (folder / "rules").mkdir(parents=True)
    for path in (ROOT / "alerts" / "rules").glob("*.yml"):
        rules = quickened(_INTERVAL.sub("", path.read_text()), 1 / 12)
        (folder / "rules" / path.name).write_text(_BUSY.sub("[30s]", rules))
