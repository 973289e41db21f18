"""Listeners and readers of the exporter's tests, which attacks use likewise, and a control API to be spoiled."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shutil import copy, copytree

import pytest
from tests.events.conftest import readers
from tests.httpd.conftest import authority, serve, site
from tests.security.state_directory import Api, filled, opened

__all__ = ["authority", "readers", "serve", "site"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A state directory with two of everything, to be copied, and the ids of its reports."""
    made = filled(tmp_path_factory.mktemp("kept"))
    made.process.close()
    return made.process.folder, made.reports


@pytest.fixture
def own(kept: tuple[Path, list[str]], tmp_path: Path) -> Iterator[Api]:
    """A control API whose database may be spoiled."""
    folder, reports = kept
    made = opened(copytree(folder, tmp_path / "state", copy_function=copy))
    made.reports, made.number, made.process.remote.silent = reports, 1, False
    yield made
    with suppress(sqlite3.Error):
        made.process.close()
