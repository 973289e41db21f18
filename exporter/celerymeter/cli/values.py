"""Kinds of values that options take; each names what it accepts when it refuses."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from celerymeter.errors import SettingsError
from celerymeter.urls import parse_listen

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic only in newer releases

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|s|m|h|d|w))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_WORD = re.compile(r"[A-Za-z_][\w.:/-]*")
MAX_BUCKETS = 14


def parse_duration(text: str) -> float:
    """Seconds of ``15s``, ``1h30m``, ``30d`` or a plain number; raises `ValueError`."""
    text = text.strip().lower()
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    seconds = float(text)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(text)
    return seconds


def show_duration(seconds: float) -> str:
    """``90.0`` as ``90s``, ``3600.0`` as ``1h``: the largest unit that divides it."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


class Kind(_ParamType):
    """A value's type; ``accepts`` ends every refusal, ``show`` writes a value the way it is given."""

    accepts = ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed value; a value that is parsed already (a default) passes."""
        try:
            return self.parse(value)
        except (ValueError, TypeError):
            self.refuse(value, param, ctx)

    def refuse(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> NoReturn:
        """Fail with the value and what would be accepted."""
        self.fail(f"{str(value)[:80]!r} is not {self.accepts}", param, ctx)

    def parse(self, value: Any) -> Any:
        """The value of its text (or of what YAML gave); raises `ValueError` or `TypeError`."""
        raise NotImplementedError

    def show(self, value: Any) -> str:
        """A parsed value as text."""
        return str(value)


class Duration(Kind):
    """Seconds, given with a unit or plain, of at least ``minimum``."""

    name = "duration"

    def __init__(self, minimum: float = 0.0) -> None:
        self.minimum = minimum
        least = f" of at least {show_duration(minimum)}" if minimum else ""
        self.accepts = f"a duration{least}: 15s, 1h30m, 30d or plain seconds"

    def parse(self, value: Any) -> float:
        """Seconds."""
        if isinstance(value, bool):
            raise TypeError(value)
        seconds = parse_duration(str(value))
        if seconds < self.minimum:
            raise ValueError(value)
        return seconds

    def show(self, value: Any) -> str:
        """With a unit."""
        return show_duration(value)


class Names(Kind):
    """Comma-separated names (a list in the file)."""

    name = "a,b,…"
    accepts = "a comma-separated list of names"

    def parse(self, value: Any) -> tuple[str, ...]:
        """The names, without blanks and repeats."""
        parts = value.split(",") if isinstance(value, str) else [str(part) for part in value]
        return tuple(dict.fromkeys(name for part in parts if (name := part.strip())))

    def show(self, value: Any) -> str:
        """Comma-separated."""
        return ",".join(value)


class Buckets(Kind):
    """Upper bounds of a histogram in seconds; +Inf is added by itself."""

    name = "s,s,…"
    accepts = f"1 to {MAX_BUCKETS} increasing numbers of seconds above 0, comma-separated (+Inf is added by itself)"

    def parse(self, value: Any) -> tuple[float, ...]:
        """The bounds."""
        parts: Iterable[object] = value.split(",") if isinstance(value, str) else value
        if isinstance(value, (int, float)):
            parts = [value]
        bounds = tuple(parse_duration(str(part)) for part in parts)
        rising = all(low < high for low, high in zip((0.0, *bounds), bounds, strict=False))
        if not rising or not 1 <= len(bounds) <= MAX_BUCKETS:
            raise ValueError(value)
        return bounds

    def show(self, value: Any) -> str:
        """Comma-separated."""
        return ",".join(f"{bound:g}" for bound in value)


class KeyJson(Kind):
    """``key=json``; the environment may hold one JSON object, or one pair a line. Values may be secrets."""

    name = "k=json"
    accepts = 'key=value with the value in JSON (a bare word is a string): socket_timeout=5, sep=":"'

    def parse(self, value: Any) -> tuple[str, object]:
        """The key and its value."""
        key, equals, text = str(value).partition("=")
        if not equals or not key.strip():
            raise ValueError
        return key.strip(), text if _WORD.fullmatch(text) and not _is_json(text) else json.loads(text)

    def refuse(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> NoReturn:
        """Fail without showing the value."""
        self.fail(f"{str(value).partition('=')[0][:80]!r}: not {self.accepts}", param, ctx)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """The pairs of an environment variable."""
        if not rv.lstrip().startswith("{"):
            return [line.strip() for line in rv.splitlines() if line.strip()]
        try:
            return [f"{key}={json.dumps(value)}" for key, value in json.loads(rv).items()]
        except ValueError:
            return [rv]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


class Listen(Kind):
    """``host:port`` to listen on."""

    name = "host:port"
    accepts = "an address to listen on: 127.0.0.1:9808, [::]:9808, :9808 (all interfaces); port 0 takes a free one"

    def parse(self, value: Any) -> str:
        """The text, once it is known to be an address."""
        try:
            parse_listen(str(value))
        except SettingsError as error:
            raise ValueError(value) from error
        return str(value)


class Url(Kind):
    """A URL of one of ``schemes`` (any when none are named). Never shown: it may hold a password."""

    name = "url"

    def __init__(self, *schemes: str, example: str) -> None:
        self.schemes = schemes
        self.accepts = f"a URL such as {example}"

    def parse(self, value: Any) -> str:
        """The URL, without blanks around it."""
        url = str(value).strip()
        scheme, found, rest = url.partition("://")
        if not found or not rest or (self.schemes and scheme.lower() not in self.schemes):
            raise ValueError
        return url

    def refuse(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> NoReturn:
        """Fail without showing more of the value than its scheme."""
        scheme, found, _ = str(value).partition("://")
        self.fail(f"{repr(scheme[:20] + '://…') if found else 'the value'} is not {self.accepts}", param, ctx)


class Count(click.IntRange):
    """A whole number with bounds."""

    name = "count"


DURATION = Duration()
INTERVAL = Duration(minimum=1.0)
NAMES = Names()
BUCKETS = Buckets()
KEY_JSON = KeyJson()
LISTEN = Listen()
BROKER_URL = Url(example="redis://:PASSWORD@HOST:6379/0, amqp://USER:PASSWORD@HOST:5672/VHOST or sentinel://HOST:26379")
HTTP_URL = Url("http", "https", example="http://127.0.0.1:9090")
COUNT = Count(min=1)
