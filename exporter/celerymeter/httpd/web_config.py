"""TLS, basic auth and headers by a web config file as Prometheus' own exporters read it.

The format is docs/web-configuration.md of their exporter-toolkit, which has no implementation in Python.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import secrets
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from celerymeter import escaping
from celerymeter.errors import SettingsError
from celerymeter.files import MAX_SECRET_BYTES, check_key_file, everybody_reads, read_limited

C = TypeVar("C")
FLAG = "--web.config.file"
_BCRYPT = re.compile(r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}")
_HEADER = re.compile(r"[A-Za-z][A-Za-z-]*")
_TOP = frozenset({"tls_server_config", "http_server_config", "basic_auth_users"})
_TLS = frozenset({"cert_file", "key_file", "client_auth_type", "client_ca_file", "min_version", "max_version"})
_HTTP = frozenset({"http2", "headers"})
"""``http2`` is accepted and has no effect: this server speaks HTTP/1.1, as every client of HTTP/2 can."""
VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
"""The modes of Python's ssl, which cannot ask for certificates without verifying them."""
REMEMBERED = 128
BCRYPT_BYTES = 72
"""bcrypt ignores the rest of a password."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """``tls_server_config`` of a web config file, checked and with whole paths."""

    cert_file: Path
    key_file: Path
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    client_ca_file: Path | None = None
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The protection of ``/metrics``; ``users`` are bcrypt hashes by name, ``headers`` go with every response."""

    tls: TlsConfig | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    """Names under which the server may be addressed; without any all are right. A setting, not in the file."""


def load_web_config(path: str | Path) -> WebConfig:
    """Read and check a web config file; raises `SettingsError` with one line that names the key."""
    from celerymeter.yaml_text import NotYaml, parse

    path = Path(path)
    try:
        text = read_limited(path, flag=FLAG, private=False)
        if len(text) > MAX_SECRET_BYTES:
            raise _wrong(path, "too long")
        content = parse(text.decode())
    except UnicodeDecodeError as error:
        raise _wrong(path, "cannot be read: not UTF-8 text") from error
    except NotYaml as error:
        raise _wrong(path, f"not YAML{f' (line {error.line})' if error.line else ''}: {error}") from error
    top = _section(content, _TOP, path, where="")
    tls = top.get("tls_server_config")
    http = _section(top.get("http_server_config"), _HTTP, path, where="http_server_config")
    if top.get("basic_auth_users") and everybody_reads(path):
        log.warning("everybody may read the password hashes in %s; run `chmod o-r %s`", path, path)
    return WebConfig(
        tls=None if tls is None else _tls(_section(tls, _TLS, path, where="tls_server_config"), path),
        users=_users(top.get("basic_auth_users"), path),
        headers=_headers(http.get("headers"), path),
    )


def _section(content: object, known: frozenset[str], path: Path, *, where: str) -> dict[str, object]:
    found = _mapping(content, path, where=where or "the file")
    for name in found:
        if name not in known:
            within = f"{where}." if where else ""
            raise _wrong(path, f"unknown key {within}{escaping.name(name)}; known are {', '.join(sorted(known))}")
    return found


def _mapping(content: object, path: Path, *, where: str) -> dict[str, object]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _wrong(path, f"{where} must be a mapping")
    return {str(name): value for name, value in content.items()}


def _tls(section: Mapping[str, object], path: Path) -> TlsConfig:
    cert, key = _file(section, "cert_file", path), _file(section, "key_file", path)
    if cert is None or key is None:
        raise _wrong(path, "tls_server_config needs cert_file and key_file")
    ca = _file(section, "client_ca_file", path)
    client_auth = _choice(section, "client_auth_type", CLIENT_AUTH, "NoClientCert", path)
    if (ca is None) != (client_auth == CLIENT_AUTH["NoClientCert"]):
        raise _wrong(path, "client_ca_file and a verifying client_auth_type go together")
    return TlsConfig(
        cert_file=cert,
        key_file=key,
        client_auth=client_auth,
        client_ca_file=ca,
        min_version=_choice(section, "min_version", VERSIONS, "TLS12", path),
        max_version=_choice(section, "max_version", VERSIONS, "TLS13", path),
    )


