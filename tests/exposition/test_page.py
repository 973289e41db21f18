"""The page: byte for byte, and as Prometheus' own parsers read it."""

from __future__ import annotations

import subprocess
from functools import cache

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from tests.exposition.golden import GOLDEN, busy, render
from tests.tracking.cluster import WORKER, Cluster, make_settings

from celerymeter.demo.servers import find_binary
from celerymeter.exposition.page import FAMILIES, writer_of
from celerymeter.metrics import COMPATIBLE, Family
from celerymeter.model import PollOutcome, QueueHead, QueuesSnapshot, QueueState
from celerymeter.settings import Limits


def test_the_page_is_what_it_was() -> None:
    """Byte for byte."""
    assert render(busy()) == GOLDEN.read_text(), "run `make generate`, and read the difference of golden.prom"


@pytest.mark.parametrize("family", [*FAMILIES, *COMPATIBLE], ids=lambda family: family.name)
def test_every_family_has_a_writer(family: Family) -> None:
    """Or an error says which family is missing, and in which file."""
    assert writer_of(family) is not None


def test_a_family_without_a_writer_is_named_with_the_file_to_edit() -> None:
    """As somebody sees it who has just added a row to the catalogue."""
    new = Family(name="celery_new_total", kind="counter", labels=(), help="New.", area="tasks")
    with pytest.raises(LookupError, match=r"celery_new_total .*WRITERS in celerymeter/exposition/page\.py"):
        writer_of(new)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_of_the_catalogue_is_on_a_full_page(family: Family) -> None:
    """With its declared type and labels."""
    parsed = full_page().get(family.name.removesuffix("_total") if family.kind == "counter" else family.name)
    assert parsed is not None, (
        f"{family.name} has no sample: count it in celerymeter/tracking/, and let busy() in"
        " tests/exposition/golden.py cause it"
    )
    assert (parsed.type, parsed.documentation) == (family.kind, family.help)
    for sample in parsed.samples:
        assert set(sample.labels) - {"le"} == set(family.labels)


@pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if family.area == "tasks" and family.kind == "counter"],
    ids=lambda family: family.name,
)
def test_every_counter_of_tasks_counts(family: Family) -> None:
    """One that nobody increments would be 0 for ever, and look healthy."""
    assert any(sample.value > 0 for sample in full_page()[family.name.removesuffix("_total")].samples), (
        f"{family.name} is 0: count it in celerymeter/tracking/, and let busy() in tests/exposition/golden.py cause it"
    )


@cache
def full_page() -> dict[str, Metric]:
    """The golden page, as Prometheus' own parser reads it."""
    return {family.name: family for family in text_string_to_metric_families(render(busy()))}


def test_a_page_without_history_is_valid_too() -> None:
    """Before the first event."""
    cluster = Cluster()
    cluster.tracker.disconnected()
    families = {family.name: family for family in text_string_to_metric_families(render(cluster))}
    assert families["celerymeter_broker_up"].samples[0].value == 0
    assert "celery_worker_up" not in families


@pytest.mark.integration
@pytest.mark.parametrize("make", [Cluster, busy])
def test_promtool_has_nothing_to_say(make: type[Cluster]) -> None:
    """`promtool check metrics` lints names, types and help texts."""
    check = subprocess.run(
        [find_binary("promtool"), "check", "metrics"], input=render(make()), text=True, capture_output=True, check=False
    )
    assert (check.returncode, check.stdout + check.stderr) == (0, "")


def test_a_gauge_of_a_poll_vanishes_when_it_is_stale() -> None:
    """Two intervals after the last success, and at once while the broker is away."""
    cluster = busy()
    assert "celery_queue_length{" in render(cluster)
    cluster.pass_time(31, beating=(WORKER,))
    page = render(cluster)
    assert "celery_queue_length{" not in page
    assert "celery_worker_pool_size{" not in page
    cluster = busy()
    cluster.tracker.disconnected()
    page = render(cluster)
    assert "celery_queue_length{" not in page
    assert "celery_worker_up{" not in page
    assert 'celery_task_succeeded_total{name="add",queue_name="mail"} 1' in page


