"""Releases of Celery in ``.cache``: their modules, and their source archives with the integration tests."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from celerymeter.errors import StartFailed

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
RERUNS = "pytest-rerunfailures==16.7"
"""Packages that Celery's integration tests need and our own do not."""
_SETTINGS = {"worker_send_task_events": True, "task_send_sent_event": True}


@dataclass(frozen=True)
class Release:
    """A release of Celery, such as ``5.6``; ``folder`` goes onto PYTHONPATH, ``None`` for the installed one."""

    version: str
    folder: Path | None

    @property
    def may_stand_still(self) -> bool:
        """Before 5.5 a worker can wait for itself (celery #10477); see `tools.celery_workload.truth.left_over`."""
        return tuple(map(int, self.version.split(".")[:2])) < (5, 5)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a process use it, with our own modules importable."""
        folders = [ROOT, *([self.folder] if self.folder else [])]
        return {"PYTHONPATH": ":".join(map(str, folders)), "PYTHONUNBUFFERED": "1"}


def find_release(wanted: str) -> Release:
    """Return a release by its first two numbers, put into ``.cache`` if it is not there; raises `StartFailed`."""
    installed = importlib.metadata.version("celery")
    if installed.startswith(f"{wanted}."):
        return Release(installed, None)
    subprocess.run([ROOT / ".ci/celery-versions", wanted], check=True)
    folder = CACHE / f"celery-{wanted}"
    found = re.search(r"^celery==(\S+)", (folder / ".installed").read_text(), re.M) if folder.exists() else None
    if found is None:
        raise StartFailed(f"there is no Celery {wanted} in {folder}")
    return Release(found.group(1), folder)


def unpack_tests(release: Release) -> Path:
    """Return the folder of the release's source archive, fetched from the package index if it is not there."""
    archives = CACHE / "celery-sources"
    folder = archives / f"celery-{release.version}"
    if not folder.exists():
        wanted = ["--no-binary", "celery", "--no-deps", f"celery=={release.version}"]
        subprocess.run([sys.executable, "-m", "pip", "download", "-qq", *wanted, "-d", archives], check=True)
        with tarfile.open(next(archives.glob(f"celery-{release.version}.tar.*"))) as archive:
            archive.extractall(archives, filter="data")
    # Celery's own conftest.py reads this file.
    (folder / "integration-tests-config.json").write_text(json.dumps(_SETTINGS))
    return folder


def rerun_plugin() -> Path:
    """Return the folder of the pytest plugin that Celery's integration tests need, fetched if it is not there."""
    folder = CACHE / "celery-sources" / "plugins"
    if not folder.exists():
        wanted = ["--no-deps", "--target", str(folder), RERUNS]
        subprocess.run([sys.executable, "-m", "pip", "install", "-qq", *wanted], check=True)
    return folder
