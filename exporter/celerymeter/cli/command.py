"""Commands that are a function of settings, whose options follow from the fields of the settings' dataclass.

Every option is also a variable and a key of the ``--config`` file. A flag goes before the environment, the environment
before the file; ``CELERYMETER_<COMMAND>_<OPTION>`` goes before ``CELERYMETER_<OPTION>``, and a command's own section
of the file before its top level.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click
from click.core import ParameterSource

from celerymeter import options
from celerymeter.cli import configfile
from celerymeter.kinds import FILE, SWITCH
from celerymeter.options import Option, key, options_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    S = TypeVar("S", bound=DataclassInstance)
else:
    S = TypeVar("S")

HELP = {"help_option_names": ["-h", "--help"]}
_STRENGTH = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, ParameterSource.ENVIRONMENT)
"""The sources of a value, the weakest first; the command line is stronger than all of them."""


class ClickOption(click.Option):
    """The option of a declared setting, or with ``file`` the one that reads its value from a file."""

    def __init__(self, declared: Option, *, section: str, file: bool = False, **attributes: Any) -> None:
        self.declared = declared
        self.file = file
        flag = f"{declared.flag}-file" if file else declared.flag
        name = key(flag.lstrip("-"))
        kind = FILE if file else declared.kind
        shown = None if file or declared.default is None else declared.show(declared.default) or None
        default = declared.default if kind is SWITCH else shown
        super().__init__(
            [f"{flag}/--no-{flag[2:]}" if kind is SWITCH else flag, name],
            type=kind,
            default=default,
            multiple=declared.repeated and (file or not declared.secret),
            help=declared.file if file else declared.help,
            hidden=declared.secret and not file,
            envvar=[f"CELERYMETER_{key(section).upper()}_{name.upper()}", f"CELERYMETER_{name.upper()}"],
            show_envvar=True,
            show_default=bool(default),
            **attributes,
        )

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Return what ``--help`` shows in brackets: of the two variables only the short one."""
        extra = super().get_help_extra(ctx)
        if "envvars" in extra:
            extra["envvars"] = extra["envvars"][-1:]
        return extra

    def show(self, value: Any) -> str:
        """Return a value as `check-config` prints it."""
        if self.file:
            return ", ".join(map(str, value)) if self.multiple else str(value)
        return self.declared.show(value)


