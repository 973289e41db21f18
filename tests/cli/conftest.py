"""The command line as its users call it, without a process of its own."""

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
    """What a call of the command line gave."""

    status: int
    out: str
    err: str


Run = Callable[..., Outcome]
Build = Callable[..., ExporterSettings]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the machine that runs the tests say nothing."""
    for name in list(os.environ):
        if name.startswith("CELERYMETER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call ``celerymeter`` with these words."""

    def call(*words: str | Path) -> Outcome:
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture
def build() -> Build:
    """The settings that ``celerymeter exporter`` would run with."""

    def settings(*words: str | Path) -> ExporterSettings:
        with command.make_context("exporter", [str(word) for word in words], parent=click.Context(group)) as ctx:
            return command.settings(ctx)

    return settings
