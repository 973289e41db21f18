"""Composition root of the demo: names the parts, shows the live line, ends them all."""

from __future__ import annotations

import fcntl
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from celerymeter.demo import parts
from celerymeter.demo.guide import guide
from celerymeter.demo.screen import Screen
from celerymeter.demo.servers import answers
from celerymeter.demo.settings import DemoSettings
from celerymeter.demo.show import show
from celerymeter.demo.sink import Sink
from celerymeter.demo.site import Site, env_values, shown, write_env
from celerymeter.demo.stack import Part, Stack
from celerymeter.demo.watch import Watch
from celerymeter.errors import ProcessEnded, SettingsError, StartFailed

FOLDER = Path(".demo")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(settings: DemoSettings) -> int:
    """Run the demo until its time is over or a signal ends it; status 1 when one of its parts ended by itself.

    Raises `SettingsError`, `PortInUse` or `ServerMissing` when it cannot even start.
    """
    screen = Screen()
    try:
        _run(settings, screen)
    except KeyboardInterrupt:
        pass
    except (StartFailed, ProcessEnded) as error:
        screen.say(f"{error}\n\nThe demo has stopped, since one of its parts had.")
        return 1
    screen.say("The demo has stopped.")
    return 0


def _run(settings: DemoSettings, screen: Screen) -> None:
    with ExitStack() as cleanup:
        cleanup.enter_context(_signals_interrupt())
        folder = FOLDER.absolute()
        cleanup.enter_context(_only_one_in(folder))
        site = Site(_emptied(folder / "run"), settings.ports.settled())
        sink = cleanup.enter_context(Sink(site.ports.sink))
        watch = cleanup.enter_context(Watch(site))
        stages = _stages(site, watch, sink=sink, settings=settings)
        screen.say(f"Starting; logs are in {shown(site.folder)}")
        stack = cleanup.enter_context(Stack(screen.say))
        cleanup.callback(_ignore_signals)
        for stage in stages:
            stack.start(*stage)
        values = env_values(site, token=parts.admin_token(site))
        write_env(folder / "env", values)
        cleanup.callback((folder / "env").unlink, missing_ok=True)
        slack = settings.slack_url_file
        screen.say(guide(values, env=shown(folder / "env"), victim=stages[1][-1].process, slack=slack))
        show(screen, stack, watch, sink, duration=settings.duration)


def _stages(site: Site, watch: Watch, *, sink: Sink, settings: DemoSettings) -> list[list[Part]]:
    """What is started together, stage by stage: the exporter before the workers, so that it misses nothing."""
    redis, exporter = parts.redis(site), parts.exporter(site)
    prometheus = parts.prometheus(site)
    alertmanager = parts.alertmanager(site, sink_url=sink.url, slack_url_file=settings.slack_url_file)
    control = parts.control(site)
    slow, quick = parts.workers(site)
    workload = parts.workload(site, settings.load)
    return [
        [Part(redis, redis.ready, site.broker_url)],
        [
            Part(exporter, lambda: answers(f"{site.exporter_url}/-/ready"), f"{site.exporter_url}/metrics"),
            Part(alertmanager, alertmanager.ready, site.alertmanager_url),
            Part(prometheus, prometheus.ready, site.prometheus_url),
            Part(control, lambda: answers(f"{site.control_url}/celery-admin/system/health"), site.control_url),
            Part(slow, lambda: watch.workers_up() >= 1, "queues media, reports; scheduler", mortal=True),
            Part(quick, lambda: watch.workers_up() >= 2, "queues orders, emails", mortal=True),
        ],
        [Part(workload, lambda: watch.scraped() and watch.alerting(), f"{settings.load} load")],
    ]


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Inside, SIGTERM and a closed terminal end us as ^C does."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """While the children are being stopped, which takes some seconds, a second ^C must not leave them behind."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _only_one_in(folder: Path) -> Iterator[None]:
    """Two demos in one folder would delete each other's files: the second raises `SettingsError`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"a demo runs in {folder} already: stop it, or start this one elsewhere") from None
        yield


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
