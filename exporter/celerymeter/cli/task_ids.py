"""Ids of tasks as people paste them into a shell, or have them in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from celerymeter.errors import SettingsError

if TYPE_CHECKING:
    _ParamType = click.ParamType[str]
else:
    _ParamType = click.ParamType  # generic only in newer releases

MAX_LENGTH: Final = 255
MAX_BYTES: Final = 1024 * 1024
STDIN: Final = Path("-")


def read_id(text: str) -> str:
    """Return the id without blanks around it; raises `ValueError` that says why it is none."""
    found = text.strip()
    if found in ("", ".", ".."):
        raise ValueError(f"{found!r} is not an id" if found else "must not be empty")
    if len(found) > MAX_LENGTH:
        raise ValueError(f"has {len(found)} characters; an id has at most {MAX_LENGTH}")
    for place, character in enumerate(found, 1):
        if character == " " or not character.isprintable():
            raise ValueError(f"character {place} is {character!a}; an id has only visible characters")
    return found


def read_ids(path: Path) -> tuple[str, ...]:
    """Return the ids of a file, or of stdin for ``-``; raises `SettingsError` that names the line of a wrong one."""
    found = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                found.append(read_id(line))
            except ValueError as error:
                raise SettingsError(f"--ids-file: {path} line {number}: {error}") from error
    if not found:
        raise SettingsError(f"--ids-file: {path} has no ids")
    return tuple(found)


def _text(path: Path) -> str:
    try:
        if path == STDIN:
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise SettingsError(f"--ids-file: {path} is too long: it may have {MAX_BYTES // 1024} KiB")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"--ids-file: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"--ids-file: {path} is not UTF-8 text") from error


class _TaskId(_ParamType):
    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return read_id(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


TASK_ID: Final = _TaskId()
