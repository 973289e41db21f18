"""docker-compose.yml: valid, pinned, locked down, and closed to everybody but this machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.version import Version
from tests.deploy import compose
from tests.deploy.compose import ROOT, Compose, Service
from tests.engines import newer

from celerymeter import __version__

OURS = f"celerymeter:{__version__}"
NAMES = sorted(yaml.safe_load((ROOT / compose.MAIN).read_text())["services"])
DIGEST = re.compile(r"\S+:v?\d+\.\d+\.\d+[a-z-]*@sha256:[0-9a-f]{64}")
REDIS_USERS = ("default", "celerymeter", "celerymeter-results")
OPENED = {"grafana": "3000", "control": "8000", "prometheus": "9090", "alertmanager": "9093"}


@pytest.fixture(scope="module")
def stack(secrets: Path) -> Compose:
    """The file as it is."""
    return compose.resolved(secrets=secrets)


@pytest.fixture(params=NAMES)
def service(request: pytest.FixtureRequest, stack: Compose) -> Service:
    """Each service in turn."""
    return stack.services[request.param]


def test_it_has_all_of_the_stack(stack: Compose) -> None:
    """Broker, shop, exporter, control API, and the three that people look at."""
    assert set(stack.services) == {"redis", "worker-quick", "worker-slow", "workload", "exporter", *OPENED}


def test_one_service_builds_our_image_and_no_registry_is_asked_for_it(secrets: Path) -> None:
    """Builds of one name at once collide in Compose 2.40, and nobody publishes it."""
    found = json.loads(compose.run("config", "--format", "json", secrets=secrets).stdout)["services"]
    ours = {name: each for name, each in found.items() if each["image"].startswith("celerymeter:")}
    assert len(ours) == 5
    assert {each["pull_policy"] for each in ours.values()} == {"never"}
    assert [name for name, each in found.items() if "build" in each] == ["exporter"]


def test_the_linter_has_nothing_to_say() -> None:
    """yamllint, with .yamllint.yaml; compose itself checks the schema in every other test."""
    argv = [sys.executable, "-m", "yamllint", "--strict", compose.MAIN, "deploy"]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_without_secrets_it_says_how_to_make_them() -> None:
    """Before anything is started."""
    ran = compose.run("config", secrets=None)
    assert ran.returncode != 0
    assert "run `make secrets` first" in ran.stderr


@pytest.mark.parametrize("extra", ["cluster", "links", "slack"])
def test_its_variants_are_valid_too(extra: str, secrets: Path) -> None:
    """deploy/compose/cluster.yml, links.yml and slack.yml on top of it."""
    made = compose.resolved(compose.MAIN, f"deploy/compose/{extra}.yml", secrets=secrets)
    assert set(made.services) >= {"exporter", *OPENED}


def test_for_another_cluster_the_shop_stays_out_and_the_exporter_gets_out(secrets: Path) -> None:
    """The networks of broker and monitoring lead nowhere, so the exporter needs a third one."""
    made = compose.resolved(compose.MAIN, "deploy/compose/cluster.yml", secrets=secrets)
    assert set(made.services) == {"exporter", *OPENED}
    assert not made.services["exporter"].networks <= made.internal


def test_with_links_prometheus_has_the_exported_rules(secrets: Path) -> None:
    """Instead of those of the checkout, which name no host."""
    prometheus = compose.resolved(compose.MAIN, "deploy/compose/links.yml", secrets=secrets).services["prometheus"]
    [rules] = [mount.source for mount in prometheus.mounts if mount.target == "/etc/prometheus/rules"]
    assert Path(rules).relative_to(compose.ROOT) == Path("deploy/compose/bundle/alerts/rules")


def test_with_slack_alertmanager_has_another_configuration_and_its_secret(secrets: Path) -> None:
    """In place of the one without."""
    alertmanager = compose.resolved(compose.MAIN, "deploy/compose/slack.yml", secrets=secrets).services["alertmanager"]
    sources = {mount.target: Path(mount.source).name for mount in alertmanager.mounts}
    assert sources["/etc/alertmanager/alertmanager.yml"] == "alertmanager-slack.yml"
    assert sources["/run/secrets/slack_url"] == "slack_url"


def test_each_image_is_one_image_for_ever(service: Service) -> None:
    """Ours is built of this checkout; others are named by release and digest."""
    assert service.image == OURS or DIGEST.fullmatch(service.image)


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_a_pinned_release_exists(name: str, stack: Compose) -> None:
    """It is not newer than what Debian packages of the same project."""
    tool = newer({"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}[name])
    said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    packaged = re.search(r"version (\d[\d.]*\d)", said.stdout + said.stderr)
    pinned = re.search(r":v([\d.]+)@", stack.services[name].image)
    assert packaged
    assert pinned
    assert Version(pinned[1]) <= Version(packaged[1])


def test_each_service_is_locked_down(service: Service) -> None:
    """An attacker who breaks into one of them can write nowhere, and gains nothing."""
    assert service.read_only
    assert service.options >= {"no-new-privileges:true", "drop ALL"}
    assert 0 < service.memory <= 2**30
    assert service.restart == "unless-stopped"
    assert service.healthcheck


def test_only_what_people_open_is_published_and_to_this_machine_alone(service: Service, stack: Compose) -> None:
    """A container in internal networks alone cannot be reached from outside, nor reach out."""
    wanted = [("127.0.0.1", OPENED[service.name])] if service.name in OPENED else []
    assert list(service.published) == wanted
    assert (service.networks <= stack.internal) == (service.name not in OPENED)


def test_no_variable_and_no_command_line_holds_a_secret(service: Service, secrets: Path) -> None:
    """Neither whole nor a URL's password."""
    words = {word for file in secrets.iterdir() for word in re.findall(r"[0-9a-f]{32,}", file.read_text())}
    assert len(words) == len((*REDIS_USERS, "jwt_secret", "webhook_token", "grafana_admin_password"))
    shown = " ".join([*service.entrypoint, *service.command, *service.healthcheck, *service.environment.values()])
    assert [word for word in words if word in shown] == []


