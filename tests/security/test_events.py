"""Events that no worker would send, through everything that reads them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from functools import partial

import pytest
import redis
from tests.events.running import Readers, app_of, emit_until_received
from tests.events.sinks import RecordingSink
from tests.exposition.golden import render
from tests.security.process import peak_of
from tests.tracking.cluster import START, Cluster, make_settings
from tools.hostile import Events

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis
from celerymeter.events import open_reader
from celerymeter.events.decode import Decoder
from celerymeter.exporter.polls import SharedTracker
from celerymeter.model import BeatReport, Event, ScheduleRow
from celerymeter.settings import BrokerSettings


@pytest.mark.parametrize("seed", range(3))
def test_a_flood_of_nonsense_breaks_nothing(seed: int) -> None:
    """Every event is applied or counted as invalid, and the page holds only finite numbers and clean labels."""
    cluster = Cluster()
    rejected: Counter[str] = Counter()
    decoder = Decoder(lambda reason, count: rejected.update({reason: count}))
    for body in itertools.islice(Events(seed).messages(), 200):
        events = decoder.bare(body, content_type="application/json", content_encoding="utf-8")
        cluster.tracker.apply(events, cluster.now)
        cluster.now += 0.05
    cluster.pass_time(20)
    text = render(cluster)
    assert rejected["body"] > 0
    assert cluster.tracker.rejections.keys() <= {"fields", "too_large"}
    for line in text.splitlines():
        if not line.startswith("#"):
            assert math.isfinite(float(line.rpartition(" ")[2])), line
            assert not set(line) & {chr(number) for number in (*range(32), *range(127, 160), 0x202E)}, line


@pytest.mark.parametrize("every", [1e-308, 5e-324, 0.0, 1e10, None])
def test_an_entry_may_be_due_ever_so_often(every: float | None) -> None:
    """A number that no integer can hold ended the reader."""
    cluster = Cluster()
    for instance, at in (("a", START), ("b", START + 1000)):
        row = ScheduleRow(schedule="s", name="n", every=every, next_due_at=at + 1)
        beat = BeatReport(instance=instance, started_at=at, schedule=[row])
        event = Event(type="beat-schedule", hostname=f"beat@{instance}", timestamp=at, beat=beat)
        cluster.tracker.apply([event], at)
    assert sum(schedule.due for schedule in cluster.tracker.schedules) <= 1_000_001


@pytest.mark.integration
@pytest.mark.parametrize("megabytes", [5, 30, 40])
def test_messages_of_many_megabytes_take_few_at_once(redis_server: Redis, readers: Readers, megabytes: int) -> None:
    """Each is counted; of more than 32 MB Redis ends the subscription, which is made again at once."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=redis_server.url), sink))
    sink.await_connections()
    message = b"x" * (megabytes * 1024 * 1024)

    def are_counted(sent: int) -> bool:
        return sink.rejections["too_large"] + len(sink.losses) >= sent

    def flood() -> None:
        with redis.Redis(port=redis_server.port) as client:
            for number in range(1, 6):
                client.publish("/0.celeryev/task.multi", message)
                wait_until(partial(are_counted, number))
                sink.await_connections(len(sink.losses) + 1)

    _, grown = peak_of(flood)
    assert grown < 160  # with the copies of the client that publishes
    emit_until_received(app_of(redis_server.url), sink)


class Broken:
    """A tracker with a bug."""

    def __init__(self) -> None:
        self.rejected = 0

    def apply(self, batch: object, at: float) -> None:
        """Fail."""
        raise OverflowError

    def reject(self, reason: str, count: int) -> None:
        """Count."""
        self.rejected += count


def test_a_bug_that_an_event_meets_ends_no_stream(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted each time, and logged once a minute."""
    broken = Broken()
    state = SharedTracker(broken)  # type: ignore[arg-type]  # what it uses of one
    for number in range(100):
        state.events([Event(type="x", hostname="h", timestamp=1.0)] * 3, START + number)
    assert broken.rejected == 300
    assert caplog.text.count("3 events cannot be applied") == 2


def test_settings_of_any_size_bound_the_flood() -> None:
    """The smallest limits too."""
    from celerymeter.settings import Limits

    limits = Limits(task_names=1, queues=1, workers=1, exceptions=1, task_pairs=1, tracked_tasks=1)
    cluster = Cluster(make_settings(limits))
    decoder = Decoder(lambda reason, count: None)
    for body in itertools.islice(Events().messages(), 100):
        events = decoder.bare(body, content_type="application/json", content_encoding="utf-8")
        cluster.tracker.apply(events, cluster.now)
    cluster.pass_time(5)
    assert len(cluster.tracker.tasks.runs) <= 20
    assert render(cluster)
