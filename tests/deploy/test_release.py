"""Releases: one version everywhere, workflows that GitHub takes, and no link to what is not published."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celerymeter import __version__

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
ZIZMOR = Path(sys.executable).parent / "zizmor"
OURS = re.compile(r"https?://[\w.-]+/[\w.-]*celerymeter[\w./-]*")
"""A page of the project at any host: none is published yet."""
EXAMPLES = ("example.org", "localhost", "127.0.0.1", "slack.com")


def _texts() -> Iterator[tuple[Path, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        path = ROOT / name
        if path.suffix in {".md", ".yml", ".yaml", ".toml", ".py", ".json", ""} and path.is_file():
            yield path, path.read_text(errors="replace")


def test_no_page_of_ours_is_linked_that_does_not_exist() -> None:
    """Until a release is published somewhere, a link to it would lead nowhere, or to somebody else."""
    links = {
        (path.relative_to(ROOT).as_posix(), link)
        for path, text in _texts()
        if not path.is_relative_to(ROOT / "tests")
        for link in OURS.findall(text)
        if not any(host in link.split("/")[2] for host in EXAMPLES)
    }
    hosts = {link.split("/")[2].partition(":")[0] for _, link in links}
    assert {host for host in hosts if "." in host and not host.endswith((".celerymeter", ".monitoring"))} == set()


@pytest.mark.parametrize("name", ["docker-compose.yml", "deploy/kubernetes/base/exporter.yaml", "deploy/README.md"])
def test_our_image_has_the_version_of_the_package(name: str) -> None:
    """Wherever it is named with a tag."""
    tags = re.findall(r"celerymeter:(\d+\.[\w.-]*)", (ROOT / name).read_text())
    assert tags
    assert set(tags) == {__version__}


def test_workflows_have_no_finding() -> None:
    """By zizmor: the schema, pinned actions, least permissions, no injection."""
    ran = subprocess.run(
        [ZIZMOR, "--offline", "--no-progress", "--quiet", WORKFLOWS], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_zizmor_finds_what_is_wrong(tmp_path: Path) -> None:
    """So that the test above can fail."""
    broken = (WORKFLOWS / "ci.yml").read_text().replace("permissions: {}\n", "").replace("11bd71901bbe5b16", "v4 #")
    (tmp_path / "ci.yml").write_text(broken)
    ran = subprocess.run([ZIZMOR, "--offline", "--no-progress", "--quiet", tmp_path], capture_output=True, check=False)
    assert ran.returncode != 0


def release(*words: str, checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run the release script of a checkout."""
    return subprocess.run([checkout / ".ci" / "release", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of the repository as the check reads."""
    for name in (".ci/release", ".ci/lib.sh", "exporter/celerymeter/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {__version__}\n")
    return tmp_path


def test_a_release_is_of_the_version_that_its_tag_names(checkout: Path) -> None:
    """Anything else is refused before it is built."""
    assert release("check", f"v{__version__}", checkout=checkout).returncode == 0
    refused = release("check", "v99.0.0", checkout=checkout)
    assert refused.returncode == 1
    assert f"is not v{__version__}" in refused.stderr


def test_a_release_has_a_section_in_the_changelog(checkout: Path) -> None:
    """Or nobody knows what it changes."""
    (checkout / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n")
    refused = release("check", f"v{__version__}", checkout=checkout)
    assert refused.returncode == 1
    assert "CHANGELOG.md has no section" in refused.stderr
