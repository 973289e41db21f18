"""The command line as users call it, but in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from celerymeter.cli import group, main
from celerymeter.cli.exporter import command
from celerymeter.settings import ExporterSettings


@dataclass(frozen=True)
class Outcome:
    """The result of a call of the command line."""

    status: int
    out: str
    err: str


Run = Callable[..., Outcome]
Build = Callable[..., ExporterSettings]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the machine that runs the tests."""
    for name in list(os.environ):
        if name.startswith("CELERYMETER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that calls ``celerymeter`` with arguments."""

    def call(*words: str | Path) -> Outcome:
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture
def build() -> Build:
    """Return a function that gives the settings of ``celerymeter exporter`` for arguments."""

    def settings(*words: str | Path) -> ExporterSettings:
        with command.make_context("exporter", [str(word) for word in words], parent=click.Context(group)) as ctx:
            return command.settings(ctx)

    return settings
