"""`make audit` reads pip-audit's answers; whether there are advisories is the Package Index's business."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("said", "status", "expected", "last"),
    [
        ("No known vulnerabilities found", 0, 0, "celerymeter: no known vulnerability in what the image installs"),
        ("Found 1 known vulnerability in 1 package", 1, 1, "Found 1 known vulnerability in 1 package"),
        (
            "ERROR: amqp: Dependency not found on PyPI and could not be audited",
            1,
            2,
            "celerymeter: advisories cannot be asked from here: nothing is proven",
        ),
    ],
    ids=["none", "some", "cannot be asked"],
)
def test_an_audit_that_could_not_ask_is_no_clean_audit(
    tmp_path: Path, said: str, status: int, expected: int, last: str
) -> None:
    """pip-audit skips what it cannot look up; that must not read as "nothing is known"."""
    tool = tmp_path / "pip-audit"
    tool.write_text(
        f"#!/bin/sh\ncase \"$*\" in *--strict*requirements.lock*) ;; *) exit 9 ;; esac\necho '{said}'\nexit {status}\n"
    )
    tool.chmod(0o755)
    ran = subprocess.run(
        [ROOT / ".ci" / "audit"],
        env={**os.environ, "PIP_AUDIT": str(tool)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, (ran.stdout + ran.stderr).splitlines()[-1]) == (expected, last)
