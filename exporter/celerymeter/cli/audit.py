"""``celerymeter audit show|verify``: the audit trail of a state directory, without the control API."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import click

from celerymeter.cli.command import Values, setting, settings_command
from celerymeter.cli.control import secret_option
from celerymeter.cli.options import DIRECTORY, fields_of, require
from celerymeter.cli.values import COUNT


@dataclass(frozen=True, slots=True)
class ShowSettings:
    """Which rows to show."""

    state_dir: Path
    last: int
    sub: str | None = None
    action: str | None = None
    json: bool = False


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """What to hold the trail against."""

    state_dir: Path
    audit_key: str | None = field(default=None, repr=False)
    head: str | None = None


def show_settings(values: Values) -> ShowSettings:
    """The settings of the options."""
    require(values, "state_dir")
    return ShowSettings(**fields_of(ShowSettings, values))


def verify_settings(values: Values) -> VerifySettings:
    """The settings of the options."""
    require(values, "state_dir")
    return VerifySettings(**fields_of(VerifySettings, values))


@click.group("audit")
def command() -> None:
    """Show or verify the audit trail of the control API."""


@settings_command("show", section="audit", build=show_settings)
@setting("--state-dir", DIRECTORY, help="The control API's state directory.")
@setting("--last", COUNT, default=50, help="How many rows, from the end.")
@setting("--sub", help="Only what this subject did.")
@setting("--action", help="Only this action.")
@setting("--json/--no-json", default=False, help="One JSON object a line.")
def show(settings: ShowSettings) -> int:
    """Print the last rows of the audit trail, the oldest first."""
    from celerymeter.control.audit.reading import Filter, everything
    from celerymeter.control.audit.text import as_json, as_line

    which = Filter(sub=settings.sub, action=settings.action)
    for row in everything(settings.state_dir, which, last=settings.last):
        click.echo(as_json(row) if settings.json else as_line(row))
    return 0


@settings_command("verify", section="audit", build=verify_settings)
@setting("--state-dir", DIRECTORY, help="The control API's state directory.")
@secret_option("--audit-key", "File of the key that seals the trail; else the one in the state directory.")
@setting("--head", help="ROW:HMAC as the log or a reply had it: proves that nothing was cut off since.")
def verify(settings: VerifySettings) -> int:
    """Find rows of the audit trail that were changed, removed, inserted or cut off; exit 1 when there are any."""
    from celerymeter.control.audit import verification

    key = settings.audit_key.encode() if settings.audit_key else None
    result = verification.verify(settings.state_dir, key=key, head=settings.head)
    for finding in result.findings:
        click.echo(f"row {finding.row}: {finding.message}")
    click.echo(f"{result.rows} row(s), {len(result.findings)} finding(s), head {result.head}")
    return 1 if result.findings else 0


command.add_command(show)
command.add_command(verify)
