"""The ``--config`` file: YAML, a key for each option, at the top level or in a section named for a command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from celerymeter import escaping
from celerymeter.errors import SettingsError
from celerymeter.options import key

Keys = Mapping[str, click.Option]
"""The options of a command, or of several, by their key."""


def load(path: Path, *, prefix: str = "") -> object:
    """Return what a YAML file holds; raises `SettingsError` with a message that starts with ``prefix``."""
    from celerymeter.yaml_text import MAX_BYTES, NotYaml, parse

    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise SettingsError(f"{prefix}{path} is too long: it may have {MAX_BYTES // 1024} KiB")
        return parse(text.decode())
    except OSError as error:
        raise SettingsError(f"{prefix}cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{prefix}{path} is not UTF-8 text") from error
    except NotYaml as error:
        where = f" line {error.line}" if error.line else ""
        raise SettingsError(f"{prefix}{path}{where}: not YAML: {error}") from error


def read(path: Path) -> dict[str, Any]:
    """Return the content of the file, with `key` applied to its names; raises `SettingsError`."""
    content = load(path, prefix="--config: ")
    return _mapping({} if content is None else content, where=str(path))


def _mapping(content: object, *, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise SettingsError(f"--config: {where}: must be a mapping of settings (found: {type(content).__name__})")
    found: dict[str, Any] = {}
    for name, value in content.items():
        if key(str(name)) in found:
            raise SettingsError(f"--config: {where}: {key(str(name))} is given twice")
        found[key(str(name))] = value
    return found


def defaults(path: Path, section: str, own: Keys, sections: Callable[[], Mapping[str, Keys]]) -> dict[str, Any]:
    """Return what the file says for a command, as click takes it; raises `SettingsError` for an unknown key.

    ``section`` and ``own`` are the command's section and keys; ``sections`` returns those of all commands, and is
    called only where the file has keys of other commands, since it imports them all.
    """
    content = read(path)
    if any(name not in own for name in content):
        _check(content, sections(), path)
    inside = _section(content, section, path) if is_section(content, section, sections) else {}
    _refuse_unknown(inside, own, where=f"{path}, section {section}")
    given = {**{name: value for name, value in content.items() if name in own}, **inside}
    return {name: _shape(own[name], value, path) for name, value in given.items() if value is not None}


def is_section(content: Mapping[str, Any], name: str, sections: Callable[[], Mapping[str, Keys]]) -> bool:
    """Return whether the file has a section of this name, not an option: `token` is both."""
    if key(name) not in content or isinstance(content[key(name)], dict):
        return key(name) in content
    return not any(key(name) in keys for keys in sections().values())


def _section(content: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = content.get(key(name))
    return {} if found is None else _mapping(found, where=f"{path}, section {name}")


def _check(content: Mapping[str, Any], sections: Mapping[str, Keys], path: Path) -> None:
    """Refuse what no command knows, at the top level and in every section."""
    everywhere = {name for keys in sections.values() for name in keys}
    by_key = {key(name): keys for name, keys in sections.items()}
    _refuse_unknown(content, dict.fromkeys([*everywhere, *by_key]), where=str(path))
    for name in [name for name in by_key if is_section(content, name, lambda: sections)]:
        _refuse_unknown(_section(content, name, path), by_key[name], where=f"{path}, section {name}")


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, object], *, where: str) -> None:
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "the keys are the options of the commands (see --help)"
            raise SettingsError(f"--config: {where}: unknown key {escaping.name(name)}; {hint}")


def _shape(option: click.Option, value: Any, path: Path) -> Any:
    """Return a YAML value as click takes it: a list for a repeated option, ``k=json`` for an entry of a mapping."""
    if option.multiple and isinstance(value, dict):
        try:
            return [f"{name}={json.dumps(item)}" for name, item in value.items()]
        except TypeError as error:  # a date, a set, bytes
            raise SettingsError(f"{option.name} in {path}: has a value that JSON does not know") from error
    if option.multiple:
        return [_scalar(option, item, path) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, list):
        return ",".join(str(_scalar(option, item, path)) for item in value)
    return _scalar(option, value, path)


def _scalar(option: click.Option, value: Any, path: Path) -> Any:
    from celerymeter.yaml_text import Rewritten

    number = option.type is click.BOOL or getattr(option.type, "number", False)
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and (number or not isinstance(value, (bool, Rewritten))):
        # click takes the number of a switch for text, of which it has none.
        return value if isinstance(value, bool) or option.type is not click.BOOL else str(value)[:80]
    if isinstance(value, (int, float, date)):
        read_as = "true or false" if isinstance(value, bool) else "a date" if isinstance(value, date) else "a number"
        raise SettingsError(f"{option.name} in {path}: put the value in quotes; as it stands, YAML reads {read_as}")
    raise SettingsError(f"{option.name} in {path}: must be a single value (found: {type(value).__name__})")
