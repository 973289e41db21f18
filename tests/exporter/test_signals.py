"""The exporter ends at a signal, at whatever moment."""

from __future__ import annotations

import subprocess
import sys

MANY = """
import os, random, signal, threading, time
from celerymeter.exporter.service import signals_blocked, wait_for_signal

def kill_later(after):
    time.sleep(after)
    os.kill(os.getpid(), signal.SIGTERM)

for _ in range(500):
    with signals_blocked():
        killer = threading.Thread(target=kill_later, args=(random.uniform(0, 0.0005),))
        killer.start()
        wait_for_signal()
        killer.join()
print("ended each time")
"""
TWICE = """
import os, signal
from celerymeter.exporter.service import signals_blocked, wait_for_signal

with signals_blocked():
    os.kill(os.getpid(), signal.SIGINT)
    wait_for_signal()
os.kill(os.getpid(), signal.SIGTERM)
"""


def ran(code: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own: signals are the whole process' business."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def test_no_signal_is_lost_around_the_moment_at_which_the_wait_begins() -> None:
    """Five hundred times, before, while and after."""
    assert ran(MANY).stdout == "ended each time\n"


def test_a_second_signal_ends_it_at_once() -> None:
    """With the status that says by which."""
    assert ran(TWICE).returncode == 128 + 15
