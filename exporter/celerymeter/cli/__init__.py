"""The command ``celerymeter``: a group that imports a command only when it is called.

To add a command, add one module here, named for it (``check-config`` is ``check_config.py``), that holds a
`click.Command` or `click.Group` called ``command``, and its line in `COMMANDS`. In the module:

1. a frozen dataclass of what the command needs (or one from `celerymeter.settings`);
2. ``build(values) -> Settings``, which turns the options' values into it and raises `SettingsError`;
3. the function that runs it, ``(settings) -> int | None`` (the exit status), decorated with its options::

    @settings_command("token", build=token_settings)
    @setting("--ttl", DURATION, default=3600.0, help="How long the token is valid.")
    def command(settings: TokenSettings) -> int:
        "Mint a token for the control API."
        from celerymeter.control.auth import mint   # heavy imports in here, never at the top

`celerymeter.cli.command` makes each option an environment variable and a key of the ``--config`` file as well;
`celerymeter.cli.options` has those that several commands share, `celerymeter.cli.values` the kinds of values.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import click

from celerymeter import __version__
from celerymeter.cli.errors import complain
from celerymeter.errors import AmbiguousCluster, CelerymeterError, ReportRefused, SettingsError, UnsupportedTransport


@dataclass(frozen=True, slots=True)
class Entry:
    """What the group must know of a command before importing it."""

    help: str
    extra: str = ""
    """The extra of the distribution that the command needs, empty when none."""


COMMANDS = {
    "exporter": Entry("Read a Celery cluster's broker and publish /metrics."),
    "control": Entry("Serve the control API: monitoring, revocation, reports.", extra="control"),
    "doctor": Entry("Say what is wrong with a cluster's monitoring, and how to mend it."),
    "check-config": Entry("Check a configuration file and print the settings in effect."),
    "token": Entry("Mint a token for the control API.", extra="control"),
    "report": Entry("Write a performance report from Prometheus.", extra="report"),
    "revoke": Entry("Revoke tasks through the control API."),
    "audit": Entry("Show or verify the audit trail of the control API.", extra="control"),
    "bundle": Entry("Lay out the alert rules and dashboards that come with celerymeter."),
    "demo": Entry("Run the whole stack on this machine, with a workload.", extra="demo"),
}


class LazyGroup(click.Group):
    """Knows its commands by `COMMANDS`, and imports the module of the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands in the order of `COMMANDS`."""
        return [name for name in COMMANDS if find_spec(_module(name))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called so, or ``None``."""
        if cmd_name not in self.list_commands(ctx):
            return None
        found: click.Command = importlib.import_module(_module(cmd_name)).command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])


def _module(command: str) -> str:
    return f"{__name__}.{command.replace('-', '_')}"


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every option of a command is also a variable, CELERYMETER_<OPTION> or CELERYMETER_<COMMAND>_<OPTION>, and "
    "a key of the YAML file that --config names: a flag goes before the environment, the environment before the file.",
)
@click.version_option(__version__, prog_name="celerymeter")
@click.pass_context
def group(ctx: click.Context) -> None:
    """Monitor and operate Celery with Prometheus and Grafana."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 for a failure, 2 for a wrong setting."""
    try:
        status = group.main(arguments, prog_name="celerymeter", standalone_mode=False)
    except click.ClickException as error:
        return complain(error)
    except (SettingsError, UnsupportedTransport, AmbiguousCluster, ReportRefused) as error:
        return complain(error, status=2)
    except CelerymeterError as error:
        return complain(error, status=1)
    except ModuleNotFoundError as error:
        return _complain_of_missing(error, arguments)
    except (click.Abort, KeyboardInterrupt):
        return 130
    return status if isinstance(status, int) else 0


def _complain_of_missing(error: ModuleNotFoundError, arguments: Sequence[str] | None) -> int:
    called = next((word for word in arguments or sys.argv[1:] if word in COMMANDS), "")
    extra = COMMANDS[called].extra if called else ""
    if not extra or (error.name or "").startswith("celerymeter"):
        raise error
    return complain(
        SettingsError(f"`celerymeter {called}` needs {error.name}: pip install 'celerymeter[{extra}]'"), status=2
    )
