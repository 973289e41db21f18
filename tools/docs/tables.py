"""The parts of the README that are made of the code: ``python -m tools.docs.tables`` writes them anew."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping

import click
from tools.docs.figures import comparison
from tools.docs.lists import alerts, paths
from tools.docs.markdown import READMES, table

from celerymeter import instruments
from celerymeter.cli import group
from celerymeter.cli.command import SettingsCommand

_MARKED = re.compile(r"(<!-- made: (?P<part>[a-z ]+) -->\n).*?(<!-- /made -->)", re.DOTALL)
_HEADS: Mapping[str, tuple[str, ...]] = {
    "metrics README.md": ("metric", "type", "labels", "meaning"),
    "metrics README.zh-TW.md": ("指標", "類型", "標籤", "說明"),
    "options README.md": ("option", "default", "meaning"),
    "options README.zh-TW.md": ("選項", "預設值", "說明"),
}


def metrics(area: str, readme: str) -> str:
    """The families of one area of the catalogue."""
    rows = [
        (f"`{family.name}`", family.kind, ", ".join(f"`{label}`" for label in family.labels), family.help)
        for family in instruments.CATALOGUE
        if family.area == area
    ]
    return table(_HEADS[f"metrics {readme}"], rows)


def options(command: str, readme: str) -> str:
    """The options of one command, in the order of its ``--help``."""
    found = group.get_command(click.Context(group), command)
    assert isinstance(found, SettingsCommand)
    with click.Context(found) as context:
        rows = [(f"`{_flags(option)}`", _default(option, context), option.help or "") for option in found.settings()]
    return table(_HEADS[f"options {readme}"], rows)


def _flags(option: click.Option) -> str:
    return " / ".join([*option.opts, *option.secondary_opts])


def _default(option: click.Option, context: click.Context) -> str:
    value = option.get_default(context)
    return "" if value in (None, False, ()) else f"`{value}`"


MAKERS: Mapping[str, Callable[[str, str], str]] = {
    "metrics": metrics,
    "options": options,
    "figures": comparison,
    "alerts": alerts,
    "paths": paths,
}


def made_anew(text: str, readme: str) -> str:
    """The text of a README with every marked part made anew."""

    def make(match: re.Match[str]) -> str:
        kind, _, subject = match["part"].partition(" ")
        return f"{match[1]}{MAKERS[kind](subject, readme)}{match[3]}"

    return _MARKED.sub(make, text)


def main() -> None:
    """Write what has changed."""
    for path in READMES:
        before = path.read_text()
        if (after := made_anew(before, path.name)) != before:
            path.write_text(after)
            sys.stdout.write(f"{path.name} written\n")


if __name__ == "__main__":
    main()
