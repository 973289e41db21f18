"""Which tokens are accepted, by which keys."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from celerymeter.control.settings import JwtSettings
from celerymeter.control.tokens import Keyring, Role, mint
from celerymeter.errors import InvalidToken, SettingsError

SECRET = b"a secret for the keys' tests, of enough bytes"
OTHER = b"another secret for the keys' tests, long enough"
HS = JwtSettings(secrets=(SECRET,))

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    """A key pair for RS256."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def ec_key() -> ec.EllipticCurvePrivateKey:
    """A key pair for ES256."""
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: PrivateKey) -> bytes:
    """The public half, as a file has it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims(**changes: object) -> dict[str, Any]:
    """Claims that are good, but for the changes; None removes one."""
    good = {"sub": "ann", "roles": ["operator"], "exp": int(time.time()) + 60, "jti": "one", **changes}
    return {name: value for name, value in good.items() if value is not None}


def signed(secret: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **changes: Any) -> str:
    """A token of `claims`."""
    return jwt.encode(claims(**changes), secret, algorithm=algorithm, headers={"kid": kid} if kid else None)


def by_hand(header: dict[str, object], body: object, signature: bytes = b"") -> str:
    """A token of whatever parts."""
    parts = (json.dumps(header).encode(), json.dumps(body).encode(), signature)
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts).decode()


def refusal(token: str, settings: JwtSettings = HS) -> str:
    """The reason for which a token is refused."""
    with pytest.raises(InvalidToken) as caught:
        Keyring(settings).verify(token)
    return caught.value.reason


def test_a_good_token_proves_who_and_what() -> None:
    """Subject, role, id and expiry come from the claims."""
    exp = int(time.time()) + 600
    who = Keyring(HS).verify(signed(exp=exp))
    assert (who.sub, who.role, who.jti, who.exp) == ("ann", Role.OPERATOR, "one", float(exp))


def test_the_highest_of_several_roles_counts() -> None:
    """Roles of other systems in the list do no harm."""
    assert Keyring(HS).verify(signed(roles=["viewer", "billing", "admin"])).role == Role.ADMIN


def test_a_token_without_an_id_is_known_by_its_digest() -> None:
    """The audit trail must tell two tokens apart."""
    ids = {Keyring(HS).verify(signed(jti=None, sub=name)).jti for name in ("ann", "bob")}
    assert (len(ids), all(found.startswith("sha256:") for found in ids)) == (2, True)


def test_what_the_command_mints_is_accepted() -> None:
    """`celerymeter token` and the API agree."""
    token = mint(secret=SECRET, subject="ann", role=Role.VIEWER, now=time.time(), ttl=60, extra={"iss": "us"})
    assert Keyring(replace(HS, issuer="us")).verify(token).role == Role.VIEWER


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("expired", {"exp": int(time.time()) - 31}),
        ("immature", {"nbf": int(time.time()) + 86_400}),
        ("immature", {"iat": int(time.time()) + 86_400}),
        ("claims", {"exp": None}),
        ("claims", {"sub": None}),
        ("claims", {"sub": ""}),
        ("claims", {"sub": "a\nb"}),
        ("claims", {"sub": "x" * 256}),
        ("role", {"roles": None}),
        ("role", {"roles": []}),
        ("role", {"roles": ["root"]}),
        ("role", {"roles": {"admin": True}}),
        ("role", {"roles": "ADMIN"}),
        ("malformed", {"exp": "soon"}),
        ("malformed", {"exp": float("inf")}),
        ("malformed", {"exp": [1]}),
    ],
)
def test_claims_that_will_not_do(reason: str, changes: dict[str, Any]) -> None:
    """Each is refused for its own reason."""
    assert reason == refusal(signed(**changes))


def test_a_clock_that_is_half_a_minute_off_is_forgiven() -> None:
    """30 s of leeway on both sides."""
    now = int(time.time())
    assert Keyring(HS).verify(signed(exp=now - 20, nbf=now + 20)).sub == "ann"


@pytest.mark.parametrize(("setting", "claim"), [("issuer", "iss"), ("audience", "aud")])
def test_issuer_and_audience_must_fit_where_they_are_configured(setting: str, claim: str) -> None:
    """A wrong or absent claim is refused; one that is not configured is ignored."""
    configured = replace(HS, issuer="celerymeter") if setting == "issuer" else replace(HS, audience="celerymeter")
    assert Keyring(configured).verify(signed(**{claim: "celerymeter"})).sub == "ann"
    assert setting == refusal(signed(**{claim: "elsewhere"}), configured)
    assert refusal(signed(), configured) == "claims"
    assert Keyring(HS).verify(signed(**{claim: "elsewhere"})).sub == "ann"


def test_the_wrong_key_is_refused() -> None:
    """A signature by another secret proves nothing."""
    assert refusal(signed(OTHER)) == "signature"


def test_both_secrets_are_valid_while_one_is_rotated() -> None:
    """Tokens of the old and the new secret pass; once the old one is gone, its tokens do not."""
    both = Keyring(JwtSettings(secrets=(OTHER, SECRET)))
    assert [both.verify(signed(secret)).sub for secret in (SECRET, OTHER)] == ["ann", "ann"]
    assert refusal(signed(SECRET), JwtSettings(secrets=(OTHER,))) == "signature"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS384", "RS256", "", 5, None])
def test_the_token_does_not_choose_the_algorithm(alg: object) -> None:
    """``alg: none`` and any other than the pinned one are refused, whatever the signature."""
    assert refusal(by_hand({"alg": alg, "typ": "JWT"}, claims())) in ("algorithm", "malformed")


def test_a_public_key_is_no_hmac_secret(rsa_key: rsa.RSAPrivateKey) -> None:
    """HS256 over the public key's bytes, where RS256 is pinned: the classic confusion."""
    import hashlib
    import hmac

    unsigned = by_hand({"alg": "HS256", "typ": "JWT"}, claims()).rsplit(".", 1)[0]
    mac = hmac.digest(pem(rsa_key), unsigned.encode(), hashlib.sha256)
    forged = unsigned + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
    assert refusal(forged, JwtSettings(public_keys=(pem(rsa_key),))) == "algorithm"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "a.b",
        "a.b.c",
        "....",
        "é.é.é",
        "\ud800.b.c",
        "x" * 9000,
        base64.urlsafe_b64encode(b"[" * 4000).decode() + ".e30.",
        by_hand({"alg": "HS256", "kid": 7}, {}),
        by_hand({"alg": "HS256", "crit": ["exp"]}, {}),
        by_hand({"alg": "HS256"}, ["no", "object"]),
    ],
)
def test_rubbish_is_refused_and_breaks_nothing(token: str) -> None:
    """Whatever a stranger sends in a token's place ends as `InvalidToken`."""
    assert refusal(token) in ("malformed", "algorithm", "signature")


