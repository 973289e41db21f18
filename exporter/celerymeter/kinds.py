"""The kinds of values that settings take: each reads a value, says what it accepts, and shows it without secrets."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celerymeter.errors import SettingsError
from celerymeter.urls import parse_listen, without_password

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic only in newer releases

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|s|m|h|d|w))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_WORD = re.compile(r"[A-Za-z_][\w.:/-]*")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*[=:]\s*([^\r\n]+)")
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_ORIGIN = re.compile(r"null|\*|https?://[A-Za-z0-9.-]+(:\d+)?|https?://\[[0-9a-fA-F:]+\](:\d+)?")
_SECRET_KEY = re.compile(r"pass|secret|token|credential", re.IGNORECASE)
MAX_BUCKETS = 14


def parse_duration(text: str) -> float:
    """Return the seconds of ``15s``, ``1h30m``, ``30d`` or a plain number; raises `ValueError`."""
    text = text.strip().lower()
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    seconds = float(text)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(text)
    return seconds


def show_duration(seconds: float) -> str:
    """Write ``90.0`` as ``90s`` and ``3600.0`` as ``1h``: in the largest unit that divides it."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


class Kind(_ParamType):
    """A type of value. ``accepts`` ends every refusal; values of a ``secret`` kind are never shown."""

    accepts = ""
    secret = False
    pairs = False
    """True where a value is a pair: several of them make a mapping."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed value; a default that is parsed already stays as it is."""
        try:
            return self.parse(value)
        except (ValueError, TypeError):
            self.fail(f"{self.quote(value)} is not {self.accepts}", param, ctx)

    def parse(self, value: Any) -> Any:
        """Return the value of a text, or of a YAML value; raises `ValueError` or `TypeError`."""
        raise NotImplementedError

    def quote(self, value: object) -> str:
        """Return as much of a refused value as a message may hold."""
        return repr(str(value)[:80])

    def show(self, value: Any) -> str:
        """Return a parsed value as text, without secrets."""
        return str(value)


class Duration(Kind):
    """Seconds, given with a unit or as a number, and at least ``minimum``."""

    name = "duration"

    def __init__(self, minimum: float = 0.0) -> None:
        self.minimum = minimum
        least = f" of at least {show_duration(minimum)}" if minimum else ""
        self.accepts = f"a duration{least}, such as 15s, 1h30m, 30d or a number of seconds"

    def parse(self, value: Any) -> float:
        """Return the seconds."""
        if isinstance(value, bool):
            raise TypeError(value)
        seconds = parse_duration(str(value))
        if seconds < self.minimum:
            raise ValueError(value)
        return seconds

    def show(self, value: Any) -> str:
        """Return the duration with its unit."""
        return show_duration(value)


class Names(Kind):
    """Names, separated by commas; a list in the file."""

    name = "a,b,…"
    accepts = "a list of names, separated by commas"

    def parse(self, value: Any) -> tuple[str, ...]:
        """Return the names without blanks and repetitions."""
        parts = value.split(",") if isinstance(value, str) else [str(part) for part in value]
        return tuple(dict.fromkeys(name for part in parts if (name := part.strip())))

    def show(self, value: Any) -> str:
        """Return the names, separated by commas."""
        return ",".join(value)


class Buckets(Kind):
    """The upper bounds of a histogram's buckets in seconds, without +Inf."""

    name = "s,s,…"
    accepts = f"1 to {MAX_BUCKETS} increasing numbers of seconds above 0, separated by commas (+Inf is always added)"

    def parse(self, value: Any) -> tuple[float, ...]:
        """Return the bounds."""
        parts: Iterable[object] = value.split(",") if isinstance(value, str) else value
        if isinstance(value, (int, float)):
            parts = [value]
        bounds = tuple(parse_duration(str(part)) for part in parts)
        rising = all(low < high for low, high in zip((0.0, *bounds), bounds, strict=False))
        if not rising or not 1 <= len(bounds) <= MAX_BUCKETS:
            raise ValueError(value)
        return bounds

    def show(self, value: Any) -> str:
        """Return the bounds, separated by commas."""
        return ",".join(f"{bound:g}" for bound in value)


