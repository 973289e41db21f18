"""Declaration of settings: a field of a frozen dataclass carries its option's kind, help and default.

    @dataclass(frozen=True, slots=True)
    class ReportSettings:
        prometheus_url: str = field(metadata=option(HTTP_URL, "URL of Prometheus."))  # required
        query_timeout: float = setting(60.0, INTERVAL, "Longest time that a query may take.")

Everything else follows from it: the flag ``--query-timeout``, the variables ``CELERYMETER_QUERY_TIMEOUT`` and
``CELERYMETER_REPORT_QUERY_TIMEOUT``, the key ``query_timeout`` of the YAML file, what ``check-config`` and
``GET /system/status`` show, and the tables of options in the documentation. A field without an option, `group`,
`file_of` or `not_an_option` is a `TypeError` as soon as its command is imported.

pydantic-settings would do a part of this, but the exporter runs without pydantic, and click reads the rest already.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from celerymeter.errors import MissingSetting, SettingsError
from celerymeter.files import MAX_SECRET_BYTES, read_limited
from celerymeter.kinds import SECRET, Kind

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    S = TypeVar("S", bound=DataclassInstance)

T = TypeVar("T")
SECRET_ITSELF = "The secret itself; prefer the environment variable."  # noqa: S105 - a help text
_METADATA = "celerymeter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """The option of a field. With ``file``, the help of ``--NAME-file``, its value may also come from a file."""

    kind: click.ParamType[Any]
    help: str
    flag: str = ""
    field: str = ""
    default: Any = None
    required: bool = False
    repeated: bool = False
    file: str = ""
    only_file: bool = False

    @property
    def key(self) -> str:
        """The name in the YAML file and, in capitals, of the variable."""
        return key(self.flag.lstrip("-"))

    @property
    def secret(self) -> bool:
        """True for a value that is shown nowhere."""
        return getattr(self.kind, "secret", False)

    @property
    def pairs(self) -> bool:
        """True where the values are pairs, and make a mapping."""
        return getattr(self.kind, "pairs", False)

    def read(self, values: Mapping[str, Any]) -> Any:
        """Return this option's value among parsed ones, by key; ``None`` when it is not given."""
        paths = values.get(f"{self.key}_file") if self.file else None
        if paths:
            return tuple(map(self._content, paths)) if self.repeated else self._content(paths)
        value = None if self.only_file else values.get(self.key)
        if value is None or value == ():
            return None
        if self.repeated:
            return dict(value) if self.pairs else value if isinstance(value, tuple) else (value,)
        return value

    def _content(self, path: Path) -> Any:
        text = read_secret(path, flag=f"{self.flag}-file", private=not self.only_file)
        try:
            return self.kind.convert(text, None, None)
        except click.BadParameter as error:
            raise SettingsError(f"{self.flag}-file: {path}: {error.message}") from None

    def show(self, value: Any) -> str:
        """Return a value as text, without secrets."""
        show = getattr(self.kind, "show", str)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, Mapping):
            return " ".join(map(show, value.items()))
        if self.repeated and isinstance(value, tuple):
            return (" " if self.pairs else ", ").join(map(show, value))
        return str(show(value))


@dataclass(frozen=True, slots=True)
class _Group:
    cls: type[DataclassInstance]


@dataclass(frozen=True, slots=True)
class _FileOf:
    key: str


@dataclass(frozen=True, slots=True)
class _NotAnOption:
    reason: str


def option(
    kind: click.ParamType[Any],
    help: str,
    *,
    flag: str = "",
    repeated: bool = False,
    file: str = "",
    only_file: bool = False,
) -> Mapping[str, object]:
    """Return the metadata of a field that is an option; ``flag`` is needed where it differs from the field's name.

    A ``repeated`` option gives a tuple, or a mapping where its values are pairs. ``file`` is the help of a second
    option, ``--NAME-file``, that reads the value from a file; with ``only_file`` there is no other way to give it.
    A secret has a file, and its plain option is hidden: it is meant for the environment.
    """
    declared = Option(kind=kind, help=help, flag=flag, repeated=repeated, file=file, only_file=only_file)
    return {_METADATA: declared}


def setting(default: T, kind: click.ParamType[Any], help: str, **more: Any) -> T:
    """Return a field with a default and the `option` that the other arguments make.

    ``repr`` leaves out what may hold a secret: secrets themselves, URLs and pairs.
    """
    unprinted = isinstance(kind, Kind) and (kind.secret or kind.pairs or kind.name == "url")
    metadata = option(kind, help, **more)
    declared: Any = (
        field(default_factory=dict, repr=not unprinted, metadata=metadata)
        if isinstance(default, dict)
        else field(default=default, repr=not unprinted, metadata=metadata)
    )
    return declared  # type: ignore[no-any-return]  # for type checkers a field is its default, as in dataclasses