def with_queues(cluster: Cluster, *queues: QueueState) -> str:
    """The page after both polls succeeded just now."""
    cluster.tracker.queues_seen(QueuesSnapshot(cluster.now, queues))
    for collector in ("queues", "workers"):
        cluster.tracker.polled(PollOutcome(collector, True, cluster.now, 0.1))
    return render(cluster)


def test_a_queue_that_no_worker_lists_has_no_consumer() -> None:
    """Once every live worker has said which it consumes."""
    cluster = Cluster()
    cluster.heartbeat()
    cluster.answer(queues=("mail",), slots=4)
    page = with_queues(cluster, QueueState("celery", 4), QueueState("mail", 0))
    assert 'celery_queue_consumers{queue_name="celery"} 0' in page
    assert 'celery_queue_consumers{queue_name="mail"} 1' in page
    assert 'celery_queue_pool_slots{queue_name="celery"} 0' in page
    assert 'celery_queue_pool_slots{queue_name="mail"} 4' in page


def test_without_a_reply_of_every_live_worker_no_sum_is_known() -> None:
    """Remote control may be turned off at one of them; RabbitMQ counts consumers itself."""
    cluster = Cluster()
    cluster.heartbeat()
    cluster.heartbeat("celery@mute")
    cluster.answer(queues=("mail",), slots=4)
    page = with_queues(cluster, QueueState("celery", 4))
    assert 'celery_queue_consumers{queue_name="celery"}' not in page
    assert 'celery_queue_consumers{queue_name="mail"} 1' in page, "it is asked again first"

    cluster.answer(queues=("mail",), slots=4)
    page = with_queues(cluster, QueueState("celery", 4), QueueState("mail", 4, consumers=3))
    assert 'celery_queue_consumers{queue_name="celery"}' not in page
    assert 'celery_queue_consumers{queue_name="mail"} 3' in page
    assert "celery_queue_pool_slots{" not in page

    cluster.pass_time(30, beating=(WORKER,))
    cluster.answer(queues=("mail",))
    page = with_queues(cluster, QueueState("celery", 4), QueueState("mail", 4))
    assert 'celery_queue_consumers{queue_name="celery"} 0' in page, "the mute one is gone"
    assert 'celery_queue_pool_slots{queue_name="celery"} 0' in page
    assert 'celery_queue_pool_slots{queue_name="mail"}' not in page, "its only worker did not say"


def test_how_many_tasks_a_worker_holds_is_unknown_once_it_no_longer_replies() -> None:
    """It missed every poll of a minute, although its heartbeats go on; how many slots it has does not change."""
    cluster = Cluster()
    cluster.heartbeat()
    cluster.answer(slots=4, reserved=3, scheduled=2)
    cluster.pass_time(60, beating=(WORKER,))
    page = with_queues(cluster)
    assert f'celery_worker_tasks_reserved{{hostname="{WORKER}"}} 3' in page
    assert f'celery_worker_tasks_scheduled{{hostname="{WORKER}"}} 2' in page
    cluster.pass_time(1, beating=(WORKER,))
    page = with_queues(cluster)
    assert "celery_worker_tasks_reserved{" not in page
    assert "celery_worker_tasks_scheduled{" not in page
    assert f'celery_worker_pool_size{{hostname="{WORKER}"}} 4' in page


def test_without_any_worker_there_is_no_consumer() -> None:
    """Once workers had the time for a heartbeat."""
    cluster = Cluster()
    assert "celery_queue_consumers{" not in with_queues(cluster, QueueState("celery", 4))
    cluster.pass_time(11)
    assert 'celery_queue_consumers{queue_name="celery"} 0' in with_queues(cluster, QueueState("celery", 4))


