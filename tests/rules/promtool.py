"""promtool of two generations: the distribution's, and Prometheus 3's where it is there."""

from __future__ import annotations

import subprocess

import pytest
from tests.engines import NEWER, newer

from celerymeter.demo.servers import find_binary

RELEASES = ("installed", "newer")
_USUAL = "newer" if (NEWER / "promtool").exists() else "installed"
ONE_IN_SLOW = [release if release == _USUAL else pytest.param(release, marks=pytest.mark.slow) for release in RELEASES]
"""For the worlds of all alerts, each of which takes as long as all other rule tests: the newest release that is here.

That both evaluate each alert alike is shown by `test_promtool.py` in every run. A world shows how alerts differ from
one another, which is no matter of the release; `make test-slow` runs them with the other.
"""
Ran = subprocess.CompletedProcess[str]


def tool(release: str) -> str:
    """Return the path of one; raises `ServerMissing`."""
    return newer("promtool") if release == "newer" else find_binary("promtool")


def run(*argv: str) -> Ran:
    """Run it to its end, whatever it says."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=500, check=False)
