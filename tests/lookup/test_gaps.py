"""Some evidence is missing (events of before, results, a worker that hangs), or comes only after a loss."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from tests.apps.worker_app import SETTINGS
from tests.control.serving import Control
from tests.integration.exporter.test_delayed_delivery import CONFIG
from tests.lookup.test_situations import seconds
from tests.lookup.watching import ON_THE_WAY, Lookups, outcomes
from tests.revocation.cluster import TIMEOUT, Cluster, running_cluster
from tests.revocation.releases import Setting
from tests.scrape import ExporterProcess

from celerymeter.control.live_workers import ALIVE
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Prometheus

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SOON = 5
"""Seconds after which Redis delivers again what was not acknowledged, where worker and API have the option."""
ALL = [(broker, pool) for broker in ("redis", "rabbitmq") for pool in ("prefork", "threads")]
EVERYWHERE = pytest.mark.parametrize(("broker", "pool"), ALL)
MOST_SLOW = pytest.mark.parametrize(
    ("broker", "pool"),
    [ALL[0], *(pytest.param(*setting, marks=[pytest.mark.slow]) for setting in ALL[1:])],
)
SCRAPE = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: celerymeter
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
ROOT = Path(__file__).parents[2]


def control(cluster: Cluster, name: str, *options: str) -> Control:
    """Start another API on the cluster's broker, with a state of its own."""
    folder = cluster.folder / name
    folder.mkdir()
    return cluster.stack.enter_context(Control(folder, ("--broker-url", cluster.broker.url, *options))).up()


@MOST_SLOW
def test_sent_before_we_listened_and_without_a_result_backend(tmp_path: Path, broker: str, pool: str) -> None:
    """A task that is still there is found; one that is over is unknown, and the answer says what was not asked."""
    with running_cluster(tmp_path, Setting(broker)) as cluster:
        cluster.worker("one@t", pool=pool)
        done = cluster.send("tests.add", 1, 2, queue="one")
        assert cluster.ends(done) == "SUCCESS"
        held = cluster.hold("one")
        reserved = cluster.send("tests.add", 1, 2, queue="one")
        scheduled = cluster.send("tests.add", 1, 2, queue="one", countdown=3600)
        queued = cluster.send("tests.add", 1, 2, queue="nobody")
        Lookups(cluster.control).becomes(scheduled, "scheduled", before=ON_THE_WAY)
        late = Lookups(control(cluster, "late"))
        late.becomes(held.id, "running", worker="one@t")
        late.becomes(reserved, "reserved", worker="one@t")
        assert seconds(late.becomes(scheduled, "scheduled")["eta"]) == pytest.approx(time.time() + 3600, abs=60)
        unseen = late.look(queued)
        if broker == "redis":
            assert (unseen["verdict"], unseen["queue"], unseen["position"]["number"]) == ("queued", "nobody", 1)
        else:
            assert "this broker does not show its messages" in unseen["sentence"]["en"]
        reply = late.look(done)
        assert (reply["verdict"], reply["runs"]) == ("unknown", [])
        assert {"source": "result backend", "reason": "no --result-backend-url is given"} in reply["not_asked"]
        known = Lookups(control(cluster, "known", "--result-backend-url", cluster.backend_url))
        assert "by its stored result" in known.becomes(done, "succeeded")["sentence"]["en"]


@pytest.mark.slow
@EVERYWHERE
def test_a_worker_that_hangs_is_not_gone(tmp_path: Path, broker: str, pool: str) -> None:
    """Nothing proves that its tasks are lost; when it goes on they end."""
    with running_cluster(tmp_path, Setting(broker)) as cluster:
        stopped = cluster.worker("one@t", pool=pool)
        cluster.worker("two@t")
        lookups = Lookups(cluster.control)
        held = cluster.hold("one")
        reserved = cluster.send("tests.add", 1, 2, queue="one")
        lookups.becomes(reserved, "reserved", before=ON_THE_WAY)
        stopped.signal(signal.SIGSTOP, group=True)
        end = time.monotonic() + ALIVE + 15
        seen = set()
        while time.monotonic() < end:
            seen |= {lookups.look(held.id)["verdict"], lookups.look(reserved)["verdict"]}
            time.sleep(1)
        reply = lookups.look(held.id)
        stopped.signal(signal.SIGCONT, group=True)
        assert seen <= {"running", "reserved", "unknown"}
        assert (reply["verdict"], reply["worker"]) == ("unknown", "one@t")
        assert "nothing proves that it is gone" in reply["sentence"]["en"]
        held.let_go()
        for task_id in (held.id, reserved):
            lookups.becomes(task_id, "succeeded", before=("running", "reserved"))


