"""``celerymeter audit show|verify``: the audit trail of a state directory, without the control API."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import click

from celerymeter.cli.command import settings_command
from celerymeter.escaping import json_text, terminal
from celerymeter.kinds import COUNT, DIRECTORY, SWITCH, TEXT
from celerymeter.options import option, secret, setting


@dataclass(frozen=True, slots=True)
class ShowSettings:
    """Settings of `audit show`: a filter for rows."""

    state_dir: Path = field(metadata=option(DIRECTORY, "The control API's state directory."))
    last: int = setting(50, COUNT, "How many rows to show, from the end.")
    sub: str | None = setting(None, TEXT, "Only actions of this subject.")
    action: str | None = setting(None, TEXT, "Only this action, such as tasks.revoke.")
    json: bool = setting(False, SWITCH, "Print each row as one JSON object.")


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """Settings of `audit verify`: the trail, and the head to compare it with."""

    state_dir: Path = field(metadata=option(DIRECTORY, "The control API's state directory."))
    audit_key: bytes | None = secret(
        None, "File that holds the key that seals the trail. By default the key in the state directory."
    )
    head: str | None = setting(
        None, TEXT, "A head (ROW:HMAC) from an earlier log line or reply: proves that no row up to it was removed."
    )


@click.group("audit")
def command() -> None:
    """Show or verify the audit trail of the control API."""


@settings_command("show", ShowSettings, section="audit")
def show(settings: ShowSettings) -> int:
    """Print the last rows of the audit trail, oldest first."""
    from celerymeter.control.audit.offline import as_fields, as_line, read_rows
    from celerymeter.control.audit.trail import AuditQuery

    query = AuditQuery(sub=settings.sub, action=settings.action)
    for row in read_rows(settings.state_dir, query, last=settings.last):
        if settings.json:
            click.echo(json_text(as_fields(row)))
        else:
            click.echo(terminal(as_line(row)))
    return 0


@settings_command("verify", VerifySettings, section="audit")
def verify(settings: VerifySettings) -> int:
    """Find rows that were changed, removed or inserted.

    Exit status 1 if there are any.
    """
    from celerymeter.control.audit import offline

    result = offline.verify(settings.state_dir, key=settings.audit_key, head=settings.head)
    for finding in result.findings:
        click.echo(terminal(f"row {finding.row}: {finding.message}"))
    if result.unproven is not None:
        click.echo(terminal(result.unproven))
    click.echo(terminal(f"rows: {result.rows}, findings: {len(result.findings)}, head {result.head}"))
    return 1 if result.findings else 0


command.add_command(show)
command.add_command(verify)
