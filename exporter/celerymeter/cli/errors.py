"""How the command line complains: one line on stderr that names the setting, never a trace or a secret."""

from __future__ import annotations

import click
from click.core import ParameterSource


def complain(error: Exception, *, status: int = 2) -> int:
    """Print ``error`` as one line and return the exit status."""
    from celerymeter.log import redact

    ctx = getattr(error, "ctx", None)
    program = ctx.command_path if isinstance(ctx, click.Context) else "celerymeter"
    click.echo(redact(f"{program}: {_message(error)}"), err=True)
    return error.exit_code if isinstance(error, click.ClickException) else status


def _message(error: Exception) -> str:
    if isinstance(error, click.BadParameter) and error.param is not None and error.ctx is not None:
        what = "missing" if isinstance(error, click.MissingParameter) else _one_line(error.message)
        return f"{origin(error.param, error.ctx)}: {what}"
    if isinstance(error, click.UsageError):
        return f"{_one_line(error.format_message())} (see --help)"
    return _one_line(error.format_message() if isinstance(error, click.ClickException) else str(error))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def origin(param: click.Parameter, ctx: click.Context) -> str:
    """Where a value came from, as a person would look for it: the flag, the variable, or the key of the file."""
    name = param.name or ""
    source = ctx.get_parameter_source(name)
    if source is ParameterSource.ENVIRONMENT and isinstance(param.envvar, (list, tuple)):
        import os

        return next((variable for variable in param.envvar if os.environ.get(variable)), name)
    if source is ParameterSource.DEFAULT_MAP:
        return f"{name} in {ctx.meta.get('celerymeter.config')}"
    return max(param.opts, key=len) if isinstance(param, click.Option) else param.human_readable_name