class KeyJson(Kind):
    """``key=json``, possibly a secret. A variable of the environment holds one JSON object, or one pair a line."""

    name = "k=json"
    accepts = 'key=value, where the value is JSON or a bare word, such as socket_timeout=5 or sep=":"'
    pairs = True

    def parse(self, value: Any) -> tuple[str, object]:
        """Return the key and its value."""
        key, equals, text = str(value).partition("=")
        if not equals or not key.strip():
            raise ValueError
        return key.strip(), text if _WORD.fullmatch(text) and not _is_json(text) else json.loads(text)

    def quote(self, value: object) -> str:
        """Return the key without its value."""
        return repr(str(value).partition("=")[0][:80])

    def show(self, value: Any) -> str:
        """Return ``key=value``; a value whose key sounds secret is masked, at every depth."""
        key, item = value
        if _SECRET_KEY.search(key):
            return f"{key}=***"
        if isinstance(item, dict):
            return f"{key}={{{' '.join(map(self.show, item.items()))}}}"
        return f"{key}={without_password(str(item))}"

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Return the pairs that a variable holds."""
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


class Header(Kind):
    """An HTTP header, ``Name=value`` or ``Name: value``, whose value may be a secret."""

    name = "k=v"
    accepts = "a header, such as X-Scope-OrgID=TENANT or Authorization=Bearer TOKEN"
    pairs = True

    def parse(self, value: Any) -> tuple[str, str]:
        """Return name and value."""
        if not (found := _HEADER.fullmatch(str(value).strip())):
            raise ValueError
        return found[1], found[2]

    def quote(self, value: object) -> str:  # noqa: ARG002 - it may be a secret
        """Return nothing of the value."""
        return "the value"

    def show(self, value: Any) -> str:
        """Return the name, with the value masked."""
        return f"{value[0]}=***"


class Listen(Kind):
    """``host:port`` to listen on."""

    name = "host:port"
    accepts = "an address to listen on, such as 127.0.0.1:9808, [::]:9808 or :9808 (all interfaces)"

    def parse(self, value: Any) -> str:
        """Return the address as given, once it is known to be one."""
        try:
            parse_listen(str(value))
        except SettingsError as error:
            raise ValueError(value) from error
        return str(value)


class Url(Kind):
    """A URL of one of ``schemes``, or of any when none are named. Its password is never shown."""

    name = "url"

    def __init__(self, *schemes: str, example: str) -> None:
        self.schemes = schemes
        self.accepts = f"a URL such as {example}"

    def parse(self, value: Any) -> str:
        """Return the URL without blanks around it."""
        url = str(value).strip()
        scheme, found, rest = url.partition("://")
        if not found or not rest or (self.schemes and scheme.lower() not in self.schemes):
            raise ValueError
        return url

    def quote(self, value: object) -> str:
        """Return only the scheme."""
        scheme, found, _ = str(value).partition("://")
        return repr(scheme[:20] + "://…") if found else "the value"

    def show(self, value: Any) -> str:
        """Return the URL without its password."""
        return without_password(value)


class Secret(Kind):
    """A key, as bytes."""

    name = "secret"
    accepts = "a secret"
    secret = True

    def parse(self, value: Any) -> bytes:
        """Return the bytes of the text."""
        return value if isinstance(value, bytes) else str(value).encode()

    def show(self, value: Any) -> str:  # noqa: ARG002 - on purpose
        """Return nothing of it."""
        return "***"


class SecretText(Secret):
    """A token, as text."""

    def parse(self, value: Any) -> Any:
        """Return the text."""
        return str(value)


class Cidr(Kind):
    """A network, or a single address."""

    name = "cidr"
    accepts = "a network or an address, such as 10.0.0.0/8, fd00::/8 or 127.0.0.1"

    def parse(self, value: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """Return the network."""
        return ipaddress.ip_network(str(value).strip(), strict=False)


class BasePath(Kind):
    """The start of a URL's path, without a slash at its end; the root is empty."""

    name = "path"
    accepts = "a path such as /celery-admin, or / for the root"

    def parse(self, value: Any) -> str:
        """Return the path."""
        path = str(value).strip().rstrip("/")
        if not _BASE_PATH.fullmatch(path):
            raise ValueError(value)
        return path


class Origin(Kind):
    """An origin as a browser sends it."""

    name = "origin"
    accepts = "an origin, such as https://grafana.example.com, null (a page opened from a file) or * (any)"

    def parse(self, value: Any) -> str:
        """Return the origin in lower case."""
        origin = str(value).strip().lower().rstrip("/")
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(value)
        return origin


class Count(click.IntRange):
    """A whole number of at least 1."""

    name = "count"


TEXT = click.STRING
SWITCH = click.BOOL
"""``--name/--no-name``."""
FILE = click.Path(path_type=Path, dir_okay=False)
DIRECTORY = click.Path(path_type=Path, file_okay=False)
DURATION = Duration()
INTERVAL = Duration(minimum=1.0)
NAMES = Names()
BUCKETS = Buckets()
KEY_JSON = KeyJson()
HEADER = Header()
LISTEN = Listen()
BROKER_URL = Url(example="redis://:PASSWORD@HOST:6379/0, amqp://USER:PASSWORD@HOST:5672/VHOST or sentinel://HOST:26379")
BACKEND_URL = Url(example="redis://:PASSWORD@HOST:6379/1")
HTTP_URL = Url("http", "https", example="http://127.0.0.1:9090")
SECRET = Secret()
SECRET_TEXT = SecretText()
COUNT = Count(min=1)
