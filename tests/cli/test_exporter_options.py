"""The options of the exporter, and the sources of their values."""

from __future__ import annotations

from pathlib import Path

import pytest

from celerymeter.settings import BrokerSettings, ExporterSettings, Limits

from .conftest import Build, Run

URL = "redis://:hush@127.0.0.1:6379/0"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The path of a test's configuration file."""
    return tmp_path / "celerymeter.yml"


def test_the_broker_url_alone_is_enough(build: Build) -> None:
    """Every other setting has the default of its dataclass."""
    assert build("--broker-url", URL) == ExporterSettings(broker=BrokerSettings(url=URL))


def test_every_field_has_its_option(build: Build, tmp_path: Path) -> None:
    """Every flag sets its field; durations are in seconds."""
    web_config = tmp_path / "web.yml"
    web_config.write_text("")
    words = [
        *("--broker-url", URL, "--transport-option", "global_keyprefix=prod_", "--transport-option", 'sep=":"'),
        *("--celery-setting", "event_exchange=other", "--event-queue-ttl", "5s", "--event-queue-expires", "2m"),
        *("--listen", "[::]:9000", "--web.config.file", web_config, "--queues", "a, b,a", "--poll-interval", "5s"),
        *("--inspect-interval", "30", "--worker-retention", "30d", "--rate-window", "1m30s", "--solo-grace", "500ms"),
        *("--runtime-buckets", "0.1,1,1m", "--wait-buckets", "5", "--max-task-names", "1", "--max-queues", "2"),
        *("--max-workers", "3", "--max-exceptions", "4", "--max-task-pairs", "5", "--max-tracked-tasks", "6"),
        *("--task-hostname-label", "--count-retry-exceptions", "--enable-events"),
        *("--rabbitmq-management-url", "http://u:p@rabbit:15672", "--drain-time", "10m"),
    ]
    assert build(*words) == ExporterSettings(
        broker=BrokerSettings(
            url=URL,
            transport_options={"global_keyprefix": "prod_", "sep": ":"},
            celery_settings={"event_exchange": "other"},
            event_queue_ttl=5.0,
            event_queue_expires=120.0,
        ),
        listen="[::]:9000",
        web_config_file=web_config,
        queues=("a", "b"),
        poll_interval=5.0,
        inspect_interval=30.0,
        worker_retention=30 * 86400.0,
        drain_time=600.0,
        rate_window=90.0,
        runtime_buckets=(0.1, 1.0, 60.0),
        wait_buckets=(5.0,),
        limits=Limits(task_names=1, queues=2, workers=3, exceptions=4, task_pairs=5, tracked_tasks=6),
        task_hostname_label=True,
        count_retry_exceptions=True,
        solo_grace=0.5,
        enable_events=True,
        rabbitmq_management_url="http://u:p@rabbit:15672",
    )