def test_passwords_come_as_files_and_only_to_who_needs_them(stack: Compose) -> None:
    """Below /run/secrets, read-only."""
    got = {
        name: {Path(mount.target).name for mount in service.mounts if mount.target.startswith("/run/secrets/")}
        for name, service in stack.services.items()
    }
    cluster, shop = {"broker_url", "result_backend_url"}, {"shop_broker_url", "shop_result_backend_url"}
    assert got == {
        "redis": {"redis_users"},
        "worker-quick": shop,
        "worker-slow": shop,
        "workload": shop,
        "exporter": {"broker_url"},
        "control": cluster | {"jwt_secret", "webhook_token"},
        "prometheus": set(),
        "alertmanager": {"webhook_token"},
        "grafana": {"grafana_admin_password"},
    }


def test_what_is_mounted_is_there(service: Service, secrets: Path) -> None:
    """Every file and folder of the checkout, read-only; every secret."""
    bound = [mount for mount in service.mounts if mount.kind == "bind"]
    assert [mount.source for mount in bound if not Path(mount.source).exists()] == []
    assert all(mount.read_only for mount in bound)
    assert all(Path(mount.source).is_relative_to(ROOT) or Path(mount.source).parent == secrets for mount in bound)


def test_grafana_finds_its_dashboards_and_its_data_source(stack: Compose) -> None:
    """The paths and the address in the provisioning files are those of the mounts and services."""
    targets = {mount.target: Path(mount.source) for mount in stack.services["grafana"].mounts}
    provisioning = targets["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/celerymeter.yml").read_text())["providers"]
    assert list(targets[provider["options"]["path"]].glob("*.json"))
    (source,) = yaml.safe_load((provisioning / "datasources/celerymeter.yml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{OPENED['prometheus']}"


def test_the_mounted_configurations_are_up_to_date() -> None:
    """`python deploy/compose/generate.py` would change nothing."""
    argv = [sys.executable, str(ROOT / "deploy/compose/generate.py"), "--check"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def contents(make_secrets: Path) -> dict[str, str]:
    """Every secret by its name, after the script has run once more."""
    subprocess.run([make_secrets], check=True, capture_output=True)
    return {path.name: path.read_text() for path in (make_secrets.parent / "secrets").iterdir()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """The secrets that are not what they were."""
    return {name for name in after if before.get(name) != after[name]}


def users(secrets: dict[str, str]) -> dict[str, str]:
    """The rules of each user of Redis, with its password."""
    return dict(line.removeprefix("user ").split(" on ", 1) for line in secrets["redis_users"].splitlines())


URLS = {
    "shop_broker_url": "redis://:{default}@redis:6379/0\n",
    "shop_result_backend_url": "redis://:{default}@redis:6379/1\n",
    "broker_url": "redis://celerymeter:{celerymeter}@redis:6379/0\n",
    "result_backend_url": "redis://celerymeter-results:{celerymeter-results}@redis:6379/1\n",
}


def test_secrets_that_are_there_stay(make_secrets: Path) -> None:
    """Made again, only what is missing is made; new passwords of Redis go into all that hold them."""
    folder = make_secrets.parent / "secrets"
    before = contents(make_secrets)
    assert changed(before, contents(make_secrets)) == set()
    (folder / "redis_users").unlink()
    after = contents(make_secrets)
    assert changed(before, after) == {"redis_users", *URLS}
    passwords = {name: rules[1:].split()[0] for name, rules in users(after).items() if rules.startswith(">")}
    assert passwords.keys() == set(REDIS_USERS)
    assert {name: after[name] for name in URLS} == {name: url.format(**passwords) for name, url in URLS.items()}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_secrets_of_before_get_the_users_that_they_lack(make_secrets: Path) -> None:
    """The shop's password stays; the exporter no longer has it."""
    folder = make_secrets.parent / "secrets"
    old = contents(make_secrets)
    (folder / "redis_users").write_text("".join(old["redis_users"].splitlines(keepends=True)[:2]))
    for name in ("broker_url", "result_backend_url"):
        shutil.move(folder / f"shop_{name}", folder / name)
    after = contents(make_secrets)
    assert users(after)["default"] == users(old)["default"]
    assert changed(old, after) == {"redis_users", "broker_url", "result_backend_url"}
    assert "redis://celerymeter:" in after["broker_url"]


def test_the_url_of_another_cluster_stays(make_secrets: Path) -> None:
    """Whatever becomes of the shop's users."""
    folder = make_secrets.parent / "secrets"
    (folder / "broker_url").write_text("amqps://celerymeter:word@rabbit.example/\n")
    (folder / "redis_users").unlink()
    assert contents(make_secrets)["broker_url"] == "amqps://celerymeter:word@rabbit.example/\n"


def test_the_users_of_exporter_and_control_api_may_do_what_the_page_says(make_secrets: Path) -> None:
    """Rule by rule: those in deploy/README.md are the ones that are tried on servers."""
    page = (ROOT / "deploy" / "README.md").read_text()
    found = {name: rules for name, rules in users(contents(make_secrets)).items() if name.startswith("celerymeter")}
    assert len(found) == 2
    for name, rules in found.items():
        explained = re.search(rf"^ACL SETUSER {name} on >PASSWORD (.*?)```", page, re.DOTALL | re.MULTILINE)
        assert explained
        assert rules.split()[1:] == explained[1].split()
