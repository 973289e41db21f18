"""``celerymeter bundle export``: the alert rules and dashboards, out of the wheel and into a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from celerymeter.cli.command import Values, setting, settings_command
from celerymeter.demo.shipped import shipped
from celerymeter.errors import CelerymeterError

PARTS = ("alerts", "grafana/dashboards", "grafana/provisioning")


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """Where to, and whether over what is there."""

    target: Path
    force: bool


def bundle_settings(values: Values) -> BundleSettings:
    """The settings of the options."""
    return BundleSettings(target=values["target"], force=values["force"])


@click.group("bundle")
def command() -> None:
    """Lay out the alert rules and dashboards that come with celerymeter."""


@settings_command("export", section="bundle", build=bundle_settings)
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@setting("--force/--no-force", default=False, help="Write over files that are there and differ.")
def export(settings: BundleSettings) -> int:
    """Write alerts/ and grafana/ into DIR.

    A file that is there already and differs stops it before anything is written, unless --force is given.
    """
    files = list(_plan(settings.target))
    changed = [target for source, target in files if not _same(source, target)]
    if kept := [target for target in changed if target.exists() and not settings.force]:
        raise CelerymeterError(f"{kept[0]} differs (one of {len(kept)}): nothing was written; --force writes over it")
    for source, target in files:
        _copy(source, target)
    click.echo(f"{len(files)} files in {settings.target}, {len(changed)} of them new or changed")
    return 0


command.add_command(export)


def _plan(target: Path) -> Iterator[tuple[Path, Path]]:
    """Each shipped file, and where it goes."""
    for part in PARTS:
        root = shipped(part)
        for source in sorted(root.rglob("*")):
            hidden = any(piece.startswith((".", "__")) for piece in source.relative_to(root).parts)
            if source.is_file() and not hidden:
                yield source, target / part / source.relative_to(root)


def _same(source: Path, target: Path) -> bool:
    return target.is_file() and source.read_bytes() == target.read_bytes()


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise CelerymeterError(f"cannot write {target}: {error.strerror}") from error
