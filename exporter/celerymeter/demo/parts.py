"""The parts of the demo: where they are, their command lines, and the configuration files of the servers."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import yaml

import celerymeter
from celerymeter.demo import AGGREGATE
from celerymeter.demo.processes import Process
from celerymeter.demo.servers import Alertmanager, Prometheus, Redis
from celerymeter.demo.settings import Ports
from celerymeter.errors import ServerMissing, StartFailed
from celerymeter.files import write_new

Yaml: TypeAlias = "Mapping[str, Yaml] | list[Yaml] | str | int | float | bool | None"
Web: TypeAlias = Literal["exporter", "prometheus", "alertmanager", "control", "grafana"]

APP = "celerymeter.demo.app"
CONTROL_WEBHOOK = "/alerts/webhook"
SCRAPE_INTERVAL = "5s"
POLL_INTERVAL = "2s"
"""Both shorter than the defaults, since a person is watching."""
ORIGINS = ("null", "http://localhost", "http://127.0.0.1")
"""Pages that may open the feed: those from files, and those that this machine serves."""


@dataclass(frozen=True, slots=True)
class Site:
    """The location of a demo: ``ports`` are settled, and all files are in ``folder``, an absolute path."""

    folder: Path
    ports: Ports
    aggregate: bool = False
    """True if the workers count their tasks themselves."""

    def url(self, part: Web) -> str:
        """Return the base URL of a part."""
        return f"http://127.0.0.1:{getattr(self.ports, part)}"

    def redis_url(self, database: int) -> str:
        """Return the URL of a database of the demo's Redis: 0 is the broker, 1 the result backend."""
        return f"redis://127.0.0.1:{self.ports.redis}/{database}"

    @property
    def jwt_secret(self) -> Path:
        """File of the secret that signs the demo's tokens."""
        return self.folder / "jwt-secret"

    @property
    def webhook_token(self) -> Path:
        """File of the token with which Alertmanager calls the control API."""
        return self.folder / "webhook-token"

    def log(self, name: str) -> Path:
        """Return the log file of a part."""
        return self.folder / f"{name}.log"


def shipped(part: str) -> Path:
    """Return the folder ``alerts`` or ``grafana/…``, in the wheel or in the checkout; raises `ServerMissing`."""
    package = Path(celerymeter.__file__).parent
    places = (package / "bundle" / part, package.parents[1] / part)
    for place in places:
        if place.is_dir():
            return place
    raise ServerMissing(f"{part} is not part of this installation (neither {places[0]} nor {places[1]} exists)")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read; a process that waits for it finds it whole."""
    write_new(path, text.encode(), mode=0o600)


def redis(site: Site) -> Redis:
    """Return the broker."""
    return Redis(site.folder / "redis", port=site.ports.redis)


def exporter(site: Site) -> Process:
    """Return ``celerymeter exporter``."""
    return _celerymeter(
        site,
        "exporter",
        f"--broker-url={site.redis_url(0)}",
        f"--listen=127.0.0.1:{site.ports.exporter}",
        f"--poll-interval={POLL_INTERVAL}",
        "--inspect-interval=10s",
        "--log-format=text",
    )


def control(site: Site) -> Process:
    """Return ``celerymeter control``, open to pages from files and from this machine."""
    for path in (site.jwt_secret, site.webhook_token):
        write_secret(path, secrets.token_hex(32))
    return _celerymeter(
        site,
        "control",
        f"--broker-url={site.redis_url(0)}",
        f"--result-backend-url={site.redis_url(1)}",
        f"--prometheus-url={site.url('prometheus')}",
        f"--alertmanager-url={site.url('alertmanager')}",
        f"--listen=127.0.0.1:{site.ports.control}",
        f"--metrics-listen=127.0.0.1:{site.ports.control_metrics}",
        f"--jwt-secret-file={site.jwt_secret}",
        f"--webhook-token-file={site.webhook_token}",
        f"--state-dir={site.folder / 'control'}",
        "--anonymous-feed",
        *(f"--allow-origin={origin}" for origin in ORIGINS),
        "--log-format=text",
    )


def _celerymeter(site: Site, name: str, *options: str) -> Process:
    argv = [sys.executable, "-m", "celerymeter", name, *options]
    # settings of the user's own celerymeter are not meant for the demo
    emptied = {variable: "" for variable in os.environ if variable.startswith("CELERYMETER_")}
    return Process(name, argv, log=site.log(name), cwd=site.folder, env=emptied)


def admin_token(site: Site) -> str:
    """Create an administrator's token that is valid for a day; raises `StartFailed`."""
    argv = [sys.executable, "-m", "celerymeter", "token", f"--jwt-secret-file={site.jwt_secret}"]
    argv += ["--role=admin", "--ttl=24h", "--subject=demo"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise StartFailed(f"cannot create a token: {done.stderr}")
    return done.stdout.splitlines()[-1]


def workers(site: Site) -> tuple[Process, Process]:
    """Return one worker for slow tasks, and one for quick tasks."""
    return (
        _worker(site, "slow", "media,reports", "-c", "2", "--prefetch-multiplier", "1"),
        _worker(site, "quick", "orders,emails", "-c", "4"),
    )


def _worker(site: Site, name: str, queues: str, *options: str) -> Process:
    argv = [sys.executable, "-m", "celery", "-A", APP, "worker", "-n", f"{name}@%h", "-Q", queues, "-l", "WARNING"]
    log = site.log(f"worker-{name}")
    return Process(f"worker {name}", [*argv, *options], log=log, cwd=site.folder, env=_celery(site))


def beat(site: Site) -> Process:
    """Return the scheduler."""
    argv = [sys.executable, "-m", "celery", "-A", APP, "beat", "-s", str(site.folder / "schedule"), "-l", "INFO"]
    return Process("beat", argv, log=site.log("beat"), cwd=site.folder, env=_celery(site))


def workload(site: Site, load: str) -> Process:
    """Return the sender of tasks."""
    argv = [sys.executable, "-m", "celerymeter.demo.workload", load]
    return Process("workload", argv, log=site.log("workload"), cwd=site.folder, env=_celery(site))


def _celery(site: Site) -> Mapping[str, str]:
    return {
        **({AGGREGATE: "true"} if site.aggregate else {}),
        "CELERY_BROKER_URL": site.redis_url(0),
        "CELERY_RESULT_BACKEND": site.redis_url(1),
        "REMAP_SIGTERM": "SIGQUIT",  # the demo does not wait for running tasks when it stops
    }


def prometheus(site: Site) -> Prometheus:
    """Return Prometheus with the shipped rules."""
    folder = shipped("alerts")
    config = prometheus_config(_read(folder / "prometheus.yml"), folder=folder, ports=site.ports)
    options = ("--rules.alert.resend-delay=5s", "--rules.alert.for-grace-period=1m", "--storage.tsdb.retention.time=2d")
    path = _write(site.folder / "prometheus.yml", config)
    return Prometheus(site.folder / "prometheus", config=path, port=site.ports.prometheus, options=options)


def alertmanager(site: Site, *, sink_url: str, slack_url_file: Path | None = None) -> Alertmanager:
    """Return Alertmanager with the shipped routing."""
    folder = shipped("alerts")
    receivers = Receivers(site.url("control"), site.webhook_token, sink_url, slack_url_file)
    config = alertmanager_config(_read(folder / "alertmanager.yml"), folder=folder, receivers=receivers)
    path = _write(site.folder / "alertmanager.yml", config)
    return Alertmanager(site.folder / "alertmanager", config=path, port=site.ports.alertmanager)


def _read(path: Path) -> dict[str, Yaml]:
    loaded: dict[str, Yaml] = yaml.safe_load(path.read_text())
    return loaded


def _write(path: Path, config: Mapping[str, Yaml]) -> Path:
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def prometheus_config(shipped: Mapping[str, Yaml], *, folder: Path, ports: Ports) -> dict[str, Yaml]:
    """Return the shipped ``prometheus.yml`` of ``folder`` with its targets on the demo's ports."""
    moved = {9808: ports.exporter, 9809: ports.control_metrics, 9090: ports.prometheus, 9093: ports.alertmanager}
    config = {key: _retarget(value, moved) for key, value in shipped.items()}
    general = config.get("global")
    intervals = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), SCRAPE_INTERVAL)
    config["global"] = {**(general if isinstance(general, Mapping) else {}), **intervals}
    config["rule_files"] = _absolute(shipped.get("rule_files"), folder)
    return config


