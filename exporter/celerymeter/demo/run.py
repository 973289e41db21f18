"""Run the demo: start the parts, show what happens, stop them all."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from celerymeter.demo import parts
from celerymeter.demo.faults import FrozenBeat
from celerymeter.demo.grafana import MISSING, OVERVIEW, grafana, grafana_command
from celerymeter.demo.parts import Site
from celerymeter.demo.processes import Process
from celerymeter.demo.screen import GREEN, RED, Screen, live_line, paint
from celerymeter.demo.servers import answers
from celerymeter.demo.settings import DemoSettings
from celerymeter.demo.stack import Part, Stack
from celerymeter.demo.watch import ALWAYS_FIRING, NotificationSink, Readings, Watch
from celerymeter.errors import ProcessEnded, SettingsError, StartFailed

FOLDER = Path(".demo")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TICK = 1.0
ALERTS_EVERY = 3.0
LINE_EVERY = 10.0
"""Seconds between two lines where the output is not a terminal."""
QUERIES = {
    "tasks per second": "sum by (name) (rate(celery_task_succeeded_total[1m]))",
    "95th percentile wait": (
        "histogram_quantile(0.95, sum by (le, queue_name) (rate(celery_task_wait_seconds_bucket[5m])))"
    ),
    "queue lengths": "max by (queue_name) (celery_queue_length)",
}


def run(settings: DemoSettings) -> int:
    """Run the demo until its time is over or a signal stops it; status 1 if one of its parts ended.

    Raises `SettingsError`, `PortInUse` or `ServerMissing` when it cannot start.
    """
    screen = Screen()
    try:
        _run(settings, screen)
    except KeyboardInterrupt:
        pass
    except (StartFailed, ProcessEnded) as error:
        screen.say(f"{error}\n\nThe demo has stopped because one of its parts ended.")
        return 1
    screen.say("The demo has stopped.")
    return 0


def _run(settings: DemoSettings, screen: Screen) -> None:
    with ExitStack() as cleanup:
        cleanup.enter_context(_signals_interrupt())
        folder = FOLDER.absolute()
        cleanup.enter_context(_only_one_in(folder))
        _ask_loopback_without_proxy()
        shutil.rmtree(folder / "run", ignore_errors=True)
        (folder / "run").mkdir(parents=True)
        site = Site(folder / "run", settings.ports.settled(), aggregate=settings.aggregate)
        sink = cleanup.enter_context(NotificationSink(site.ports.sink).serving())
        watch = cleanup.enter_context(closing(Watch(site)))
        groups = _groups(site, watch, sink=sink, settings=settings)
        screen.say(f"Starting; logs are in {_relative(site.folder)}")
        stack = cleanup.enter_context(Stack(screen.say))
        cleanup.callback(_ignore_signals)
        for group in groups:
            stack.start(*group)
        addresses = _addresses(site)
        parts.write_secret(folder / "env", "".join(f"{name}={value}\n" for name, value in addresses.items()))
        cleanup.callback((folder / "env").unlink, missing_ok=True)
        worker = groups[1][-1].process
        frozen = None
        if settings.load == "faulty":
            [beat] = [part.process for part in groups[1] if part.process.name == "beat"]
            frozen = FrozenBeat(beat, screen.say)
            cleanup.callback(frozen.thaw)
        screen.say(guide(addresses, env=_relative(folder / "env"), worker=worker, slack=settings.slack_url_file))
        _show(screen, stack, watch, sink, frozen, duration=settings.duration)


def _ask_loopback_without_proxy() -> None:
    """Keep this process, and its children, from asking the proxy of HTTP_PROXY for the parts of the demo."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, (known, "127.0.0.1", "localhost")))


def _groups(site: Site, watch: Watch, *, sink: NotificationSink, settings: DemoSettings) -> list[list[Part]]:
    """Return the parts in the order of their start; the exporter subscribes before the workers send events."""
    redis, exporter = parts.redis(site), parts.exporter(site)
    prometheus = parts.prometheus(site)
    alertmanager = parts.alertmanager(site, sink_url=sink.url, slack_url_file=settings.slack_url_file)
    control = parts.control(site)
    dashboards = grafana(site)
    slow, quick = parts.workers(site)
    beat = parts.beat(site)
    workload = parts.workload(site, settings.load)
    exporter_url, control_url = site.url("exporter"), site.url("control")
    return [
        [Part(redis, redis.ready, site.redis_url(0))],
        [
            Part(exporter, lambda: answers(f"{exporter_url}/-/ready"), f"{exporter_url}/metrics"),
            Part(alertmanager, alertmanager.ready, site.url("alertmanager")),
            Part(prometheus, prometheus.ready, site.url("prometheus")),
            *([Part(dashboards, dashboards.ready, dashboards.url)] if dashboards else ()),
            Part(control, lambda: answers(f"{control_url}/celery-admin/system/health"), control_url),
            Part(beat, lambda: "beat: Starting" in beat.tail(), "scheduler", restarted=True),
            Part(slow, lambda: watch.workers_up() >= 1, "queues media, reports", restarted=True),
            Part(quick, lambda: watch.workers_up() >= 2, "queues orders, emails", restarted=True),
        ],
        [Part(workload, lambda: watch.scraped() and watch.alerting(), f"{settings.load} load")],
    ]


