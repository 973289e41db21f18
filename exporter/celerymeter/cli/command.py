"""Commands whose every option is also an environment variable and a key of the ``--config`` file.

A flag goes before the environment, the environment before the file; ``CELERYMETER_<COMMAND>_<OPTION>`` goes before
``CELERYMETER_<OPTION>``, and a command's own section of the file before its top level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from celerymeter.cli import configfile
from celerymeter.cli.secrets import one_of_each, read_secret_files

S = TypeVar("S")
F = TypeVar("F", bound=Callable[..., Any])
Values = Mapping[str, Any]
"""The options' values by name, as click has parsed them: the edge, where each becomes a field of a dataclass."""

_OWN = frozenset({"config", "log_format", "log_level", "help"})


class Setting(click.Option):
    """An option of a command; ``mask`` turns its value into what may be printed."""

    def __init__(self, *declarations: Any, mask: Callable[[Any], str] | None = None, **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self.mask = mask

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What ``--help`` says in brackets: of the two variables the short one."""
        extra = super().get_help_extra(ctx)
        if "envvars" in extra:
            extra["envvars"] = extra["envvars"][-1:]
        return extra

    def show(self, value: Any) -> str:
        """A value as `check-config` prints it."""
        if self.mask is not None:
            return self.mask(value)
        if isinstance(value, bool):
            return str(value).lower()
        return str(self.type.show(value)) if hasattr(self.type, "show") else str(value)


def setting(flag: str, kind: Any = None, *, default: Any = None, **attributes: Any) -> Callable[[F], F]:
    """Declare an option: ``--web.config.file`` is ``web_config_file`` in the file and among the values.

    ``default`` is a parsed value (a field's default), shown in ``--help`` the way a person would give it.
    """
    name = configfile.key(flag.partition("/")[0].lstrip("-"))
    if default is not None and hasattr(kind, "show"):
        default = kind.show(default) or None
    attributes.setdefault("show_default", default is not None and default is not False)
    return click.option(flag, name, cls=Setting, type=kind, default=default, show_envvar=True, **attributes)


class SettingsCommand(click.Command, Generic[S]):
    """A command that is a function of settings: ``build`` makes them of the options, ``run`` does the work."""

    def __init__(
        self,
        name: str,
        *,
        section: str,
        build: Callable[[Values], S],
        run: Callable[[S], int | None],
        service: bool = False,
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        self.service = service
        self.section = section
        self.build = build
        self.run = run
        for option in self.settings():
            option.envvar = [
                f"CELERYMETER_{part}_{_variable(option)}".replace("__", "_") for part in (_upper(section), "")
            ]

    def settings(self) -> Iterator[click.Option]:
        """The options, without ``--help``."""
        return (param for param in self.params if isinstance(param, click.Option))

    def known(self) -> dict[str, click.Option]:
        """What may stand in the file."""
        return {option.name or "": option for option in self.settings() if option.name != "config"}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, then settle pairs like ``--broker-url`` and ``--broker-url-file``."""
        rest = super().parse_args(ctx, args)
        one_of_each(ctx)
        return rest

    def values(self, ctx: click.Context) -> dict[str, Any]:
        """The values for `build`, with secret files read."""
        return read_secret_files({name: value for name, value in ctx.params.items() if name not in _OWN})

    def invoke(self, ctx: click.Context) -> int:
        """Build the settings, set up logging, run."""
        from celerymeter import log

        settings = self.build(self.values(ctx))
        log.setup(format=ctx.params["log_format"], level=ctx.params["log_level"])
        return self.run(settings) or 0


def _variable(option: click.Option) -> str:
    return (option.name or "").upper()


def _upper(section: str) -> str:
    return section.upper().replace("-", "_")


def settings_command(
    name: str, *, build: Callable[[Values], S], section: str = "", logs: str = "text"
) -> Callable[[Callable[[S], int | None]], SettingsCommand[S]]:
    """Make a command of a function of its settings; services log in ``json``, tools in ``text``.

    ``section`` is the name in variables and in the file where it is not the command's own (``audit`` for ``verify``).
    """

    def make(run: Callable[[S], int | None]) -> SettingsCommand[S]:
        for add in (_log_level("INFO" if logs == "json" else "WARNING"), _log_format(logs), _config()):
            run = add(run)
        params = list(reversed(run.__dict__.pop("__click_params__", [])))
        own = [param for param in params if param.name in _OWN]
        return SettingsCommand(
            name,
            section=section or name,
            build=build,
            run=run,
            service=logs == "json",
            help=run.__doc__,
            params=[*(param for param in params if param.name not in _OWN), *own],
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        )

    return make


def _config() -> Callable[[F], F]:
    return setting(
        "--config",
        click.Path(path_type=Path, dir_okay=False),
        is_eager=True,
        expose_value=True,
        callback=_load,
        help="YAML file of settings: a key an option, at its top level or in a section named for the command.",
    )


def _load(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and isinstance(ctx.command, SettingsCommand):
        ctx.default_map = configfile.defaults(path, ctx.command, commands=all_commands(ctx))
        ctx.meta["celerymeter.config"] = path
    return path


def all_commands(ctx: click.Context) -> Callable[[], list[SettingsCommand[Any]]]:
    """Every command there is, found when asked: a file may hold settings of them all."""

    def walk(found: click.Command | None, parent: click.Context) -> Iterator[SettingsCommand[Any]]:
        if isinstance(found, SettingsCommand):
            yield found
        elif isinstance(found, click.Group):
            inside = click.Context(found, parent=parent)
            for name in found.list_commands(inside):
                yield from walk(found.get_command(inside, name), inside)

    return lambda: list(walk(ctx.find_root().command, ctx.find_root()))


def _log_format(default: str) -> Callable[[F], F]:
    return setting(
        "--log-format",
        click.Choice(["json", "text"]),
        default=default,
        help="Log lines on stderr: one JSON object each, or for people.",
    )


def _log_level(default: str) -> Callable[[F], F]:
    levels = click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False)
    return setting("--log-level", levels, default=default, help="The least severe log lines to write.")
