"""Grafana in the demo: started with our provisioning where it is on PATH, else one line says what it would show."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
import requests
import yaml

from celerymeter.demo.grafana import MISSING, OVERVIEW, Grafana, grafana, home_of
from celerymeter.demo.parts import Site
from celerymeter.demo.processes import Process, free_port
from celerymeter.demo.run import guide
from celerymeter.demo.settings import Ports

SERVER = f"""#!{sys.executable}
import configparser, http.server, json, os, sys

options = dict(word[2:].split("=", 1) for word in sys.argv[1:] if word.startswith("--"))
config = configparser.ConfigParser(interpolation=None)
config.read(options["config"])
settings = [name for name, value in os.environ.items() if name.startswith("GF_") and value]
kept = {{"argv": sys.argv[1:], "settings": settings}}
json.dump(kept, open(os.path.join(os.path.dirname(options["config"]), "started.json"), "w"))

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

address = config["server"]["http_addr"], int(config["server"]["http_port"])
http.server.HTTPServer(address, Handler).serve_forever()
"""


def install(folder: Path, name: str) -> Path:
    """Put a server that records how it was started into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(SERVER)
    path.chmod(0o755)
    return path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The demo's folder and ports."""
    return Site(tmp_path / "run", Ports(prometheus=9, grafana=free_port()))


@pytest.fixture(params=["grafana", "grafana-server"])
def server(
    request: pytest.FixtureRequest, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Grafana]:
    """A Grafana of either name on PATH, running, although the user has settings of an own one."""
    install(tmp_path / "bin", request.param)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("GF_SERVER_HTTP_PORT", "1")
    found = grafana(site)
    assert found is not None
    with found:
        yield found.up()


def test_it_runs_with_our_provisioning(server: Grafana, site: Site) -> None:
    """It listens on loopback, shows the dashboards to everybody, and asks the demo's Prometheus."""
    assert requests.get(f"{server.url}/api/health", timeout=30).ok
    folder = site.folder / "grafana"
    started = json.loads((folder / "started.json").read_text())
    assert started["settings"] == []
    assert started["argv"][-1] == f"--config={folder / 'grafana.ini'}"
    config = ConfigParser(interpolation=None)
    config.read(folder / "grafana.ini")
    assert (config["server"]["http_addr"], config["server"]["http_port"]) == ("127.0.0.1", str(site.ports.grafana))
    assert dict(config["auth.anonymous"]) == {"enabled": "true", "org_role": "Viewer"}
    provisioning = Path(config["paths"]["provisioning"])
    (source,) = yaml.safe_load((provisioning / "datasources" / "celerymeter.yml").read_text())["datasources"]
    assert (source["uid"], source["url"]) == ("celerymeter-prometheus", "http://127.0.0.1:9")
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "celerymeter.yml").read_text())["providers"]
    overview = Path(provider["options"]["path"]) / "celerymeter-overview.json"
    assert json.loads(overview.read_text())["uid"] == OVERVIEW.rpartition("/")[2]
    assert config["dashboards"]["default_home_dashboard_path"] == str(overview)


def test_the_newer_command_has_a_subcommand(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`grafana server` goes before `grafana-server`, which newer releases call deprecated."""
    for name in ("grafana", "grafana-server"):
        install(tmp_path / "bin", name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = grafana(site)
    assert found is not None
    assert list(found.argv[:2]) == [str(tmp_path / "bin" / "grafana"), "server"]


def test_grafanas_own_files_are_found_beside_the_binary(tmp_path: Path) -> None:
    """As in its archive; a link on PATH is followed."""
    binary = install(tmp_path / "grafana" / "bin", "grafana")
    defaults = tmp_path / "grafana" / "conf" / "defaults.ini"
    defaults.parent.mkdir()
    defaults.touch()
    link = tmp_path / "link"
    link.symlink_to(binary)
    assert home_of(link) == tmp_path / "grafana"


def test_without_it_one_line_says_what_it_would_show(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With it the line is the link."""
    addresses = dict.fromkeys(("PROMETHEUS_URL", "CELERYMETER_CONTROL_URL", "ALERTMANAGER_URL"), "http://x")
    with Process("worker", ["sleep", "60"], log=tmp_path / "log") as worker:
        worker.start()
        without = guide(addresses, env=tmp_path / "env", worker=worker)
        with_it = guide({**addresses, "GRAFANA_URL": "http://g"}, env=tmp_path / "env", worker=worker)
    assert f"  dashboards            {MISSING}" in without.splitlines()
    assert f"  dashboards            http://g{OVERVIEW}" in with_it.splitlines()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert grafana(site) is None
