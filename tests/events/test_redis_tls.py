"""The reader on a Redis behind TLS, with a certificate of our own authority."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.events.certificates import Certificates
from tests.events.running import Readers, app_of, emit_until_received
from tests.events.sinks import RecordingSink

from celerymeter.demo.processes import free_port
from celerymeter.demo.servers import Redis
from celerymeter.errors import ServerMissing, StartFailed
from celerymeter.events import open_reader
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority of this module's own, with a certificate for localhost."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Redis]:
    """A Redis on TCP and on TLS."""
    options = ["--tls-port", str(free_port()), "--tls-auth-clients", "optional"]
    options += ["--tls-ca-cert-file", str(certificates.authority), "--requirepass", "s3cret"]
    options += ["--tls-cert-file", str(certificates.certificate), "--tls-key-file", str(certificates.key)]
    with Redis(tmp_path_factory.mktemp("redis"), options=options) as started:
        try:
            yield started.up()
        except StartFailed as error:
            if "TLS" in str(error):
                raise ServerMissing("this Redis was built without TLS") from error
            raise


def tls_url(server: Redis, query: str) -> str:
    """The broker URL on the TLS port."""
    return f"rediss://:s3cret@localhost:{server.argv[server.argv.index('--tls-port') + 1]}/0{query}"


def plain_url(server: Redis) -> str:
    """The broker URL on the other port."""
    return server.url.replace("127.0.0.1", ":s3cret@127.0.0.1")


@pytest.mark.parametrize(
    "query",
    [
        "?ssl_cert_reqs=required&ssl_ca_certs={ca}",
        "?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={ca}&ssl_certfile={cert}&ssl_keyfile={key}",
        "?ssl_cert_reqs=none",
        "",
    ],
)
def test_tls_options_are_taken_from_the_url(
    server: Redis, certificates: Certificates, readers: Readers, query: str
) -> None:
    """As kombu takes them: an authority, a certificate of our own, or (its default) no check at all."""
    paths = {"ca": certificates.authority, "cert": certificates.certificate, "key": certificates.key}
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=tls_url(server, query.format(**paths))), sink))
    sink.await_connections()

    emit_until_received(app_of(plain_url(server)), sink)


def test_tls_options_may_come_as_the_clusters_setting(
    server: Redis, certificates: Certificates, readers: Readers
) -> None:
    """`broker_use_ssl` is honoured, for reader and workers alike."""
    settings = {"broker_use_ssl": {"ssl_cert_reqs": "required", "ssl_ca_certs": str(certificates.authority)}}
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=tls_url(server, ""), celery_settings=settings), sink))
    sink.await_connections()

    emit_until_received(app_of(tls_url(server, ""), settings=settings), sink)


def test_a_stranger_is_not_trusted(server: Redis, readers: Readers) -> None:
    """A certificate of an unknown authority is refused, in one line without the password."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=tls_url(server, "?ssl_cert_reqs=required")), sink))

    loss = sink.await_loss()

    assert "certificate verify failed" in loss
    assert "s3cret" not in loss
    assert "\n" not in loss
