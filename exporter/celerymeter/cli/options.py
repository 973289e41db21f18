"""Options that several commands share, and what becomes of their values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from celerymeter.cli.command import F, Values, setting
from celerymeter.cli.values import BROKER_URL, HTTP_URL, KEY_JSON
from celerymeter.errors import MissingSetting
from celerymeter.settings import BrokerSettings
from celerymeter.urls import without_password

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    D = TypeVar("D", bound=DataclassInstance)

FILE = click.Path(path_type=Path, dir_okay=False)
DIRECTORY = click.Path(path_type=Path, file_okay=False)
_SECRET_KEY = re.compile(r"pass|secret|token|credential", re.IGNORECASE)


def options(*declared: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, shown in this order."""

    def add(function: F) -> F:
        for option in reversed(declared):
            function = option(function)
        return function

    return add


def show_pairs(pairs: tuple[tuple[str, object], ...]) -> str:
    """``k=json`` pairs as they may be printed: values under names that smell of secrets are masked."""
    return " ".join(f"{key}={'***' if _SECRET_KEY.search(key) else _masked(value)}" for key, value in pairs)


def _masked(value: object) -> str:
    if isinstance(value, dict):
        return "{" + show_pairs(tuple(value.items())) + "}"
    return without_password(str(value))


broker_options = options(
    setting(
        "--broker-url",
        BROKER_URL,
        mask=without_password,
        help="The cluster's broker, as Celery's broker_url: redis://, rediss://, redis+socket://, amqp://, "
        "sentinel://HOST;sentinel://HOST. Prefer --broker-url-file where others can see the process list.",
    ),
    setting("--broker-url-file", FILE, help="File that holds the broker URL."),
    setting(
        "--transport-option",
        KEY_JSON,
        multiple=True,
        mask=show_pairs,
        help="One of Celery's broker_transport_options, as the workers have it; may be repeated. "
        "Example: global_keyprefix=prod_",
    ),
    setting(
        "--celery-setting",
        KEY_JSON,
        multiple=True,
        mask=show_pairs,
        help="A Celery setting that the cluster changed and that shows on the wire (event_exchange, "
        "control_exchange, …); may be repeated.",
    ),
)


def prometheus_url_option(text: str) -> Callable[[F], F]:
    """``--prometheus-url``, with a help text of the command's own."""
    return setting("--prometheus-url", HTTP_URL, mask=without_password, help=text)


def require(values: Values, name: str) -> Any:
    """A value that a command cannot do without; raises `MissingSetting` saying the three ways to give it."""
    if values.get(name) in (None, ""):
        flag, variable = "--" + name.replace("_", "-"), f"CELERYMETER_{name.upper()}"
        raise MissingSetting(f"{flag}: missing; give it, {variable}, or {name} in the --config file")
    return values[name]


def broker_settings(values: Values) -> BrokerSettings:
    """The values of `broker_options`."""
    return BrokerSettings(
        url=require(values, "broker_url"),
        transport_options=dict(values["transport_option"]),
        celery_settings=dict(values["celery_setting"]),
    )


def fields_of(cls: type[D], values: Values, *, prefix: str = "") -> dict[str, Any]:
    """The given values whose names, after ``prefix``, are fields of a dataclass; its defaults fill in the rest."""
    names = (field.name for field in dataclasses.fields(cls))
    return {name: values[prefix + name] for name in names if values.get(prefix + name) is not None}


def default_of(cls: type[D], name: str) -> Any:
    """A field's default, so that it is written down once."""
    return next(field.default for field in dataclasses.fields(cls) if field.name == name)
