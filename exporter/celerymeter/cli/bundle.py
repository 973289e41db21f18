"""``celerymeter bundle export``: copy the alert rules and dashboards from the package into a directory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from celerymeter.cli import owners
from celerymeter.cli.command import settings_command
from celerymeter.demo.parts import shipped
from celerymeter.errors import CelerymeterError
from celerymeter.escaping import terminal
from celerymeter.files import write_new
from celerymeter.kinds import HTTP_URL, SWITCH
from celerymeter.options import setting

PARTS = ("alerts", "grafana/dashboards", "grafana/provisioning")


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """Settings of `bundle export`."""

    force: bool = setting(False, SWITCH, "Overwrite existing files that differ.")
    grafana_url: str | None = setting(
        None, HTTP_URL, "Grafana, to which the alerts link. By default they have no link."
    )
    runbook_url: str | None = setting(
        None, HTTP_URL, "Address at which you publish alerts/runbooks; the alerts link to it."
    )


@click.group("bundle")
def command() -> None:
    """Export the alert rules and dashboards, or assign alerts to teams."""


@settings_command("export", BundleSettings, section="bundle")
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
def export(settings: BundleSettings, target: Path) -> int:
    """Write alerts/ and grafana/ into DIR.

    If a file exists and differs, nothing is written, unless --force is given.
    """
    files = [(path, _linked(source, settings)) for source, path in _files(target)]
    changed = [(path, content) for path, content in files if not (path.is_file() and path.read_bytes() == content)]
    if kept := [path for path, _ in changed if path.exists() and not settings.force]:
        more = f" and {len(kept) - 1} more" if kept[1:] else ""
        raise CelerymeterError(
            f"files exist and differ: {kept[0]}{more}; nothing was written: use --force to overwrite them"
        )
    try:
        for path, content in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_new(path, content)
    except OSError as error:
        raise CelerymeterError(f"cannot write {error.filename}: {error.strerror}") from error
    click.echo(terminal(f"{len(files)} files in {target}, {len(changed)} of them new or changed"))
    return 0


command.add_command(export)
command.add_command(owners.command)


def _files(target: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each shipped file, and where it goes."""
    for part in PARTS:
        root = shipped(part)
        for source in sorted(root.rglob("*")):
            hidden = any(piece.startswith((".", "__")) for piece in source.relative_to(root).parts)
            if source.is_file() and not hidden:
                yield source, target / part / source.relative_to(root)


def _linked(source: Path, settings: BundleSettings) -> bytes:
    """Return the content of a file; in alert rules the links lead to the given hosts."""
    content = source.read_bytes()
    if source.suffix not in (".yml", ".yaml"):
        return content
    for key, shipped_at, url in (
        ("dashboard_url", "/d/", settings.grafana_url and f"{settings.grafana_url.rstrip('/')}/d/"),
        ("runbook_url", "runbooks/", settings.runbook_url and f"{settings.runbook_url.rstrip('/')}/"),
    ):
        if url:
            content = re.sub(
                rf"^( +{key}: ){shipped_at}".encode(),
                lambda match, url=url: match[1] + url.encode(),  # type: ignore[misc]  # bound by the default
                content,
                flags=re.MULTILINE,
            )
    return content
