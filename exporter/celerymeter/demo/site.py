"""Where one demo is: its folder, its ports and its URLs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from celerymeter.demo.ports import Ports

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Site:
    """``ports`` are settled; everything that the parts write lies below ``folder``, an absolute path."""

    folder: Path
    ports: Ports

    @property
    def broker_url(self) -> str:
        """Database 0 of the demo's Redis."""
        return f"redis://{HOST}:{self.ports.redis}/0"

    @property
    def backend_url(self) -> str:
        """Database 1, for results."""
        return f"redis://{HOST}:{self.ports.redis}/1"

    @property
    def exporter_url(self) -> str:
        """Base URL of the exporter."""
        return f"http://{HOST}:{self.ports.exporter}"

    @property
    def prometheus_url(self) -> str:
        """Base URL of Prometheus."""
        return f"http://{HOST}:{self.ports.prometheus}"

    @property
    def alertmanager_url(self) -> str:
        """Base URL of Alertmanager."""
        return f"http://{HOST}:{self.ports.alertmanager}"

    @property
    def control_url(self) -> str:
        """Where the control API listens; its base path comes after it."""
        return f"http://{HOST}:{self.ports.control}"

    @property
    def jwt_secret(self) -> Path:
        """File of the secret that signs the demo's tokens."""
        return self.folder / "jwt-secret"

    @property
    def webhook_token(self) -> Path:
        """File of the token with which Alertmanager notifies the control API."""
        return self.folder / "webhook-token"

    def log(self, name: str) -> Path:
        """The log of one part."""
        return self.folder / f"{name}.log"


def shown(path: Path) -> Path:
    """The path as a person would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def env_values(site: Site, *, token: str) -> Mapping[str, str]:
    """The names under which scripts find the parts."""
    return {
        "CELERYMETER_CONTROL_URL": site.control_url,
        "CELERYMETER_EXPORTER_URL": site.exporter_url,
        "PROMETHEUS_URL": site.prometheus_url,
        "ALERTMANAGER_URL": site.alertmanager_url,
        "BROKER_URL": site.broker_url,
        "CELERYMETER_TOKEN": token,
    }


def write_env(path: Path, values: Mapping[str, str]) -> None:
    """Write ``KEY=VALUE`` lines; one is a token."""
    write_secret(path, "".join(f"{key}={value}\n" for key, value in values.items()))


def write_secret(path: Path, text: str) -> None:
    """Write a file that its owner alone can read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
