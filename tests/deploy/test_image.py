"""The image: what is in it is pinned, what is not needed stays out, and it is not root's."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tests.deploy.dockerfile import DOCKERFILE, ROOT, allowed, build_context, copied, instructions, last_stage
from tests.packaging.test_distribution import build, contents

from celerymeter import __version__

HADOLINT = Path(sys.executable).parent / "hadolint"
PINNED = re.compile(r"^([a-z0-9._-]+)==(\S+)(?: ; .*)? \\$", re.MULTILINE)
IMAGE, BUILD = ROOT / "exporter" / "requirements.lock", ROOT / "exporter" / "build.lock"
DEV, DEMO = ROOT / ".ci" / "locks" / "dev.lock", ROOT / ".ci" / "locks" / "demo.lock"


def lock(path: Path) -> dict[str, Version]:
    """The versions that a lock file pins."""
    return {found[1]: Version(found[2]) for found in PINNED.finditer(path.read_text())}


def lines(path: Path) -> list[str]:
    """Each package with its version, without the platforms that it is for."""
    return [f"{found[1]}=={found[2]}" for found in PINNED.finditer(path.read_text())]


def needs(requirement: Requirement, extra: str) -> bool:
    """Return whether the image needs it with this extra, by the image's Python, not by the one that runs the test."""
    release = re.search(r"python:([\d.]+)", DOCKERFILE.read_text())
    assert release
    image = {
        "python_full_version": release[1],
        "python_version": release[1].rpartition(".")[0],
        "sys_platform": "linux",
    }
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra, **image})


def test_the_linter_has_nothing_to_say() -> None:
    """Hadolint, with .hadolint.yaml."""
    ran = subprocess.run([HADOLINT, DOCKERFILE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_base_is_one_image_for_ever() -> None:
    """Both stages begin with the same one, named by release and digest."""
    base = next(each.rest for each in instructions() if each.keyword == "ARG")
    assert re.fullmatch(r"PYTHON=python:\d+\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert {each.words[0] for each in instructions() if each.keyword == "FROM"} == {"${PYTHON}"}


def test_what_builds_stays_behind() -> None:
    """The second stage takes over two folders of the first, and runs nothing."""
    keywords = [each.keyword for each in instructions()]
    shipped = instructions()[len(keywords) - keywords[::-1].index("FROM") :]
    assert keywords.count("FROM") == 2
    assert "RUN" not in {each.keyword for each in shipped}
    copied_over = [each.words for each in shipped if each.keyword == "COPY"]
    assert [words[0] for words in copied_over] == ["--from=build", "--from=build"]
    assert [words[-1] for words in copied_over] == ["/opt/celerymeter", "/var/lib/celerymeter"]


def test_no_step_goes_through_a_shell() -> None:
    """Without a shell nothing is expanded: each step runs exactly what is written."""
    runs = [each for each in instructions() if each.keyword in {"RUN", "CMD", "ENTRYPOINT"}]
    assert runs
    assert [each for each in runs if not each.rest.startswith("[")] == []


def test_the_image_runs_as_a_numbered_user_and_says_what_it_is() -> None:
    """runAsNonRoot can judge it; the version is the package's."""
    stage = last_stage()
    user, group = map(int, stage["USER"].rest.split(":"))
    assert min(user, group) >= 1000
    assert f'org.opencontainers.image.version="{__version__}"' in stage["LABEL"].rest
    for label in ("title", "description", "licenses"):
        assert f'org.opencontainers.image.{label}="' in stage["LABEL"].rest
    assert stage["STOPSIGNAL"].rest == "SIGTERM"
    assert "/-/healthy" in stage["HEALTHCHECK"].rest
    assert stage["ENTRYPOINT"].words == ["celerymeter"]


def test_the_context_holds_what_is_copied_and_no_more() -> None:
    """.dockerignore lets in each thing that the Dockerfile copies."""
    assert {path for path in copied() if path != "grafana"} == {path for path in allowed() if "grafana" not in path}
    assert {path for path in allowed() if "grafana" in path} == {"grafana/dashboards", "grafana/provisioning"}


def test_the_wheel_in_the_image_is_the_wheel_we_ship(tmp_path: Path) -> None:
    """Built out of the context alone: nothing that it needs is missing there."""
    context = build_context(tmp_path / "context")
    checkout = contents(build(ROOT, tmp_path / "checkout", "wheel"))
    assert set(contents(build(context, tmp_path / "image", "wheel"))) == set(checkout)


def test_every_package_in_the_image_is_pinned() -> None:
    """The lock holds all that celerymeter[control] needs, in versions that it accepts."""
    pinned, wanted, seen = lock(IMAGE), [("celerymeter", "control")], set[tuple[str, str]]()
    while wanted:
        name, extra = wanted.pop()
        seen.add((name, extra))
        if name != "celerymeter" and Version(version(name)) != pinned[name]:
            continue  # `make newest` runs the tests with other releases, which may need other packages
        for requirement in map(Requirement, requires(name) or ()):
            if not needs(requirement, extra):
                continue
            dependency = canonicalize_name(requirement.name)
            if dependency != "celerymeter":
                assert dependency in pinned, f"{requirement} is not in {IMAGE.name}: run `make lock`"
                assert requirement.specifier.contains(pinned[dependency]), f"not {requirement}: run `make lock`"
            found = {(dependency, each) for each in (requirement.extras or {""})}
            wanted += sorted(found - seen)
    assert "hatchling" in lock(BUILD)


@pytest.mark.parametrize("name", [IMAGE, BUILD, DEMO], ids=lambda path: path.name)
def test_tests_run_what_is_shipped(name: Path) -> None:
    """Image and demo have the same releases as the tests."""
    everything = set(lines(DEV))
    assert {line for line in lines(name) if line not in everything} == set(), "run `make lock`"
