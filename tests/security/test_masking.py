"""Secrets in URLs are shown nowhere, whatever signs they have."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import click
import pytest
import redis
from kombu.connection import Connection
from tests.control.access import control_settings

from celerymeter import log
from celerymeter.bounded_http import fetch
from celerymeter.kinds import BROKER_URL, HTTP_URL, KEY_JSON
from celerymeter.log import redact
from celerymeter.options import describe
from celerymeter.settings import BrokerSettings
from celerymeter.urls import without_password

SECRET = "hu5h"
URLS = [
    f"redis://:{SECRET}@host:6379/0",
    f"redis://:a;{SECRET}@host:6379/0",
    f"redis://:{SECRET};b@host:6379/0",
    f"redis://user:{SECRET};;x@host:6379/0",
    f"redis://:@{SECRET}@host:6379/0",
    f"redis://:a@b;{SECRET}@host:6379/0",
    f"redis://:a/{SECRET}@host:6379/0",
    f"redis://:a#{SECRET}?x@host:6379/0",
    f"redis://:a:{SECRET}@host",
    f'amqp://user:"{SECRET}"@host//',
    f"sentinel://:{SECRET}@h1:26379;sentinel://:{SECRET}@h2:26379",
    f"sentinel://:a;{SECRET}@h1:26379;sentinel://:b;{SECRET}@h2:26379",
    f"sentinel://h1:26379;sentinel://:{SECRET}@h2:26379",
    f"redis://host:6379/0?password={SECRET}",
    f"redis://host:6379/0?db=1&PASSWORD={SECRET}&x=1",
    f"redis://host:6379/0?p%61ssword={SECRET}",
    f"redis://host:6379/0?db=1;password={SECRET}",
    f"amqp://me@corp.com:{SECRET}@host//",
    f"amqp://me@corp.com:a@{SECRET}@host//",
    f"REDISS://us/er:{SECRET}@[::1]:6379/0",
    f"redis://me%40corp.com:{SECRET}@host",
    f"http://host:9090,http://user:{SECRET}@host2:9090",
    f"redis://host:6379/0?password=a@{SECRET}",
    f"redis://host:6379/0?password=a;{SECRET}",
    f"redis://host:6379/0?password=a'{SECRET}",
    f"redis://:{SECRET}?password=a@host",
    f"https://host/#access_token={SECRET}",
    f"https://host/api?token={SECRET}",
    f"https://host/api?access_token={SECRET}&x=1",
    f"https://host/api?api_key={SECRET}",
    f"https://host/api?apikey={SECRET}#top",
    f"https://host/api?api-key={SECRET}",
    f"https://host/api?client_secret={SECRET}",
    f"https://host/api?X-Amz-Signature={SECRET}",
    f"https://host/api?x-amz-security-token={SECRET}",
    f"https://host/api?sig={SECRET}",
    f"https://user:{SECRET}@host/?token={SECRET}",
]


@pytest.mark.parametrize("url", URLS)
def test_no_secret_of_a_url_is_shown(url: str) -> None:
    """Neither by itself, nor in a log, nor among the settings."""
    assert SECRET not in without_password(url)
    stream = io.StringIO()
    log.setup(format="json", stream=stream)
    logging.getLogger("x").warning("cannot reach %s: %s", url, f"refused by {url}", extra={"url": url})
    assert SECRET not in stream.getvalue()
    settings = replace(control_settings(), broker=BrokerSettings(url=url), prometheus_url=url, alertmanager_url=url)
    assert SECRET not in str(describe(settings))
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    "password", [f"a {SECRET}", f"p@a {SECRET}#x", f"a\t{SECRET}", f"a\n{SECRET}", f"a\xa0{SECRET}"]
)
def test_white_space_in_a_url_is_refused(password: str) -> None:
    """In a message that quotes the URL nobody can tell any more where it ends. Where it is a value, it is masked."""
    for url in (f"redis://:{password}@host:6379/0", f"sentinel://host;sentinel://:{password}@host"):
        with pytest.raises(click.BadParameter) as refused:
            BROKER_URL.convert(url, None, None)
        assert SECRET not in str(refused.value)
        assert "percent-encode" in redact(str(refused.value))
        assert SECRET not in BROKER_URL.show(url)
        assert SECRET not in KEY_JSON.show(("url", url))


def test_a_space_between_two_urls_is_taken_out() -> None:
    """kombu passes over it."""
    given = "sentinel://a:26379;  sentinel://b:26379"
    assert BROKER_URL.convert(given, None, None) == "sentinel://a:26379;sentinel://b:26379"


def test_no_quoted_value_is_shown() -> None:
    """What stands before the first ``://`` is quoted only when it looks like a scheme."""
    with pytest.raises(click.BadParameter) as refused:
        HTTP_URL.convert(f"a {SECRET}://x", None, None)
    assert SECRET not in str(refused.value)


CLIENTS: dict[str, Callable[[str], object]] = {
    "redis": lambda url: redis.from_url(url).ping(),
    "kombu": lambda url: Connection(url).ensure_connection(max_retries=1, interval_start=0),
    "requests": lambda url: fetch("GET", url, timeout=1, max_bytes=1),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "rest",
    [f"{SECRET}/a@", f"a/{SECRET}@", f"{SECRET}#a@", f"{SECRET}?a@", f"a%20{SECRET}@", f"{SECRET}[@", f"a:{SECRET}@"],
)
def test_a_client_does_not_quote_a_part_of_a_password(client: str, rest: str) -> None:
    """Their libraries take a password with special characters apart, and say in tracebacks what they found."""
    for user in ("", "me", "me@corp.com"):
        scheme = {"redis": "redis", "kombu": "amqp", "requests": "http"}[client]
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
            CLIENTS[client](f"{scheme}://{user}:{rest}127.0.0.1:1/0")
        assert SECRET not in redact("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize(
    "url",
    [
        "redis://host:6379/0",
        "redis://user@host:6379/0?db=1&socket_timeout=5",
        "sentinel://h1:26379;sentinel://h2:26379",
        "http://host:9090/graph?expr=up&tab=1",
        "https://[::1]:9090/",
        "redis://:PASSWORD@HOST:6379/0",
        "http://USER:PASSWORD@HOST:15672",
    ],
)
def test_what_is_no_secret_stays(url: str) -> None:
    """Operators need hosts, ports and options."""
    assert without_password(url) == url


@pytest.mark.parametrize(
    "text",
    [
        "://" * 20_000,
        "a://" + "b:" * 50_000,
        "?" + "a" * 100_000,
        "://:" + ";a" * 50_000,
        "?a=" + ";b" * 50_000,
        "password='" * 10_000,
    ],
)
def test_no_text_makes_it_slow(text: str) -> None:
    """It looks at every line of the log."""
    begun = perf_counter()
    redact(text)
    assert perf_counter() - begun < 1.5
