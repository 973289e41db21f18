"""This process' own CPU, memory and files, under the names that every client library of Prometheus uses.

Read from ``/proc`` (Linux; nothing elsewhere). prometheus-client has a ProcessCollector; importing it brings an HTTP
server along and costs 1 to 2 MB of memory.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

_PROC = Path("/proc/self")
_FAMILIES = (
    ("virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    ("resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    ("start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."),
    ("cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."),
    ("open_fds", "gauge", "Number of open file descriptors."),
    ("max_fds", "gauge", "Maximum number of open file descriptors."),
)


def process_lines() -> str:
    """Return lines of the text format; only those of the interpreter where there is no ``/proc``."""
    try:
        numbers = _numbers()
    except OSError:
        numbers = ()
    lines = [
        f"# HELP process_{name} {text}\n# TYPE process_{name} {kind}\nprocess_{name} {number!r}\n"
        for (name, kind, text), number in zip(_FAMILIES, numbers, strict=False)
    ]
    return "".join(lines) + _PYTHON


def _numbers() -> tuple[float, ...]:
    """Return the values of `_FAMILIES`; the fields of ``stat`` are counted from behind the command (proc(5))."""
    import resource  # which is Unix' own

    fields = (_PROC / "stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    user, system, started, virtual, resident = (int(fields[at]) for at in (11, 12, 19, 20, 21))
    return (
        float(virtual),
        float(resident * resource.getpagesize()),
        _booted() + started / ticks,
        (user + system) / ticks,
        float(len(os.listdir(_PROC / "fd")) - 1),  # without the one that lists
        float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    )


def _booted() -> float:
    """Return when the kernel started, in UTC seconds."""
    lines = Path("/proc/stat").read_text().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), 0.0)


def _python() -> str:
    major, minor, patch = platform.python_version_tuple()
    values = {"implementation": platform.python_implementation(), "major": major, "minor": minor, "patchlevel": patch}
    labels = ",".join(f'{name}="{value}"' for name, value in {**values, "version": platform.python_version()}.items())
    return f"# HELP python_info Python platform information\n# TYPE python_info gauge\npython_info{{{labels}}} 1.0\n"


_PYTHON = _python()
