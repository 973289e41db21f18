"""``celerymeter check-config``: is the file right, and what would the services run with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from celerymeter.cli import configfile
from celerymeter.cli.command import Setting, SettingsCommand, all_commands
from celerymeter.cli.errors import origin
from celerymeter.errors import MissingSetting

DEFAULT = "exporter"
"""The service that is shown when the file does not say which it is for."""


@click.command("check-config", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), envvar="CELERYMETER_CONFIG", required=False)
@click.pass_context
def command(ctx: click.Context, file: Path | None) -> int:
    """Check the configuration FILE and print the settings in effect, without secrets.

    FILE is what --config would name (CELERYMETER_CONFIG when it is left out). Variables of the environment count as
    they would for the command. Exit status 2 and one line when something is wrong.
    """
    found = all_commands(ctx)()
    for shown in _concerned(found, configfile.read(file) if file else {}):
        click.echo("\n".join(_effective(shown, ctx, file)))
    return 0


def _concerned(commands: list[SettingsCommand[Any]], content: dict[str, Any]) -> Iterator[SettingsCommand[Any]]:
    """Commands with a section in the file, services that alone know one of its keys, else the exporter."""
    usual = next(found for found in commands if found.section == DEFAULT)
    own = [name for name in content if name not in usual.known()]
    chosen = [
        found
        for found in commands
        if configfile.key(found.section) in content or (found.service and any(name in found.known() for name in own))
    ]
    if not chosen or any(name in usual.known() for name in content):
        chosen = [usual, *(found for found in chosen if found is not usual)]
    return iter(chosen)


def _effective(shown: SettingsCommand[Any], ctx: click.Context, file: Path | None) -> Iterator[str]:
    """The lines for one command; raises what is wrong with a value."""
    words = ["--config", str(file)] if file else []
    with shown.make_context(shown.name, words, parent=ctx.parent) as own:
        yield f"{shown.section}:"
        yield from (f"  {_shown(option, own)}" for option in shown.known().values())
        try:
            shown.build(shown.values(own))
        except MissingSetting as error:
            yield f"  # {error}"


def _shown(option: click.Option, ctx: click.Context) -> str:
    """A setting as it may be printed, and where it comes from."""
    name = option.name or ""
    value = ctx.params[name]
    if value in (None, (), ""):
        return f"# {name} is not set"
    text = option.show(value) if isinstance(option, Setting) else str(value)
    by_default = ctx.get_parameter_source(name) is ParameterSource.DEFAULT
    return f"{name}: {text}" + ("" if by_default else f"  # {origin(option, ctx)}")