@pytest.mark.slow
@EVERYWHERE
def test_delivered_again_after_its_worker_died(tmp_path: Path, broker: str, pool: str) -> None:
    """The first run is lost, the second one runs, and that is not twice."""
    vt = {"visibility_timeout": SOON} if broker == "redis" else {}
    pairs = [f"{name}={value}" for name, value in vt.items()]
    options = [word for option in pairs for word in ("--transport-option", option)]
    with running_cluster(tmp_path, Setting(broker), options) as cluster:
        lookups = Lookups(cluster.control)
        doomed = cluster.worker("doomed@t", queues=["q"], pool=pool, transport_options=vt)
        task_id = cluster.send("tests.sleep_late", 20, queue="q")
        lookups.becomes(task_id, "running", before=ON_THE_WAY, worker="doomed@t")
        doomed.kill()
        cluster.worker("next@t", queues=["q"], pool=pool, transport_options=vt)
        before = ("running", "reserved", "queued", "lost")
        reply = lookups.becomes(task_id, "running", before=before, worker="next@t")
        assert outcomes(reply)[-1] == ("next@t", "running")
        lookups.becomes(task_id, "succeeded", before=("running",))
        end = time.monotonic() + ALIVE + TIMEOUT
        while outcomes(reply := lookups.look(task_id)) != [("doomed@t", "lost"), ("next@t", "succeeded")]:
            assert time.monotonic() < end, reply
            assert reply["verdict"] == "succeeded"
            time.sleep(1)


@pytest.mark.slow
def test_in_a_delay_level_of_rabbitmq(tmp_path: Path) -> None:
    """Until its ETA, when it goes to its queue."""
    with running_cluster(tmp_path, Setting("rabbitmq")) as cluster:
        cluster.app.conf.update(CONFIG)
        cluster.worker("one@t", queues=["orders", "mail"], env={SETTINGS: json.dumps(CONFIG)})
        lookups = Lookups(cluster.control)
        task_id = str(cluster.app.tasks["tests.add"].apply_async((1, 2), queue="orders", countdown=600).id)
        reply = lookups.becomes(task_id, "scheduled", worker=None)
        assert "delay level" in reply["sentence"]["en"]
        assert seconds(reply["eta"]) == pytest.approx(time.time() + 600, abs=30)
        soon = str(cluster.app.tasks["tests.add"].apply_async((1, 2), queue="orders", countdown=5).id)
        lookups.becomes(soon, "scheduled")
        lookups.becomes(soon, "succeeded", before=("scheduled", *ON_THE_WAY))


@pytest.fixture
def measured(tmp_path: Path, broker: str) -> Iterator[tuple[Cluster, Lookups]]:
    """A cluster whose API asks a Prometheus with our rules."""
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster(tmp_path, Setting(broker)))
        exporter = stack.enter_context(ExporterProcess(tmp_path, cluster.broker.url)).up()
        config = tmp_path / "prometheus.yml"
        rules = ROOT / "alerts" / "rules" / "recording.yml"
        config.write_text(SCRAPE.format(rules=rules, port=exporter.port))
        prometheus = stack.enter_context(Prometheus(tmp_path / "prometheus", config=config)).up()
        yield cluster, Lookups(control(cluster, "measured", "--prometheus-url", prometheus.url))


@pytest.mark.slow
@EVERYWHERE
def test_running_far_beyond_its_usual_time(measured: tuple[Cluster, Lookups], pool: str) -> None:
    """Compared with the 95th percentile of its own name, which Prometheus has."""
    cluster, lookups = measured
    cluster.worker("one@t", pool=pool, concurrency=2)
    for _ in range(20):
        cluster.ends(cluster.send("tests.sleep", 0.05, queue="one"))
    task_id = cluster.send("tests.sleep", 600, queue="one")
    lookups.becomes(task_id, "running", before=ON_THE_WAY)

    def compared() -> bool:
        return "times the 95th percentile" in str(lookups.look(task_id)["sentence"]["en"])

    wait_until(compared, interval=2.0, what="a percentile of tests.sleep")
    reply = lookups.look(task_id)
    assert reply["verdict"] == "running"
    assert 0 < reply["usual_seconds"] < 1


def test_nobody_may_look_without_a_token(tmp_path: Path) -> None:
    """A strange id is refused, never a stack trace."""
    import requests
    from tests.control.access import bearer

    with Control(tmp_path) as served:
        served.up()
        assert requests.get(f"{served.url}/tasks/some-id", timeout=TIMEOUT).status_code == 401
        for odd in ("a%20b", "x" * 300, "%00", "a%0ab"):
            response = requests.get(f"{served.url}/tasks/{odd}", headers=bearer(), timeout=TIMEOUT)
            assert (response.status_code, response.json()["code"]) == (422, "invalid")
        reply = Lookups(served).look(uuid4().hex)
        assert reply["verdict"] == "unknown"
        assert "the broker cannot be reached" in reply["sentence"]["en"]
