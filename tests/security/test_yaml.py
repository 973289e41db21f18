"""The files that operators write in YAML: --config and --web.config.file; broken, hostile, or no files at all."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.security.hostile_yaml import VALUES, WHOLE
from tests.security.process import peak_of

from celerymeter.cli import main
from celerymeter.errors import SettingsError
from celerymeter.httpd import load_web_config

SECONDS = 5.0
MEGABYTES = 60.0
WEB_PLACES = {
    "the file": "{}",
    "a certificate": "tls_server_config: {{cert_file: {0}, key_file: {0}}}",
    "a choice": "tls_server_config: {{cert_file: a, key_file: b, min_version: {}}}",
    "users": "basic_auth_users: {}",
    "a password": "basic_auth_users: {{ann: {}}}",
    "a header": "http_server_config: {{headers: {{X: {}}}}}",
    "HTTP": "http_server_config: {}",
    "a key": "{{{}: 1}}",
    "a key of HTTP": "http_server_config: {{{}: 1}}",
}
CONFIG_PLACES = {
    "the file": "{}",
    "a URL": "broker_url: {}",
    "a number": "poll_interval: {}",
    "names": "queues: {}",
    "pairs": "transport_option: {}",
    "a value of pairs": "transport_option: {{a: {}}}",
    "a section": "exporter: {}",
    "a switch": "enable_events: {}",
    "nobody's": "nobody: {}",
    "a key": "{{{}: 1}}",
    "a key of a section": "exporter: {{{}: 1}}",
}


def web(path: Path) -> str:
    """Return what is wrong with a web config, or nothing."""
    try:
        load_web_config(path)
    except SettingsError as error:
        return str(error)
    return ""


@pytest.fixture
def config(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """Returns what check-config says about a file."""

    def check(path: Path) -> str:
        assert main(["check-config", str(path)]) in (0, 1, 2)
        return capsys.readouterr().err

    return check


def is_quick_and_small(action: Callable[[], str]) -> str:
    """Return what an action says: one line, soon, in little memory."""
    began = time.thread_time()
    said, grown = peak_of(action)
    assert time.thread_time() - began < SECONDS
    assert grown < MEGABYTES
    assert len(said) < 1000
    assert said.rstrip("\n").count("\n") == 0
    assert "\x1b" not in said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("value", VALUES)
def test_a_web_config_with_an_odd_value_is_refused_in_one_line(tmp_path: Path, value: str) -> None:
    """Wherever it stands; a bomb that is shown in a message is one, too."""
    path = tmp_path / "web.yml"
    for place in WEB_PLACES.values():
        path.write_bytes(place.format(VALUES[value]).encode(errors="surrogatepass"))
        is_quick_and_small(lambda: web(path))


@pytest.mark.parametrize("value", VALUES)
def test_a_config_with_an_odd_value_is_refused_in_one_line(
    tmp_path: Path, config: Callable[[Path], str], value: str
) -> None:
    """By every kind of option."""
    path = tmp_path / "config.yml"
    for place in CONFIG_PLACES.values():
        path.write_bytes(place.format(VALUES[value]).encode(errors="surrogatepass"))
        is_quick_and_small(lambda: config(path))


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_no_text_takes_long(tmp_path: Path, config: Callable[[Path], str], content: bytes) -> None:
    """Whatever it is."""
    path = tmp_path / "any.yml"
    path.write_bytes(content)
    is_quick_and_small(lambda: web(path))
    is_quick_and_small(lambda: config(path))


@pytest.mark.parametrize(
    "text",
    [
        "basic_auth_users: {ann: a}\nbasic_auth_users: {}\n",
        "http_server_config: {headers: {X-A: a, X-A: b}}",
        "tls_server_config:\n  cert_file: a\n  key_file: b\n  cert_file: c\n",
        "basic_auth_users:\n  ann: $2b$04$abcdefghijklmnopqrstuuO0CnfWg.cXHbU1QE7Tr1QYoDOn2rGdW\n  'ann': x\n",
    ],
)
def test_a_key_that_is_given_twice_is_refused(tmp_path: Path, text: str) -> None:
    """Prometheus' own exporters refuse it; the last one would silently win, which a reader overlooks."""
    (tmp_path / "web.yml").write_text(text)
    assert "given twice" in web(tmp_path / "web.yml")


def test_a_setting_that_is_given_twice_is_refused(tmp_path: Path, config: Callable[[Path], str]) -> None:
    """In the file and in a section."""
    for text in ("broker_url: redis://a\nbroker_url: redis://b\n", "exporter: {poll_interval: 5s, poll_interval: 9s}"):
        (tmp_path / "config.yml").write_text(text)
        assert "given twice" in config(tmp_path / "config.yml")


def test_anchors_and_merges_are_read(tmp_path: Path) -> None:
    """They are no bombs."""
    (tmp_path / "web.yml").write_text("http_server_config: {headers: {X-A: &a text, X-B: *a}}\n")
    assert load_web_config(tmp_path / "web.yml").headers == {"X-A": "text", "X-B": "text"}


# What is no file, or has no end


@pytest.fixture(
    params=["a pipe", "a folder", "/dev/zero", "nothing", "a link to itself", "a link to /dev/zero", "1 GB"]
)
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path that holds no text with an end."""
    path = tmp_path / "special"
    match request.param:
        case "a pipe":
            os.mkfifo(path)
            threading.Thread(target=_feed, args=(path,), daemon=True).start()
        case "a folder":
            path.mkdir()
        case "a link to itself":
            path.symlink_to(path)
        case "/dev/zero" | "a link to /dev/zero":
            path.symlink_to("/dev/zero")
        case "1 GB":
            with path.open("wb") as file:
                file.truncate(10**9)
    return path


def _feed(path: Path) -> None:
    """Write into a pipe for as long as somebody reads."""
    try:
        with path.open("wb") as pipe:
            while True:
                pipe.write(b"a: b\n" * 10_000)
    except OSError:
        pass


def test_a_web_config_without_an_end_is_refused(special: Path) -> None:
    """No more is read than such a file may have."""
    assert is_quick_and_small(lambda: web(special))


def test_a_config_without_an_end_is_refused(special: Path, config: Callable[[Path], str]) -> None:
    """The same."""
    assert is_quick_and_small(lambda: config(special))
