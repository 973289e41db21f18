"""The command ``celerymeter``: a group that imports a command only when it is called.

To add a command, add a module here that is named for it (``check-config`` is ``check_config.py``) and holds a
`click.Command` or `click.Group` called ``command``, and add its line to `COMMANDS`. In the module:

1. a frozen dataclass of the command's settings, each field with its option (see `celerymeter.options`);
2. the function that runs it, ``(settings) -> int | None`` (the exit status)::

    @settings_command("token", TokenSettings)
    def command(settings: TokenSettings) -> int:
        "Create a token for the control API."
        from celerymeter.control.keys import mint   # heavy imports in here, never at the top
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import click

from celerymeter import __version__
from celerymeter.cli import output
from celerymeter.cli.command import HELP, origin
from celerymeter.errors import CelerymeterError


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """A command as the group lists it before importing its module."""

    help: str
    extra: str = ""
    """The extra of the distribution that the command needs, if any."""


COMMANDS = {
    "exporter": CommandEntry("Read a Celery cluster's broker and publish /metrics."),
    "control": CommandEntry("Serve the control API: monitoring, revocation, reports.", extra="control"),
    "doctor": CommandEntry("Find what is wrong with the monitoring of a cluster, and say how to fix it."),
    "check-config": CommandEntry("Check a configuration file and print the settings in effect."),
    "token": CommandEntry("Create a token for the control API.", extra="control"),
    "report": CommandEntry("Write a performance report from Prometheus.", extra="report"),
    "capacity": CommandEntry("Say how many slots a queue needed to keep its wait target."),
    "task": CommandEntry("Say where a task is, and why it has not run."),
    "revoke": CommandEntry("Revoke tasks through the control API."),
    "audit": CommandEntry("Show or verify the audit trail of the control API.", extra="control"),
    "bundle": CommandEntry("Export the alert rules and dashboards, or assign alerts to teams."),
    "demo": CommandEntry("Run the whole stack on this machine, with tasks to watch.", extra="demo"),
}


class LazyGroup(click.Group):
    """A group that lists `COMMANDS` and imports only the module of the command that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands in the order of `COMMANDS`."""
        return [name for name in COMMANDS if find_spec(_module(name))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, or ``None``."""
        if cmd_name not in self.list_commands(ctx):
            return None
        found: click.Command = importlib.import_module(_module(cmd_name)).command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])


def _module(command: str) -> str:
    return f"{__name__}.{command.replace('-', '_')}"


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings=HELP,
    epilog="Every option is also an environment variable, CELERYMETER_<OPTION> or CELERYMETER_<COMMAND>_<OPTION>, and "
    "a key of the YAML file given by --config. A flag overrides the environment; the environment overrides the file.",
)
@click.version_option(__version__, prog_name="celerymeter")
@click.pass_context
def group(ctx: click.Context) -> None:
    """Monitor and operate Celery with Prometheus and Grafana."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 for success, 1 for a failure, 2 for a wrong setting."""
    output.prepare()
    try:
        status = group.main(arguments, prog_name="celerymeter", standalone_mode=False)
        output.flush()
    except click.ClickException as error:
        return _complain(_click_message(error), error.exit_code, ctx=getattr(error, "ctx", None))
    except CelerymeterError as error:
        return _complain(str(error), error.exit_status)
    except ModuleNotFoundError as error:
        return _complain(_missing_extra(error, arguments), 2)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except OSError as error:
        if error.errno not in output.UNWRITABLE:
            raise
        output.drop()
        return _complain(f"cannot write: {error.strerror}", 1)
    return status if isinstance(status, int) else 0


def _complain(message: str, status: int, *, ctx: click.Context | None = None) -> int:
    """Print one line on stderr, without secrets, and return the exit status."""
    from celerymeter.escaping import terminal
    from celerymeter.log import redact

    program = ctx.command_path if ctx else "celerymeter"
    click.echo(terminal(redact(f"{program}: {' '.join(message.split())}")), err=True)
    return status


def _click_message(error: click.ClickException) -> str:
    if isinstance(error, click.BadParameter) and error.param is not None and error.ctx is not None:
        what = "missing" if isinstance(error, click.MissingParameter) else error.message
        return f"{origin(error.param, error.ctx)}: {what}"
    return error.format_message() + (" See --help." if isinstance(error, click.UsageError) else "")


def _missing_extra(error: ModuleNotFoundError, arguments: Sequence[str] | None) -> str:
    """Return which extra to install; raises ``error`` again when none would help."""
    called = next((word for word in arguments or sys.argv[1:] if word in COMMANDS), "")
    extra = COMMANDS[called].extra if called else ""
    if not extra or (error.name or "").startswith("celerymeter"):
        raise error
    return f"`celerymeter {called}` needs {error.name}: pip install 'celerymeter[{extra}]'"
