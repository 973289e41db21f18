"""Tokens of people who have no key, and of people who have one and ask for more than it should give."""

from __future__ import annotations

import os
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.control.access import SECRET, token
from tests.security.hostile_tokens import GOOD, IDS, REFUSED, claims, part, signed

from celerymeter.cli import main
from celerymeter.control.settings import MAX_LIFETIME, JwtSettings
from celerymeter.control.tokens import DenyList, Keyring, Role
from celerymeter.errors import InvalidToken, SettingsError

HS = JwtSettings(secrets=(SECRET,))


@pytest.mark.parametrize("hostile", REFUSED.values(), ids=REFUSED.keys())
def test_a_token_that_proves_nothing_is_refused(hostile: str) -> None:
    """By the one exception for it, whatever is in it."""
    with pytest.raises(InvalidToken):
        Keyring(HS).verify(hostile)
    assert Keyring(HS).verify(GOOD).role == Role.ADMIN


@pytest.mark.parametrize("name", ["admın", "ADMIN", "admin\u0307", "ſ", "vıewer", "", "ADMİN"])
def test_roles_are_spelt_in_one_way(name: str) -> None:
    """The upper case of other letters is that of ours."""
    assert Role.named(name) is None
    assert [Role.named(role.label) for role in Role] == list(Role)


@pytest.mark.parametrize("text", IDS)
def test_an_id_that_cannot_be_stored_is_replaced(text: str) -> None:
    """By a digest of the claims, which every spelling of the token has."""
    identity = Keyring(HS).verify(signed(claims(jti=text)))
    assert identity.jti.startswith("sha256:")
    identity.jti.encode()


def test_another_signature_of_the_same_claims_has_the_same_id() -> None:
    """ECDSA has two of them for everything: a token that was withdrawn must not come back."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    keyring = Keyring(JwtSettings(public_keys=(pem,), algorithm="ES256"))
    good = jwt.encode({"sub": "ann", "roles": "viewer", "exp": int(time.time()) + 60}, key, algorithm="ES256")
    content, _, signature = good.rpartition(".")
    raw = jwt.utils.base64url_decode(signature)
    r, s = decode_dss_signature(encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = f"{content}.{part(r.to_bytes(32, 'big') + (order - s).to_bytes(32, 'big'))}"
    assert other != good
    assert keyring.verify(other).jti == keyring.verify(good).jti


@pytest.mark.parametrize("days", [367, 3650, 36500])
def test_a_token_is_not_valid_for_ever(days: int) -> None:
    """Unless the operator allows it; what they may allow ends too."""
    long = token(ttl=days * 86400.0)
    with pytest.raises(InvalidToken) as refused:
        Keyring(HS).verify(long)
    assert refused.value.reason == "lifetime"
    assert Keyring(JwtSettings(secrets=(SECRET,), max_lifetime=40_000 * 86400.0)).verify(long).role == Role.VIEWER
    assert Keyring(HS).verify(token(ttl=MAX_LIFETIME)).role == Role.VIEWER


@pytest.mark.parametrize("ttl", ["1e300", "1e18", "367d", "inf", "nan", "-1", "9" * 400])
def test_no_token_is_made_that_ends_late_or_never(ttl: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what is accepted."""
    (tmp_path / "secret").write_bytes(SECRET)
    assert main(["token", "--jwt-secret-file", str(tmp_path / "secret"), "--subject", "ann", f"--ttl={ttl}"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "366d" in said.err


def test_a_token_that_was_withdrawn_is_refused(tmp_path: Path) -> None:
    """From the next second on, by its id or by its digest; the file may have comments."""
    path, now = tmp_path / "denied", 0.0
    path.write_text("# nobody yet\n")
    denied = DenyList(path, monotonic=lambda: now)
    assert "x" not in denied
    path.write_text("# stolen on Monday\n  x  \nsha256:0123#4\n\n")
    now += 1
    assert ["x" in denied, "sha256:0123#4" in denied, "" in denied, "# stolen on Monday" in denied] == [
        True,
        True,
        False,
        False,
    ]
    keyring = Keyring(JwtSettings(secrets=(SECRET,), denied=path))
    with pytest.raises(InvalidToken) as refused:
        keyring.verify(GOOD)
    assert refused.value.reason == "denied"
    assert keyring.verify(signed(claims(jti='"another"'))).jti == "another"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * 5_000_000])
def test_a_list_that_cannot_be_read_withdraws_what_it_did(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its loss is logged; at the start it is an error."""
    path, now = tmp_path / "denied", 0.0
    path.write_text("x\n")
    denied = DenyList(path, monotonic=lambda: now)
    os.unlink(path) if content is None else path.write_bytes(content)
    now += 1
    assert "x" in denied
    assert "cannot read" in caplog.text
    with pytest.raises(SettingsError, match="cannot read"):
        DenyList(path)
