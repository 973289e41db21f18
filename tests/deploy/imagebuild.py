"""exporter/Dockerfile built for real, on Debian in place of the Python image, which no package registry has."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.dockerfile import DOCKERFILE
from tests.deploy.services import Image

TOOLS = {"buildah": "buildah", "debootstrap": "debootstrap"}
BASE = "localhost/debian"
TAG = "localhost/celerymeter"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def refuse_without_tools() -> None:
    """Skip where an image cannot be built."""
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        pytest.skip(f"install Debian's {' and '.join(missing)} to build the image")


@dataclass(frozen=True, slots=True)
class Builder:
    """buildah with everything below one folder; no daemon, steps in a chroot."""

    folder: Path

    def __call__(self, *words: str | Path) -> str:
        """Run buildah and give what it wrote; fails with its words."""
        where = [f"--root={self.folder / 'store'}", f"--runroot={self.folder / 'run'}", "--storage-driver=vfs"]
        return command("buildah", *where, *words)

    def base(self) -> None:
        """An image of Debian 13 with its Python 3.13 and nothing else; minutes."""
        root = self.folder / "root"
        lay_out_debian(root)
        made = self("from", "scratch").strip()
        self("add", "--quiet", made, root, "/")
        self("commit", "--quiet", made, BASE)

    def build(self, context: Path) -> Image:
        """The image of the Dockerfile, laid out."""
        self.base()
        how = ["--isolation=chroot", "--network=host", "--format=docker", f"--build-arg=PYTHON={BASE}"]
        self("build", *how, f"--file={DOCKERFILE}", f"--tag={TAG}", context)
        config = self.config()
        path = next(each.partition("=")[2] for each in config["Env"] if each.startswith("PATH="))
        laid_out = self("from", TAG).strip()
        return Image(config["User"], config["Entrypoint"], path, root=self("mount", laid_out).strip())

    def config(self) -> Mapping[str, Any]:
        """Return the image's configuration, in the format of Docker."""
        found: Mapping[str, Any] = json.loads(self("inspect", "--type=image", TAG))["Docker"]["config"]
        return found


def lay_out_debian(root: Path, *more: str) -> None:
    """Debian 13 with its Python 3.13 and more packages; minutes."""
    mirror = command("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()[0]
    packages = ",".join(("python3", "python3-venv", "ca-certificates", *more))
    command("debootstrap", "--variant=minbase", f"--include={packages}", "trixie", root, mirror)
    shutil.copy2(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    (root / "etc/pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\ntimeout = 180\n")


def command(*words: str | Path) -> str:
    """Run to the end; fails with what it said."""
    ran = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=1500)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    return ran.stdout