def secret(default: T, file: str, *, kind: click.ParamType[Any] = SECRET, **more: Any) -> T:
    """Return a field for a secret: ``--NAME-file``, whose help is ``file``, and a hidden ``--NAME``."""
    return setting(default, kind, SECRET_ITSELF, file=file, **more)


def group(cls: type[DataclassInstance]) -> Mapping[str, object]:
    """Return the metadata of a field that holds further settings: a dataclass whose fields are options."""
    return {_METADATA: _Group(cls)}


def file_of(flag: str) -> Mapping[str, object]:
    """Return the metadata of a field that holds the path given with ``FLAG-file``, to read that file again later."""
    return {_METADATA: _FileOf(f"{key(flag.lstrip('-'))}_file")}


def not_an_option(reason: str) -> Mapping[str, object]:
    """Return the metadata of a field that no user can set; the reason is for readers."""
    return {_METADATA: _NotAnOption(reason)}


def key(name: str) -> str:
    """Return an option's name as it stands in the YAML file: dots and dashes become ``_``."""
    return name.replace("-", "_").replace(".", "_")


def options_of(cls: type[DataclassInstance]) -> Iterator[Option]:
    """Yield the options of a settings class and of its groups, in the order of the fields."""
    for name, declared in _declared(cls):
        if isinstance(declared, Option):
            yield declared
        elif isinstance(declared, _Group):
            yield from options_of(declared.cls)
        elif declared is None:
            where = inspect.getsourcefile(cls)
            raise TypeError(
                f"{cls.__name__}.{name} has no option: declare it with setting(...) or option(...) in {where}"
            )


def build(cls: type[S], values: Mapping[str, Any]) -> S:
    """Return the settings that these parsed values, by key, make; raises `SettingsError`, or `MissingSetting`."""
    given: dict[str, Any] = {}
    for name, declared in _declared(cls):
        if isinstance(declared, _Group):
            given[name] = build(declared.cls, values)
        elif isinstance(declared, Option):
            value = declared.read(values)
            if declared.required and value in (None, ""):
                raise _missing(declared)
            if value is not None:
                given[name] = value
        elif isinstance(declared, _FileOf):
            given[name] = values.get(declared.key)
    return cls(**given)


def describe(settings: DataclassInstance) -> dict[str, str | bool | float | None]:
    """Return the settings as JSON without secrets: durations in seconds, several values as one text."""
    shown: dict[str, str | bool | float | None] = {}
    for name, declared in _declared(type(settings)):
        value = getattr(settings, name)
        if isinstance(declared, _Group):
            shown |= describe(value)
        elif isinstance(declared, Option) and not declared.secret:
            plain = value is None or isinstance(value, (bool, int, float))
            shown[described_as(declared)] = value if plain else declared.show(value)
    return shown


def described_as(declared: Option) -> str:
    """Return the name of an option in `describe`: with its unit, and in the plural where it is repeated."""
    unit = getattr(declared.kind, "unit", "")
    return f"{declared.key}_{unit}" if unit else declared.field if declared.repeated else declared.key


def _declared(cls: type[DataclassInstance]) -> Iterator[tuple[str, Option | _Group | _FileOf | _NotAnOption | None]]:
    for item in fields(cls):
        declared = item.metadata.get(_METADATA)
        yield item.name, _complete(declared, item) if isinstance(declared, Option) else declared


def _complete(declared: Option, item: Field[Any]) -> Option:
    """Fill in what the field says: its name, and its default or that it has none."""
    default = item.default if item.default_factory is MISSING else item.default_factory()
    required = default is MISSING
    flag = declared.flag or "--" + item.name.replace("_", "-")
    return replace(declared, field=item.name, flag=flag, required=required, default=None if required else default)


def _missing(declared: Option) -> MissingSetting:
    variable = f"CELERYMETER_{declared.key.upper()}"
    if declared.secret:
        return MissingSetting(f"{declared.flag}-file: missing; give this option or {variable}")
    return MissingSetting(
        f"{declared.flag}: missing; give this option, {variable}, or {declared.key} in the --config file"
    )


def read_secret(path: Path, *, flag: str, private: bool = True) -> str:
    """Return a secret file's text without the line break at its end; raises `SettingsError` that names ``flag``.

    Public keys are not ``private``: everybody may read them.
    """
    data = read_limited(path, flag=flag, private=private)
    try:
        text = data.decode("utf-8-sig").rstrip("\r\n")  # editors of Windows begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise SettingsError(f"{flag}: {path} is not UTF-8 text") from error
    if not text.strip() or len(data) > MAX_SECRET_BYTES:
        raise SettingsError(f"{flag}: {path} is {'too long' if text.strip() else 'empty'}")
    return text
