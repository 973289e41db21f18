"""The kinds of values that settings take: each reads a value, says what it accepts, and shows it without secrets."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Iterable
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
_SCHEME = re.compile(r"[a-zA-Z][\w+.-]{0,30}(?=://)")
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_ORIGIN = re.compile(r"null|\*|https?://[A-Za-z0-9.-]+(:\d+)?|https?://\[[0-9a-fA-F:]+\](:\d+)?")
_SECRET_KEY = re.compile(r"pass|secret|token|credential", re.IGNORECASE)
MAX_BUCKETS = 14
MAX_COUNT = 10**9


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
    """A type of value: how it is read, what it accepts, and how it is shown without secrets.

    ``parse`` takes a text or what YAML gave, and raises `ValueError` or `TypeError`; ``accepts`` then ends the message,
    which begins with ``quote`` of the value. Values of a ``secret`` kind are shown nowhere. The values of a kind with
    ``pairs`` are pairs that make a mapping, those of one with ``number`` are numbers, which need no quotes in YAML.
    """

    def __init__(  # noqa: PLR0913 - a kind is what it differs in
        self,
        name: str,
        accepts: str,
        parse: Callable[[Any], Any],
        *,
        show: Callable[[Any], str] = str,
        quote: Callable[[str], str] = lambda text: repr(text[:80]),
        split: Callable[[str], list[str]] = str.split,
        unit: str = "",
        secret: bool = False,
        pairs: bool = False,
        number: bool = False,
    ) -> None:
        self.name = name
        self.accepts = accepts
        self.parse = parse
        self.show = show
        self.unit = unit
        self.secret = secret
        self.pairs = pairs
        self.number = number
        self._quote = quote
        self._split = split

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed value for click."""
        try:
            return self.parse(value)
        except (ValueError, TypeError):
            self.fail(f"{self._quote(str(value))} is not {self.accepts}", param, ctx)

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the values of a repeated option that its variable holds."""
        return self._split(rv)


def duration(minimum: float = 0.0, maximum: float = math.inf) -> Kind:
    """Return the kind of durations in seconds, given with a unit or as a number."""

    def parse(value: Any) -> float:
        if isinstance(value, bool):
            raise TypeError(value)
        seconds = parse_duration(str(value))
        if not minimum <= seconds <= maximum:
            raise ValueError(value)
        return seconds

    limits = f" of at least {show_duration(minimum)}" if minimum else ""
    if maximum < math.inf:
        limits = f" from {show_duration(minimum)} to {show_duration(maximum)}"
    accepts = f"a duration{limits}, such as 15s, 1h30m, 30d or a number of seconds"
    return Kind("duration", accepts, parse, show=show_duration, unit="seconds", number=True)


def url(*schemes: str, example: str, word: str | None = None) -> Kind:
    """Return the kind of URLs of these schemes, or of any, or a ``word``. Passwords in them are never shown."""

    def parse(value: Any) -> str:
        # kombu passes over a space after the ``;`` between two URLs.
        text = re.sub(r";\s+", ";", str(value).strip())
        if word is not None and text == word:
            return text
        scheme, found, rest = text.partition("://")
        # A message that quotes the URL shows what follows a space in a password: it no longer looks like the URL's.
        if not found or not rest or re.search(r"\s", text) or (schemes and scheme.lower() not in schemes):
            raise ValueError
        return text

    def quote(text: str) -> str:
        scheme = _SCHEME.match(text)
        return repr(f"{scheme[0]}://…") if scheme else "the value"

    accepts = f"a URL such as {example} (percent-encode special characters: %20 for a space)"
    return Kind("url", accepts, parse, show=without_password, quote=quote)


def _names(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else [str(part) for part in value]
    return tuple(dict.fromkeys(name for part in parts if (name := part.strip())))


def _buckets(value: Any) -> tuple[float, ...]:
    parts: Iterable[object] = value.split(",") if isinstance(value, str) else value
    if isinstance(value, (int, float)):
        parts = [value]
    bounds = tuple(parse_duration(str(part)) for part in parts)
    rising = all(low < high for low, high in zip((0.0, *bounds), bounds, strict=False))
    if not rising or not 1 <= len(bounds) <= MAX_BUCKETS:
        raise ValueError(value)
    return bounds


def _key_json(value: Any) -> tuple[str, object]:
    key, equals, text = str(value).partition("=")
    if not equals or not key.strip():
        raise ValueError
    try:
        return key.strip(), json.loads(text)
    except ValueError:
        if not _WORD.fullmatch(text):
            raise
        return key.strip(), text


def _split_key_json(variable: str) -> list[str]:
    """Split a variable that holds one JSON object, or one pair a line."""
    if not variable.lstrip().startswith("{"):
        return [line.strip() for line in variable.splitlines() if line.strip()]
    try:
        return [f"{key}={json.dumps(value)}" for key, value in json.loads(variable).items()]
    except ValueError:
        return [variable]


def _show_key_json(pair: tuple[str, object]) -> str:
    """Mask every value whose key sounds secret, at every depth."""
    key, value = pair
    if _SECRET_KEY.search(key):
        return f"{key}=***"
    if isinstance(value, dict):
        return f"{key}={{{' '.join(map(_show_key_json, value.items()))}}}"
    return f"{key}={without_password(str(value))}"


def _header(value: Any) -> tuple[str, str]:
    if not (found := _HEADER.fullmatch(str(value).strip())):
        raise ValueError
    return found[1], found[2]


def _listen(value: Any) -> str:
    try:
        parse_listen(str(value))
    except SettingsError as error:
        raise ValueError(value) from error
    return str(value)


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(text)
    return text


def _count(value: Any) -> int:
    number = int(str(value))  # a text, as int() takes what YAML makes of `true`, 2.5 and .inf too
    if not 1 <= number <= MAX_COUNT:
        raise ValueError(value)
    return number


def _token(value: Any) -> str:
    text = str(value).strip()  # what an editor leaves around it; no header could hold a line break
    if not text or not text.isprintable():
        raise ValueError
    return text


class _PathKind(click.Path):
    """A path that can be one: the empty text would be the current directory, and no path holds NUL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value) or "\0" in str(value):
            self.fail("must be a path" if str(value) else "must not be empty", param, ctx)
        return super().convert(value, param, ctx)


