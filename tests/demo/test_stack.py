"""Child processes that belong together."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tools.docs.markdown import ROOT

from celerymeter.demo.processes import Process, wait_until
from celerymeter.demo.stack import RESTART_AFTER, Part, Stack
from celerymeter.errors import ProcessEnded, StartFailed
from celerymeter.kinds import parse_duration

SLEEP = "import time; print('awake', flush=True); time.sleep(60)"
FALL = "raise SystemExit('out of luck')"


@dataclass
class Clock:
    """A clock that a test sets."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def part(folder: Path, name: str, code: str = SLEEP, *, restarted: bool = False) -> Part:
    """Return a Python child that is ready when it has printed something."""
    process = Process(name, [sys.executable, "-c", code], log=folder / f"{name}.log")
    return Part(process, process.tail, "here", restarted=restarted)


def kill(process: Process) -> None:
    """Kill a child."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)


def test_children_are_announced_when_ready_and_gone_afterwards(tmp_path: Path) -> None:
    """Two children start together and end with the block."""
    said: list[str] = []
    first, second = part(tmp_path, "first"), part(tmp_path, "second")
    with Stack(said.append) as stack:
        stack.start(first, second)
        assert [line.split() for line in said] == [["first", "here"], ["second", "here"]]
        stack.check()
    assert not first.process.running
    assert not second.process.running


def test_a_child_that_ended_is_named_with_its_last_output(tmp_path: Path) -> None:
    """The error names the child, its signal and its log, and quotes the log."""
    with Stack(lambda _: None) as stack:
        child = part(tmp_path, "exporter")
        stack.start(child)
        kill(child.process)
        with pytest.raises(ProcessEnded, match=r"exporter ended \(by SIGKILL\); the end of .*exporter\.log:\nawake"):
            stack.check()


def test_a_child_that_ends_while_another_starts_is_named_at_once(tmp_path: Path) -> None:
    """The timeout of the child that waits for it does not matter."""
    waiting = Part(part(tmp_path, "waiting").process, lambda: False, "nowhere")
    ended = (ProcessEnded, StartFailed)  # by whichever is asked first
    with Stack(lambda _: None) as stack, pytest.raises(ended, match="out of luck"):
        stack.start(part(tmp_path, "fallen", FALL), waiting)


def test_the_alert_for_a_dead_worker_fires_before_the_worker_is_started_again() -> None:
    """The demo's own text says so: half a minute is for heartbeats, scrapes and rules, a quarter for the message."""
    groups = yaml.safe_load((ROOT / "alerts" / "rules" / "workers.yml").read_text())["groups"]
    (waits,) = [rule["for"] for group in groups for rule in group["rules"] if rule.get("alert") == "CeleryWorkerDown"]
    assert parse_duration(waits) + 45 < RESTART_AFTER


def test_a_worker_that_was_killed_is_started_again_later(tmp_path: Path) -> None:
    """Its end is reported once; it is started again when its alert has had time to fire."""
    said: list[str] = []
    clock = Clock()
    with Stack(said.append, clock=clock) as stack:
        worker = part(tmp_path, "worker", restarted=True)
        stack.start(worker)
        kill(worker.process)
        for clock.now in (0.0, RESTART_AFTER / 2):
            stack.check()
        assert not worker.process.running
        assert said[1:] == ["worker ended (by SIGKILL); it will be started again in 5 minutes"]
        clock.now = RESTART_AFTER + 1
        stack.check()
        wait_until(lambda: worker.process.running)
        assert said[-1] == "worker has been started again"