def test_folded_queues_add_up() -> None:
    """Lengths are summed, timestamps take the minimum."""
    cluster = Cluster(make_settings(Limits(queues=1)))
    queues = tuple(
        QueueState(f"q{number}", number, head=QueueHead(None, None, cluster.now - number), consumers=2)
        for number in range(4)
    )
    cluster.tracker.queues_seen(QueuesSnapshot(cluster.now, queues))
    cluster.tracker.polled(PollOutcome("queues", True, cluster.now, 0.1))
    page = render(cluster)
    assert 'celery_queue_length{queue_name="__other__"} 6' in page
    assert 'celery_queue_consumers{queue_name="__other__"} 6' in page
    start = f'celery_queue_oldest_task_timestamp_seconds{{queue_name="__other__",source="observed"}} {cluster.now - 3}'
    assert start in page


def abandoned(number: int, ending: str = "") -> list[QueueState]:
    """Return empty queues that nobody consumes, the first in the alphabet."""
    return [QueueState(f"a{n}{ending}", 0, unacked=0) for n in range(number)]


def test_queues_that_are_used_get_labels_before_those_that_are_not() -> None:
    """A queue for each tenant of the past, in a broker that never forgets one, hides no other."""
    cluster = Cluster(make_settings(Limits(queues=4), queues=("configured",)))
    cluster.heartbeat()
    cluster.answer(queues=("mail",), slots=4)
    before = with_queues(cluster, *abandoned(9))
    assert all(f'celery_queue_length{{queue_name="a{n}"}} 0' in before for n in range(2)), "mail, configured, and two"
    assert "a2" not in before
    full, held = QueueState("z1", 5), QueueState("z2", 0, unacked=1)
    page = with_queues(cluster, *abandoned(9), full, held, QueueState("mail", 0), QueueState("configured", 0))
    lengths = {line for line in page.splitlines() if line.startswith("celery_queue_length{")}
    shown = {"z1": 5, "z2": 0, "mail": 0, "configured": 0, "__other__": 0}
    assert lengths == {f'celery_queue_length{{queue_name="{name}"}} {length}' for name, length in shown.items()}
    assert 'celery_queue_consumers{queue_name="mail"} 1' in page
    assert 'celery_queue_consumers{queue_name="z1"} 0' in page
    assert cluster.tracker.task_series.folded["queue_name"] == 7 + 9
    page = with_queues(cluster, QueueState("z1", 0), *abandoned(1))
    assert 'celery_queue_length{queue_name="z1"} 0' in page, "one that was used keeps its label"
    assert 'celery_queue_length{queue_name="a0"}' not in page


def test_the_own_queue_of_a_worker_that_is_gone_has_no_series() -> None:
    """Unless messages wait in it; those of live workers have one, and use up no label for good (`worker_direct`)."""
    cluster = Cluster(make_settings(Limits(queues=2)))
    cluster.heartbeat()
    for number in range(5):
        own = f"pod{number}@h.dq2"
        cluster.answer(queues=("mail", own), slots=4)
        page = with_queues(cluster, QueueState("mail", 0), QueueState(own, 0), *abandoned(9, ".dq2"))
        assert f'celery_queue_length{{queue_name="{own}"}} 0' in page
        assert f'celery_queue_consumers{{queue_name="{own}"}} 1' in page
        assert 'queue_name="a' not in page
    cluster.answer(queues=("mail",), slots=4)
    page = with_queues(cluster, QueueState("mail", 0), QueueState("a1.dq2", 3), QueueState("new", 0))
    assert 'celery_queue_length{queue_name="a1.dq2"} 3' in page
    assert 'celery_queue_consumers{queue_name="a1.dq2"} 0' in page
    assert cluster.tracker.task_series.folded["queue_name"] == 1


def test_the_hostname_is_a_label_on_request() -> None:
    """Off by default: series times workers."""
    cluster = Cluster(make_settings(task_hostname_label=True))
    cluster.run("a")
    page = render(cluster)
    assert f'celery_task_succeeded_total{{name="add",queue_name="celery",hostname="{WORKER}"}} 1' in page
    assert 'celery_task_sent_total{name="add",queue_name="celery",hostname=""} 1' in page