TEXT = click.STRING
SWITCH = click.BOOL
"""``--name/--no-name``."""
FILE = _PathKind(path_type=Path, dir_okay=False)
DIRECTORY = _PathKind(path_type=Path, file_okay=False)
COUNT = Kind("count", f"a whole number from 1 to {MAX_COUNT}", _count, number=True)
DURATION = duration()
INTERVAL = duration(minimum=1.0)
NO_BROKER = "none"
BROKER_URL = url(
    example="redis://:PASSWORD@HOST:6379/0, amqp://USER:PASSWORD@HOST:5672/VHOST or sentinel://HOST:26379",
    word=NO_BROKER,
)
BACKEND_URL = url(example="redis://:PASSWORD@HOST:6379/1")
HTTP_URL = url("http", "https", example="http://127.0.0.1:9090")
NAMES = Kind("a,b,…", "a list of names, separated by commas", _names, show=",".join)
BUCKETS = Kind(
    "s,s,…",
    f"1 to {MAX_BUCKETS} increasing numbers of seconds above 0, separated by commas (+Inf is always added)",
    _buckets,
    show=lambda bounds: ",".join(f"{bound:g}" for bound in bounds),
    number=True,
)
KEY_JSON = Kind(
    "k=json",
    'key=value, where the value is JSON or a bare word, such as socket_timeout=5 or sep=":"',
    _key_json,
    show=_show_key_json,
    quote=lambda text: repr(text.partition("=")[0][:80]),
    split=_split_key_json,
    pairs=True,
)
HEADER = Kind(
    "k=v",
    "a header, such as X-Scope-OrgID=TENANT or Authorization=Bearer TOKEN",
    _header,
    show=lambda pair: f"{pair[0]}=***",
    quote=lambda _: "the value",
    split=str.splitlines,
    pairs=True,
)
LISTEN = Kind(
    "host:port", "an address to listen on, such as 127.0.0.1:9808, [::]:9808 or :9808 (all interfaces)", _listen
)
SECRET = Kind("secret", "a secret", lambda value: str(value).encode(), show=lambda _: "***", secret=True)
"""A key, as bytes."""
SECRET_TEXT = Kind(
    "secret", "a token on one line", _token, show=lambda _: "***", quote=lambda _: "the value", secret=True
)
"""A token, as text."""
CIDR = Kind(
    "cidr",
    "a network or an address, such as 10.0.0.0/8, fd00::/8 or 127.0.0.1",
    lambda value: ipaddress.ip_network(str(value).strip(), strict=False),
)
BASE_PATH = Kind(
    "path",
    "a path such as /celery-admin, or / for the root",
    lambda value: _matching(_BASE_PATH, str(value).strip().rstrip("/")),
)
ORIGIN = Kind(
    "origin",
    "an origin, such as https://grafana.example.com, null (a page opened from a file) or * (any)",
    lambda value: _matching(_ORIGIN, str(value).strip().lower().rstrip("/")),
)