def _file(section: Mapping[str, object], name: str, path: Path) -> Path | None:
    """Return a file named in the section; a relative path starts at the web config file."""
    value = section.get(name)
    if value in (None, ""):
        return None
    return path.parent / str(value)


def _choice(section: Mapping[str, object], name: str, choices: Mapping[str, C], default: str, path: Path) -> C:
    value = section.get(name) or default
    if str(value) not in choices:
        raise _wrong(path, f"tls_server_config.{name}: {repr(value)[:40]} is none of {', '.join(choices)}")
    return choices[str(value)]


def _users(content: object, path: Path) -> dict[str, str]:
    users = _mapping(content, path, where="basic_auth_users")
    for name, hashed in users.items():
        if not name or ":" in name or not isinstance(hashed, str) or not _BCRYPT.fullmatch(hashed):
            raise _wrong(path, f"basic_auth_users.{name}: not a bcrypt hash (make one with `htpasswd -nB {name}`)")
    return {name: str(hashed) for name, hashed in users.items()}


def _headers(content: object, path: Path) -> dict[str, str]:
    headers = _mapping(content, path, where="http_server_config.headers")
    for name, value in headers.items():
        if not _HEADER.fullmatch(name) or not isinstance(value, str) or not value.isprintable() or not value.isascii():
            raise _wrong(path, f"http_server_config.headers.{name}: not a header")
    return {name: str(value) for name, value in headers.items()}


def _wrong(path: Path, what: str) -> SettingsError:
    return SettingsError(f"{FLAG}: {path}: {what}")


class Certificates:
    """The server's TLS context over files that may be renewed; raises `SettingsError` for unusable ones."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = config.min_version
        self.context.maximum_version = config.max_version
        self._load()
        if config.client_ca_file:
            _load(config.client_ca_file, lambda: self.context.load_verify_locations(config.client_ca_file))
        self.context.verify_mode = config.client_auth

    def refresh(self) -> None:
        """Load the files again when they have changed; unusable ones are logged and the old ones kept."""
        try:
            if self._stamp() != self._loaded:
                self._load()
                log.info("certificate renewed", extra={"cert_file": str(self._config.cert_file)})
        except (SettingsError, OSError) as error:
            log.warning("keeping the old certificate: %s", error)

    def _load(self) -> None:
        config = self._config
        check_key_file(config.key_file, flag=FLAG)
        _load(config.cert_file, lambda: self.context.load_cert_chain(config.cert_file, config.key_file, password=""))
        self._loaded = self._stamp()

    def _stamp(self) -> tuple[float, ...]:
        return tuple(path.stat().st_mtime for path in (self._config.cert_file, self._config.key_file))


def _load(path: Path, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        raise SettingsError(f"--web.config.file: {path}: not usable: {error.reason or 'not a PEM file'}") from error
    except OSError as error:
        raise SettingsError(f"--web.config.file: cannot read {path} or its key: {error.strerror}") from error


class BasicAuth:
    """Checks basic auth against bcrypt hashes by user name (as ``htpasswd -nB`` makes them).

    Right credentials are remembered; a wrong name takes as long as a wrong password. A request without a name takes
    no time, for it tells nothing of names.
    """

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = {name: hashed.encode() for name, hashed in users.items()}
        self._decoy = max(self._users.values(), key=_cost)
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def remembers(self, header: str) -> bool:
        """Return whether exactly these credentials were right before; returns at once."""
        return self._digest(header) in self._right

    def verify(self, header: str) -> bool:
        """Return whether an ``Authorization`` header holds a user's name and password; takes bcrypt's time."""
        import bcrypt

        name, password = credentials(header)
        if not name:
            return False
        hashed = self._users.get(name)
        matches = bcrypt.checkpw(password[:BCRYPT_BYTES], hashed or self._decoy)
        if not matches or hashed is None:
            return False
        self._right[self._digest(header)] = None
        while len(self._right) > REMEMBERED:
            self._right.popitem(last=False)
        return True

    def _digest(self, header: str) -> bytes:
        return hmac.digest(self._key, header.encode("latin-1"), hashlib.sha256)


def _cost(hashed: bytes) -> bytes:
    return hashed.split(b"$")[2]


def credentials(header: str) -> tuple[str, bytes]:
    """Return name and password of a header; an unusable one has an empty name, which no user has."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else ("", b"")
    except ValueError:  # neither base64 nor UTF-8
        return "", b""
