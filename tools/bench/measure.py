"""CPU time and memory of another process, from the kernel's own books."""

from __future__ import annotations

import re
import time
from pathlib import Path

QUIET = 0.4
"""Seconds over which a process that has finished uses (almost) no CPU."""
IDLE_SHARE = 0.03


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)  # the kernel's CPUCLOCK_SCHED of that process (clock_getcpuclockid)


def memory_mb(pid: int, what: str = "VmHWM") -> float:
    """Peak (``VmHWM``) or present (``VmRSS``) memory in MB; raises `ValueError` for a process that has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{what}:\s+(\d+) kB", status)
    if found is None:
        raise ValueError(f"no {what} of process {pid}")
    return int(found[1]) / 1024


def reset_peak(pid: int) -> None:
    """Begin to measure the peak anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def await_quiet(pid: int, timeout: float = 120) -> float:
    """Wait until a process has nothing more to do; its CPU time when that began."""
    deadline = time.monotonic() + timeout
    before = cpu_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(QUIET)
        now = cpu_seconds(pid)
        if now - before < IDLE_SHARE * QUIET:
            return before
        before = now
    raise TimeoutError(f"process {pid} is still busy after {timeout:g} s")