def test_flag_goes_over_environment_over_file(build: Build, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The strongest source wins, for each setting separately."""
    config.write_text(f"broker_url: {URL}\npoll_interval: 1s\ninspect_interval: 1s\nrate_window: 1s\n")
    monkeypatch.setenv("CELERYMETER_CONFIG", str(config))
    monkeypatch.setenv("CELERYMETER_POLL_INTERVAL", "2s")
    monkeypatch.setenv("CELERYMETER_INSPECT_INTERVAL", "2s")
    settings = build("--poll-interval", "3s")
    assert (settings.poll_interval, settings.inspect_interval, settings.rate_window) == (3.0, 2.0, 1.0)


def test_the_section_of_the_command_goes_first(build: Build, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``CELERYMETER_EXPORTER_X`` overrides ``CELERYMETER_X``; the command's section overrides the top level."""
    config.write_text(
        "queues: [top]\nrate-window: 10\nlisten: 127.0.0.1:1\n"
        f"exporter:\n  queues: [own, two]\n  broker.url: {URL}\n  enable_events: true\n"
        "  transport_option: {sep: ':'}\n"
    )
    monkeypatch.setenv("CELERYMETER_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("CELERYMETER_EXPORTER_LISTEN", "127.0.0.1:3")
    settings = build("--config", config)
    assert settings.listen == "127.0.0.1:3"
    assert settings.queues == ("own", "two")
    assert settings.rate_window == 10.0
    assert settings.broker.transport_options == {"sep": ":"}
    assert settings.enable_events is True
    assert build("--config", config, "--no-enable-events").enable_events is False


def test_pairs_in_the_environment(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transport options are one JSON object, or one pair a line."""
    monkeypatch.setenv("CELERYMETER_TRANSPORT_OPTION", '{"visibility_timeout": 60, "sep": ":"}')
    monkeypatch.setenv("CELERYMETER_CELERY_SETTING", 'event_exchange="a b"\ncontrol_exchange=c')
    broker = build("--broker-url", URL).broker
    assert broker.transport_options == {"visibility_timeout": 60, "sep": ":"}
    assert broker.celery_settings == {"event_exchange": "a b", "control_exchange": "c"}


def test_a_secret_comes_from_a_file(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line break at the end is removed; the stronger source wins between URL and file."""
    secret = tmp_path / "url"
    secret.write_text(URL + "\n")
    assert build("--broker-url-file", secret).broker.url == URL
    monkeypatch.setenv("CELERYMETER_BROKER_URL_FILE", str(secret))
    assert build("--broker-url", "redis://other/1").broker.url == "redis://other/1"
    monkeypatch.setenv("CELERYMETER_BROKER_URL", "redis://other/1")
    assert build("--broker-url-file", secret).broker.url == URL


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--broker-url: missing"),
        (["--broker-url", "hush"], "--broker-url: the value is not a URL such as redis://"),
        (
            ["--poll-interval", "15 parsecs"],
            "--poll-interval: '15 parsecs' is not a duration of at least 1s, such as 15s, ",
        ),
        (["--poll-interval", "0"], "--poll-interval: '0' is not a duration of at least 1s"),
        (["--rate-window", "nan"], "--rate-window: 'nan' is not a duration"),
        (["--listen", "9808"], "--listen: '9808' is not an address to listen on"),
        (["--runtime-buckets", "1,1"], "--runtime-buckets: '1,1' is not 1 to 14 increasing numbers"),
        (["--wait-buckets", ",".join(map(str, range(1, 16)))], "--wait-buckets: "),
        (["--wait-buckets", ""], "--wait-buckets: "),
        (["--transport-option", "password=[hush"], "--transport-option: 'password' is not key=value"),
        (["--max-queues", "0"], "--max-queues: '0' is not a whole number from 1 to 1000000000"),
        (["--log-format", "hush"], "--log-format: 'hush' is not "),
        (["--broker-url-file", "/nonexistent"], "--broker-url-file: cannot read /nonexistent: No such file"),
        (["--broker-url", URL, "--broker-url-file", "x"], "give --broker-url or --broker-url-file, not both"),
        (["--lisen", "x"], "No such option"),
        ([URL], "unexpected extra argument (redis://:***@127.0.0.1:6379/0)"),
    ],
)
def test_a_wrong_value_is_one_line(run: Run, words: list[str], says: str) -> None:
    """It names the setting and what is accepted, without secrets; the exit status is 2."""
    outcome = run("exporter", *words)
    assert outcome.status == 2
    assert says in outcome.err
    assert outcome.err.count("\n") == 1
    assert "hush" not in outcome.err.replace("'hush'", "")


def test_a_wrong_value_names_its_source(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable, or the key and the file."""
    monkeypatch.setenv("CELERYMETER_RATE_WINDOW", "soon")
    assert run("exporter").err.startswith("celerymeter exporter: CELERYMETER_RATE_WINDOW: 'soon' is not a duration")
    monkeypatch.delenv("CELERYMETER_RATE_WINDOW")
    config.write_text("rate_window: soon\n")
    expected = f"celerymeter exporter: rate_window in {config}: 'soon' is not a duration"
    assert run("exporter", "--config", config).err.startswith(expected)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("pol_interval: 1s", "unknown key pol_interval; did you mean poll_interval?"),
        ("zzz: 1", "unknown key zzz; the keys are the options of the commands"),
        ("exporter: {prometheus_url: 'http://p'}", "section exporter: unknown key prometheus_url"),
        ("exporter: 5", "section exporter: must be a mapping of settings (found: int)"),
        ("- a", "must be a mapping of settings (found: list)"),
        ("a: [", "line 1: not YAML"),
        ("poll-interval: 1s\npoll_interval: 2s", "poll_interval is given twice"),
        ("listen: {host: x}", "listen in "),
        ("enable_events: perhaps", "enable_events in "),
    ],
)
def test_a_wrong_file_is_one_line(run: Run, config: Path, content: str, says: str) -> None:
    """The line names the file and the key."""
    config.write_text(content)
    outcome = run("exporter", "--config", config, "--broker-url", URL)
    assert outcome.status == 2
    assert says in outcome.err
    assert str(config) in outcome.err
    assert outcome.err.count("\n") == 1


def test_an_unreadable_file_is_one_line(run: Run, tmp_path: Path) -> None:
    """A missing file, a folder, and a file that is not text."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.yml", tmp_path, tmp_path / "bytes"):
        outcome = run("exporter", "--config", path)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert str(path) in outcome.err
