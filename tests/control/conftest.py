"""An API of fakes for every test that wants one, and the ways to call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from tests.control.access import control_settings

from celerymeter.control.app import create_app
from celerymeter.control.parts import Parts, build
from celerymeter.control.settings import ControlSettings, RequestLimits

MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def settings() -> ControlSettings:
    """Settings that reach nothing."""
    return control_settings()


@pytest.fixture
def parts(settings: ControlSettings, tmp_path: Path) -> Iterator[Parts]:
    """Parts of `settings`, with their state in a folder of this test's own."""
    parts = build(settings, tmp_path / "state")
    yield parts
    parts.store.close()


@pytest.fixture
def client(settings: ControlSettings, parts: Parts) -> FlaskClient:
    """The API of `settings`."""
    return create_app(settings, parts).test_client()


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """One API, without limits on rates, for tests that leave nothing behind which others would notice."""
    settings = replace(control_settings(), limits=RequestLimits(auth_failures_per_minute=1e6, requests_per_minute=1e6))
    parts = build(settings, tmp_path_factory.mktemp("state"))
    yield create_app(settings, parts).test_client()
    parts.store.close()


@pytest.fixture
def make_client(settings: ControlSettings, tmp_path: Path) -> Iterator[MakeClient]:
    """APIs of settings that differ: ``make_client(base_path="")``."""
    made: list[Parts] = []

    def make(**changes: Any) -> FlaskClient:
        varied = replace(settings, **changes)
        made.append(build(varied, tmp_path / f"state-{len(made)}"))
        return create_app(varied, made[-1]).test_client()

    yield make
    for parts in made:
        parts.store.close()
