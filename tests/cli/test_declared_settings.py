"""Every field of a settings dataclass is an option, a variable, a key of the file, and shown unless it is a secret."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.core import ParameterSource
from tests.control.access import control_settings

import celerymeter
from celerymeter.cli import group
from celerymeter.cli.command import ClickOption, SettingsCommand, all_commands
from celerymeter.control.settings import ControlSettings
from celerymeter.kinds import BROKER_URL, CIDR, DURATION, HEADER, TEXT, Kind
from celerymeter.options import Option, describe, described_as, option, options_of, secret, setting

SAMPLES = {
    "percent": "99.5",
    "boolean": "true",
    "text": "words",
    "count": "7",
    "duration": "7s",
    "host:port": "127.0.0.1:7",
    "url": "http://127.0.0.1:7",
    "k=json": "key=7",
    "k=v": "name=value",
    "cidr": "10.0.0.0/8",
    "path": "/here",
    "origin": "null",
    "a,b,…": "a,b",
    "s,s,…": "1,7",
    "name=port,…": "auto",
    "secret": "hush",
}
CASES = [
    pytest.param(command, given, id=f"{command.section}-{command.name}-{name}")
    for command in all_commands(click.Context(group))
    for name, given in command.by_key().items()
]


def sample(given: ClickOption, folder: Path) -> str:
    """Return a value that the option accepts."""
    if isinstance(given.type, click.Choice):
        return str(given.type.choices[-1])
    if given.type.name in ("file", "directory"):
        (folder / "slack_url").write_text("https://hooks.slack.com/services/x")
        return str(folder / "slack_url" if given.type.name == "file" else folder)
    return SAMPLES[given.type.name]


def source(command: SettingsCommand[Any], words: list[str], name: str) -> ParameterSource | None:
    """Return where a command takes a value from."""
    arguments = ["DIR" for param in command.params if isinstance(param, click.Argument)]
    with command.make_context(command.name, [*words, *arguments], parent=click.Context(group)) as ctx:
        return ctx.get_parameter_source(name)


@pytest.mark.parametrize(("command", "given"), CASES)
def test_an_option_is_also_two_variables_and_a_key(
    command: SettingsCommand[Any], given: ClickOption, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are ``CELERYMETER_X``, ``CELERYMETER_<COMMAND>_X``, and ``x`` in the file."""
    name, value = str(given.name), sample(given, tmp_path)
    config = tmp_path / "celerymeter.yml"
    config.write_text(yaml.safe_dump({name: value}))
    assert source(command, ["--config", str(config)], name) is ParameterSource.DEFAULT_MAP
    for variable in (f"CELERYMETER_{name.upper()}", f"CELERYMETER_{command.section.upper()}_{name.upper()}"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            assert source(command, [], name) is ParameterSource.ENVIRONMENT


@pytest.mark.parametrize("command", all_commands(click.Context(group)), ids=lambda command: str(command.name))
def test_every_field_has_its_option(command: SettingsCommand[Any]) -> None:
    """This holds for each settings class and for the classes in it."""
    declared = list(options_of(command.settings_class))
    assert {given.declared.key for given in command.options()} >= {one.key for one in declared}
    own = {item.name for item in fields(command.settings_class) if isinstance(item.metadata["celerymeter"], Option)}
    assert own <= {one.field for one in declared}


@pytest.mark.parametrize("command", all_commands(click.Context(group)), ids=lambda command: str(command.name))
def test_nothing_that_may_hold_a_secret_is_printed(command: SettingsCommand[Any]) -> None:
    """A log may contain a settings object, so ``repr`` leaves out secrets, URLs and pairs."""
    printed = {item.name for item in fields(command.settings_class) if item.repr}
    own = [item.metadata["celerymeter"] for item in fields(command.settings_class) if item.name in printed]
    kinds = [declared.kind for declared in own if isinstance(declared, Option)]
    assert [
        kind.name for kind in kinds if isinstance(kind, Kind) and (kind.secret or kind.pairs or kind.name == "url")
    ] == []


@pytest.mark.parametrize("command", all_commands(click.Context(group)), ids=lambda command: str(command.name))
def test_every_setting_is_used(command: SettingsCommand[Any]) -> None:
    """Some module reads the field: an option that changes nothing misleads."""
    read = package_source()
    unused = [one.field for one in options_of(command.settings_class) if not re.search(rf"\.{one.field}\b", read)]
    file = inspect.getsourcefile(command.settings_class)
    assert not unused, f"no module reads {', '.join(unused)}: use it, or remove it from {file}"


@cache
def package_source() -> str:
    """Return the text of every module of the package."""
    return "\n".join(path.read_text() for path in Path(celerymeter.__file__).parent.rglob("*.py"))


def test_a_field_without_an_option_names_the_file_to_edit() -> None:
    """The error says where to declare it."""

    @dataclass(frozen=True)
    class Forgetful:
        declared: str = setting("", TEXT, "Has an option.")
        forgotten: str = ""

    with pytest.raises(TypeError, match=r"Forgetful\.forgotten has no option: .*tests/cli/test_declared_settings\.py"):
        list(options_of(Forgetful))


@pytest.mark.parametrize("declared", [*options_of(ControlSettings)], ids=lambda one: one.key)
def test_the_status_shows_every_setting_but_secrets(declared: Option) -> None:
    """`GET /system/status` describes the settings."""
    shown = described_as(declared) in describe(control_settings())
    assert shown != declared.secret


def test_a_description_is_plain_json_without_secrets() -> None:
    """Durations in seconds, several values as one text, passwords and header values masked."""

    @dataclass(frozen=True)
    class Example:
        url: str = field(metadata=option(BROKER_URL, "An address."))
        headers: dict[str, str] = setting({}, HEADER, "Headers.", flag="--header", repeated=True)
        networks: tuple[Any, ...] = setting((), CIDR, "Networks.", flag="--network", repeated=True)
        pause: float = setting(90.0, DURATION, "A pause.")
        key: bytes = secret(b"hush", "A key.")

    networks = (CIDR.parse("10.0.0.0/8"), CIDR.parse("::1"))
    example = Example("redis://:hush@h/0", {"Authorization": "hush"}, networks)
    assert json.loads(json.dumps(describe(example))) == {
        "url": "redis://:***@h/0",
        "headers": "Authorization=***",
        "networks": "10.0.0.0/8, ::1/128",
        "pause_seconds": 90.0,
    }
