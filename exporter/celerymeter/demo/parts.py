"""The demo's own parts as child processes: exporter, control API, workers, workload."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from celerymeter.demo import config
from celerymeter.demo.processes import Process
from celerymeter.demo.servers import Alertmanager, Prometheus, Redis
from celerymeter.demo.shipped import shipped
from celerymeter.demo.site import Site, write_secret
from celerymeter.errors import StartFailed

APP = "celerymeter.demo.app"
POLL = "2s"
"""How often the exporter looks at the queues: oftener than by default, since a person is watching."""


PAGES = ("null", "http://localhost", "http://127.0.0.1")
"""Origins that may open the feed: a page from a file, and what this machine serves."""


def _celerymeter(site: Site, name: str, *options: str) -> Process:
    argv = [sys.executable, "-m", "celerymeter", name, *options]
    return Process(name, argv, log=site.log(name), cwd=site.folder, env=_clean_environment())


def _clean_environment() -> Mapping[str, str]:
    """Settings of the caller's own celerymeter, emptied: they are not meant for the demo."""
    return {name: "" for name in os.environ if name.startswith("CELERYMETER_")}


def _celery(site: Site) -> Mapping[str, str]:
    return {
        "CELERY_BROKER_URL": site.broker_url,
        "CELERY_RESULT_BACKEND": site.backend_url,
        "REMAP_SIGTERM": "SIGQUIT",  # do not wait for the running tasks
    }


def redis(site: Site) -> Redis:
    """The broker."""
    return Redis(site.folder / "redis", port=site.ports.redis)


def exporter(site: Site) -> Process:
    """``celerymeter exporter``."""
    return _celerymeter(
        site,
        "exporter",
        f"--broker-url={site.broker_url}",
        f"--listen=127.0.0.1:{site.ports.exporter}",
        f"--poll-interval={POLL}",
        "--inspect-interval=10s",
        "--log-format=text",
    )


def control(site: Site) -> Process:
    """``celerymeter control``, open to pages from files and from this machine."""
    for path in (site.jwt_secret, site.webhook_token):
        write_secret(path, secrets.token_hex(32))
    return _celerymeter(
        site,
        "control",
        f"--broker-url={site.broker_url}",
        f"--result-backend-url={site.backend_url}",
        f"--prometheus-url={site.prometheus_url}",
        f"--alertmanager-url={site.alertmanager_url}",
        f"--listen=127.0.0.1:{site.ports.control}",
        f"--metrics-listen=127.0.0.1:{site.ports.control_metrics}",
        f"--jwt-secret-file={site.jwt_secret}",
        f"--webhook-token-file={site.webhook_token}",
        f"--state-dir={site.folder / 'control'}",
        "--anonymous-feed",
        *(f"--allow-origin={origin}" for origin in PAGES),
        "--log-format=text",
    )


def admin_token(site: Site) -> str:
    """A token for everything that the control API can do, good for a day; raises `StartFailed`."""
    argv = [sys.executable, "-m", "celerymeter", "token", f"--jwt-secret-file={site.jwt_secret}"]
    argv += ["--role=admin", "--ttl=24h", "--subject=demo"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise StartFailed(f"no token: {done.stderr}")
    return done.stdout.splitlines()[-1]


def worker(site: Site, name: str, queues: tuple[str, ...], *options: str) -> Process:
    """A prefork worker, called ``name`` at this host."""
    argv = [sys.executable, "-m", "celery", "-A", APP, "worker", "-n", f"{name}@%h", "-Q", ",".join(queues)]
    log = site.log(f"worker-{name}")
    return Process(f"worker {name}", [*argv, "-l", "WARNING", *options], log=log, cwd=site.folder, env=_celery(site))


def workers(site: Site) -> tuple[Process, Process]:
    """One for what is slow or scheduled, and one for what is quick."""
    schedule = str(site.folder / "schedule")
    return (
        worker(site, "slow", ("media", "reports"), "-c", "2", "--prefetch-multiplier", "1", "-B", "-s", schedule),
        worker(site, "quick", ("orders", "emails"), "-c", "4"),
    )


def workload(site: Site, load: str) -> Process:
    """The sender of tasks."""
    argv = [sys.executable, "-m", "celerymeter.demo.workload", load]
    return Process("workload", argv, log=site.log("workload"), cwd=site.folder, env=_celery(site))


def prometheus(site: Site) -> Prometheus:
    """With the shipped rules."""
    folder = shipped("alerts")
    path = site.folder / "prometheus.yml"
    adapted = config.prometheus_config(_read(folder / "prometheus.yml"), folder=folder, ports=site.ports)
    path.write_text(yaml.safe_dump(adapted, sort_keys=False))
    options = ("--rules.alert.resend-delay=5s", "--rules.alert.for-grace-period=1m", "--storage.tsdb.retention.time=2d")
    return Prometheus(site.folder / "prometheus", config=path, port=site.ports.prometheus, options=options)


def alertmanager(site: Site, *, sink_url: str, slack_url_file: Path | None = None) -> Alertmanager:
    """With the shipped routing; it reads ``slack_url_file`` itself, at every message."""
    folder = shipped("alerts")
    path = site.folder / "alertmanager.yml"
    receivers = config.Receivers(site.control_url, site.webhook_token, sink_url, slack_url_file)
    adapted = config.alertmanager_config(_read(folder / "alertmanager.yml"), folder=folder, receivers=receivers)
    path.write_text(yaml.safe_dump(adapted, sort_keys=False))
    return Alertmanager(site.folder / "alertmanager", config=path, port=site.ports.alertmanager)


def _read(path: Path) -> dict[str, config.Yaml]:
    loaded: dict[str, config.Yaml] = yaml.safe_load(path.read_text())
    return loaded
