"""Tokens where public keys verify them: what everybody knows of a key forges none, nor does what a token says."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.security.hostile_tokens import claims, part

from celerymeter.control.settings import JwtSettings
from celerymeter.control.tokens import MAX_TOKEN_BYTES, Keyring
from celerymeter.errors import InvalidToken, SettingsError

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
THEIRS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
THEIR_EC = ec.generate_private_key(ec.SECP256R1())
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

Header = Mapping[str, object]


def public(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, encoding: Encoding, form: PublicFormat) -> bytes:
    """The public half."""
    return key.public_key().public_bytes(encoding, form)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """As operators give it."""
    return public(key, Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: rsa.RSAPrivateKey, **more: object) -> dict[str, Any]:
    """The same as JSON."""
    return {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "use": "sig", **more}


def content(header: Header, body: str | None = None) -> str:
    """Return the signed part of a token."""
    return f"{part(json.dumps({'typ': 'JWT', **header}).encode())}.{part((body or claims()).encode())}"


def with_mac(secret: bytes, alg: str = "HS256", **header: object) -> str:
    """A token with a MAC."""
    signed = content({"alg": alg, **header})
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def with_rsa(key: rsa.RSAPrivateKey, how: Any = None, body: str | None = None, **header: object) -> str:
    """A token with a signature by RSA."""
    signed = content({"alg": "RS256", **header}, body)
    return f"{signed}.{part(key.sign(signed.encode(), how or padding.PKCS1v15(), hashes.SHA256()))}"


def with_numbers(r: int, s: int, length: int = 32, **header: object) -> str:
    """A token whose ECDSA signature are these numbers."""
    signature = r.to_bytes(length, "big") + s.to_bytes(length, "big")
    return f"{content({'alg': 'ES256', **header})}.{part(signature)}"


def with_der(key: ec.EllipticCurvePrivateKey) -> str:
    """A token with an ECDSA signature as OpenSSL writes it."""
    signed = content({"alg": "ES256"})
    return f"{signed}.{part(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))}"


SPKI, PKCS1 = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1
MODULUS = RSA.public_key().public_numbers().n
KNOWN = {
    "PEM": pem(RSA),
    "PEM without its last line end": pem(RSA).rstrip(),
    "PEM with CRLF": pem(RSA).replace(b"\n", b"\r\n"),
    "DER": public(RSA, Encoding.DER, SPKI),
    "PKCS1": public(RSA, Encoding.PEM, PKCS1),
    "PKCS1 DER": public(RSA, Encoding.DER, PKCS1),
    "OpenSSH": public(RSA, Encoding.OpenSSH, PublicFormat.OpenSSH),
    "the modulus": MODULUS.to_bytes(256, "big"),
    "the modulus as text": str(MODULUS).encode(),
    "JWK": json.dumps(jwk(RSA)).encode(),
    "JWKS": json.dumps({"keys": [jwk(RSA)]}).encode(),
    "nothing": b"",
    "a NUL": b"\0",
    "None": b"None",
}
FORGED = {
    **{f"a MAC by {name}": with_mac(secret) for name, secret in KNOWN.items()},
    **{f"a MAC by {name} called RS256": with_mac(secret, "RS256") for name, secret in KNOWN.items()},
    "their key": with_rsa(THEIRS),
    "their key, shown": with_rsa(THEIRS, jwk=jwk(THEIRS)),
    "their key, shown under our id": with_rsa(THEIRS, jwk=jwk(THEIRS, kid="ours"), kid="ours"),
    "their key, to be fetched": with_rsa(THEIRS, jku="http://127.0.0.1:1/jwks.json", kid="ours"),
    "their certificate": with_rsa(THEIRS, x5c=["MIIB"], x5t="AAAA"),
    "their certificate, to be fetched": with_rsa(THEIRS, x5u="file:///etc/passwd"),
    "PSS": with_rsa(RSA, padding.PSS(padding.MGF1(hashes.SHA256()), 32)),
    "PSS by its name": with_rsa(RSA, padding.PSS(padding.MGF1(hashes.SHA256()), 32), alg="PS256"),
    "another hash by name": with_rsa(RSA, alg="RS512"),
    "no signature": f"{content({'alg': 'RS256'})}.",
    "a signature of zeros": f"{content({'alg': 'RS256'})}.{part(bytes(256))}",
    "a signature of one": f"{content({'alg': 'RS256'})}.{part((1).to_bytes(256, 'big'))}",
    "the modulus as signature": f"{content({'alg': 'RS256'})}.{part(MODULUS.to_bytes(256, 'big'))}",
    "a signature with a zero before": with_rsa(RSA).rpartition(".")[0] + "." + part(bytes(1) + bytes(256)),
    "claims that end with NUL": with_rsa(RSA, body=claims() + "\0"),
    "a critical extension": with_rsa(RSA, crit=["exp"], exp=1),
    "a critical extension that is none": with_rsa(RSA, crit=[]),
    "claims that are not encoded": with_rsa(RSA, b64=False, crit=["b64"]),
    "encryption": ".".join([part(b'{"alg":"dir","enc":"A256GCM"}'), "", part(b"iv"), part(b"x" * 99), part(b"tag")]),
    "encryption with our header": ".".join([with_rsa(RSA), part(b"x"), part(b"y")]),
    "a token in a token": with_rsa(RSA, body=json.dumps(with_rsa(RSA)), cty="JWT"),
    "a bare token in a token": with_rsa(RSA, body=with_rsa(RSA), cty="JWT"),
    "JSON": json.dumps({"payload": part(claims().encode()), "protected": part(b'{"alg":"RS256"}'), "signature": "x"}),
    "zipped claims": with_rsa(RSA, body="\x78\x9c", zip="DEF"),
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("kind", ["PEM", "JWKS"])
def test_no_token_is_forged_where_rsa_verifies(kind: str, token: str) -> None:
    """Neither the public key, in any form, nor another algorithm than the configured one makes a valid token."""
    jwks = json.dumps({"keys": [jwk(RSA, kid="ours", alg="RS256")]}).encode()
    keyring = Keyring(JwtSettings(public_keys=(pem(RSA),)) if kind == "PEM" else JwtSettings(jwks=jwks))
    assert keyring.verify(with_rsa(RSA)).sub == "mallory"
    with pytest.raises(InvalidToken):
        keyring.verify(token)


FORGED_EC = {
    "zeros": with_numbers(0, 0),
    "the order": with_numbers(ORDER, ORDER),
    "one": with_numbers(1, 1),
    "zero and one": with_numbers(0, 1),
    "beyond the order": with_numbers(2**256 - 1, 2**256 - 1),
    "longer numbers": with_numbers(1, 1, 66),
    "shorter numbers": with_numbers(1, 1, 16),
    "nothing": f"{content({'alg': 'ES256'})}.",
    "DER": with_der(EC),
    "their key": with_der(THEIR_EC),
    "a MAC by PEM": with_mac(pem(EC)),
    "a MAC called ES256": with_mac(pem(EC), "ES256"),
    "an RSA signature": with_rsa(THEIRS, alg="ES256"),
    "another curve by name": with_numbers(1, 1, 48, alg="ES384"),
    "another curve of the same length": with_numbers(1, 1, alg="ES256K"),
}


@pytest.mark.parametrize("token", FORGED_EC.values(), ids=FORGED_EC)
def test_no_token_is_forged_where_ecdsa_verifies(token: str) -> None:
    """Signatures of zeros once passed in Java."""
    keyring = Keyring(JwtSettings(public_keys=(pem(EC),), algorithm="ES256"))
    assert keyring.verify(jwt.encode(json.loads(claims()), EC, algorithm="ES256")).sub == "mallory"
    with pytest.raises(InvalidToken):
        keyring.verify(token)


KIDS: list[object] = ["../../../dev/null", "/etc/passwd", "' OR '1'='1", "ours\0", "OURS", " ours", "", "*", "a" * 5000]
KIDS += ["\u202eours", "\ud800", "${jndi:ldap://x}", "file:///dev/null", 0, True, ["ours"], {"ours": 1}, 1e400]


@pytest.mark.parametrize("kid", KIDS, ids=lambda kid: repr(kid)[:30])
def test_an_id_of_a_key_is_compared_and_nothing_else(kid: object) -> None:
    """It opens no file, and no other key than the one it names."""
    jwks = json.dumps({"keys": [jwk(RSA, kid="ours"), jwk(THEIRS, kid="theirs")]}).encode()
    for settings in (JwtSettings(jwks=jwks), JwtSettings(secrets=(b"0kQvZ8xw3nE5rT7yU1iO9pA2sD4fG6hJ",))):
        for token in (with_rsa(RSA, kid=kid), with_mac(b"", kid=kid), with_mac(b"\0", kid=kid)):
            with pytest.raises(InvalidToken):
                Keyring(settings).verify(token)


def test_a_key_of_another_id_verifies_nothing() -> None:
    """Two of a set, and each token by the one that it names."""
    keyring = Keyring(JwtSettings(jwks=json.dumps({"keys": [jwk(RSA, kid="a"), jwk(THEIRS, kid="b")]}).encode()))
    assert keyring.verify(with_rsa(RSA, kid="a")).sub == keyring.verify(with_rsa(THEIRS, kid="b")).sub
    for token in (with_rsa(RSA, kid="b"), with_rsa(THEIRS, kid="a")):
        with pytest.raises(InvalidToken):
            keyring.verify(token)


@pytest.mark.parametrize(
    "text",
    [
        b'{"keys": ' + b"[" * 100_000,
        b"[" * 100_000,
        b'{"keys": {"a": 1}}',
        b'{"keys": [1]}',
        b'{"keys": [{"kty": "RSA", "n": "", "e": ""}]}',
        b'{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}',
        b'{"keys": [{"kty": "RSA", "n": 5, "e": null}]}',
        json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).encode(),
        json.dumps({"keys": [jwk(RSA, use="enc")]}).encode(),
        json.dumps({"keys": [jwk(RSA, n="A" * 60_000)]}).encode(),
        json.dumps({"keys": [jwk(RSA, e="AQ")]}).encode(),
        b"\xff\xfe",
    ],
)
def test_a_set_of_keys_that_verifies_nothing_is_refused(text: bytes) -> None:
    """At the start, in one line."""
    with pytest.raises(SettingsError, match="--jwks-file"):
        Keyring(JwtSettings(jwks=text))


# Claims


NOW = int(time.time())
"""The time at which the tests were collected: an hour or so may pass until they run."""
SIGNED = JwtSettings(secrets=(b"0kQvZ8xw3nE5rT7yU1iO9pA2sD4fG6hJ",), issuer="us", audience="api")
GOOD = {"iss": "us", "aud": "api"}
NO_TIMES: list[object] = [float("nan"), float("inf"), [], {}, "tomorrow", 1e308, [NOW + 7200]]
NO_NAMES: list[object] = [None, [], {}, 5, True]
NO_ISSUERS: list[object] = [["us"], {"us": 1}, "US", "us ", "us/", "", None, 0, True, "us\0", ["us", "them"]]
NO_AUDIENCES: list[object] = ["API", "ap", "apis", "", None, [], {"api": 1}, 0, True, "a,api", "api,b", "*"]
NO_AUDIENCES += [[["api"]], [None], ["them"], ["api", 5], [{"api": 1}], "api\0", ["*"]]
ELSEWHERE: list[Any] = [
    *({"iss": value} for value in NO_ISSUERS),
    *({"aud": value} for value in NO_AUDIENCES),
    *({claim: NOW + ahead} for claim in ("iat", "nbf") for ahead in (7200, 86400, 2**40, 1e17)),
    *({claim: value} for claim in ("iat", "nbf") for value in NO_TIMES),
    *({"exp": value} for value in (*NO_TIMES, NOW - 60, -1, 0, None)),
    *({claim: value} for claim in ("sub", "roles") for value in NO_NAMES),
]


@pytest.mark.parametrize("changes", ELSEWHERE)
def test_claims_of_other_types_and_times_are_refused(changes: dict[str, object]) -> None:
    """A list is no issuer; an audience may be one of several; a time is a number."""
    good = {"sub": "ann", "roles": ["admin"], "exp": NOW + 86400, **GOOD}
    for aud in ("api", ["api"], ["them", "api"]):
        token = jwt.encode({**good, "aud": aud}, SIGNED.secrets[0], algorithm="HS256")
        assert Keyring(SIGNED).verify(token).sub == "ann"
    body = json.dumps({name: value for name, value in {**good, **changes}.items() if value is not None})
    token = _signed(body)
    with pytest.raises(InvalidToken):
        Keyring(SIGNED).verify(token)


def _signed(body: str) -> str:
    signed = content({"alg": "HS256"}, body)
    return f"{signed}.{part(hmac.digest(SIGNED.secrets[0], signed.encode(), hashlib.sha256))}"


LARGE = {
    "deep lists": '{"x":' + "[" * 2500 + "]" * 2500 + "}",
    "deep objects": '{"x":' * 900 + "1" + "}" * 900,
    "many claims": "{" + ",".join(f'"{number}":0' for number in range(600)) + "}",
    "a long number": '{"x":' + "9" * 5000 + "}",
    "a long fraction": '{"x":0.' + "9" * 5000 + "}",
    "a long power": '{"x":1e' + "9" * 4000 + "}",
    "a claim of many names": "{" + ",".join('"exp":1' for _ in range(600)) + "}",
    "text that is escaped": '{"x":"' + "\\u0000" * 800 + '"}',
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
def test_large_claims_are_refused_at_once(body: str) -> None:
    """Also with a right signature, and more so without."""
    began = time.thread_time()
    for token in (_signed(body), _signed(body)[:-4] + "AAAA", _signed(body) * 2, "." * MAX_TOKEN_BYTES):
        with pytest.raises(InvalidToken):
            Keyring(SIGNED).verify(token)
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize(
    ("twice", "sub"),
    [
        ('"sub":"eve","sub":"ann"', "ann"),
        ('"sub":5,"sub":"ann"', "ann"),
        ('"sub":"ann","s\\u0075b":"eve"', "eve"),
    ],
)
def test_of_a_claim_that_is_given_twice_the_last_one_counts_for_everything(twice: str, sub: str) -> None:
    """As RFC 7519 allows: what is verified is what is used."""
    body = (
        f'{{{twice},"roles":["admin"],"roles":["viewer"],"exp":{NOW - 60},"exp":{NOW + 86400},"iss":"us","aud":"api"}}'
    )
    identity = Keyring(SIGNED).verify(_signed(body))
    assert (identity.sub, identity.role.label, identity.exp) == (sub, "viewer", NOW + 86400)
