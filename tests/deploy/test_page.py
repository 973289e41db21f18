"""deploy/README.md: what it names is there."""

from __future__ import annotations

import re

import yaml
from tests.deploy.compose import MAIN
from tests.deploy.dockerfile import DOCKERFILE, ROOT

PAGE = (ROOT / "deploy" / "README.md").read_text()
IMAGE = re.compile(r"[a-z]+(?:/[a-z]+)?:v?\d+\.\d+\.\d+[a-z-]*(?=@sha256:)")


def test_its_links_lead_somewhere() -> None:
    """Files and folders of the repository."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "deploy" / link).exists()] == []


def test_it_lists_every_image_that_is_pinned() -> None:
    """Those of docker-compose.yml and the base of ours, and no other."""
    pinned = set(IMAGE.findall((ROOT / MAIN).read_text() + DOCKERFILE.read_text()))
    assert set(re.findall(r"^\| `(\S+:v?[\d.]+\S*)` \|", PAGE, re.MULTILINE)) == pinned


def test_it_lists_every_secret() -> None:
    """As docker-compose.yml names them."""
    wanted = set(yaml.safe_load((ROOT / MAIN).read_text())["secrets"])
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", PAGE, re.MULTILINE)
    assert wanted <= {name for row in rows for name in re.findall(r"[a-z_]+", row)}


def test_it_lists_every_component() -> None:
    """As deploy/kubernetes has them."""
    folders = {path.name for path in (ROOT / "deploy/kubernetes/components").iterdir()}
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == folders
