"""The wheel in an environment that has nothing else."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*argv: str | Path, folder: Path) -> str:
    """Run to its end and give what it wrote; raises when it fails."""
    done = subprocess.run(
        [str(word) for word in argv], cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_the_wheel_installs_into_an_empty_environment_and_works(tmp_path: Path) -> None:
    """The exporter's command needs no extra; with the extra `demo` the whole stack runs, with rules from the wheel."""
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path / "dist", folder=ROOT)
    (wheel,) = (tmp_path / "dist").iterdir()
    venv.create(tmp_path / "venv", with_pip=True)
    bin_ = tmp_path / "venv" / "bin"
    run(bin_ / "pip", "install", "--quiet", wheel, folder=tmp_path)
    assert "--broker-url" in run(bin_ / "celerymeter", "exporter", "--help", folder=tmp_path)
    run(bin_ / "pip", "install", "--quiet", f"{wheel}[demo]", folder=tmp_path)
    said = run(bin_ / "celerymeter", "demo", "--ports", "auto", "--duration", "5s", folder=tmp_path)
    assert "Ready." in said
    assert said.rstrip().endswith("The demo has stopped.")