def _retarget(node: Yaml, moved: Mapping[int, int]) -> Yaml:
    """Replace the known ports in every list that is called ``targets``."""
    if isinstance(node, Mapping):
        return {
            key: [_move(target, moved) for target in value]
            if key == "targets" and isinstance(value, list)
            else _retarget(value, moved)
            for key, value in node.items()
        }
    return [_retarget(item, moved) for item in node] if isinstance(node, list) else node


def _move(target: Yaml, moved: Mapping[int, int]) -> Yaml:
    port = str(target).rpartition(":")[2]
    return f"127.0.0.1:{moved[int(port)]}" if port.isdecimal() and int(port) in moved else target


def _absolute(paths: Yaml, folder: Path) -> list[Yaml]:
    return [str(folder / str(path)) for path in paths] if isinstance(paths, list) else []


@dataclass(frozen=True, slots=True)
class Receivers:
    """The receivers of the demo's notifications: to the control API with a token, and all others to the sink.

    With ``slack_url_file``, which Alertmanager reads for every message, those for Slack go there too.
    """

    control_url: str
    token_file: Path
    sink_url: str
    slack_url_file: Path | None = None


def alertmanager_config(shipped: Mapping[str, Yaml], *, folder: Path, receivers: Receivers) -> dict[str, Yaml]:
    """Return the shipped routing, inhibition and templates of ``folder``, without secrets and without a mail server."""
    return {
        **{key: value for key, value in shipped.items() if key != "global"},
        "templates": _absolute(shipped.get("templates"), folder),
        "receivers": [_receiver(entry, receivers) for entry in _mappings(shipped, "receivers")],
    }


def _receiver(shipped: Mapping[str, Yaml], receivers: Receivers) -> Yaml:
    control: list[Yaml] = [
        {
            "url": f"{receivers.control_url}{urlsplit(url).path}",
            "send_resolved": True,
            "http_config": {"authorization": {"credentials_file": str(receivers.token_file)}},
        }
        for hook in _mappings(shipped, "webhook_configs")
        if (url := str(hook.get("url"))).endswith(CONTROL_WEBHOOK)
    ]
    sink: list[Yaml] = [{"url": receivers.sink_url, "send_resolved": True}] if len(shipped) > 1 else []
    receiver: dict[str, Yaml] = {"name": shipped["name"], "webhook_configs": control or sink}
    if receivers.slack_url_file and (messages := _mappings(shipped, "slack_configs")):
        to_slack: dict[str, Yaml] = {"api_url_file": str(receivers.slack_url_file)}
        # without a channel: the webhook posts to the one that it was created for
        receiver["slack_configs"] = [
            {**{key: value for key, value in message.items() if key != "channel"}, **to_slack} for message in messages
        ]
    return receiver


def _mappings(shipped: Mapping[str, Yaml], key: str) -> list[Mapping[str, Yaml]]:
    found = shipped.get(key)
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []
