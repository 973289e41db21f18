"""Grafana in the demo, where one is installed: the shipped dashboards for everybody on this machine, read-only."""

from __future__ import annotations

import os
import shutil
from configparser import ConfigParser
from pathlib import Path

import yaml

from celerymeter.demo.parts import SCRAPE_INTERVAL, Site, shipped
from celerymeter.demo.servers import Server, answers

HOME_FOLDERS = ("/usr/share/grafana",)
"""Folders in which packages put Grafana's own files, if they are not beside the binary."""
OVERVIEW = "/d/celerymeter-overview"
MISSING = (
    "no Grafana here: with `grafana` or `grafana-server` on PATH, the same command starts it with all dashboards and "
    "prints the link"
)


def grafana_command() -> list[str] | None:
    """Return the words that start a Grafana server; ``None`` if none is on PATH."""
    if path := shutil.which("grafana"):
        return [path, "server"]
    return [path] if (path := shutil.which("grafana-server")) else None


def home_of(binary: Path) -> Path | None:
    """Return the folder with Grafana's own files; ``None`` if the binary has to find it itself."""
    places = (binary.resolve().parents[1], *map(Path, HOME_FOLDERS))
    return next((place for place in places if (place / "conf" / "defaults.ini").is_file()), None)


class Grafana(Server):
    """A Grafana with the shipped provisioning, open to anonymous viewers; its data is in the demo's folder."""

    def __init__(self, site: Site, command: list[str]) -> None:
        folder = site.folder / "grafana"
        _write_provisioning(site, folder / "provisioning")
        config = folder / "grafana.ini"
        with config.open("w") as file:
            _config(site, folder).write(file)
        home = home_of(Path(command[0]))
        argv = [*command, f"--config={config}", *([f"--homepath={home}"] if home else ())]
        # settings of the user's own Grafana would override the demo's
        emptied = {variable: "" for variable in os.environ if variable.startswith("GF_")}
        super().__init__("grafana", argv, folder=folder, port=site.ports.grafana, env=emptied)

    def ready(self) -> bool:
        """Return True if the server answers."""
        return answers(f"{self.url}/api/health")


def grafana(site: Site) -> Grafana | None:
    """Return the server; ``None`` if Grafana is not installed."""
    command = grafana_command()
    return Grafana(site, command) if command else None


def _write_provisioning(site: Site, folder: Path) -> None:
    """Write the shipped provisioning, with the demo's Prometheus and the folder of the shipped dashboards."""
    source = shipped("grafana/provisioning")
    for kind in ("datasources", "dashboards"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        content = yaml.safe_load((source / kind / "celerymeter.yml").read_text())
        for entry in content.get("datasources", ()):
            entry["url"] = site.url("prometheus")
            entry["jsonData"]["timeInterval"] = SCRAPE_INTERVAL
        for entry in content.get("providers", ()):
            entry["options"]["path"] = str(shipped("grafana/dashboards"))
        (folder / kind / "celerymeter.yml").write_text(yaml.safe_dump(content, sort_keys=False))


def _config(site: Site, folder: Path) -> ConfigParser:
    """Return the settings: loopback only, no account, nothing that asks the internet."""
    config = ConfigParser(interpolation=None)
    config.read_dict(
        {
            "paths": {
                "data": str(folder / "data"),
                "logs": str(folder / "logs"),
                "plugins": str(folder / "plugins"),
                "provisioning": str(folder / "provisioning"),
            },
            "server": {"http_addr": "127.0.0.1", "http_port": str(site.ports.grafana)},
            "security": {"disable_initial_admin_creation": "true"},
            "auth.anonymous": {"enabled": "true", "org_role": "Viewer"},
            "dashboards": {
                "default_home_dashboard_path": str(shipped("grafana/dashboards") / "celerymeter-overview.json")
            },
            "analytics": {
                "reporting_enabled": "false",
                "check_for_updates": "false",
                "check_for_plugin_updates": "false",
            },
            "news": {"news_feed_enabled": "false"},
            "plugins": {"preinstall_disabled": "true"},
        }
    )
    return config