def _addresses(site: Site) -> Mapping[str, str]:
    """Return the variables under which scripts find the parts."""
    return {
        "CELERYMETER_CONTROL_URL": site.url("control"),
        "CELERYMETER_EXPORTER_URL": site.url("exporter"),
        "PROMETHEUS_URL": site.url("prometheus"),
        "ALERTMANAGER_URL": site.url("alertmanager"),
        **({"GRAFANA_URL": site.url("grafana")} if grafana_command() else {}),
        "BROKER_URL": site.redis_url(0),
        "CELERYMETER_TOKEN": parts.admin_token(site),
    }


def guide(addresses: Mapping[str, str], *, env: Path, worker: Process, slack: Path | None = None) -> str:
    """Return the addresses and what to do with them; ``slack`` is the file that holds a webhook's URL."""
    prometheus, control = addresses["PROMETHEUS_URL"], addresses["CELERYMETER_CONTROL_URL"]
    grafana_url = addresses.get("GRAFANA_URL")
    graph = f"{prometheus}/graph?g0.tab=0&g0.range_input=15m&g0.expr="
    lines = [
        "",
        f"Ready. These addresses are also in {env}:",
        *(f"  {name}={value}" for name, value in addresses.items()),
        "",
        "Open in a browser:",
        f"  dashboards            {f'{grafana_url}{OVERVIEW}' if grafana_url else MISSING}",
        f"  alerts                {prometheus}/alerts",
        f"  notifications         {addresses['ALERTMANAGER_URL']}",
        *(
            [f"  Slack                 gets warnings and critical alerts (webhook in {_relative(slack)})"]
            if slack
            else ()
        ),
        f"  control API           {control}/docs",
        *(f"  {title:21} {graph}{quote(query, safe='')}" for title, query in QUERIES.items()),
        "",
        "Try in another terminal:",
        f"  set -a; . {env}; set +a",
        "  curl -s $CELERYMETER_EXPORTER_URL/metrics | grep celery_task_succeeded_total",
        '  curl -s -H "Authorization: Bearer $CELERYMETER_TOKEN" '
        "$CELERYMETER_CONTROL_URL/celery-admin/monitoring/metrics/realtime",
        f"  {_program()} doctor --broker-url $BROKER_URL --prometheus-url $PROMETHEUS_URL",
        f"  kill -9 {worker.pid}    # {worker.name} ends; its alert fires within 4 minutes, and ends with its restart",
        "",
        "^C stops everything.",
        "",
    ]
    return "\n".join(lines)


def _program() -> str:
    """Return how to call celerymeter here: by name if the shell finds this one, else by its path."""
    ours = Path(sys.executable).with_name("celerymeter")
    return "celerymeter" if shutil.which("celerymeter") == str(ours) else str(_relative(ours))


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _show(
    screen: Screen,
    stack: Stack,
    watch: Watch,
    sink: NotificationSink,
    frozen: FrozenBeat | None = None,
    *,
    duration: float | None,
) -> None:
    """Show notifications and the live line until ``duration`` (s) is over; raises `ProcessEnded`."""
    history = Readings()
    alerts, line = Every(ALERTS_EVERY), Every(TICK if screen.live else LINE_EVERY)
    firing: Sequence[str] = ()
    slack_warned = False
    start = time.monotonic()
    while (now := time.monotonic()) - start < (duration or float("inf")):
        stack.check()
        if frozen is not None:
            frozen.tick(now - start)
        if (reading := watch.reading()) is not None:
            history.add(reading)
        if alerts.due(now):
            firing = watch.firing()
            if not slack_warned and (slack_warned := watch.slack_refuses()):
                text = "Slack refused a message; the reason is in alertmanager/alertmanager.log, among the logs"
                screen.say(paint(text, RED, colour=screen.colour))
        for notification in sink.take():
            if notification.alert != ALWAYS_FIRING:
                colour = RED if notification.status == "firing" else GREEN
                screen.say(f"{time.strftime('%H:%M:%S')} {paint(str(notification), colour, colour=screen.colour)}")
        if line.due(now):
            screen.show(live_line(history, firing, elapsed=now - start, width=screen.width, colour=screen.colour))
        time.sleep(max(0.0, TICK - (time.monotonic() - now)))


class Every:
    """A timer that is due once in ``period`` seconds."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._last = float("-inf")

    def due(self, now: float) -> bool:
        """Return True if it is time at ``now``, and start the next period then."""
        if now - self._last < self._period:
            return False
        self._last = now
        return True


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Inside, SIGTERM and a closed terminal interrupt as ^C does."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """Ignore signals while the parts are stopped, which takes seconds: a second ^C would leave some behind."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _only_one_in(folder: Path) -> Iterator[None]:
    """Lock the folder, or two demos would delete each other's files; the second one raises `SettingsError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / "lock").open("w")
    except OSError as error:
        raise SettingsError(
            f"the demo cannot write {error.filename} ({error.strerror}); start it in another directory"
        ) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"another demo runs in {folder}; stop it, or start this one in another directory"
            ) from None
        yield
