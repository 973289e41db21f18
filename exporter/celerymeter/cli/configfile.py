"""The ``--config`` file: YAML, a key an option, at the top level or in a section named for a command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celerymeter.errors import SettingsError

if TYPE_CHECKING:
    from celerymeter.cli.command import SettingsCommand

Commands = Callable[[], "list[SettingsCommand[Any]]"]


def key(name: str) -> str:
    """An option's name in the file: dots and dashes become ``_``."""
    return name.replace("-", "_").replace(".", "_")


def read(path: Path) -> dict[str, Any]:
    """The file's mapping, with `key` applied to the names in it; raises `SettingsError`."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"--config: {path} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise SettingsError(f"--config: {path}{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    return _mapping({} if content is None else content, where=str(path))


def _mapping(content: object, *, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise SettingsError(f"--config: {where}: accepted is a mapping of settings, not a {type(content).__name__}")
    found: dict[str, Any] = {}
    for name, value in content.items():
        if key(str(name)) in found:
            raise SettingsError(f"--config: {where}: {key(str(name))} is there twice")
        found[key(str(name))] = value
    return found


def defaults(path: Path, command: SettingsCommand[Any], *, commands: Commands) -> dict[str, Any]:
    """What the file says for ``command``, in click's own shapes; raises `SettingsError` for a key nobody knows."""
    content = read(path)
    section = _section(content, command.section, path)
    own = command.known()
    if any(name not in own for name in content):
        _check(content, commands(), path)
    _refuse_unknown(section, own, where=f"{path}, section {command.section}")
    given = {**{name: value for name, value in content.items() if name in own}, **section}
    return {name: _shape(own[name], value, path) for name, value in given.items() if value is not None}


def _section(content: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = content.get(key(name))
    return {} if found is None else _mapping(found, where=f"{path}, section {name}")


def _check(content: Mapping[str, Any], commands: Iterable[SettingsCommand[Any]], path: Path) -> None:
    """Refuse what no command knows, at the top level and in every section."""
    sections: dict[str, dict[str, click.Option]] = {}
    for command in commands:
        sections.setdefault(key(command.section), {}).update(command.known())
    anywhere = {name: option for keys in sections.values() for name, option in keys.items()}
    _refuse_unknown(content, {**anywhere, **dict.fromkeys(sections)}, where=str(path))
    for name in sections.keys() & content.keys():
        _refuse_unknown(_section(content, name, path), sections[name], where=f"{path}, section {name}")


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, object], *, where: str) -> None:
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "every option of a command is a key (see --help)"
            raise SettingsError(f"--config: {where}: unknown key {name}; {hint}")


def _shape(option: click.Option, value: Any, path: Path) -> Any:
    """A YAML value as click takes it: lists for repeated options, ``k=json`` for mappings, scalars else."""
    if option.multiple and isinstance(value, dict):
        return [f"{name}={json.dumps(item)}" for name, item in value.items()]
    if option.multiple:
        return [_scalar(option, item, path) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, list):
        return ",".join(str(_scalar(option, item, path)) for item in value)
    return _scalar(option, value, path)


def _scalar(option: click.Option, value: Any, path: Path) -> Any:
    if isinstance(value, (str, int, float)):
        return value
    raise SettingsError(f"{option.name} in {path}: accepted is {option.type.name}, not a {type(value).__name__}")
