"""Secrets in URLs are shown nowhere, whatever signs they have."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from time import perf_counter

import pytest
from tests.control.access import control_settings

from celerymeter import log
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
    "url",
    [
        "redis://host:6379/0",
        "redis://user@host:6379/0?db=1&socket_timeout=5",
        "sentinel://h1:26379;sentinel://h2:26379",
        "http://host:9090/graph?expr=up&tab=1",
        "https://[::1]:9090/",
        "see http://host:9090 or mail me@host",
    ],
)
def test_what_is_no_secret_stays(url: str) -> None:
    """Operators need hosts, ports and options."""
    assert without_password(url) == url


@pytest.mark.parametrize("text", ["://" * 20_000, "a://" + "b:" * 50_000, "?" + "a" * 100_000, "://:" + ";a" * 50_000])
def test_no_text_makes_it_slow(text: str) -> None:
    """It looks at every line of the log."""
    begun = perf_counter()
    without_password(text)
    assert perf_counter() - begun < 1.5
