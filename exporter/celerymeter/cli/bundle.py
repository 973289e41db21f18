"""``celerymeter bundle export``: copy the alert rules and dashboards from the package into a directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from celerymeter.cli.command import settings_command
from celerymeter.demo.parts import shipped
from celerymeter.errors import CelerymeterError
from celerymeter.kinds import SWITCH
from celerymeter.options import setting

PARTS = ("alerts", "grafana/dashboards", "grafana/provisioning")


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """Settings of `bundle export`."""

    force: bool = setting(False, SWITCH, "Overwrite existing files that differ.")


@click.group("bundle")
def command() -> None:
    """Export the alert rules and dashboards that come with celerymeter."""


@settings_command("export", BundleSettings, section="bundle")
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
def export(settings: BundleSettings, target: Path) -> int:
    """Write alerts/ and grafana/ into DIR.

    If a file exists and differs, nothing is written, unless --force is given.
    """
    files = list(_files(target))
    changed = [(source, path) for source, path in files if not _same(source, path)]
    if kept := [path for _, path in changed if path.exists() and not settings.force]:
        raise CelerymeterError(
            f"{len(kept)} file(s) exist and differ, such as {kept[0]}; nothing was written: use --force to overwrite"
        )
    try:
        for source, path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)
    except OSError as error:
        raise CelerymeterError(f"cannot write {error.filename}: {error.strerror}") from error
    click.echo(f"{len(files)} files in {target}, {len(changed)} of them new or changed")
    return 0


command.add_command(export)


def _files(target: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each shipped file, and where it goes."""
    for part in PARTS:
        root = shipped(part)
        for source in sorted(root.rglob("*")):
            hidden = any(piece.startswith((".", "__")) for piece in source.relative_to(root).parts)
            if source.is_file() and not hidden:
                yield source, target / part / source.relative_to(root)


def _same(source: Path, target: Path) -> bool:
    return target.is_file() and source.read_bytes() == target.read_bytes()
