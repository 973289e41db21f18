"""``celerymeter check-config``: check a configuration file, and print the settings that the services would use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from celerymeter.cli import configfile
from celerymeter.cli.command import HELP, ClickOption, SettingsCommand, all_commands, origin, sections
from celerymeter.errors import MissingSetting
from celerymeter.escaping import terminal_lines

DEFAULT = "exporter"
"""The command that is shown when the file does not say which one it is for."""


@click.command("check-config", context_settings=HELP)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), envvar="CELERYMETER_CONFIG", required=False)
@click.pass_context
def command(ctx: click.Context, file: Path | None) -> int:
    """Check the configuration FILE and print the settings in effect, without secrets.

    FILE is the file that --config would name; without it, CELERYMETER_CONFIG is used. Environment variables count as
    they do for the commands themselves. If something is wrong, it prints one line and exits with status 2.
    """
    for shown in _concerned(all_commands(ctx), configfile.read(file) if file else {}):
        click.echo(terminal_lines("\n".join(_effective(shown, ctx, file))))
    return 0


def _concerned(commands: list[SettingsCommand[Any]], content: dict[str, Any]) -> list[SettingsCommand[Any]]:
    """Return the commands with a section in the file, and services with a key that the exporter lacks.

    The exporter is among them when one of its keys is in the file, or when there is no other.
    """
    usual = next(found for found in commands if found.section == DEFAULT)
    foreign = [name for name in content if name not in usual.by_key()]
    chosen = [
        found
        for found in commands
        if configfile.is_section(content, found.section, lambda: sections(commands))
        or (found.service and any(name in found.by_key() for name in foreign))
    ]
    if not chosen or any(name in usual.by_key() for name in content):
        chosen = [usual, *(found for found in chosen if found is not usual)]
    return chosen


def _effective(shown: SettingsCommand[Any], ctx: click.Context, file: Path | None) -> Iterator[str]:
    """Yield the lines for one command; raises an error for a wrong value."""
    words = ["--config", str(file)] if file else []
    with shown.make_context(shown.name, words, parent=ctx.parent) as own:
        yield f"{shown.section}:"
        yield from (f"  {_line(option, own)}" for option in shown.by_key().values())
        try:
            shown.settings(own)
        except MissingSetting as error:
            yield f"  # {error}"


def _line(option: ClickOption, ctx: click.Context) -> str:
    """Return a setting and where it comes from."""
    name = option.name or ""
    value = ctx.params[name]
    if value in (None, (), ""):
        return f"# {name} is not set"
    by_default = ctx.get_parameter_source(name) is ParameterSource.DEFAULT
    return f"{name}: {option.show(value)}" + ("" if by_default else f"  # {origin(option, ctx)}")