def test_rs256_and_es256_by_public_key(rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> None:
    """RS256 is the default for public keys; ES256 is chosen."""
    by_rsa = Keyring(JwtSettings(public_keys=(pem(rsa_key),)))
    by_ec = Keyring(JwtSettings(public_keys=(pem(ec_key),), algorithm="ES256"))
    assert [by_rsa.verify(signed(rsa_key, "RS256")).sub, by_ec.verify(signed(ec_key, "ES256")).sub] == ["ann", "ann"]


def test_a_jwks_serves_the_key_that_the_token_names(rsa_key: rsa.RSAPrivateKey) -> None:
    """``kid`` picks among keys; an unknown one is refused; keys of other kinds are passed over."""
    old = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keys = [jwk(key, kid) for key, kid in ((old, "old"), (rsa_key, "new"))]
    jwks = json.dumps({"keys": [*keys, {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"}]}).encode()
    settings = JwtSettings(jwks=jwks)
    assert Keyring(settings).verify(signed(rsa_key, "RS256", kid="new")).sub == "ann"
    assert refusal(signed(rsa_key, "RS256", kid="old"), settings) == "signature"
    assert refusal(signed(rsa_key, "RS256", kid="gone"), settings) == "signature"


def jwk(key: rsa.RSAPrivateKey, kid: str) -> dict[str, object]:
    """A public key as a JWKS has it."""
    return {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}


def test_keys_that_must_not_be_used_are_refused_at_the_start(
    rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    """None, two kinds, a short secret, a key file as the secret, a weak or a wrong key, a private one, rubbish."""
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    private = rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    bad = [
        JwtSettings(),
        JwtSettings(secrets=(SECRET,), public_keys=(pem(rsa_key),)),
        JwtSettings(secrets=(b"short",)),
        JwtSettings(secrets=(SECRET, b"short")),
        JwtSettings(secrets=(pem(rsa_key),)),
        JwtSettings(secrets=(SECRET,), algorithm="RS256"),
        JwtSettings(secrets=(SECRET,), algorithm="none"),
        JwtSettings(public_keys=(pem(rsa_key),), algorithm="HS256"),
        JwtSettings(public_keys=(pem(weak),)),
        JwtSettings(public_keys=(pem(rsa_key),), algorithm="ES256"),
        JwtSettings(public_keys=(pem(ec_key),)),
        JwtSettings(public_keys=(private,)),
        JwtSettings(public_keys=(b"rubbish",)),
        JwtSettings(jwks=b"{}"),
        JwtSettings(jwks=b"rubbish"),
        JwtSettings(jwks=b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'),
        JwtSettings(jwks=b'{"keys": [{"kty": "RSA", "n": "!", "e": "AQAB"}]}'),
    ]
    for settings in bad:
        with pytest.raises(SettingsError, match="--jw"):
            Keyring(settings)
