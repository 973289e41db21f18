"""``celerymeter check-config``: its output and its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from .conftest import Run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The path of a test's configuration file."""
    return tmp_path / "celerymeter.yml"


def test_the_settings_in_effect(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults, values of the file and of the environment, each with its source; the output is YAML."""
    config.write_text("broker_url: redis://h/0\nexporter: {queues: [a, b], enable_events: true}\n")
    monkeypatch.setenv("CELERYMETER_RATE_WINDOW", "30s")
    outcome = run("check-config", config)
    assert (outcome.status, outcome.err) == (0, "")
    assert f"  queues: a,b  # queues in {config}\n" in outcome.out
    assert "  rate_window: 30s  # CELERYMETER_RATE_WINDOW\n" in outcome.out
    assert "  poll_interval: 15s\n" in outcome.out
    assert "  # web_config_file is not set\n" in outcome.out
    assert yaml.safe_load(outcome.out)["exporter"]["enable_events"] is True


def test_no_secret_is_printed(run: Run, config: Path) -> None:
    """Neither those of URLs nor those of transport options, at any depth."""
    config.write_text(
        "broker_url: redis://:hush@h/0\nrabbitmq_management_url: http://u:hush@h\n"
        "transport_option: {password: hush, sentinel_kwargs: {password: hush, db: 1}, url: 'redis://:hush@h'}\n"
    )
    outcome = run("check-config", config)
    assert outcome.status == 0
    assert "hush" not in outcome.out
    assert "sentinel_kwargs={password=*** db=1}" in outcome.out


def test_a_file_without_a_broker_may_be_right(run: Run, config: Path) -> None:
    """A flag may give it later, so it is only a comment."""
    config.write_text("poll_interval: 5s\n")
    outcome = run("check-config", config)
    assert outcome.status == 0
    assert "  # --broker-url: missing" in outcome.out


def test_the_variable_names_the_file(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CELERYMETER_CONFIG works as for the commands; without a file the environment is shown."""
    assert "poll_interval: 15s\n" in run("check-config").out
    config.write_text("poll_interval: 5s\n")
    monkeypatch.setenv("CELERYMETER_CONFIG", str(config))
    assert "poll_interval: 5s  #" in run("check-config").out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("poll_interval: soon", "poll_interval in "),
        ("wait_buckets: [2, 1]", "wait_buckets in "),
        *(
            (f"max_queues: {value}", f"'{shown}' is not a whole number from 1 to 1000000000")
            for value, shown in ((".inf", "inf"), ("true", "True"), ("2.5", "2.5"), ("0", "0"))
        ),
        ("nonsense: 1", "unknown key nonsense"),
        ("broker_url_file: /nonexistent", "--broker-url-file: cannot read /nonexistent"),
        ("{broker_url: 'redis://h', web_config_file: /nonexistent}", "--web.config.file: cannot read /nonexistent"),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, config: Path, content: str, says: str) -> None:
    """The exit status is 2, also for an error in a file that the file names."""
    config.write_text(content)
    outcome = run("check-config", config)
    assert outcome.status == 2
    assert says in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "read_as"),
    [
        ("from: 2026-01-31", "a date"),
        ("from: 2026-01-31T12:00:00+08:00", "a date"),
        ("cluster: no", "true or false"),
        ("queue: 1.10", "a number"),
        ("queue: 007", "a number"),
        ("lang: off", "true or false"),
        ("out: 12:30", "a number"),
    ],
)
def test_a_text_that_yaml_reads_otherwise_needs_quotes(run: Run, config: Path, content: str, read_as: str) -> None:
    """Before, `no` was the cluster False, and 1.10 the queue 1.1."""
    config.write_text(f"report: {{prometheus_url: 'http://p', {content}}}\n")
    outcome = run("check-config", config)
    name = content.partition(":")[0]
    assert outcome.err == (
        f"celerymeter: {name} in {config}: put the value in quotes; as it stands, YAML reads {read_as}\n"
    )


def test_so_do_the_texts_of_a_list(run: Run, config: Path) -> None:
    """Numbers that YAML does not change need none, nor do those of durations and counts."""
    config.write_text("queues: [a, 010]\n")
    assert "queues in " in run("check-config", config).err
    config.write_text("queues: [a, 10, 1.5]\npoll_interval: 1_0\nmax_queues: 0x10\nwait_buckets: [0.10, 1]\n")
    outcome = run("check-config", config)
    assert outcome.err == ""
    for line in ("queues: a,10,1.5", "poll_interval: 10s", "max_queues: 16", "wait_buckets: 0.1,1"):
        assert f"  {line}  # " in outcome.out


def test_a_token_is_no_section(run: Run, config: Path) -> None:
    """It is the name of a command and of an option of others, whose value is no mapping."""
    config.write_text("token: abc\ncontrol_url: http://127.0.0.1:1\n")
    assert run("check-config", config).err == ""
    config.write_text("token: {subject: ann, nonsense: 1}\n")
    assert "section token: unknown key nonsense" in run("check-config", config).err
    config.write_text("exporter: 007\n")
    assert "section exporter: must be a mapping of settings (found: int)" in run("check-config", config).err
