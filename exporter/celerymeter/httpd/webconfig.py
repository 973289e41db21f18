"""The web config file of Prometheus' own exporters (docs/web-configuration.md in their exporter-toolkit)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from celerymeter.errors import SettingsError
from celerymeter.httpd.tls import CLIENT_AUTH, VERSIONS, TlsConfig

C = TypeVar("C")
_BCRYPT = re.compile(r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}")
_HEADER = re.compile(r"[A-Za-z][A-Za-z-]*")
_TOP = frozenset({"tls_server_config", "http_server_config", "basic_auth_users"})
_TLS = frozenset({"cert_file", "key_file", "client_auth_type", "client_ca_file", "min_version", "max_version"})
_HTTP = frozenset({"http2", "headers"})
"""``http2`` is accepted and has no effect: we speak HTTP/1.1, which every client of HTTP/2 does too."""


@dataclass(frozen=True, slots=True)
class WebConfig:
    """How ``/metrics`` is protected; ``users`` are bcrypt hashes by name, ``headers`` go with every answer."""

    tls: TlsConfig | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


def load_web_config(path: str | Path) -> WebConfig:
    """Read and check a web config file; raises `SettingsError` with one line that names the key."""
    import yaml

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _wrong(path, f"not YAML{f' (line {mark.line + 1})' if mark else ''}") from error
    top = _section(content, _TOP, path, where="")
    tls = top.get("tls_server_config")
    http = _section(top.get("http_server_config"), _HTTP, path, where="http_server_config")
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
            raise _wrong(path, f"unknown key {within}{name}; known are {', '.join(sorted(known))}")
    return found


def _mapping(content: object, path: Path, *, where: str) -> dict[str, object]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _wrong(path, f"{where} is no mapping")
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
    """A file named in the section; relative ones are looked for beside the web config file."""
    value = section.get(name)
    if value in (None, ""):
        return None
    return path.parent / str(value)


def _choice(section: Mapping[str, object], name: str, choices: Mapping[str, C], default: str, path: Path) -> C:
    value = section.get(name) or default
    if str(value) not in choices:
        raise _wrong(path, f"tls_server_config.{name}: {value!r} is none of {', '.join(choices)}")
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
    return SettingsError(f"--web.config.file: {path}: {what}")
