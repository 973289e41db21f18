"""The command group: its list, its imports, its error messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from celerymeter import __version__, cli
from celerymeter.cli import COMMANDS, group
from celerymeter.cli.command import all_commands

from .conftest import Run


def test_help_lists_the_commands_that_are_there(run: Run) -> None:
    """Each has a line; without arguments the help is shown too."""
    outcome = run("--help")
    assert outcome.status == 0
    assert "exporter  " in outcome.out
    assert COMMANDS["exporter"].help in outcome.out
    assert run().out == outcome.out


def test_version(run: Run) -> None:
    """``--version`` prints the version."""
    assert run("--version").out == f"celerymeter, version {__version__}\n"


def test_every_listed_command_is_one() -> None:
    """Each name belongs to a command; every option has a help text that names its variable."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        assert found is not None
        assert found.help
    for command in all_commands(ctx):
        text = " ".join(command.get_help(click.Context(command, terminal_width=500)).split())
        for name, option in command.by_key().items():
            assert isinstance(option, click.Option)
            assert option.hidden or (option.help and f"CELERYMETER_{name.upper()}" in text), (command.name, name)


def test_an_unknown_command_is_one_line(run: Run) -> None:
    """The exit status is 2, and the line mentions --help."""
    outcome = run("exporrter")
    assert outcome.status == 2
    assert outcome.err.startswith("celerymeter: No such command 'exporrter'")
    assert outcome.err.count("\n") == 1


def test_help_needs_none_of_the_heavy_libraries() -> None:
    """Neither the list nor a command's help imports Celery, Flask or requests."""
    program = (
        "import sys; from celerymeter.cli import main; main(['--help']); main(['exporter', '--help'])\n"
        "print('loaded:', {'celery', 'flask', 'requests', 'redis', 'ssl'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "loaded: set()" in done.stdout


def test_the_module_is_the_command() -> None:
    """``python -m celerymeter`` is the same program."""
    words = [sys.executable, "-m", "celerymeter", "exporter"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("celerymeter: --broker-url: missing")


def test_a_missing_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command whose libraries are missing names the extra to install."""
    (tmp_path / "needy.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    monkeypatch.setitem(COMMANDS, "needy", cli.CommandEntry("Needs something.", extra="control"))
    outcome = run("needy")
    assert outcome.status == 2
    assert outcome.err == (
        "celerymeter: `celerymeter needy` needs a_library_that_is_not_there: pip install 'celerymeter[control]'\n"
    )
