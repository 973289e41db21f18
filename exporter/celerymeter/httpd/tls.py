"""TLS of the listener; a renewed certificate is taken without a restart."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from celerymeter.errors import SettingsError

log = logging.getLogger(__name__)

VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
"""What Python's ssl can ask for; certificates that are wanted but not verified it cannot."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """``tls_server_config`` of a web config file, checked and with whole paths."""

    cert_file: Path
    key_file: Path
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    client_ca_file: Path | None = None
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3


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
        """Take the files again when they have changed; unusable ones are logged and the old ones kept."""
        try:
            if self._stamp() != self._loaded:
                self._load()
                log.info("certificate renewed", extra={"cert_file": str(self._config.cert_file)})
        except (SettingsError, OSError) as error:
            log.warning("keeping the old certificate: %s", error)

    def _load(self) -> None:
        config = self._config
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
