"""The demo freezes beat for a while."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from celerymeter.demo.faults import FrozenBeat, is_frozen
from celerymeter.demo.processes import Process, wait_until

SLEEP = "import time; print('awake', flush=True); time.sleep(60)"


def state(process: Process) -> str:
    """The state of a process, T while it is stopped."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.parametrize(
    ("elapsed", "frozen"), [(0.0, False), (61.0, True), (239.0, True), (241.0, False), (660.0, True)]
)
def test_beat_stands_still_for_three_minutes_in_ten(elapsed: float, frozen: bool) -> None:
    """Its alert has time to fire, and to resolve."""
    assert is_frozen(elapsed) is frozen


def test_it_is_stopped_and_goes_on(tmp_path: Path) -> None:
    """Each change is said once; at the end it can be stopped like all others."""
    said: list[str] = []
    with Process("beat", [sys.executable, "-c", SLEEP], log=tmp_path / "beat.log") as process:
        process.start(ready=process.tail)
        frozen = FrozenBeat(process, said.append)
        for elapsed in (0.0, 70.0, 80.0):
            frozen.tick(elapsed)
        wait_until(lambda: state(process) == "T")
        frozen.thaw()
        wait_until(lambda: state(process) != "T")
        frozen.tick(250.0)
    assert said == ["beat is frozen for three minutes", "beat goes on"]
