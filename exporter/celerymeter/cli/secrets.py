"""Secrets from files: ``--broker-url-file`` beside ``--broker-url``, so that no process list shows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from celerymeter.errors import SettingsError

MAX_BYTES = 65536
_STRENGTH = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, ParameterSource.ENVIRONMENT)


def flag(name: str) -> str:
    """``broker_url`` as the flag that a person gives."""
    return "--" + name.replace("_", "-")


def read_secret(path: Path, *, name: str) -> str:
    """A secret file's text without the line break at its end; raises `SettingsError` naming the setting."""
    try:
        data = path.read_bytes()[: MAX_BYTES + 1]
        text = data.decode().rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{flag(name)}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{flag(name)}: {path} is not UTF-8 text") from error
    if not text.strip() or len(data) > MAX_BYTES:
        raise SettingsError(f"{flag(name)}: {path} is {'too long' if text.strip() else 'empty'}")
    return text


def one_of_each(ctx: click.Context) -> None:
    """Of a setting and its ``…_file`` keep the one from the stronger source; raises where both are as strong."""
    for name, file in _pairs(ctx.params):
        if ctx.params[name] is None or ctx.params[file] is None:
            continue
        plain, from_file = _strength(ctx, name), _strength(ctx, file)
        if plain == from_file:
            raise click.UsageError(f"{flag(name)} and {flag(file)}: give one of them", ctx)
        ctx.params[name if plain < from_file else file] = None


def read_secret_files(values: dict[str, Any]) -> dict[str, Any]:
    """The values with every ``X_file`` read into ``X``, for settings that come in both forms."""
    read = dict(values)
    for name, file in _pairs(values):
        path = read.pop(file)
        if path is not None:
            read[name] = read_secret(path, name=file)
    return read


def _pairs(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings in both forms; a file that may be repeated (a tuple) is its command's own business."""
    files = ((name, f"{name}_file") for name in list(values))
    return (pair for pair in files if not isinstance(values.get(pair[1], ()), tuple))


def _strength(ctx: click.Context, name: str) -> int:
    source = ctx.get_parameter_source(name)
    return _STRENGTH.index(source) if source in _STRENGTH else len(_STRENGTH)
