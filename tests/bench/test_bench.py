"""The benchmarks measure what they say: the stream is the real format, and nobody loses any of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tools.bench.aggregate import EACH, PAIRS, counting, publishing, run_crowd
from tools.bench.consumer import EXPORTER, UNLIMITED, Consumer, flat_out
from tools.bench.history import Month
from tools.bench.months import Victoria, Writable
from tools.bench.publish import Publisher
from tools.bench.report import ask, expected
from tools.bench.wire import Load, make_stream

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis
from celerymeter.events.decode import Decoder


@pytest.mark.parametrize("batched", [True, False])
def test_the_stream_is_what_it_claims_to_be(batched: bool) -> None:
    """Every event decodes, and they are as many as the stream says."""
    rejected: Counter[str] = Counter()
    stream = make_stream(Load(tasks=1000, batched=batched))

    events = Decoder(lambda reason, count: rejected.update({reason: count})).messages(
        message for _, message in stream.messages
    )

    assert Counter(event.type for event in events) == stream.events
    assert not rejected
    assert (len(stream.messages) == stream.total) is not batched


@pytest.mark.integration
def test_a_contestant_sees_every_event(tmp_path: Path) -> None:
    """And its CPU time is measured."""
    stream = make_stream(Load(tasks=10_000))  # some tenths of a second: the kernel counts hundredths
    run = flat_out("reader", stream, tmp_path)
    assert (run.events, run.lost) == (stream.total, 0)
    assert run.cpu > 0


@pytest.mark.integration
@pytest.mark.parametrize("engine", [Victoria, Writable])
def test_a_months_history_is_what_it_claims_to_be(engine: type[Victoria | Writable], tmp_path: Path) -> None:
    """A small one, written as the large one is, and read by the command after a restart."""
    month = Month(tasks=2, queues=2, days=0.6, fine=60, coarse=300)
    with engine(tmp_path / "engine") as server:
        server.up().write(month)
    with engine(tmp_path / "engine") as server:
        assert ask(server.up().url, month).total == expected(month)


@pytest.mark.integration
def test_the_exporter_counts_a_stream_exactly(tmp_path: Path) -> None:
    """Each end under its name and queue, nothing missed, no wait unmeasured for want of a clock."""
    stream = make_stream(Load(tasks=4000, names=7, queues=3, workers=4))
    with Redis(tmp_path, options=UNLIMITED) as server:
        server.up()
        with Consumer(EXPORTER, server, tmp_path) as consumer:
            publisher = Publisher(server.port)
            publisher.paced(stream.messages, 1)
            publisher.close()
            wait_until(lambda: consumer.seen() >= stream.total, what="every event is counted")
            page = consumer.page()

    counted = {
        (kind, *labels): int(value)
        for kind in ("task-succeeded", "task-failed")
        for labels, value in page.by(f"celery_{kind.replace('-', '_')}_total", "name", "queue_name").items()
    }
    assert counted == stream.ends
    assert page.sum("celerymeter_events_total") == stream.total
    assert page.sum("celerymeter_events_missed_total") == 0


@pytest.mark.integration
def test_a_crowd_of_aggregating_workers_is_counted_exactly(tmp_path: Path) -> None:
    """Also where nine of ten messages are lost until the last."""
    found = run_crowd(30, 3, tmp_path, lost=0.9)
    assert found.counted == found.sent == 30 * 4 * PAIRS * EACH


@pytest.mark.integration
def test_a_worker_counts_a_task_for_less_than_a_tenth_of_its_events(tmp_path: Path) -> None:
    """The least of three runs of each; it is about a sixtieth."""
    with Redis(tmp_path) as server:
        server.up()
        runs = [(counting(2000), publishing(2000, server.url)) for _ in range(3)]
    ours, celerys = map(min, zip(*runs, strict=True))
    assert ours < celerys / 10
