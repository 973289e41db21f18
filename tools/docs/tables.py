"""Write the generated parts of the documentation: ``python -m tools.docs.tables``.

A generated part stands between ``<!-- made: KIND SUBJECT -->`` and ``<!-- /made -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click
from tools.docs.comparison import comparison
from tools.docs.helm import values
from tools.docs.markdown import PAGES, ROOT, table
from tools.docs.paths import paths

from celerymeter.cli import group
from celerymeter.cli.command import SettingsCommand
from celerymeter.metrics import CATALOGUE

_MARKED = re.compile(r"(<!-- made: (?P<part>[a-z ]+) -->\n).*?(<!-- /made -->)", re.DOTALL)


def metrics(area: str) -> str:
    """Return the table of one area of the metric catalogue."""
    rows = [
        (f"`{family.name}`", family.kind, ", ".join(f"`{label}`" for label in family.labels), family.help)
        for family in CATALOGUE
        if family.area == area
    ]
    return table(("metric", "type", "labels", "meaning"), rows)


def options(command: str) -> str:
    """Return the table of one command's options, in the order of its ``--help``."""
    found = group.get_command(click.Context(group), command)
    assert isinstance(found, SettingsCommand)
    with click.Context(found) as context:
        rows = [(f"`{_flags(option)}`", _default(option, context), option.help or "") for option in found.options()]
    return table(("option", "default", "meaning"), rows)


def _flags(option: click.Option) -> str:
    return " / ".join([*option.opts, *option.secondary_opts])


def _default(option: click.Option, context: click.Context) -> str:
    value = option.get_default(context)
    return "" if value in (None, False, ()) else f"`{value}`"


MAKERS: Mapping[str, Callable[[str], str]] = {
    "metrics": metrics,
    "options": options,
    "comparison": comparison,
    "paths": paths,
    "values": values,
}


def regenerated(path: Path) -> str:
    """Return the text of a page with all its generated parts written again."""

    def make(match: re.Match[str]) -> str:
        kind, _, subject = match["part"].partition(" ")
        return f"{match[1]}{MAKERS[kind](subject)}{match[3]}"

    return _MARKED.sub(make, path.read_text())


def main() -> None:
    """Write the pages that have changed."""
    for path in PAGES:
        if (after := regenerated(path)) != path.read_text():
            path.write_text(after)
            sys.stdout.write(f"{path.relative_to(ROOT)} written\n")


if __name__ == "__main__":
    main()
