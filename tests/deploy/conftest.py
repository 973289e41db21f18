"""Secrets as ``make secrets`` makes them, in a folder of the test's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def made_in(folder: Path) -> Path:
    """A copy of the script in a checkout of its own, that has been run; its path."""
    script = folder / "deploy" / "compose" / "make-secrets"
    script.parent.mkdir(parents=True)
    shutil.copy2(ROOT / "deploy" / "compose" / "make-secrets", script)
    subprocess.run([script], check=True, capture_output=True)
    return script


@pytest.fixture
def make_secrets(tmp_path: Path) -> Path:
    """The script, for a test that changes what it made."""
    return made_in(tmp_path / "checkout")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of secrets."""
    return made_in(tmp_path_factory.mktemp("checkout")).parent / "secrets"
