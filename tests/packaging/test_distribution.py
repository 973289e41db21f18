"""The files that people get: the wheel, and the source distribution that builds the same one."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(source: Path, target: Path, kind: str) -> Path:
    """Build one distribution of ``source`` into ``target``."""
    argv = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    subprocess.run(argv, cwd=source, check=True, capture_output=True)
    (built,) = target.iterdir()
    return built


def contents(wheel: Path) -> dict[str, bytes]:
    """The wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of this checkout."""
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


def test_rules_and_dashboards_travel_in_the_wheel(wheel: Path) -> None:
    """Everything that is committed under alerts/ and grafana/ for users; no test, no generated document."""
    listed = subprocess.run(
        ["git", "ls-files", "alerts", "grafana/dashboards", "grafana/provisioning"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    names = set(contents(wheel))
    assert {f"celerymeter/bundle/{path}" for path in listed} <= names
    assert not [name for name in names if "test_" in name or name.endswith("openapi.json")]


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """File for file, byte for byte."""
    sdist = build(ROOT, tmp_path / "sdist", "sdist")
    (tmp_path / "source").mkdir()
    subprocess.run(["tar", "--extract", "--file", sdist, "--directory", tmp_path / "source"], check=True)
    (source,) = (tmp_path / "source").iterdir()
    assert contents(build(source, tmp_path / "again", "wheel")) == contents(wheel)


def test_the_unpacked_wheel_finds_what_it_ships(wheel: Path, tmp_path: Path) -> None:
    """Without the checkout beside it, the rules come from inside the package."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "from celerymeter.demo.parts import shipped; print(shipped('alerts'))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(ran.stdout.strip()) == tmp_path / "celerymeter" / "bundle" / "alerts"