class SettingsCommand(click.Command, Generic[S]):
    """A command that runs a function of its settings; a ``service`` runs until it is stopped and logs JSON.

    ``check`` refuses settings that can never work, by raising `SettingsError`; `check-config` calls it too.
    """

    def __init__(
        self,
        name: str,
        cls: type[S],
        run: Callable[..., int | None],
        *,
        section: str = "",
        service: bool = False,
        check: Callable[[S], object] | None = None,
    ) -> None:
        self.section = section or name
        self.service = service
        self.settings_class, self._run, self._check = cls, run, check
        arguments = run.__dict__.pop("__click_params__", [])
        super().__init__(
            name,
            help=run.__doc__,
            params=[*arguments, *_options_of(cls, self.section), *_common_options(self.section, service=service)],
            context_settings={**HELP, "max_content_width": 110},
        )

    def options(self) -> Iterator[ClickOption]:
        """Yield the options, without ``--help``."""
        return (param for param in self.params if isinstance(param, ClickOption))

    def by_key(self) -> dict[str, ClickOption]:
        """Return the options that the file may hold, by key."""
        return {option.name or "": option for option in self.options() if option.name != "config"}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, then choose between ``--broker-url`` and ``--broker-url-file`` and the like."""
        rest = super().parse_args(ctx, args)
        _one_of_each(ctx, [option.declared for option in self.options() if option.file])
        return rest

    def settings(self, ctx: click.Context) -> S:
        """Return the settings that the parsed values make; raises `SettingsError`."""
        settings = options.build(self.settings_class, ctx.params)
        if self._check is not None:
            self._check(settings)
        return settings

    def invoke(self, ctx: click.Context) -> int:
        """Build the settings, set up logging, run."""
        from celerymeter import log

        settings = self.settings(ctx)
        log.setup(format=ctx.params["log_format"], level=ctx.params["log_level"].upper())
        arguments = {param.name: ctx.params[param.name] for param in self.params if isinstance(param, click.Argument)}
        return self._run(settings, **arguments) or 0


def settings_command(
    name: str,
    cls: type[S],
    *,
    section: str = "",
    service: bool = False,
    check: Callable[[S], object] | None = None,
) -> Callable[[Callable[..., int | None]], SettingsCommand[S]]:
    """Make a `SettingsCommand` of a function.

    ``section`` is the name in variables and in the file where it is not the command's own (``audit`` for ``verify``).
    """
    return lambda run: SettingsCommand(name, cls, run, section=section, service=service, check=check)


def _options_of(cls: type[DataclassInstance], section: str) -> Iterator[ClickOption]:
    for declared in options_of(cls):
        if not declared.only_file:
            yield ClickOption(declared, section=section)
        if declared.file:
            yield ClickOption(declared, section=section, file=True)


def _common_options(section: str, *, service: bool) -> Iterator[ClickOption]:
    def common(flag: str, kind: Any, text: str, default: str | None = None, **attributes: Any) -> ClickOption:
        return ClickOption(Option(kind=kind, help=text, flag=flag, default=default), section=section, **attributes)

    text = "YAML file with settings: a key for each option, at the top level or in a section for the command."
    yield common("--config", FILE, text, is_eager=True, callback=_load_file)
    text = "Format of the log on stderr: json (one object a line) or text (for people)."
    yield common("--log-format", click.Choice(["json", "text"]), text, "json" if service else "text")
    levels = click.Choice(["debug", "info", "warning", "error"], case_sensitive=False)
    yield common("--log-level", levels, "The least severe log lines to write.", "info" if service else "warning")


def _load_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    command = ctx.command
    if path is not None and isinstance(command, SettingsCommand):
        own = command.by_key()
        ctx.default_map = configfile.defaults(path, command.section, own, lambda: sections(all_commands(ctx)))
        ctx.meta["celerymeter.config"] = path
    return path


def all_commands(ctx: click.Context) -> list[SettingsCommand[Any]]:
    """Import and return every command that has settings."""

    def walk(found: click.Command | None, parent: click.Context) -> Iterator[SettingsCommand[Any]]:
        if isinstance(found, SettingsCommand):
            yield found
        elif isinstance(found, click.Group):
            inside = click.Context(found, parent=parent)
            for name in found.list_commands(inside):
                yield from walk(found.get_command(inside, name), inside)

    root = ctx.find_root()
    return list(walk(root.command, root))


def sections(commands: list[SettingsCommand[Any]]) -> dict[str, dict[str, click.Option]]:
    """Return the options of commands that the file may hold, by section and key."""
    found: dict[str, dict[str, click.Option]] = {}
    for command in commands:
        found.setdefault(command.section, {}).update(command.by_key())
    return found


def _one_of_each(ctx: click.Context, from_files: list[Option]) -> None:
    """Of an option and its ``…-file`` keep the one from the stronger source; refuse both from the same source."""
    for declared in from_files:
        name, file = declared.key, f"{declared.key}_file"
        if declared.repeated or declared.only_file or ctx.params[name] is None or ctx.params[file] is None:
            continue
        plain, from_file = _strength(ctx, name), _strength(ctx, file)
        if plain == from_file:
            raise click.UsageError(f"give {declared.flag} or {declared.flag}-file, not both", ctx)
        ctx.params[name if plain < from_file else file] = None


def _strength(ctx: click.Context, name: str) -> int:
    source = ctx.get_parameter_source(name)
    return _STRENGTH.index(source) if source in _STRENGTH else len(_STRENGTH)


def origin(param: click.Parameter, ctx: click.Context) -> str:
    """Return where a value came from: the flag, the variable, or the key and its file."""
    name = param.name or ""
    source = ctx.get_parameter_source(name)
    if source is ParameterSource.ENVIRONMENT and isinstance(param.envvar, (list, tuple)):
        return next((variable for variable in param.envvar if os.environ.get(variable)), name)
    if source is ParameterSource.DEFAULT_MAP:
        return f"{name} in {ctx.meta.get('celerymeter.config')}"
    return max(param.opts, key=len) if isinstance(param, click.Option) else param.human_readable_name
