"""A server that a test can change while it runs, and certificates of its own."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from celerymeter.httpd import MetricsServer, WebConfig

PAGE = b"# HELP up Is it up.\n# TYPE up gauge\nup 1\n"


@dataclass
class Site:
    """A running server and what it serves."""

    server: MetricsServer
    page: Callable[[], bytes] = field(default=lambda: PAGE)
    unhealthy: str | None = None
    unready: str | None = None

    @property
    def url(self) -> str:
        """Base URL."""
        return self.server.url


Serve = Callable[..., Site]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers on free ports; they are stopped after the test."""
    servers: list[MetricsServer] = []

    def start(listen: str = "127.0.0.1:0", web_config: WebConfig | None = None) -> Site:
        server = MetricsServer(
            listen,
            page=lambda: [made.page()],
            healthy=lambda: made.unhealthy,
            ready=lambda: made.unready,
            web_config=web_config,
        )
        made = Site(server)
        server.start()
        servers.append(server)
        return made

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def site(serve: Serve) -> Site:
    """One plain server."""
    return serve()


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder; ``ca.pem`` is its certificate."""

    folder: Path
    key: ec.EllipticCurvePrivateKey

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.folder / "ca.pem"

    def issue(self, name: str) -> tuple[Path, Path]:
        """Write a certificate for loopback and its key, signed by this authority; a second call renews it."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            _builder(name, issuer="test authority")
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        cert_file, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(_pem(key))
        return cert_file, key_file


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that servers and clients of the tests trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder("test authority", issuer="test authority")
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_SIGNS, critical=True)
        .sign(key, hashes.SHA256())
    )
    found = Authority(tmp_path_factory.mktemp("ca"), key)
    found.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return found


_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _builder(name: str, *, issuer: str) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
